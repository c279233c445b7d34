"""The drain against a database of which every answer can be chosen: each accepted ingest is applied once, in order."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pondkeeper.databases import draining
from pondkeeper.databases.combining import Combiner
from pondkeeper.databases.draining import Drain, Outside
from pondkeeper.databases.requests import IngestOutcome, IngestRequest
from pondkeeper.errors import (
    DatabaseBusy,
    OutcomeUnknown,
    PartsApplied,
    PondkeeperError,
    QueryCancelled,
    RowsInvalid,
    TicketNotWaiting,
    WorkerDied,
)
from pondkeeper.writer.spool.log import Entry, Header
from pondkeeper.writer.spool.spool import Spool, SpoolLimits

LIMITS = SpoolLimits(10**9, 10**6, 3600.0)


@dataclass
class Database:
    """Keeps rows and keys as the real one does; `faults` are raised before, or (OutcomeUnknown) after the commit."""

    rows: list[Any] = field(default_factory=list)
    outcomes: dict[str, IngestOutcome] = field(default_factory=dict)
    loads: list[int] = field(default_factory=list)
    faults: list[PondkeeperError] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    stopped: PondkeeperError | None = None
    quiet: int | None = 0

    async def ingest(self, request: IngestRequest) -> IngestOutcome:
        while not self.gate.is_set():
            if self.stopped is not None:
                error, self.stopped = self.stopped, None
                raise error
            await asyncio.sleep(0.001)
        fault = self.faults.pop() if self.faults else None
        if fault is not None and not isinstance(fault, OutcomeUnknown):
            raise fault
        lines = request.body.read_bytes().splitlines()
        keys = [part.key for part in request.parts] or [request.idempotency_key]
        outcome = self._commit(request, keys, [json.loads(line) for line in lines])
        if fault is not None:
            raise fault
        return outcome

    def _commit(self, request: IngestRequest, keys: list[Any], rows: list[Any]) -> IngestOutcome:
        known = [key for key in keys if key in self.outcomes]
        if known and request.parts:
            raise PartsApplied(known=known)
        if known:
            return self.outcomes[known[0]]
        if any(row["n"] == "bad" for row in rows):
            raise RowsInvalid("a bad row")
        self.rows += [row["n"] for row in rows]
        self.loads.append(len(keys))
        for key, part in zip(keys, request.parts or [None], strict=True):
            self.outcomes[key] = IngestOutcome(version=len(self.loads), rows=part.rows if part else len(rows))
        return IngestOutcome(version=len(self.loads), rows=len(rows))

    def stop(self) -> None:
        self.stopped = QueryCancelled()


@asynccontextmanager
async def draining_into(database: Database, folder: Path) -> AsyncIterator[tuple[Spool, Drain]]:
    """A spool that is drained into this database."""
    spool = Spool(folder / "spool", folder / "incoming", LIMITS)
    await spool.open()
    outside = Outside(folder / "incoming", database.ingest, database.stop, lambda: database.quiet, lambda _: None)
    drain = Drain(spool, outside, 60.0)
    running = asyncio.create_task(drain.run())
    try:
        yield spool, drain
    finally:
        running.cancel()
        await asyncio.wait({running})
        await spool.close()


async def accept(spool: Spool, *values: Any, **what: Any) -> list[str]:
    return [
        await spool.accept(
            Header(table="t", format="ndjson", digest=str(value), accepted_at=0.0, **what),
            b"".join(b'{"n": %s}\n' % json.dumps(each).encode() for each in (value if isinstance(value, list) else [value])),
        )
        for value in values
    ]


async def outcomes(spool: Spool, tickets: list[str]) -> list[str]:
    return [(await spool.outcome(ticket, 30)).outcome for ticket in tickets]


async def test_what_waits_is_applied_together_in_order(tmp_path: Path) -> None:
    """Neighbours share a load; each ticket has its rows and the version."""
    database = Database()
    async with draining_into(database, tmp_path) as (spool, _):
        [first] = await accept(spool, 0)
        tickets = await accept(spool, *range(1, 100), [100, 101])
        database.gate.set()
        assert set(await outcomes(spool, [first, *tickets])) == {"committed"}
        last = (await spool.outcome(tickets[-1], 0)).describe()
        assert (last["rows"], last["version"]) == (2, len(database.loads))
    assert database.rows == list(range(102))
    assert max(database.loads) > 50


async def test_a_bad_one_is_refused_alone(tmp_path: Path) -> None:
    """In the middle of many that are loaded together: all others are there, in order."""
    database = Database()
    async with draining_into(database, tmp_path) as (spool, _):
        values = ["bad" if number in (0, 37, 38, 99) else number for number in range(100)]
        tickets = await accept(spool, *values)
        database.gate.set()
        wanted = ["refused" if value == "bad" else "committed" for value in values]
        assert await outcomes(spool, tickets) == wanted
        refused = (await spool.outcome(tickets[37], 0)).describe()
        assert refused["error"]["code"] == "rows_invalid"
        assert spool.describe()["refused"] == 4
    assert database.rows == [value for value in values if value != "bad"]


async def test_a_commit_that_nobody_saw_is_not_repeated(tmp_path: Path) -> None:
    """The outcome of a load is unknown, and it was committed: asked again, the database knows each of its tickets."""
    database = Database(faults=[OutcomeUnknown()])
    async with draining_into(database, tmp_path) as (spool, _):
        tickets = await accept(spool, *range(20))
        database.gate.set()
        assert set(await outcomes(spool, tickets)) == {"committed"}
    assert database.rows == list(range(20))


@pytest.mark.parametrize("seed", range(5))
async def test_random_ends_lose_nothing_and_double_nothing(tmp_path: Path, seed: int) -> None:
    """The keeper ends at random moments, loads fail by the way: in the end every ingest is there once, in order."""
    dice = random.Random(seed)
    database = Database()
    database.gate.set()
    tickets: dict[int, str] = {}
    for start in range(0, 400, 40):
        async with draining_into(database, tmp_path) as (spool, _):
            for number in range(start, start + 40):
                [tickets[number]] = await accept(spool, number, key=f"key {number}" if number % 3 else None)
                if dice.random() < 0.1:
                    database.faults.append(dice.choice([OutcomeUnknown(), DatabaseBusy(), WorkerDied()]))
                await asyncio.sleep(dice.choice([0, 0, 0.001]))
    async with draining_into(database, tmp_path) as (spool, _):
        assert set(await outcomes(spool, list(tickets.values()))) == {"committed"}
    assert database.rows == list(range(400))


async def test_without_keys_it_would_be_doubled(tmp_path: Path) -> None:
    """The positive control: a database that forgets the keys has rows twice."""

    class Forgetful(Database):
        async def ingest(self, request: IngestRequest) -> IngestOutcome:
            self.outcomes.clear()
            return await super().ingest(request)

    database = Forgetful(faults=[OutcomeUnknown()])
    database.gate.set()
    async with draining_into(database, tmp_path) as (spool, _):
        await outcomes(spool, await accept(spool, *range(5)))
    assert len(database.rows) > 5


async def test_one_that_is_being_applied_can_be_taken_back(tmp_path: Path) -> None:
    """The load that waits is stopped and made anew without it; the others are applied."""
    database = Database()
    async with draining_into(database, tmp_path) as (spool, drain):
        tickets = await accept(spool, *range(10))
        while not (await spool.outcome(tickets[0], 0)).is_taken:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        await drain.take_back(tickets[0])
        database.gate.set()
        assert await outcomes(spool, tickets) == ["cancelled", *["committed"] * 9]
        with pytest.raises(TicketNotWaiting):
            await drain.take_back(tickets[1])
    assert database.rows == list(range(1, 10))


async def test_what_is_not_the_fault_of_the_rows_is_waited_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy database, many times; a process that dies, up to the third time in a row."""
    monkeypatch.setattr(draining, "MOST_PAUSE_S", 0.001)
    monkeypatch.setattr(draining, "LEAST_PAUSE_S", 0.001)
    database = Database(faults=[DatabaseBusy() for _ in range(20)])
    database.gate.set()
    async with draining_into(database, tmp_path) as (spool, drain):
        assert await outcomes(spool, await accept(spool, 1)) == ["committed"]
        database.faults = [WorkerDied() for _ in range(2)]
        assert await outcomes(spool, await accept(spool, 2)) == ["committed"]
        database.faults = [WorkerDied() for _ in range(3)]
        assert await outcomes(spool, await accept(spool, 3)) == ["refused"]
        assert drain.problem is None or drain.problem.code == "worker_died"
    assert database.rows == [1, 2]


