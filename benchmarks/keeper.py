"""Start a keeper on a database file as a user would, and stop it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.lean import LeanClient
from benchmarks.network import free_port

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 15.0
_KEY = re.compile(r"pk_[A-Za-z0-9]+_[A-Za-z0-9_-]+")


class KeeperFailed(Exception):
    """The keeper did not come up; the end of its log is the message."""


@dataclass(frozen=True)
class RunningKeeper:
    url: str
    key: str
    pid: int
    home: Path
    log: Path
    name: str

    def client(self, timeout_s: float = 120.0) -> LeanClient:
        return LeanClient(self.url, self.key, self.name, timeout_s)

    @property
    def snapshots(self) -> Path:
        return self.home / "databases" / self.name / "snapshots"

    @property
    def published(self) -> Path:
        return self.home / "databases" / self.name / "published" / f"{self.name}.duckdb"


def environment(settings: dict[str, str]) -> dict[str, str]:
    """Our environment with these settings in it, for a program that starts in another folder."""
    named = {f"PONDKEEPER_{name.replace('.', '_').upper()}": value for name, value in settings.items()}
    # Why: there a relative entry would name nothing.
    search = [str(Path(entry).resolve()) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    return {**os.environ, "NO_COLOR": "1", "PYTHONPATH": os.pathsep.join(search), **named}


@contextmanager
def keeping(file: Path, **settings: str) -> Iterator[RunningKeeper]:
    """A keeper serving `file`, ready; settings by name with `__` for the dot: `readers__count="4"`."""
    with _running(file, ["serve", str(file)], settings, {}) as keeper:
        yield keeper


@contextmanager
def following(file: Path, primary: RunningKeeper, **settings: str) -> Iterator[RunningKeeper]:
    """A replica of the primary's database of that name, in the folder of `file`, ready."""
    file.parent.mkdir()
    command = ["replica", str(file.parent), "--from", primary.url]
    with _running(file, command, settings, {"PONDKEEPER_KEY": primary.key}) as keeper:
        yield keeper


@contextmanager
def _running(file: Path, words: list[str], settings: dict[str, str], more: dict[str, str]) -> Iterator[RunningKeeper]:
    home = file.parent / ".pondkeeper"
    log = file.parent / "keeper.log"
    port = free_port()
    command = [sys.executable, "-m", "pondkeeper.cli.main", *words, "--port", str(port)]
    variables = environment({name.replace("__", "."): value for name, value in settings.items()}) | more
    with log.open("wb") as output:
        # Why a session: as under a service manager, the kernel's scheduler then does not count our clients to the keeper.
        process = subprocess.Popen(
            command,
            cwd=file.parent,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_ready(process, url, log)
        yield RunningKeeper(url, _admin_key(log, home), process.pid, home, log, file.stem)
    finally:
        _stop(process)


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if LeanClient(url, "none", timeout_s=5.0).request("GET", "/health/ready", None).status == 200:
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise KeeperFailed(log.read_text(errors="replace")[-3000:])


def _admin_key(log: Path, home: Path) -> str:
    """The key that the first start prints; a later start on the same home makes a new one by the CLI."""
    printed = _KEY.search(log.read_text(errors="replace"))
    if printed:
        return printed.group()
    command = [sys.executable, "-m", "pondkeeper.cli.main", "--home", str(home), "key", "create", "benchmark"]
    made = subprocess.run([*command, "--role", "admin", "--json"], capture_output=True, text=True, check=False)
    found = _KEY.search(made.stdout)
    if not found:
        raise KeeperFailed(f"no key in the keeper's log, and `key create` said: {made.stdout}{made.stderr}")
    return found.group()


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
