"""The spool without a database: what is accepted is durable, in order, named once, taken back, counted and forgotten."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from resource import RLIM_INFINITY, RLIMIT_FSIZE, setrlimit
from typing import Any

import pytest

from pondkeeper.errors import IdempotencyConflict, SpoolFull, SpoolUnavailable, TicketNotFound, TicketNotWaiting
from pondkeeper.writer.spool.ledger import settled
from pondkeeper.writer.spool.log import Entry, Header
from pondkeeper.writer.spool.spool import Spool, SpoolLimits

LIMITS = SpoolLimits(max_bytes=10**9, max_entries=10**6, keep_s=3600.0)


@asynccontextmanager
async def spooling(folder: Path, limits: SpoolLimits = LIMITS) -> AsyncIterator[Spool]:
    """An open spool in this folder."""
    spool = Spool(folder / "spool", folder / "incoming", limits)
    await spool.open()
    try:
        yield spool
    finally:
        await spool.close()


def header(digest: str = "", **what: Any) -> Header:
    return Header(table="t", format="ndjson", digest=digest, accepted_at=1.0, **what)


async def accept(spool: Spool, *bodies: str, **what: Any) -> list[str]:
    """Accept these bodies at once; their tickets in order."""
    return list(await asyncio.gather(*(spool.accept(header(body, **what), body.encode()) for body in bodies)))


async def waiting(spool: Spool) -> list[str]:
    """The bodies that wait, in order; nothing is settled."""
    return [entry.body.decode() for entry in await spool.batch()]


async def apply(spool: Spool, count: int | None = None) -> list[str]:
    """Settle so many of the next batch as committed; their bodies."""
    entries = (await spool.batch())[:count]
    if entries:
        await spool.settle([(entry, settled(entry, "committed", version=3, rows=1)) for entry in entries])
    spool.put_back()
    return [entry.body.decode() for entry in entries]


def logs(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "spool").iterdir() if path.suffix in (".log", ".damaged"))


async def test_what_is_accepted_outlives_the_keeper_in_order(tmp_path: Path) -> None:
    """Concurrent ingests keep the order in which they came, and are there after the end of the process."""
    names = [f"body {number}" for number in range(200)]
    async with spooling(tmp_path) as spool:
        tickets = await accept(spool, *names)
        assert tickets == sorted(set(tickets))
    async with spooling(tmp_path) as spool:
        assert await waiting(spool) == names
        assert spool.waiting == len(names)
        assert [(await spool.outcome(ticket, 0)).before for ticket in tickets] == list(range(200))


async def test_many_that_come_at_once_share_an_fsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Far fewer fsyncs than ingests, and none of them on the thread of the event loop."""
    import os

    threads: list[int] = []
    plain = os.fdatasync

    def counted(descriptor: int) -> None:
        threads.append(threading.get_ident())
        plain(descriptor)

    monkeypatch.setattr(os, "fdatasync", counted)
    async with spooling(tmp_path) as spool:
        await accept(spool, *map(str, range(500)))
    assert 0 < len(threads) < 100
    assert threading.get_ident() not in threads


async def test_settled_entries_do_not_come_again(tmp_path: Path) -> None:
    """Neither in this process nor in the next one; their tickets keep the outcome."""
    async with spooling(tmp_path) as spool:
        first, *_, last = await accept(spool, "a", "b", "c")
        assert await apply(spool, 2) == ["a", "b"]
        assert await waiting(spool) == ["c"]
    async with spooling(tmp_path) as spool:
        assert await waiting(spool) == ["c"]
        seen = (await spool.outcome(first, 0)).describe()
        assert (seen["outcome"], seen["version"], seen["rows"], seen["table"]) == ("committed", 3, 1, "main.t")
        assert (await spool.outcome(last, 0)).describe()["place"] == 0


