"""The load of a job where no keeper serves the database: the writer, for one load, in the caller's turn."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from pondkeeper.engine.faults import translated
from pondkeeper.engine.idempotency import Record
from pondkeeper.engine.opening import WriterConfig
from pondkeeper.engine.writing import CommitUnknown
from pondkeeper.errors import IdempotencyConflict, OutcomeUnknown
from pondkeeper.writer.planned import PlannedLoad
from pondkeeper.writer.session import Session

ENTRY: Final = "pondkeeper.writer.loading_alone"


def answer(question: dict[str, Any], tell: Callable[[str], None]) -> dict[str, Any]:
    """For `workers/alone.py`: `config` is a WriterConfig, `load` as the keeper would hand it over. Raises PondkeeperError."""
    config = question["config"]
    for name in ("preimage", "snapshots"):
        config[name] = Path(config[name])
    load = PlannedLoad.from_wire(question["load"])
    with translated():
        session = Session(WriterConfig(**config))
        try:
            tell("loading")
            began_at = time.monotonic()
            counts = _known(session, load)
            if counts is None:
                counts = _carried_out(session, load)
            session.checkpoint()
        finally:
            session.close()
    return {"rows_changed": counts, "notes": load.notes, "held_ms": (time.monotonic() - began_at) * 1000}


def _known(session: Session, load: PlannedLoad) -> list[int] | None:
    """What the load had counted when it was committed before."""
    found = session.outcomes.known([load.plan.key]).get(load.plan.key)
    if found is None:
        return None
    if found.digest != load.plan.digest:
        raise IdempotencyConflict
    return found.rows_changed


def _carried_out(session: Session, load: PlannedLoad) -> list[int]:
    transaction = session.transaction()
    transaction.begin()
    try:
        counts = load.run(transaction)
        transaction.remember([Record(load.plan.key, load.plan.digest, counts)])
        transaction.commit(lambda: None)
        session.keep_wal()
    except CommitUnknown as unknown:
        raise OutcomeUnknown(f"The commit failed in mid-air: {unknown.error.message}", cause=unknown.error.code) from unknown
    except BaseException:  # Why: whatever ended it, a failed transaction must not stay open.
        transaction.roll_back()
        raise
    return counts
