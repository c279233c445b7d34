"""A real keeper in a process of its own, handled as an operator would: start, use, kill, stop."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import httpx

from pondkeeper.client.client import Client
from pondkeeper.files.paths import DatabasePaths, Home, default_home

REPOSITORY = Path(__file__).parents[2]
READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 40.0
WAIT_TIMEOUT_S = 40.0  # Why that long: two lanes of CI share two cores, and waiting costs nothing where it is not in vain
_TRACE = re.compile(r"\s{2,}|\^+")
_KEY = re.compile(r"pk_[A-Za-z0-9]+_[A-Za-z0-9_-]+")


def program_environment(**extra: str) -> dict[str, str]:
    """The environment of programs that tests start: ours, without settings of a keeper, with the checkout importable."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PONDKEEPER_")}
    kept.pop("PYTHONDONTWRITEBYTECODE", None)  # Why: without cached bytecode every start compiles everything again.
    paths = [str(REPOSITORY / "src"), str(REPOSITORY), *filter(None, [kept.get("PYTHONPATH")])]
    return kept | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"} | extra


def command_line(*arguments: str) -> list[str]:
    """How `pondkeeper ARGUMENTS…` is started from this checkout."""
    return [sys.executable, "-m", "pondkeeper.cli.main", *arguments]


def pondkeeper(
    *arguments: str, stdin: str | None = None, timeout_s: float = 60.0, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run one command of the CLI to its end."""
    return subprocess.run(
        command_line(*arguments),
        input=stdin if stdin is not None else "",
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env=program_environment(**environment),
        check=False,
    )


def free_port() -> int:
    """A port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], Any], *, timeout_s: float = WAIT_TIMEOUT_S, what: str = "the condition") -> Any:
    """Poll until `condition()` is true, and return its value; an AssertionError names what did not come."""
    give_up_at = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > give_up_at:
            raise AssertionError(f"{what} did not come within {timeout_s} s")
        time.sleep(0.02)