async def test_segments_go_when_all_of_them_is_applied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A segment stays while one entry of it waits; the one that is written goes in a quiet moment."""
    monkeypatch.setattr("pondkeeper.writer.spool.appending.SEGMENT_BYTES", 1000)
    async with spooling(tmp_path) as spool:
        for number in range(6):
            await accept(spool, str(number) * 600)
        assert len(logs(tmp_path)) == 6
        before = spool.size_bytes
        for left in (5, 4, 3):
            await apply(spool)
            assert len(logs(tmp_path)) == left
        assert spool.size_bytes < before
        while await apply(spool):
            pass
        await spool.tidy()
        assert logs(tmp_path) == []
        assert (spool.waiting, spool.size_bytes) == (0, 0)
        await accept(spool, "next")
        assert await waiting(spool) == ["next"]


async def test_places_are_never_given_twice(tmp_path: Path) -> None:
    """Also when nothing of the log is left, a new ticket is behind all earlier ones."""
    async with spooling(tmp_path) as spool:
        [first] = await accept(spool, "a")
        await apply(spool)
        await spool.tidy()
    async with spooling(tmp_path) as spool:
        [second] = await accept(spool, "b")
        assert second > first
        assert (await spool.outcome(first, 0)).outcome == "committed"


# Keys


async def test_a_repeated_key_gets_the_same_ticket(tmp_path: Path) -> None:
    """At once, later, after a restart, and when it is applied; another body is refused; it is there once."""
    async with spooling(tmp_path) as spool:
        tickets = await accept(spool, "a", "a", "a", key="k")
        assert len(set(tickets)) == 1
        with pytest.raises(IdempotencyConflict):
            await accept(spool, "b", key="k")
    async with spooling(tmp_path) as spool:
        assert await accept(spool, "a", key="k") == tickets[:1]
        assert await waiting(spool) == ["a"]
        await apply(spool)
        assert await accept(spool, "a", key="k") == tickets[:1]
        assert (spool.waiting, await waiting(spool)) == (0, [])


async def test_keys_that_the_ledger_lost_are_found_in_the_log(tmp_path: Path) -> None:
    """A power cut may take the last notes of keys, which are not fsynced: the entries themselves have them."""
    async with spooling(tmp_path) as spool:
        tickets = await accept(spool, "a", key="k")
    with sqlite3.connect(tmp_path / "spool" / "tickets.db") as ledger:
        assert ledger.execute("DELETE FROM keys").rowcount == 1
    ledger.close()
    async with spooling(tmp_path) as spool:
        assert await accept(spool, "a", key="k") == tickets


# Tickets


async def test_a_ticket_cannot_be_guessed(tmp_path: Path) -> None:
    """An id that differs in any place from one that was given out is not found."""
    async with spooling(tmp_path) as spool:
        [ticket] = await accept(spool, "a")
        assert (await spool.outcome(ticket, 0)).outcome == "waiting"
        for place in range(len(ticket)):
            other = ticket[:place] + ("0" if ticket[place] != "0" else "1") + ticket[place + 1 :]
            with pytest.raises(TicketNotFound):
                await spool.outcome(other, 0)


async def test_a_ticket_that_waits_can_be_taken_back(tmp_path: Path) -> None:
    """It is never applied, also not after a restart; what is being applied or done stays."""
    async with spooling(tmp_path) as spool:
        a, b, c = await accept(spool, "a", "b", "c")
        await spool.take_back(b)
        assert (await spool.outcome(b, 0)).outcome == "cancelled"
        assert (await spool.outcome(c, 0)).before == 1
        with pytest.raises(TicketNotWaiting):
            await spool.take_back(b)
        assert spool.waiting == 2
    async with spooling(tmp_path) as spool:
        assert spool.waiting == 2
        assert await waiting(spool) == ["a", "c"]
        with pytest.raises(TicketNotWaiting):
            await spool.take_back(a)
        spool.put_back()
        await spool.take_back(a)
        await spool.take_back(c)
        assert (spool.waiting, await waiting(spool)) == (0, [])
        await spool.tidy()
        assert logs(tmp_path) == []


async def test_waiting_for_an_outcome_ends_with_it(tmp_path: Path) -> None:
    """And at its time when there is none."""
    async with spooling(tmp_path) as spool:
        [ticket] = await accept(spool, "a")
        assert (await spool.outcome(ticket, 0.01)).outcome == "waiting"
        asked = asyncio.create_task(spool.outcome(ticket, 60))
        await asyncio.sleep(0)
        await apply(spool)
        assert (await asked).outcome == "committed"


async def test_outcomes_are_forgotten_by_and_by(tmp_path: Path) -> None:
    """After their time, with their keys; one that waits is never forgotten."""
    limits = SpoolLimits(10**9, 10**6, keep_s=-1.0)
    async with spooling(tmp_path, limits) as spool:
        [a] = await accept(spool, "a", key="k")
        await apply(spool)
        [b] = await accept(spool, "b")
        spool._forgot_at = float("-inf")
        await spool.tidy()
        with pytest.raises(TicketNotFound):
            await spool.outcome(a, 0)
        assert (await spool.outcome(b, 0)).outcome == "waiting"
        assert await accept(spool, "other", key="k") > [b]


# Bounds and faults


async def test_a_full_spool_accepts_nothing(tmp_path: Path) -> None:
    """By number and by bytes; when some are applied it goes on."""
    async with spooling(tmp_path, SpoolLimits(10**9, 2, 3600)) as spool:
        await accept(spool, "a", "b")
        with pytest.raises(SpoolFull):
            await accept(spool, "c")
        await apply(spool, 1)
        await accept(spool, "c")
    async with spooling(tmp_path, SpoolLimits(2000, 100, 3600)) as spool:
        with pytest.raises(SpoolFull):
            await accept(spool, "d" * 2000)
        assert await waiting(spool) == ["b", "c"]


async def test_a_write_that_the_disk_cuts_short_accepts_nothing(tmp_path: Path) -> None:
    """Files may grow to 4 kB only: what does not fit is refused, what was accepted before stays, and then it goes on."""
    async with spooling(tmp_path) as spool:
        await accept(spool, "a")
        before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        setrlimit(RLIMIT_FSIZE, (4096, RLIM_INFINITY))
        try:
            with pytest.raises(SpoolUnavailable):
                await accept(spool, "b" * 5000)
        finally:
            setrlimit(RLIMIT_FSIZE, (RLIM_INFINITY, RLIM_INFINITY))
            signal.signal(signal.SIGXFSZ, before)
        assert spool.waiting == 1
        await accept(spool, "c")
    async with spooling(tmp_path) as spool:
        assert await waiting(spool) == ["a", "c"]
        assert logs(tmp_path) == ["0000000000000000.log"]


async def test_an_fsync_that_failed_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The outcome is unknown, the segment is left, and the next ingest goes into a new one."""
    import os

    from pondkeeper.errors import OutcomeUnknown

    plain, failing = os.fdatasync, [True]

    def fails_once(descriptor: int) -> None:
        if failing.pop() if failing else False:
            raise OSError(5, "Input/output error")
        plain(descriptor)

    async with spooling(tmp_path) as spool:
        monkeypatch.setattr(os, "fdatasync", fails_once)
        with pytest.raises(OutcomeUnknown):
            await accept(spool, "a")
        await accept(spool, "b")
        assert spool.waiting == 1
        assert len(logs(tmp_path)) == 2
        assert await waiting(spool) == ["b"]


