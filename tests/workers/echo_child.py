"""A child for the tests: answers what it is asked, on real pipes in a real process."""

from __future__ import annotations

import mmap
import os
import resource
import socket
import time
from typing import Any

from pondkeeper.workers.frames import Pipe
from pondkeeper.workers.interrupts import listen


def main(pipe: Pipe, control: socket.socket, config: dict[str, Any]) -> None:
    interrupted: list[int] = []
    taken: list[mmap.mmap] = []
    listen(control, interrupted.append)
    pipe.send({"op": "ready"})
    while (message := pipe.receive()) is not None:
        match message["op"]:
            case "facts":
                pipe.send(facts(config))
            case "echo":
                pipe.send(message)
            case "data":
                for _ in range(message["frames"]):
                    pipe.send_data(b"x" * message["size_bytes"])
                pipe.send({"op": "end"})
            case "wait":
                pipe.send({"op": "interrupted", "number": wait_for(interrupted)})
            case "take":
                pipe.send({"op": take(taken, message["size_bytes"], shared=message["shared"])})
            case "exit":
                raise SystemExit(3)
            case "hang":
                time.sleep(600)


def take(taken: list[mmap.mmap], size_bytes: int, *, shared: bool) -> str:
    """Take so much memory and write to it. Shared memory is what RLIMIT_DATA does not count."""
    try:
        area = mmap.mmap(-1, size_bytes, flags=mmap.MAP_ANONYMOUS | (mmap.MAP_SHARED if shared else mmap.MAP_PRIVATE))
    except OSError:
        return "refused"
    for page in range(0, size_bytes, mmap.PAGESIZE):
        area[page] = 1
    taken.append(area)
    return "taken"


def wait_for(interrupted: list[int]) -> int:
    while not interrupted:
        time.sleep(0.001)
    return interrupted.pop()


def facts(config: dict[str, Any]) -> dict[str, Any]:
    with open("/proc/self/oom_score_adj") as score, open("/proc/self/status") as status:
        return {
            "op": "facts",
            "pid": os.getpid(),
            "parent": os.getppid(),
            "environment": dict(os.environ),
            "config": config,
            "data_limit": resource.getrlimit(resource.RLIMIT_DATA)[0],
            "oom_score_adj": int(score.read()),
            "no_new_privileges": "NoNewPrivs:\t1" in status.read(),
            "descriptors": sorted(int(name) for name in os.listdir("/proc/self/fd")),
        }
