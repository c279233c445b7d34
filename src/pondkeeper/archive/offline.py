"""What a command does with the archive where no keeper runs: one message of `process.py`, in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from pondkeeper.archive.process import Desk
from pondkeeper.errors import PondkeeperError, SnapshotNotFound

ENTRY: Final = "pondkeeper.archive.offline"


def answer(question: dict[str, Any], tell: Callable[[str], None]) -> dict[str, Any]:
    """For `workers/alone.py`: `open` has the place, `message` what is to be done there. Raises PondkeeperError."""

    def progress(message: dict[str, Any]) -> None:
        of = f" of {message['of']:,}" if message["of"] else ""
        tell(f"{message['done']:,}{of} blocks")

    desk = Desk(progress)
    _taken(desk.answer(question["open"]))
    return _taken(desk.answer(question["message"]))


def _taken(said: dict[str, Any]) -> dict[str, Any]:
    what = said.pop("op")
    if what == "error":
        raise PondkeeperError.from_wire(said)
    if what == "retired":
        raise SnapshotNotFound("The snapshot was taken back before it could be archived.")
    return said