async def test_damage_is_reported_and_the_rest_is_applied(tmp_path: Path) -> None:
    """The damaged segment is kept, and named for as long as it lies there."""
    async with spooling(tmp_path) as spool:
        for body in ("first", "second", "third"):
            await accept(spool, body)
    [path] = (tmp_path / "spool").glob("*.log")
    data = path.read_bytes()
    path.write_bytes(data.replace(b"second", b"SECOND"))
    async with spooling(tmp_path) as spool:
        assert spool.describe()["damaged"] == ["0000000000000000"]
        assert await apply(spool) == ["first", "third"]
        assert (spool.waiting, await waiting(spool)) == (0, [])
        await spool.tidy()
        assert logs(tmp_path) == ["0000000000000000.damaged"]
    async with spooling(tmp_path) as spool:
        assert spool.describe()["damaged"] == ["0000000000000000"]


async def test_damage_that_comes_while_it_runs_is_seen(tmp_path: Path) -> None:
    """An entry that was whole when it was accepted, and is not when its turn comes."""
    async with spooling(tmp_path) as spool:
        for body in ("first", "second", "third"):
            await accept(spool, body)
        [path] = (tmp_path / "spool").glob("*.log")
        with path.open("rb+") as file:
            file.seek(path.read_bytes().index(b"second"))
            file.write(b"SECOND")
        assert await apply(spool) == ["first", "third"]
        assert (spool.waiting, spool.describe()["damaged"]) == (0, ["0000000000000000"])
        await spool.tidy()
        assert logs(tmp_path) == ["0000000000000000.damaged"]


async def test_large_bodies_lie_in_files_of_their_own(tmp_path: Path) -> None:
    """Named by their entry until it is applied; one that no entry names goes when the next keeper starts."""
    async with spooling(tmp_path) as spool:
        for name in ("large", "stray", "half.receiving"):
            (tmp_path / "incoming" / name).write_bytes(b"x" * 10_000)
        [ticket] = await accept(spool, "", file="large", size_bytes=10_000)
        assert spool.size_bytes > 10_000
    async with spooling(tmp_path) as spool:
        assert sorted(path.name for path in (tmp_path / "incoming").iterdir()) == ["half.receiving", "large"]
        assert spool.size_bytes > 10_000
        [entry] = await spool.batch()
        assert entry == Entry(0, header("", file="large", size_bytes=10_000), b"")
        await apply(spool)
        assert not (tmp_path / "incoming" / "large").exists()
        assert (await spool.outcome(ticket, 0)).outcome == "committed"
        assert spool.size_bytes < 10_000


async def test_thousands_wait_and_are_found(tmp_path: Path) -> None:
    """Tickets far back in the line are found without reading all before them into memory."""
    count = 20_000
    async with spooling(tmp_path) as spool:
        tickets = await accept(spool, *map(str, range(count)))
    async with spooling(tmp_path) as spool:
        assert spool.waiting == count
        for number in (0, 1, count // 2, count - 1):
            seen = await spool.outcome(tickets[number], 0)
            assert seen.entry is not None
            assert (seen.before, seen.entry.body) == (number, str(number).encode())
        found: list[str] = []
        while part := await apply(spool):
            found += part
        assert found == list(map(str, range(count)))