async def test_nothing_is_refused_while_another_program_may_change_the_tables(tmp_path: Path) -> None:
    """A refusal counts when it is made again with nobody else there."""
    database = Database(quiet=None)
    database.gate.set()
    async with draining_into(database, tmp_path) as (spool, drain):
        [ticket] = await accept(spool, "bad")
        while drain.problem is None:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        assert (await spool.outcome(ticket, 0)).outcome == "waiting"
        database.quiet = 1
        assert await outcomes(spool, [ticket]) == ["refused"]


# Which are loaded together


def entry(body: bytes, **what: Any) -> Entry:
    return Entry(0, Header(**{"table": "t", "format": "ndjson", "digest": "", "accepted_at": 0.0} | what), body)


def sizes(*entries: Entry, combiner: Combiner | None = None) -> list[int]:
    return [load.count for load in (combiner or Combiner()).loads(entries)]


PLAIN = entry(b'{"a": 1}')


@pytest.mark.parametrize(
    "other",
    [
        entry(b'{"a": 1, "b": 2}'),
        entry(b'{"a": 1}\n{"b": 2}'),
        entry(b'{"a": 1}', table="u"),
        entry(b'{"a": 1}', schema="s"),
        entry(b'{"a": 1}', mode="replace"),
        entry(b'{"a": 1}', mode="upsert", keys=("a",)),
        entry(b'{"a": 1}', on_error="reject"),
        entry(b'{"a": 1}', create=True),
        entry(b'{"a": 1}', evolve=True),
        entry(b'{"a": 1', evolve=True),
        entry(b"\xff", evolve=True),
        entry(b"[1]", format="json"),
        entry(b""),
        entry(b"a\n1", format="csv"),
        entry(b"", file="large"),
    ],
    ids=lambda other: f"{other.body!r}",
)
def test_what_might_mean_something_else_together_goes_alone(other: Entry) -> None:
    """Other columns, another table or option, and whatever the keeper cannot take apart."""
    assert sizes(PLAIN, other, PLAIN) == [1, 1, 1]
    assert sizes(PLAIN, PLAIN, PLAIN) == [3], "the positive control"


def test_json_and_ndjson_go_together() -> None:
    """Line breaks between the tokens of JSON do not make two lines of one row."""
    written = entry(b'[\n {"a":\n 1},\r\n {"a": 2} ]', format="json")
    [load] = Combiner().loads([PLAIN, written, written])
    assert load.rows is not None
    assert [len(rows.lines) for rows in load.rows] == [1, 2, 2]
    assert all(json.loads(line) for rows in load.rows for line in rows.lines)
    assert not any(b"\n" in line or b"\r" in line for rows in load.rows for line in rows.lines)


def test_those_that_make_a_table_go_together_when_it_is_there() -> None:
    """The first one alone, because its rows decide the types; those with the same columns together after it."""
    making, combiner = entry(b'{"a": 1}', create=True, evolve=True), Combiner()
    [first, *_] = combiner.loads([making, making, making])
    assert sizes(making, making, combiner=combiner) == [1, 1]
    combiner.loaded(first)
    assert sizes(making, making, combiner=combiner) == [2]
    assert sizes(making, entry(b'{"b": 1}', create=True, evolve=True), combiner=combiner) == [1, 1]