class KeeperProcess:
    """`pondkeeper serve TARGET` as its own process; `with KeeperProcess(path) as keeper:` starts and stops it."""

    command = "serve"
    living: ClassVar[weakref.WeakSet[KeeperProcess]] = weakref.WeakSet()

    def __init__(
        self,
        target: Path,
        *arguments: str,
        home: Path | None = None,
        environment: Mapping[str, str] | None = None,
        under: Sequence[str] = (),
    ) -> None:
        self.target = target
        self.home = Home(home or default_home(target))
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._arguments = [*arguments, *(["--home", str(home)] if home else [])]
        self._environment = dict(environment or {})
        self._under = list(under)  # a program that starts it as its own process, such as `strace -D`
        self._process: subprocess.Popen[bytes] | None = None
        self._clients: list[Client] = []
        self._key: str | None = None
        folder = target if target.is_dir() else target.parent
        self._log_path = folder / f".keeper-{self.port}.log"
        self.living.add(self)

    # Life

    def launch(self) -> KeeperProcess:
        """Start it without waiting for it."""
        assert self._process is None or self._process.poll() is not None, "it runs already"
        command = self._under + command_line(self.command, str(self.target), "--port", str(self.port), *self._arguments)
        # Why: a test run that is killed must leave no keeper behind.
        if setpriv := shutil.which("setpriv"):
            command = [setpriv, "--pdeathsig", "KILL", *command]
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=program_environment(PONDKEEPER_LOG_FORMAT="json", **self._environment),
                cwd=self._log_path.parent,
            )
        return self

    def start(self) -> KeeperProcess:
        """Start it and wait until it is ready."""
        return self.launch().wait_ready()

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> KeeperProcess:
        """Wait for /health/ready; an early death or a late start fails with the log."""
        give_up_at = time.monotonic() + timeout_s
        while not self.is_ready():
            if self.process.poll() is not None:
                raise AssertionError(f"the keeper ended with exit code {self.process.returncode}:\n{self.log()}")
            if time.monotonic() > give_up_at:
                raise AssertionError(f"the keeper was not ready within {timeout_s} s:\n{self.log()}")
            time.sleep(0.02)
        return self

    def is_ready(self) -> bool:
        """Whether /health/ready says so."""
        # Why not httpx: it reads all certificates for each call, 15 ms that the keeper lacks while it starts.
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5.0)
        try:
            connection.request("GET", "/health/ready")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def terminate(self) -> None:
        """SIGTERM, as a service manager sends it."""
        self.process.send_signal(signal.SIGTERM)

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """SIGTERM, and wait for the end; the exit code. One that does not end is killed, and the test fails."""
        if not self.is_running():
            return self.process.returncode
        self.terminate()
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill9()
            raise AssertionError(f"the keeper did not stop within {timeout_s} s:\n{self.log()}") from None

    def kill9(self) -> None:
        """`kill -9` of the keeper, and wait until it is gone."""
        self.process.kill()
        self.process.wait()

    def restart(self) -> KeeperProcess:
        """Start it again on the same port, after a stop or a kill."""
        self._forget_clients()
        return self.start()

    def __enter__(self) -> KeeperProcess:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.dispose()

    def dispose(self) -> None:
        """End it, whatever state it is in."""
        self._forget_clients()
        if self._process is not None:
            try:
                self.stop()
            finally:
                if self.is_running():
                    self.kill9()

    # Use

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "it was never started"
        return self._process

    @property
    def pid(self) -> int:
        return self.process.pid

    def log(self) -> str:
        """Everything it has written to stdout and stderr so far."""
        return self._log_path.read_text(errors="replace") if self._log_path.exists() else ""

    def troubles(self) -> list[str]:
        """The last line of the last exceptions that it logged, with where they were raised."""
        lines = [line for line in self.log().splitlines() if '"exception"' in line or line.startswith("Traceback")]
        told = [_TRACE.sub(" … ", line[-1200:].replace("\\n", " ")) for line in lines]
        return list(dict.fromkeys(line[-220:] for line in told))[-3:]

    @property
    def key(self) -> str:
        """The admin key that the first start printed."""
        if self._key is None:
            # Why a wait: the keeper is ready a moment before it prints the key.
            found = wait_until(lambda: _KEY.search(self.log()), what="an admin key in the log")
            self._key = str(found[0])
        return self._key

    @property
    def database(self) -> DatabasePaths:
        """The paths of its database (of one that serves a file)."""
        return self.home.database(self.target)

    def client(self, key: str | None = None, **options: Any) -> Client:
        """A client over HTTP, with the admin key unless another is given; closed when the keeper is disposed of."""
        client = Client(self.url, key or self.key, **options)
        self._clients.append(client)
        return client

    def local_client(self, **options: Any) -> Client:
        """A client over the control socket, which needs no key."""
        client = Client.local(self.home.root, **options)
        self._clients.append(client)
        return client

    def cli(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """`pondkeeper COMMAND --home … ARGUMENTS`; the first argument is the command."""
        command, *rest = arguments
        return pondkeeper(command, "--home", str(self.home.root), *rest, **options)

    def http(self) -> httpx.Client:
        """A bare HTTP client with the admin key, for tests of the wire itself; the caller closes it."""
        return httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {self.key}"}, timeout=60.0, trust_env=False, verify=False
        )

    def _forget_clients(self) -> None:
        while self._clients:
            self._clients.pop().close()

    # Its children

    def children(self, name: str = "") -> list[int]:
        """The pids of its children whose process name begins with `pond-NAME`; all of them for an empty name."""
        return [pid for pid, comm in _children_of(self.pid) if not name or comm.startswith(f"pond-{name}")]

    def writer_pid(self, timeout_s: float = WAIT_TIMEOUT_S) -> int:
        """The pid of its writer; waits for one."""
        return int(wait_until(lambda: self.children("writer"), timeout_s=timeout_s, what="a writer")[0])


def _children_of(parent: int) -> Iterator[tuple[int, str]]:
    """Direct children of a process and their names; the keeper adopts all of its own (it is their subreaper)."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            text = (entry / "stat").read_text()
        except OSError:  # it has ended meanwhile
            continue
        comm, rest = text[text.index("(") + 1 : text.rindex(")")], text[text.rindex(")") + 2 :]
        if int(rest.split()[1]) == parent and rest[0] != "Z":
            yield int(entry.name), comm


@contextmanager
def keepers(*prepared: KeeperProcess) -> Iterator[Sequence[KeeperProcess]]:
    """Dispose of these keepers at the end, whether they were started or not."""
    try:
        yield prepared
    finally:
        for keeper in prepared:
            keeper.dispose()
