"""What a traced program does with one file: who opens it, and who closes a second descriptor of it."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

CALLS = "open,openat,openat2,creat,close,dup,dup2,dup3,clone,clone3,fork,vfork"
_LINE = re.compile(r"(?P<thread>\d+)<(?P<name>[^>]*)> +(?P<call>.*)")
_OPENED = re.compile(r"(?:open|creat|dup|F_DUPFD).* = (?P<descriptor>\d+)<(?P<path>[^>]*)>")
_CLOSED = re.compile(r"close\((?P<descriptor>\d+)<(?P<path>[^>]*)>")
_THREAD = re.compile(r"CLONE_THREAD.* = (?P<thread>\d+)")


def tracer(log: Path) -> list[str]:
    """The command before a command that traces it and all its children; the traced program keeps its pid."""
    strace = shutil.which("strace")
    assert strace is not None
    # Why --seccomp-bpf: only the calls asked for stop the program, so that it runs nearly as fast as ever.
    return [strace, "-D", "-f", "--seccomp-bpf", "-y", "-Y", "-s", "4096", "-e", f"trace={CALLS}", "-o", str(log)]


@dataclass
class Opener:
    """One process and its descriptors of the file."""

    name: str
    opened: int = 0
    wrote: bool = False
    descriptors: set[int] = field(default_factory=set)
    trapped: list[str] = field(default_factory=list)


def openers(log: Path, file: Path) -> list[Opener]:
    """Every process that opened `file`; `trapped` has each close that left another descriptor of it open.

    Such a close drops every fcntl lock that the process has on the file, DuckDB's too.
    """
    processes: dict[int, Opener] = {}
    leader: dict[int, int] = {}
    writes: dict[int, bool] = {}
    for line in log.read_text(errors="replace").splitlines():
        parsed = _LINE.match(line)
        if parsed is None:
            continue
        thread, call = int(parsed["thread"]), parsed["call"]
        pid = leader.get(thread, thread)
        if made := _THREAD.search(call):
            leader[int(made["thread"])] = pid
        if "O_" in call:
            writes[thread] = "O_RDWR" in call or "O_WRONLY" in call
        if (opened := _OPENED.search(call)) and opened["path"] == str(file):
            process = processes.setdefault(pid, Opener(parsed["name"]))
            process.opened += 1
            process.wrote |= writes.get(thread, False)
            process.descriptors.add(int(opened["descriptor"]))
        elif (closed := _CLOSED.search(call)) and closed["path"] == str(file):
            process = processes.setdefault(pid, Opener(parsed["name"]))
            process.descriptors.discard(int(closed["descriptor"]))
            if process.descriptors:
                process.trapped.append(line)
    return list(processes.values())
