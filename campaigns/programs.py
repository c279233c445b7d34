"""Programs that are killed and begun anew many times: forked from one process that has imported everything already.

The parent reads one JSON order per line on stdin, forks a child for it, and says `gone` when that has ended; what the child
says, and its `ready PID` before it, comes out of the same pipe.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from typing import IO, Any

from tests.support.keeper import program_environment

READY_S = 60.0
Order = dict[str, Any]


class Programs:
    """The parent process; `on_line` hears every line but `ready PID`, on a thread of its own."""

    def __init__(self, module: str, arguments: list[str], on_line: Callable[[str], None]) -> None:
        self._on_line = on_line
        self._pid: int | None = None
        self._ready = threading.Event()
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=program_environment(),
        )
        assert self._process.stdout is not None
        self._listening = threading.Thread(target=self._listen, args=(self._process.stdout,), daemon=True)
        self._listening.start()

    def begin(self, order: Order) -> int:
        """Let a program begin; its pid."""
        assert self._process.stdin is not None
        self._ready.clear()
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        if not self._ready.wait(READY_S):
            raise RuntimeError("the program did not begin")
        assert self._pid is not None
        return self._pid

    def _listen(self, stdout: IO[str]) -> None:
        for line in stdout:
            words = line.split()
            if words[0] == "ready":
                self._pid = int(words[1])
                self._ready.set()
            else:
                self._on_line(line.strip())

    def close(self) -> None:
        """End the parent; a child that lives on has nobody to tell."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(READY_S)
        self._listening.join(READY_S)
        self._process.stdout.close()


def serve(run: Callable[[Order], None]) -> None:
    """What the parent does until stdin ends."""
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            try:
                tell(f"ready {os.getpid()}")
                run(order)
            except BaseException:  # noqa: BLE001  Why: a forked child must never go on as its parent.
                traceback.print_exc()
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        tell("gone")


def tell(text: str) -> None:
    """Say a line in one piece, whoever else speaks."""
    os.write(1, f"{text}\n".encode())
