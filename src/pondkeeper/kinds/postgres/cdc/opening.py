"""From what the settings say and what source and warehouse hold to a slot and a state that fit each other."""

from __future__ import annotations

import hashlib
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pondkeeper.errors import SourceRefused
from pondkeeper.kinds.postgres.cdc.catalog import LOST, Slot, drop_slot, find_slot
from pondkeeper.kinds.postgres.cdc.lsn import format_lsn
from pondkeeper.kinds.postgres.cdc.replication import Identity, ReplicationConnection
from pondkeeper.kinds.postgres.cdc.state import Seen, State
from pondkeeper.kinds.postgres.connecting import Connection

if TYPE_CHECKING:
    from pondkeeper.kinds.context import RunContext

PLUGIN: Final = "pgoutput"
LONGEST_NAME: Final = 63
BUSY_FOR_S: Final = 75.0  # a reader that is gone holds its slot until the server has noticed (wal_sender_timeout: 60 s)
_LOOK_S: Final = 0.2


def slot_name(job: str, warehouse: str) -> str:
    """The name of a job's slot: the same for every run, another one for another warehouse."""
    digest = hashlib.sha256(warehouse.encode()).hexdigest()[:8]
    plain = re.sub(r"[^a-z0-9_]", "_", job.lower())
    return f"pondkeeper_{plain[: LONGEST_NAME - 20]}_{digest}"


def publication_name(job: str) -> str:
    """The name of a job's publication."""
    return f"pondkeeper_{re.sub(r'[^a-z0-9_]', '_', job.lower())[: LONGEST_NAME - 20]}"


@dataclass(frozen=True)
class Fit:
    """What was found. `state` None: nothing here can be gone on with, and `reason` says why, unless it is the first time."""

    state: State | None
    reason: str = ""


def fitting(state: State | None, slot: Slot | None, identity: Identity, seen: Seen, *, name: str, published: bool) -> Fit:
    """Whether the changes behind the state come through the slot of that `name`, all of them.

    `published`: whether the publication was there.
    """
    if state is None:
        return Fit(None)
    if state.slot != name:
        return Fit(None, f"the slot is {name!r} now, and was {state.slot!r}, which is not used any more: drop it at the source")
    if state.system != identity.system:
        return Fit(None, "the source is another server than before")
    if slot is None:
        return Fit(None, f"the source no longer has the slot {state.slot!r}")
    if slot.status == LOST:
        return Fit(None, f"the source has given up the slot {state.slot!r}: it kept too much of its log for it")
    if not published:
        return Fit(None, "the source no longer had the publication")
    beyond = seen.beyond(state.slot, state.position)
    if slot.confirmed > beyond:
        return Fit(
            None,
            f"the slot {state.slot!r} has moved on to {format_lsn(slot.confirmed)} while the database stands at "
            f"{format_lsn(beyond)}: it is older than what was captured, or somebody else reads the slot",
        )
    if identity.position < state.position:
        return Fit(None, f"the source's log ends before {format_lsn(state.position)}: it was restored to an earlier time")
    return Fit(state)


def free_slot(context: RunContext, connection: Connection, name: str, database: str) -> Slot | None:
    """The slot of that name, as soon as nobody reads it any more. Raises SourceRefused when it is not ours to use."""
    give_up_at = time.monotonic() + BUSY_FOR_S
    while True:
        slot = find_slot(connection, name)
        if slot is None:
            return None
        if slot.plugin != PLUGIN or slot.database != database:
            raise SourceRefused(
                f"The slot {name!r} at the source is one for {slot.plugin} in the database {slot.database or '(all)'!r}.",
                remedy="Name another one with `slot`, or drop it there.",
            )
        if slot.active_pid is None:
            return slot
        if time.monotonic() > give_up_at:
            raise SourceRefused(
                f"The slot {name!r} at the source is in use by its process {slot.active_pid}.",
                remedy="Another job, or a copy of this database, reads it: give each its own with `slot`.",
            )
        if context.stopping.wait(_LOOK_S):
            context.check_stopping()


def give_up_slot(connection: Connection, name: str) -> None:
    """Drop a slot of which our own reader has just gone, as soon as the server has noticed."""
    give_up_at = time.monotonic() + BUSY_FOR_S
    while (slot := find_slot(connection, name)) and slot.active_pid is not None and time.monotonic() < give_up_at:
        time.sleep(_LOOK_S)
    drop_slot(connection, name)


def make_slot(context: RunContext, replication: ReplicationConnection, connection: Connection, name: str) -> int:
    """Make the slot anew; the position that it begins at. What the old one kept is let go."""
    drop_slot(connection, name)
    context.say(f"making the slot {name}; it waits for the transactions that write at the source right now")
    return replication.create_slot(name, temporary=False).position


def refuse_to_begin_anew(fit: Fit, when_slot_lost: str) -> None:
    """Raise SourceRefused where the job does not want its tables copied again without being asked."""
    if fit.reason and when_slot_lost == "fail":
        raise SourceRefused(
            f"The changes since the last run cannot be had any more: {fit.reason}.",
            remedy='`when_slot_lost = "copy"` copies the tables again and goes on from there.',
        )


