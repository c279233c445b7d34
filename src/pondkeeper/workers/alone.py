"""A child without a keeper: one question in, one answer out, behind the fence of the keeper's children.

For commands that work on files: what they need of the engine is done by a process of its own, so that the command loads
none of it and opens no database. The entry is a module with `answer(question, tell)`; `tell` sends what has been done so
far, for people. The child dies with the process that asks.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from types import TracebackType
from typing import Any, Final, TypedDict, Unpack

import msgspec

from pondkeeper.errors import PondkeeperError, QueryCancelled, WorkerDied
from pondkeeper.workers import fence
from pondkeeper.workers.fence import Fence
from pondkeeper.workers.walls import libraries, try_walls

Tell = Callable[[str], None]
GivenUp = Callable[[], bool]
LOOK_S: Final = 0.2
OOM_SCORE_ADJ: Final = 500
_SHOWN_CHARS: Final = 2000


class Child:
    """A child that has loaded its entry, or is about to, and waits for its only question. `with` ends it, whatever it does."""

    def __init__(self, entry: str) -> None:
        self._trace = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        command = [sys.executable, "-m", __name__, entry]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._trace, start_new_session=True
        )

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        self._trace.close()

    def _end(self) -> None:
        with self._process as process:
            process.kill()

    def ask(
        self,
        question: dict[str, Any],
        within: Fence,
        *,
        limits: Mapping[str, int] | None = None,
        tell: Tell = lambda text: None,
        environment: Mapping[str, str] | None = None,
        is_given_up: GivenUp = lambda: False,
    ) -> dict[str, Any]:
        """The answer of the entry, given behind that fence. Raises what it raises, as far as that is a PondkeeperError,
        WorkerDied, and QueryCancelled soon after `is_given_up` says that nobody waits for it any more.

        `limits`: its rlimits, by name. `environment`: variables that the child needs; it has no others.
        """
        asked = {"question": question, "fence": asdict(within), "limits": dict(limits or {}), "environment": dict(environment or {})}
        try:
            said = _hear(self._process, asked, tell, is_given_up)
        finally:
            self._end()
        if said is None:
            self._trace.seek(0)
            last = self._trace.read()[-_SHOWN_CHARS:].decode(errors="replace").strip()
            raise WorkerDied("The process that did it died.", status=self._process.returncode, private=last or None)
        if "error" in said:
            raise PondkeeperError.from_wire(said["error"])
        return dict(said["answer"])


class Options(TypedDict, total=False):
    """What else may be said of a question; see `Child.ask`."""

    limits: Mapping[str, int]
    tell: Tell
    environment: Mapping[str, str]
    is_given_up: GivenUp


def ask(entry: str, question: dict[str, Any], within: Fence, **options: Unpack[Options]) -> dict[str, Any]:
    """The answer of `entry` to its only question, run in a child of its own. Raises what `Child.ask` raises."""
    with Child(entry) as child:
        return child.ask(question, within, **options)


def _hear(
    child: subprocess.Popen[bytes], asked: dict[str, Any], tell: Tell, is_given_up: GivenUp
) -> dict[str, Any] | None:
    """What it says last; None when it says nothing that ends it."""
    assert child.stdin is not None
    try:
        child.stdin.write(json.dumps(asked).encode())
        child.stdin.close()
    except BrokenPipeError:
        return None
    for line in _lines(child, is_given_up):
        said = json.loads(line)
        if "done" not in said:
            return dict(said)
        tell(said["done"])
    return None


def _lines(child: subprocess.Popen[bytes], is_given_up: GivenUp) -> Iterator[bytes]:
    """What it says, line by line, until it has ended."""
    assert child.stdout is not None
    unread = b""
    while True:
        if is_given_up():
            raise QueryCancelled("It was given up before it was done.")
        if not select.select([child.stdout], [], [], LOOK_S)[0]:
            continue
        data = os.read(child.stdout.fileno(), 65536)
        if not data:
            return
        *lines, unread = (unread + data).split(b"\n")
        yield from lines


def main() -> None:
    """The child: put up the fence, answer, end."""
    fence.die_with_parent()
    os.umask(0o077)
    entry = importlib.import_module(sys.argv[1])  # Why before it is asked: whoever has begun it early does not wait for that.
    asked = json.loads(sys.stdin.buffer.read())
    missing = try_walls()
    fence.put_up(asked["limits"], OOM_SCORE_ADJ)
    os.environ.update(asked["environment"])
    fence.close(msgspec.convert(asked["fence"], Fence), libraries(), [name for name, why in missing.items() if not why])
    try:
        _say({"answer": entry.answer(asked["question"], lambda text: _say({"done": text}))})
    except PondkeeperError as error:
        _say({"error": error.to_wire(with_private=True)})


def _say(what: dict[str, Any]) -> None:
    sys.stdout.buffer.write(json.dumps(what).encode() + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
