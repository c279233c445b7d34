"""A source of dlt for tests: five resources, one for each way of writing. What it gives follows from $DAY.

It can kill the process of its run at a named place ($KILL_AT), which leaves the mark $KILLED.
"""

from __future__ import annotations

import datetime as dt
import decimal
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dlt

DAY = int(os.environ.get("DAY", "0"))
EVENTS_A_DAY = 3


def die_at(place: str) -> None:
    if os.environ.get("KILL_AT") == place:
        Path(os.environ["KILLED"]).write_text(place)
        os.kill(os.getpid(), signal.SIGKILL)


@dlt.source
def shop() -> Any:
    """The whole shop."""

    @dlt.resource(write_disposition="append")
    def events(at: Any = dlt.sources.incremental("id", initial_value=-1)) -> Iterator[Any]:  # noqa: B008 - as dlt is used
        """As a source with a cursor does it: only what came after the last one, up to today."""
        found = range(at.last_value + 1, (DAY + 1) * EVENTS_A_DAY)
        yield [{"id": each, "what": f"event {each}", "tags": [{"t": each}, {"t": -each}]} for each in found]
        die_at("extract")

    @dlt.resource(write_disposition="merge", primary_key="id")
    def customers() -> Iterator[Any]:
        more = {"rebate": 1.5} if os.environ.get("REBATE") else {}
        yield [{"id": each, "day": DAY, "addresses": [{"street": f"{DAY}-{each}"}], **more} for each in range(4)]

    @dlt.resource(write_disposition={"disposition": "merge", "strategy": "upsert"}, primary_key="id")
    def stock() -> Iterator[Any]:
        yield [{"id": each + DAY, "day": DAY} for each in range(4)]

    @dlt.resource(write_disposition={"disposition": "merge", "strategy": "scd2"})
    def prices() -> Iterator[Any]:
        yield [{"article": each, "price": each + (DAY if each == 1 else 0)} for each in range(3)]

    @dlt.resource(write_disposition="replace")
    def today() -> Iterator[Any]:
        moment = dt.datetime(2026, 11, 21 + DAY, 3, 15, tzinfo=dt.UTC)
        yield [{"total": decimal.Decimal("12.25"), "at": moment, "on": moment.date(), "raw": b"\x00\xff", "ok": True}]

    return events, customers, stock, prices, today


def _die_around_the_load() -> None:
    """Kill before or after the one transaction: the process of a run loads sources before it loads rows."""
    from pondkeeper.kinds.warehouse import Warehouse

    load = Warehouse.load

    def deadly(self: Warehouse, *arguments: Any, **options: Any) -> Any:
        die_at("load")
        loaded = load(self, *arguments, **options)
        die_at("commit")
        return loaded

    Warehouse.load = deadly  # type: ignore[method-assign]


_die_around_the_load()
