"""The warm template: a single-threaded process that has imported everything and forks children on request.

    python -m pondkeeper.workers.template FD KEEPER_PID FENCE_MODE MODULE…

Each request on the socket FD is a JSON object with two descriptors (the child's pipe and its control socket); the
answer is `{"pid": …}`. A child is forked twice, so that its parent becomes the keeper, which is the subreaper: the
keeper then gets its exit status, and a dead template takes nobody with it.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import socket
import sys
import traceback
from dataclasses import dataclass
from typing import Any, NoReturn

import msgspec

from pondkeeper.workers import fence, seccomp
from pondkeeper.workers.forking import fork_adopted, keep_only
from pondkeeper.workers.frames import Pipe
from pondkeeper.workers.walls import libraries, try_walls

MAX_REQUEST_BYTES = 64 * 1024


def main(arguments: list[str]) -> None:
    connection = socket.socket(fileno=int(arguments[0]))
    keeper = int(arguments[1])
    fence.die_with_parent()
    if os.getppid() != keeper:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Why: Ctrl-C is for the keeper, which then stops us in order.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for module in arguments[3:]:
        importlib.import_module(module)
    walls = _Walls.found(is_off=arguments[2] == "off")
    gc.collect()
    gc.freeze()
    _refuse_threads()
    try:
        connection.send(msgspec.json.encode({"ready": os.getpid(), "walls": walls.missing, "up": walls.up}))
        _serve(connection, keeper, walls)
    except ConnectionError:
        return  # Why no error: the kernel says so of a keeper that died, and nobody is left to be told.


@dataclass(frozen=True)
class _Walls:
    """Which walls the children put up, and what of the system they may read through them."""

    missing: dict[str, str]
    up: list[str]
    libraries: tuple[str, ...]

    @classmethod
    def found(cls, *, is_off: bool) -> _Walls:
        if is_off:
            return cls({}, [], ())
        missing = try_walls()
        if not missing["calls"]:
            seccomp.prepare()
        return cls(missing, [name for name, why in missing.items() if not why], libraries())


def _refuse_threads() -> None:
    """Forking a process with threads copies their locks but not the threads."""
    threads = len(os.listdir("/proc/self/task"))
    if threads != 1:
        raise SystemExit(f"the template has {threads} threads after its imports and cannot fork safely")


def _serve(connection: socket.socket, keeper: int, walls: _Walls) -> None:
    while True:
        data, descriptors, _, _ = socket.recv_fds(connection, MAX_REQUEST_BYTES, 2)
        if not data:
            return
        request: dict[str, Any] = msgspec.json.decode(data)
        pid = fork_adopted(lambda parent: _become_child(request, descriptors, parent, keeper, walls))  # noqa: B023  Why: it is called at once
        if pid is None:
            raise SystemExit("the kernel has no room for a child")
        for descriptor in descriptors:
            os.close(descriptor)
        connection.send(msgspec.json.encode({"pid": pid}))


def _become_child(
    request: dict[str, Any], descriptors: list[int], intermediate: int, keeper: int, walls: _Walls
) -> NoReturn:
    status = 1
    try:
        pipe_socket, control = _take_over(descriptors)
        if fence.wait_for_adoption(intermediate, keeper):
            fence.die_with_parent()
            fence.set_name("pond-" + request["name"])
            fence.put_up(request["limits"], request["oom_score_adj"])
            entry = importlib.import_module(request["entry"])
            fence.close(msgspec.convert(request["fence"], fence.Fence), walls.libraries, walls.up)
            entry.main(Pipe(pipe_socket), control, request["config"])
            status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except ConnectionError:
        pass  # Why no traceback: the child's only connection is the keeper, which has died.
    except BaseException:  # noqa: BLE001  Why: a forked child must never return into the template's loop.
        traceback.print_exc()
    finally:
        os._exit(status)


def _take_over(descriptors: list[int]) -> tuple[socket.socket, socket.socket]:
    """Keep only our own two descriptors and stderr; stdin and stdout lead nowhere."""
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    keep_only(descriptors)
    return socket.socket(fileno=descriptors[0]), socket.socket(fileno=descriptors[1])


if __name__ == "__main__":
    main(sys.argv[1:])
