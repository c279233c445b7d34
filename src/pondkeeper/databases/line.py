"""The one line of those who want to write a database: writes of this keeper and programs with tickets, in their order."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from pondkeeper.writer.tickets import Place
from pondkeeper.writer.write import Write

SHOWN_WHY_CHARS = 80


def waiting_line(status: dict[str, Any], writes: Sequence[Write], programs: Sequence[Place]) -> dict[str, Any]:
    """Who has the database, and all that wait for it, as `GET …/queue` answers it; from its status."""
    return {
        "database": status["name"],
        "holder": status["lease"]["holder"],
        "foreign": status["foreign"],
        "programs_waiting": status["lease"]["waiting"],
        "waiting_for": status["writer"]["waiting_for"],
        "spool": status["spool"],
        "line": one_line(writes, programs),
        "writes": [write.describe() for write in writes],
    }


def one_line(writes: Sequence[Write], programs: Sequence[Place]) -> list[dict[str, Any]]:
    """What runs, then what waits: a program is before the writes that were all asked for later than it was.

    That is how the writer gives way: to a ticket that is older than everything that it has still to write.
    """
    running = [write for write in writes if write.has_begun]
    waiting = [write for write in writes if not write.has_begun]
    programs_left = sorted(programs, key=lambda place: place.asked_ns)
    line = [_of_write(write) for write in running]
    for write, oldest_ns in zip(waiting, _oldest_from_here(waiting), strict=True):
        while programs_left and programs_left[0].asked_ns < oldest_ns:
            line.append(_of_program(programs_left.pop(0)))
        line.append(_of_write(write))
    line += map(_of_program, programs_left)
    return [{"place": place, **entry} for place, entry in enumerate(line)]


def _oldest_from_here(writes: Sequence[Write]) -> list[int]:
    """For each write, when the oldest of it and those behind it was asked for."""
    found: list[int] = []
    for write in reversed(writes):
        found.append(min(write.asked_ns, found[-1]) if found else write.asked_ns)
    return found[::-1]


def _of_write(write: Write) -> dict[str, Any]:
    shown = write.describe()
    since = datetime.now(UTC) - timedelta(microseconds=(time.monotonic_ns() - write.asked_ns) / 1000)
    return {
        "kind": shown["kind"],
        "id": shown["id"],
        "state": shown["state"],
        "priority": shown["priority"],
        "who": shown["client"],
        "why": " ".join(str(shown["sql"] or "").split())[:SHOWN_WHY_CHARS],
        "since": since.isoformat(timespec="milliseconds"),
        "pid": None,
        "key_id": shown["key_id"],
    }


def _of_program(place: Place) -> dict[str, Any]:
    return {
        "kind": "lease",
        "id": None,
        "state": "waiting",
        "priority": None,
        "who": place.who,
        "why": place.why,
        "since": place.since,
        "pid": place.pid,
        "key_id": None,
    }
