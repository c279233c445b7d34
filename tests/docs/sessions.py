"""The console blocks of our documents, run as a reader would type them, in a folder of their own and on a terminal.

In a document: a ```console block is run. A line that begins with `$ ` is typed, `> ` continues it, the rest is what came.
    <!-- not run: why -->      before a block: it is shown only
    <!-- file: NAME -->        before a block of any language: it is written to that file
    <!-- given: NAME -->       this exists before the session begins (`flights`: the flights warehouse)
What varies from run to run (keys, times, sizes, pids) need not agree; `…` stands for any text, alone for any lines.
A keeper (`pondkeeper serve`, `script/server`) goes on in the background to the end of the document.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.keeper import REPOSITORY, free_port, program_environment
from tests.support.warehouse import flights_file

WIDTH = 112
QUIET_S = 0.4
COMMAND_TIMEOUT_S = 120.0
SHOWN_FOLDER = "/home/ada/warehouse"
SHOWN_PORT = "8420"
SHOWN_KEY = "pk_7h2m9x4q1c8d_Zx81FqkT0vB6nWm3RyLs5Jd9HgPaEuCo"
SERVES = ("pondkeeper serve", "pondkeeper replica", "script/server")

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_KEY = re.compile(r"pk_[a-z0-9]{8,}_[A-Za-z0-9]{20,}")
_VARIES = (
    (_KEY, "pk_…"),
    (re.compile(r"q_[0-9a-f]{16}"), "q_…"),
    (re.compile(r"\b\d{8}T\d{6}Z-[0-9a-f]{6,}\b"), "RUN"),
    (re.compile(r"(?<![\w-])(?=[a-z]*[0-9])[a-z0-9]{12}(?![\w-])"), "KEY"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00| UTC)?"), "TIME"),
    (re.compile(r"\bpid \d+"), "pid N"),
    (re.compile(r"\b\d+(?:\.\d+)?(?: ?(?:µs|ms|s|min|h|days|kB|MB|GB|B)\b)"), "AMOUNT"),
    # Why: how a snapshot was made, and which readers still have it open, depends on the moment.
    (re.compile(r"AMOUNT +(?:compare|difference|full)(?: +the keeper(?: \(\d+ readers\))?)? *\Z"), "AMOUNT METHOD"),
    (re.compile(r'"(elapsed_ms|age_s|size_bytes|bytes_copied|blocks_copied|version)": ?[\d.]+'), r'"\1": N'),
    (re.compile(r"\bv?(?:1\.5|2\.0)\.\d+\b"), "DUCKDB"),
    (re.compile(r"storage version \d+"), "storage version N"),
    (re.compile(r"\bversion \d+"), "version N"),
    (re.compile(r"─+"), "─"),
    (re.compile(r"\s+"), " "),
)


# A whole line or cell that is a version: one more than expected when the keeper has noticed a change by itself.
_VERSION_LINE = re.compile(r"\A\d+\Z")
_VERSION_CELL = re.compile(r"(?<!\S)\d+(?!\S)")
_TELLS_VERSIONS = ("pondkeeper status", "pondkeeper snapshot list")


@dataclass
class Step:
    """A command, what the document says came of it, and where in the document that stands (first line, end)."""

    command: str
    output: list[str]
    span: tuple[int, int]


@dataclass(frozen=True)
class File:
    """A file that the reader is to make."""

    name: str
    content: str


@dataclass
class Document:
    """A document as a session: what to have before, what to do in order."""

    path: Path
    lines: list[str]
    given: set[str] = field(default_factory=set)
    acts: list[Step | File] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Document:
        """The session of a Markdown file."""
        document = cls(path, path.read_text().splitlines())
        remark, fence = "", None
        for number, line in enumerate(document.lines):
            if fence is not None:
                if line.startswith("```"):
                    document._take(fence, number, remark)
                    fence, remark = None, ""
            elif line.startswith("```"):
                fence = number
            elif found := re.fullmatch(r"<!-- (file|given|not run): (.+) -->", line.strip()):
                if found[1] == "given":
                    document.given.add(found[2])
                else:
                    remark = f"{found[1]}:{found[2]}"
        return document

    @property
    def steps(self) -> list[Step]:
        return [act for act in self.acts if isinstance(act, Step)]

    def _take(self, first: int, last: int, remark: str) -> None:
        kind, _, what = remark.partition(":")
        if kind == "file":
            self.acts.append(File(what, "\n".join(self.lines[first + 1 : last]) + "\n"))
        elif kind != "not run" and self.lines[first].strip() == "```console":
            self.acts.extend(self._steps(first + 1, last))

    def _steps(self, first: int, last: int) -> Iterator[Step]:
        number = first
        while number < last:
            assert self.lines[number].startswith("$ "), f"{self.path.name}:{number + 1} is neither typed nor answered"
            command = self.lines[number][2:]
            number += 1
            while number < last and self.lines[number].startswith("> "):
                command += "\n" + self.lines[number][2:]
                number += 1
            begin = number
            while number < last and not self.lines[number].startswith("$ "):
                number += 1
            yield Step(command, self.lines[begin:number], (begin, number))


def agrees(step: Step, output: list[str]) -> bool:
    """Whether the output is what the document says, but for what varies."""
    varies = _VERSION_CELL if step.command.startswith(_TELLS_VERSIONS) else _VERSION_LINE
    expected, actual = ([varies.sub("N", _masked(line)) for line in lines] for lines in (step.output, output))
    pattern = []
    for line in expected:
        if line == "…":
            pattern.append(r"(?:.*\n)*?")
        else:
            pattern.append(".*".join(re.escape(part) for part in line.split("…")) + r"\n")
    text = "".join(line + "\n" for line in actual)
    return re.fullmatch("".join(pattern), text) is not None


def _masked(line: str) -> str:
    for varying, instead in _VARIES:
        line = varying.sub(instead, line)
    return line.strip()


class Terminal:
    """A terminal in a folder of its own, on which commands are typed one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / Path(SHOWN_FOLDER).name
        self.folder.mkdir(parents=True)
        self._state = folder / "state"
        self._state.mkdir()
        (self._state / "pwd").write_text(str(self.folder))
        (self._state / "env").write_text("")
        self._port = str(free_port())
        self._key = ""
        self._keepers: list[subprocess.Popen[bytes]] = []
        self._open: list[int] = []
        self._environment = self._make_environment(folder)

    def _make_environment(self, folder: Path) -> dict[str, str]:
        shims = folder / "bin"
        shims.mkdir()
        (shims / "pondkeeper").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pondkeeper.cli.main "$@"\n')
        for name in ("python", "dbt"):
            program = Path(sys.executable).with_name(name)
            if program.exists():
                (shims / name).write_text(f'#!/bin/sh\nexec "{program}" "$@"\n')
        for shim in shims.iterdir():
            shim.chmod(0o755)
        return program_environment(
            PATH=f"{shims}:{os.environ['PATH']}",
            HOME=str(self.folder.parent),
            TERM="xterm",
            NO_COLOR="1",
            COLUMNS=str(WIDTH),
            LINES="50",
            LC_ALL="C.UTF-8",
            PONDKEEPER_SERVER_PORT=self._port,
        )

    def type(self, command: str) -> list[str]:
        """What the command prints on the terminal; a keeper is left running."""
        typed = command.replace(SHOWN_PORT, self._port).replace(SHOWN_KEY, self._key).replace("pk_…", self._key)
        if typed.startswith(SERVES):
            return self._serve(typed.replace("script/server", "pondkeeper serve demo/flights.duckdb"))
        script = (
            f'trap "" HUP; set -a; cd "$(cat {self._state}/pwd)"; . {self._state}/env\n{typed}\n'
            f"code=$?; export -p > {self._state}/env; pwd > {self._state}/pwd; exit $code\n"
        )
        process, master = self._start(["bash", "-c", script])
        text = self._read(process, master, give_up_at=time.monotonic() + COMMAND_TIMEOUT_S)
        process.wait()
        os.close(master)
        return self._shown(text)

    def _serve(self, command: str) -> list[str]:
        process, master = self._start(["bash", "-c", f'cd "$(cat {self._state}/pwd)"; exec {command}'])
        self._keepers.append(process)
        self._open.append(master)
        text = self._read(process, master, give_up_at=time.monotonic() + 60.0, until="serving")
        if found := _KEY.search(text):
            self._key = found[0]
        return self._shown(text)

    def _start(self, command: list[str]) -> tuple[subprocess.Popen[bytes], int]:
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, WIDTH, 0, 0))
        process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=self._environment, start_new_session=True
        )
        os.close(slave)
        return process, master

    def _read(self, process: subprocess.Popen[bytes], master: int, *, give_up_at: float, until: str = "") -> str:
        """Until the program ends; of one that goes on, until it has said `until` and is quiet."""
        data = b""
        while time.monotonic() < give_up_at:
            readable, _, _ = select.select([master], [], [], QUIET_S if until else 0.2)
            if readable:
                try:
                    piece = os.read(master, 65536)
                except OSError:  # the terminal is closed at its other end
                    return data.decode(errors="replace")
                data += piece
            elif until and until.encode() in data:
                return data.decode(errors="replace")
        process.kill()
        raise AssertionError(f"it goes on and on:\n{data.decode(errors='replace')}")

    def _shown(self, text: str) -> list[str]:
        """The text as the document shows it: the reader's folder, the usual port, nobody's key."""
        text = re.sub(r"\r+\n", "\n", _ESCAPES.sub("", text))
        text = text.replace(str(self.folder), SHOWN_FOLDER).replace(f":{self._port}", f":{SHOWN_PORT}")
        text = _KEY.sub(SHOWN_KEY, text)
        lines = [line.rpartition("\r")[2].rstrip() for line in text.split("\n")]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    def close(self) -> None:
        """End what goes on in the background."""
        for process in self._keepers:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        for process, master in zip(self._keepers, self._open, strict=True):
            with contextlib.suppress(AssertionError):
                self._read(process, master, give_up_at=time.monotonic() + 40.0)
            process.wait(60)
            os.close(master)


def play(document: Document, folder: Path) -> Iterator[tuple[Step, list[str]]]:
    """Do what the document says, in order: each step with what came of it."""
    terminal = Terminal(folder)
    try:
        if "flights" in document.given:
            (terminal.folder / "demo").mkdir()
            shutil.copy(flights_file(), terminal.folder / "demo" / "flights.duckdb")
            shutil.copytree(
                REPOSITORY / "examples",
                terminal.folder / "examples",
                ignore=shutil.ignore_patterns("target", "logs", "__pycache__"),
            )
        for act in document.acts:
            if isinstance(act, File):
                place = terminal.folder / act.name
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_text(act.content)
            else:
                yield act, terminal.type(act.command)
    finally:
        terminal.close()
