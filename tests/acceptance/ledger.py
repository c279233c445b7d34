"""The ledger that proves answers right: whatever is committed, its sums agree; a half transaction or a lost one shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.support.warehouse import FLIGHTS, TOTAL_DISTANCE

ACCOUNTS = 100
TOTAL = ACCOUNTS * 1_000

CREATE = [
    "CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance BIGINT NOT NULL)",
    f"INSERT INTO accounts SELECT range, 1000 FROM range({ACCOUNTS})",
    "CREATE TABLE journal (writer VARCHAR NOT NULL, number INTEGER NOT NULL, amount INTEGER NOT NULL)",
]

# One statement, so that everything in it is of one version.
CHECK = """
SELECT (SELECT sum(balance) FROM accounts)::BIGINT AS total,
       (SELECT count(*) FROM journal)::BIGINT AS entries,
       (SELECT coalesce(sum(last), 0) FROM (SELECT max(number) AS last FROM journal GROUP BY writer))::BIGINT AS numbered,
       (SELECT count(*) - count(DISTINCT (writer, number)) FROM journal)::BIGINT AS doubled,
       (SELECT count(*) FROM flights)::BIGINT AS flights,
       (SELECT sum(distance) FROM flights)::BIGINT AS distance,
       (SELECT count(*) FROM flights JOIN airlines USING (carrier))::BIGINT AS joined
"""
COLUMNS = ("total", "entries", "numbered", "doubled", "flights", "distance", "joined")

# What dbt made names the database, and every mart counts every flight.
CHECK_MARTS = """
SELECT (SELECT count(*) FROM analytics.stg_flights)::BIGINT AS staged,
       (SELECT sum(flights) FROM analytics.carrier_days)::BIGINT AS in_days,
       (SELECT sum(flights) FROM analytics.routes)::BIGINT AS in_routes
"""
MARTS_COLUMNS = ("staged", "in_days", "in_routes")


def faults(row: Mapping[str, Any]) -> list[str]:
    """What is wrong with one answer to CHECK; nothing, in a world that works."""
    expected = {
        "total": TOTAL,
        "numbered": row["entries"],  # Why: each writer numbers its entries 1, 2, 3 …; a lost one leaves a gap
        "doubled": 0,
        "flights": FLIGHTS,
        "distance": TOTAL_DISTANCE,
        "joined": FLIGHTS,
    }
    return [f"{name} is {row[name]} and should be {value}" for name, value in expected.items() if row[name] != value]


def marts_faults(row: Mapping[str, Any]) -> list[str]:
    """What is wrong with one answer to CHECK_MARTS."""
    return [f"{name} is {row[name]} and should be {FLIGHTS}" for name in MARTS_COLUMNS if row[name] != FLIGHTS]


def transfer(writer: str, number: int, source: int, target: int, amount: int) -> list[tuple[str, list[Any]]]:
    """One transaction: money moves between accounts, and the journal gets its entry."""
    return [
        ("UPDATE accounts SET balance = balance - ? WHERE id = ?", [amount, source]),
        ("UPDATE accounts SET balance = balance + ? WHERE id = ?", [amount, target]),
        ("INSERT INTO journal VALUES (?, ?, ?)", [writer, number, amount]),
    ]
