"""dbt in a process of its own: reads the project while others write, waits for its turn, builds.

    python program.py '{"arguments": ["--project-dir", …], "command": "build", "options": […], "socket": 5}'

It needs dbt and the standard library, so that any Python that has dbt can run it, also one without Pondkeeper. Over the
socket it says line by line, as JSON, how it gets on; when it has said `ready` it is sent the selections to build, and with
them a descriptor of the lease, which is held as long as this process lives.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESULTS = {"LogModelResult", "LogTestResult", "LogSeedResult", "LogSnapshotResult", "LogNodeResult", "LogFunctionResult"}
SKIPPED = {"SkippingDetails", "LogSkipBecauseError"}
STARTED = "LogStartLine"
GO_BYTES = 1024 * 1024
PR_SET_PDEATHSIG = 1
EXIT_FAILED = 1
EXIT_BROKEN = 2


class Wire:
    """The socket to the run: lines out, one line and the lease in."""

    def __init__(self, number: int) -> None:
        self._socket = socket.socket(fileno=number)
        self.lease: list[int] = []

    def say(self, **what: Any) -> None:
        """One line. That nobody listens any more is found out by whoever waits for our end."""
        with contextlib.suppress(OSError):
            self._socket.sendall(json.dumps(what, default=str).encode() + b"\n")

    def wait_for_go(self) -> dict[str, list[str]] | None:
        """What is to be built: arguments of `--select` by run; None when it is not to begin."""
        text = b""
        while not text.endswith(b"\n"):
            data, descriptors, _, _ = socket.recv_fds(self._socket, GO_BYTES, 4)
            self.lease += descriptors
            if not data:
                return None
            text += data
        go: dict[str, list[str]] = json.loads(text)
        return go


def listener(wire: Wire) -> Any:
    """What dbt calls with each of its events. Trap: what is raised here fails the node that the event speaks of."""

    def hear(event: Any) -> None:
        name, data = event.info.name, event.data
        # Why: each event has its own word for how many there are.
        total = getattr(data, "total", 0) or getattr(data, "num_models", 0)
        if not total:
            return
        if name == STARTED:
            wire.say(started=str(getattr(data, "description", "")), total=int(total))
        elif name in RESULTS or name in SKIPPED:
            wire.say(ended=True, total=int(total))

    return hear


def union_of(selections: Sequence[list[str]]) -> list[str]:
    """`--select` for several selections at once; one that names nothing means everything."""
    if not all(selections):
        return []
    names = list(dict.fromkeys(name for selection in selections for name in selection))
    return ["--select", *names]


def select(names: list[str]) -> list[str]:
    """`--select` for one selection."""
    return ["--select", *names] if names else []


def nodes_of(runner: Any, plan: dict[str, Any], names: list[str]) -> list[str]:
    """The unique ids that one selection names."""
    asked = ["--quiet", "ls", "--output", "json", "--output-keys", "unique_id", *select(names), *plan["exclude"]]
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        found = runner.invoke([*asked, *plan["arguments"]])
    return [json.loads(line)["unique_id"] for line in found.result or [] if line.startswith("{")]


def parse(runner: Any, plan: dict[str, Any]) -> str | None:
    """Read the project; why that failed, or None."""
    for command in (["deps"], ["parse"]) if plan["deps"] else (["parse"],):
        # Why not the target's options: `deps` installs packages, and knows no threads and no target path.
        done = runner.invoke([*command, *(plan["places"] if command == ["deps"] else plan["arguments"])])
        if not done.success:
            return f"dbt {command[0]}: {done.exception or 'failed; see the log'}"
        if command == ["parse"]:
            runner.manifest = done.result
    return None


def main(text: str) -> int:
    """Read, wait, build; the exit code says whether everything succeeded."""
    plan = json.loads(text)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != plan["parent"]:
        return EXIT_BROKEN  # it has died before the kernel was asked to tell us
    wire = Wire(plan["socket"])
    try:
        from dbt.cli.main import dbtRunner
    except ImportError as error:
        wire.say(missing=str(error))
        return EXIT_BROKEN
    runner = dbtRunner(callbacks=[listener(wire)])
    if (why := parse(runner, plan)) is not None:
        wire.say(broken=why)
        return EXIT_BROKEN
    wire.say(ready=True)
    go = wire.wait_for_go()
    if go is None:
        return EXIT_BROKEN
    chosen = {run: nodes_of(runner, plan, names) for run, names in go.items()} if len(go) > 1 else {}
    done = runner.invoke([plan["command"], *plan["options"], *union_of(list(go.values())), *plan["exclude"], *plan["arguments"]])
    wire.say(built=done.success, chosen=chosen, why=None if done.exception is None else str(done.exception))
    return 0 if done.success else EXIT_FAILED


if __name__ == "__main__":
    if sys.path and Path(sys.path[0]) == Path(__file__).parent:
        del sys.path[0]  # Trap: a module beside this one would be found instead of an installed one of its name.
    sys.exit(main(sys.argv[1]))
