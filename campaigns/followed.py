"""A mixed load on a primary that is killed now and then, and the judge of what primary and replica answer meanwhile.

Each commit has its number in it, so that every answer tells which one it is of; the model says what there is then.
"""

from __future__ import annotations

import bisect
import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from campaigns.points import Model
from pondkeeper.client import Client
from pondkeeper.errors import PondkeeperError

TABLES = 3
MOST_ROWS, BULK_ROWS = 12_000, 4_000
PAUSES_S = (0.0, 0.02, 0.05, 0.15)
RETRY_FOR_S = 120.0
BETWEEN_LOOKS_S = 0.04
LOOK_TIMEOUT_S = 30.0
SETUP = ("CREATE TABLE step (n BIGINT)", "INSERT INTO step VALUES (0)")
# Codes that say that something is broken, and not only that somebody is away.
DAMAGE = frozenset({"database_unreadable", "archive_damaged", "statement_failed", "sql_invalid", "replica_diverged", "internal"})
_SUMS = (
    "[count(*), coalesce(sum(id), 0), coalesce(sum(v), 0), coalesce(sum(id * v % 1000003), 0), "
    "count(*) FILTER (s IS DISTINCT FROM md5(id || '/' || v))]::BIGINT[]"
)
_COLUMNS = (
    "SELECT list(table_name || '.' || column_name ORDER BY table_name || '.' || column_name) FROM duckdb_columns() WHERE schema_name = 'main' "
    "AND NOT internal AND table_name LIKE 't%'"
)
CONTENT = f"SELECT (SELECT n FROM step), ({_COLUMNS}), {', '.join(f'(SELECT {_SUMS} FROM t{number})' for number in range(1, TABLES + 1))}"
State = list[Any]
"""What the content is after a commit: the columns, and the sums of each table."""


class FixedTables(Model):
    """The model of `points.py` with tables that stay, so that one statement can read them all."""

    def begin(self) -> list[str]:
        """The statements of the first commit."""
        return [*SETUP, *(self._create() for _ in range(TABLES))]

    def step(self) -> list[str]:
        """The statements of the next commit but for its number; the model has them done already."""
        size = sum(len(table.rows) for table in self.tables.values())
        kinds = ["insert"] * 8 + ["update"] * 4 + ["delete"] * 3 + ["bulk", "note", "replace", "list"]
        kind = "delete" if size > MOST_ROWS else self._chance.choice(kinds)
        if kind == "list":
            return [self._insert(3), self._insert(3), self._update()]
        if kind == "bulk":
            return [self._add(self._chance.randint(BULK_ROWS // 4, BULK_ROWS))]
        return [getattr(self, "_" + kind)()]

    def _replace(self) -> str:
        """A table is made anew of half its rows: all of its blocks are others."""
        name = self._any()
        table = self.tables[name]
        table.has_note, table.rows = False, {key: value for key, value in table.rows.items() if key % 2}
        return f"CREATE OR REPLACE TABLE {name} AS SELECT id, v, s FROM {name} WHERE id % 2 = 1"

    def state(self) -> State:
        """What CONTENT must find, but for the number."""
        digest = self.digest()
        columns = sorted(f"{name}.{column}" for name, columns, *_ in digest for column in columns)
        return [columns, *(list(sums) for _, _, *sums in digest)]


class Ledger:
    """What the writer has begun and what it was told: `states[n]` is the content after commit n."""

    def __init__(self) -> None:
        self.states: list[State | None] = [None]
        self.answered: list[tuple[int, int]] = []

    def surely(self, version: int) -> int:
        """The newest commit that the version must have."""
        place = bisect.bisect_right(self.answered, version, key=lambda told: told[0])
        return self.answered[place - 1][1] if place else 0

    @property
    def newest(self) -> int:
        """The version of the newest commit that was acknowledged."""
        return self.answered[-1][0] if self.answered else 0


class Writer:
    """Writes until it is stopped, through kills of its keeper: each write is repeated with its key until its outcome is known."""

    def __init__(self, connect: Callable[[float], Client], chance: random.Random) -> None:
        self.ledger = Ledger()
        self.failure: str | None = None
        self._connect = connect
        self._model = FixedTables(chance)
        self._pauses = random.Random(chance.random())
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="writer")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """After the commit that is under way."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            with self._connect(RETRY_FOR_S) as client:
                statements = self._model.begin()
                while not self._stop.is_set():
                    number = len(self.ledger.states)
                    self.ledger.states.append(self._model.state())
                    version = client.execute([*statements, f"UPDATE step SET n = {number}"]).version
                    self.ledger.answered.append((version, number))
                    self._stop.wait(self._pauses.choice(PAUSES_S))
                    statements = self._model.step()
        except Exception as error:  # noqa: BLE001  Why: whatever ended it, the campaign must say so.
            self.failure = f"the writer ended: {error!r}"


class Judge:
    """Every answer of the primary and of the replica: what it shows is what the writer had, and both show the same."""

    def __init__(self, ledger: Ledger) -> None:
        self.wrong: list[str] = []
        self.newest: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self._ledger = ledger
        self._at: dict[int, tuple[str, int]] = {}
        self._of_both: set[int] = set()

    @property
    def compared(self) -> int:
        """Versions that both sides have shown."""
        return len(self._of_both)

    def hear(self, side: str, version: int, row: Sequence[Any]) -> None:
        """One answer: CONTENT at that version."""
        number, *content = row
        self.answers[side] += 1
        self._note(side, version, number)
        if number >= len(self._ledger.states) or content != self._ledger.states[number]:
            self.wrong.append(f"{side}, version {version}: commit {number} never was like this: {content!s:.200}")
        if number < (surely := self._ledger.surely(version)):
            self.wrong.append(f"{side}, version {version}: it ends with commit {number}, and commit {surely} was acknowledged in it")
        if version < self.newest[side]:
            self.wrong.append(f"{side}: sent back from version {self.newest[side]} to {version}")
        self.newest[side] = max(version, self.newest[side])

    def refused(self, side: str, error: PondkeeperError) -> None:
        """No answer. Somebody may be away; what says that something is broken is a finding."""
        self.errors[f"{side}: {error.code}"] += 1
        if error.code in DAMAGE:
            self.wrong.append(f"{side}: {error.code}: {error!s:.200}")

    def _note(self, side: str, version: int, number: int) -> None:
        first_side, first = self._at.setdefault(version, (side, number))
        if first != number:
            self.wrong.append(f"version {version} is commit {first} at the {first_side} and commit {number} at the {side}")
        if first_side != side:
            self._of_both.add(version)


class Watcher:
    """Reads one side again and again, whoever answers there, and tells the judge."""

    def __init__(self, side: str, connect: Callable[[float], Client], judge: Judge) -> None:
        self._side = side
        self._connect = connect
        self._judge = judge
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"watcher of the {side}")
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with self._connect(0.0) as client:
            while not self._stop.wait(BETWEEN_LOOKS_S):
                look(self._side, client, self._judge)


def look(side: str, client: Client, judge: Judge) -> None:
    """One answer, or the reason why there is none."""
    try:
        answer = client.query(CONTENT, timeout_s=LOOK_TIMEOUT_S)
    except PondkeeperError as error:
        judge.refused(side, error)
    else:
        judge.hear(side, answer.version, answer.rows[0])
