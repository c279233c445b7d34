"""What the clients write, what they were told, and the proof that the database has exactly that.

Client c writes its numbers 1, 2, 3 … in order, the next when it knows what became of the one before. Every number is a
row of `entries`; every third is a transfer as well, an atomic list of five statements: two balances, two journal rows and
the entry. So a lost write is a gap, a doubled one a number twice, a half one a balance that its journal does not explain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

ACCOUNTS = 16
OPENING = 1_000
PER_CLIENT = 10_000_000

SCHEMA = [
    "CREATE TABLE entries (client INTEGER, n INTEGER, v BIGINT)",
    "CREATE INDEX entries_v ON entries (v)",  # Why: 1.5 can lose entries of secondary indexes after a crash.
    "CREATE TABLE journal (client INTEGER, n INTEGER, account INTEGER, amount BIGINT)",
    "CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance BIGINT)",
    f"INSERT INTO accounts SELECT range, {OPENING} FROM range({ACCOUNTS})",
]

# One statement, so that all of it is of one version. `numbers` are what is new since rowid ?, in the order of the table.
LOOK = f"""
WITH fresh AS (SELECT rowid AS place, client, n FROM entries WHERE rowid >= ?),
     explained AS (SELECT account, sum(amount) AS amount FROM journal GROUP BY account)
SELECT (SELECT list({{'client': client, 'numbers': numbers}}) FROM
           (SELECT client, list(n ORDER BY place) AS numbers FROM fresh GROUP BY client)) AS clients,
       (SELECT coalesce(max(rowid) + 1, 0) FROM entries) AS places,
       (SELECT count(*) FROM entries) AS rows_in_all,
       (SELECT count(*) FROM accounts LEFT JOIN explained ON id = account
        WHERE balance IS DISTINCT FROM {OPENING} + coalesce(amount, 0)) AS unexplained,
       (SELECT count(*) FROM (SELECT 1 FROM journal GROUP BY client, n HAVING count(*) <> 2 OR sum(amount) <> 0)) AS halves,
       (SELECT count(DISTINCT (client, n)) FROM journal) AS journalled,
       (SELECT count(*) FROM entries WHERE n % 3 = 0) AS transfers
"""  # fmt: skip

ROWS_OF_LOAD = 5
LOADS_SCHEMA = "CREATE TABLE loads (n INTEGER, r INTEGER)"
# The loads since rowid ?, in the order of the table, each with its rows; and where the table ends.
LOOK_LOADS = """
SELECT (SELECT list({'n': n, 'rows': rows, 'distinct': different} ORDER BY place) FROM
           (SELECT n, count(*) AS rows, count(DISTINCT r) AS different, min(rowid) AS place
            FROM loads WHERE rowid >= ? GROUP BY n)) AS loads,
       (SELECT coalesce(max(rowid) + 1, 0) FROM loads) AS places
"""

Statement = tuple[str, list[Any]]


def is_transfer(n: int) -> bool:
    """Whether the write of this number is the atomic list."""
    return n % 3 == 0


def write_of(client: int, n: int) -> list[Statement]:
    """The statements of a client's write number n; always the same for the same number."""
    entry: Statement = ("INSERT INTO entries VALUES (?, ?, ?)", [client, n, client * PER_CLIENT + n])
    if not is_transfer(n):
        return [entry]
    source, target = (client + n) % ACCOUNTS, (client + 7 * n + 1) % ACCOUNTS
    amount = 1 + (client + n) % 50
    return [
        ("UPDATE accounts SET balance = balance - ? WHERE id = ?", [amount, source]),
        ("INSERT INTO journal VALUES (?, ?, ?, ?)", [client, n, source, -amount]),
        ("UPDATE accounts SET balance = balance + ? WHERE id = ?", [amount, target]),
        ("INSERT INTO journal VALUES (?, ?, ?, ?)", [client, n, target, amount]),
        entry,
    ]


@dataclass
class Told:
    """What one client was told about its writes. One thread writes it; what it says is true at any moment.

    `sent` is raised before a write is sent, the others after its answer.
    """

    sent: int = 0
    committed: list[int] = field(default_factory=list)
    refused: set[int] = field(default_factory=set)
    unknown: set[int] = field(default_factory=set)
    errors: Counter[str] = field(default_factory=Counter)

    def to_json(self) -> dict[str, Any]:
        """What an investigation needs."""
        return {
            "sent": self.sent,
            "committed": len(self.committed),
            "refused": sorted(self.refused),
            "unknown": sorted(self.unknown),
            "errors": dict(self.errors),
        }


@dataclass
class Found:
    """What one look at the database found."""

    numbers: dict[int, list[int]]
    places: int
    rows_in_all: int
    unexplained: int
    halves: int
    journalled: int
    transfers: int

    @classmethod
    def of_row(cls, row: Sequence[Any]) -> Found:
        """What the one row of LOOK says, from the keeper's JSON or from DuckDB itself."""
        clients = {int(each["client"]): [int(n) for n in each["numbers"]] for each in row[0] or ()}
        return cls(clients, *(int(value) for value in row[1:]))


class Book:
    """What has been proved so far; each look is judged against what the clients had been told before it."""

    def __init__(self) -> None:
        self.place = 0
        self._proved: dict[int, int] = {}
        self._last: dict[int, int] = {}
        self._seen: dict[int, set[int]] = {}

    def judge(self, found: Found, told_before: Mapping[int, int], told: Mapping[int, Told]) -> list[str]:
        """What is wrong with a look; nothing, in a world that works.

        `told_before`: how many writes of each client were committed when the look began; `told`: what they know now.
        """
        wrong = [text for client in told for text in self._judge_client(client, found, told_before, told[client])]
        strangers = set(found.numbers) - set(told)
        wrong += [f"there are rows of client {client}, who wrote none" for client in strangers]
        in_all = sum(map(len, self._seen.values()))
        if found.rows_in_all != in_all and not wrong:
            wrong.append(f"seen and lost: {in_all} entries were seen so far, and {found.rows_in_all} are there")
        if found.unexplained:
            wrong.append(f"half applied: {found.unexplained} balances are not what the journal says")
        if found.halves:
            wrong.append(f"half applied: {found.halves} transfers have not their two journal rows")
        if found.journalled != found.transfers:
            wrong.append(f"half applied: {found.journalled} transfers in the journal, {found.transfers} among the entries")
        self.place = found.places
        return wrong

    def _judge_client(self, client: int, found: Found, told_before: Mapping[int, int], told: Told) -> Iterable[str]:
        fresh = found.numbers.get(client, [])
        seen = self._seen.setdefault(client, set())
        doubled = [n for n, times in Counter(fresh).items() if times > 1 or n in seen]
        if doubled:
            yield f"applied twice: client {client}, numbers {doubled[:5]}"
        line = [self._last.get(client, 0), *fresh]
        if any(later < earlier for earlier, later in pairwise(line)):
            yield f"out of order: client {client}, numbers {line[:20]}"
        seen.update(fresh)
        self._last[client] = max(line)
        proved, before = self._proved.get(client, 0), told_before.get(client, 0)
        self._proved[client] = max(proved, before)
        if lost := set(told.committed[proved:before]) - seen:
            yield f"acknowledged and lost: client {client}, numbers {sorted(lost)[:5]}"
        if undone := told.refused & seen:
            yield f"refused and there: client {client}, numbers {sorted(undone)[:5]}"
        if unsent := {n for n in fresh if n > told.sent}:
            yield f"there and never sent: client {client}, numbers {sorted(unsent)[:5]}"
