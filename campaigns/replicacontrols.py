"""What the campaign of replicas must find: a wrong block on a replica's shelf, answers that no replica may give, a leak."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import duckdb

from campaigns.followed import Judge, Ledger, look
from campaigns.running import Stage
from pondkeeper.client import Client
from tests.support.keeper import wait_until
from tests.support.processes import is_alive
from tests.support.replicas import ReplicaProcess

MOST_SNAPSHOTS, MOST_PRIVATE = 8, 3


def play(stage: Stage, room: Path, replica: ReplicaProcess, connect: Callable[[float], Client], ledger: Ledger) -> None:
    """All controls, on a replica whose primary writes no more; it is left as it was."""
    snapshot = replica.paths("pond").published_by_name.resolve()
    kept, forged = room / "kept.duckdb", room / "forged.duckdb"
    shutil.copy(snapshot, kept)
    _forge(kept, forged)
    with connect(0.0) as client:
        honest = _seen(client, ledger)
        _put(replica, forged, snapshot)
        wrong = _seen(client, ledger)
        _put(replica, kept, snapshot)
    stage.violated([f"before the control: {text}" for text in honest])
    stage.control("a wrong block on the replica's shelf", [text for text in wrong if "never was like this" in text])
    for name, found in _judged(ledger).items():
        stage.control(name, found)
    stage.control("a temp file that stays", _leaked(replica.paths("pond").folder))


def leaked_files(folder: Path) -> list[str]:
    """What should not stay in a replica's folder: temp files, and more snapshots than are kept, visible or half-made."""
    wrong = [f"{path.relative_to(folder)} stays" for path in folder.rglob(".*.tmp")]
    names = os.listdir(folder / "snapshots")
    private = [name for name in names if name.startswith(".private-") or name.endswith(".begun")]
    if len(private) > MOST_PRIVATE:
        wrong.append(f"{len(private)} half-made snapshots")
    if (visible := sum(name.isdigit() for name in names)) > MOST_SNAPSHOTS:
        wrong.append(f"{visible} snapshots")
    return wrong


def _seen(client: Client, ledger: Ledger) -> list[str]:
    """What a judge of its own finds wrong with what is served now."""
    judge = Judge(ledger)

    def is_answered() -> bool:  # Why not once: its readers were killed a moment ago
        look("replica", client, judge)
        return judge.answers["replica"] > 0

    wait_until(is_answered, what="an answer of the replica")
    return judge.wrong


def _forge(file: Path, forged: Path) -> None:
    """The database with one row more, whole in the engine's eyes."""
    shutil.copy(file, forged)
    forged.chmod(0o600)
    with duckdb.connect(str(forged)) as database:
        database.execute("INSERT INTO t2 (id, v, s) VALUES (-1, 1, 'x')")
        database.execute("CHECKPOINT")


def _put(replica: ReplicaProcess, file: Path, snapshot: Path) -> None:
    """In the snapshot's place, for readers that open it from now on."""
    temp = snapshot.with_name("forged")
    shutil.copy(file, temp)
    temp.chmod(0o400)
    temp.replace(snapshot)
    readers = replica.children("reader")
    for pid in readers:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(is_alive(pid) for pid in readers), what="the end of the readers")


def _judged(ledger: Ledger) -> dict[str, list[str]]:
    """What the judge says of answers that no replica may give."""
    (first, early), (last, late) = ledger.answered[0], ledger.answered[-1]

    def heard(*answers: tuple[str, int, int]) -> list[str]:
        judge = Judge(ledger)
        for side, version, number in answers:
            judge.hear(side, version, [number, *(ledger.states[number] or [])])
        return judge.wrong

    return {
        "a version that goes back": heard(("replica", last, late), ("replica", first, late)),
        "an acknowledged commit that is missing": heard(("replica", last, early)),
        "a version that differs from the primary's": heard(("primary", last + 1, late), ("replica", last + 1, early)),
    }


def _leaked(folder: Path) -> list[str]:
    (left := folder / ".published.0badc0de.tmp").touch()
    try:
        return leaked_files(folder)
    finally:
        left.unlink()
