"""A real PostgreSQL of the tests' own: a private cluster in a temporary folder, stopped, killed and started as one likes.

    with PostgresServer() as server:
        server.execute("CREATE TABLE t (id int PRIMARY KEY)")
        url = server.url("postgres")

Debian's server is enough (`script/test` installs it); any `initdb` on the PATH, or in the folder `PG_BIN`, is as good.
"""

from __future__ import annotations

import functools
import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.support.keeper import free_port, wait_until
from tests.support.processes import is_alive, tree

if TYPE_CHECKING:
    import psycopg

SUPERUSER: Final = "postgres"
PASSWORD: Final = "source-secret-of-the-tests"  # over TCP, of the superuser and of every role that `role` makes
READY_TIMEOUT_S: Final = 60.0

_LOGICAL: Final = {"wal_level": "logical", "max_wal_senders": "20", "max_replication_slots": "20", "max_connections": "60"}
# Why these: a source of somebody else's has its own ideas of how a value looks. Who reads by them is found out here.
_CONTRARY: Final = {
    "timezone": "Asia/Kolkata",
    "datestyle": "SQL, DMY",
    "intervalstyle": "sql_standard",
    "bytea_output": "escape",
    "extra_float_digits": "0",
}
# Why allowed: what is killed here is processes, never the machine, and the kernel keeps what they wrote. Not so
# synchronous_commit: without it, what was committed lies in the server's own memory for a while.
_HASTY: Final = {"fsync": "off", "full_page_writes": "off"}
# Ours, to look at the source: psycopg reads moments in one style only.
_PLAIN: Final = "-c datestyle=ISO -c timezone=UTC"
_ACCESS: Final = """\
local all all trust
local replication all trust
host all all 127.0.0.1/32 scram-sha-256
host replication all 127.0.0.1/32 scram-sha-256
"""


class PostgresServer:
    """One cluster on a free port of 127.0.0.1 and on a socket in `folder`; `with` starts it, ends it and removes it.

    `settings` go into postgresql.conf. `durable` for what is measured: fsync as a real source has it.
    """

    def __init__(self, settings: Mapping[str, str] | None = None, *, durable: bool = False) -> None:
        self._programs = _programs()
        self._user = _unprivileged_user()
        # Why not pytest's folder: PostgreSQL refuses to run as root, and its user may not enter root's folders. And a
        # path of more than 107 bytes is no socket.
        self.folder = Path(tempfile.mkdtemp(prefix="pond_pg_"))
        self.port = free_port()
        self._settings = {**_LOGICAL, **_CONTRARY, **({} if durable else _HASTY), **(settings or {})}
        self._process: subprocess.Popen[bytes] | None = None
        if self._user:
            os.chown(self.folder, self._user.pw_uid, self._user.pw_gid)
        self.data = self.folder / "data"

    # Life

    def make(self) -> PostgresServer:
        """Make the cluster, without starting it."""
        password = self.folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        options = ["--no-sync", "--encoding=UTF8", "--locale=C.UTF-8", f"--username={SUPERUSER}", f"--pwfile={password}"]
        self._run("initdb", f"--pgdata={self.data}", "--auth=trust", *options)
        password.unlink()
        self._write("pg_hba.conf", _ACCESS)
        fixed = {"port": str(self.port), "listen_addresses": "127.0.0.1", "unix_socket_directories": str(self.folder)}
        settings = {"shared_buffers": "64MB", "log_line_prefix": "%m [%p] %u@%d ", **self._settings, **fixed}
        text = "".join(f"{name} = '{value}'\n" for name, value in settings.items())
        self._write("postgresql.conf", text)
        return self

    def start(self) -> PostgresServer:
        """Start it, after a stop or a kill too, on the same port; returns when it takes connections."""
        assert not self.is_running(), "it runs already"
        if not self.data.exists():
            self.make()
        command = [str(self._programs / "postgres"), "-D", str(self.data)]
        if setpriv := shutil.which("setpriv"):
            command = [setpriv, "--pdeathsig", "KILL", *command]  # Why: a test run that is killed leaves no server behind
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, env=_environment(), **self._who()
            )
        wait_until(self._is_ready_or_gone, timeout_s=READY_TIMEOUT_S, what="PostgreSQL")
        assert self.is_running(), f"PostgreSQL did not start:\n{self.log()[-3000:]}"
        return self

    def stop(self, how: str = "fast") -> None:
        """Stop it as its service would: `fast` ends sessions, `immediate` leaves recovery to the next start."""
        signals = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
        self.process.send_signal(signals[how])
        self.process.wait(READY_TIMEOUT_S)

    def kill9(self) -> None:
        """`kill -9` of every process of the server at once, as the kernel would out of memory; wait until all are gone."""
        family = tree(self.process.pid)
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        # Why: as long as one of them lives, a start is refused: the shared memory is in use.
        wait_until(lambda: not any(is_alive(pid) for pid in family), what="the end of PostgreSQL's processes")

    def restart(self, how: str = "fast") -> PostgresServer:
        """Stop and start."""
        self.stop(how)
        return self.start()

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def dispose(self) -> None:
        """End it, whatever state it is in, and remove its folder."""
        if self.is_running():
            self.kill9()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> PostgresServer:
        try:
            return self.start()
        except BaseException:  # Why: nobody else knows of the folder.
            self.dispose()
            raise

    def __exit__(self, *_: object) -> None:
        self.dispose()

    # Use

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "it was never started"
        return self._process

    @property
    def log_path(self) -> Path:
        return self.folder / "log"

    def log(self) -> str:
        """What the server wrote to its log so far."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def url(self, database: str = "postgres", user: str = SUPERUSER, password: str = PASSWORD) -> str:
        """An address over TCP, with a password, as a user would write it."""
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def socket_url(self, database: str = "postgres", user: str = SUPERUSER) -> str:
        """An address over the socket, where nobody is asked for a password."""
        return f"postgresql://{user}@/{database}?host={self.folder}&port={self.port}"

    def connect(self, database: str = "postgres", **options: Any) -> psycopg.Connection[Any]:
        """A connection of the superuser; the caller closes it. Autocommit unless `autocommit=False`."""
        import psycopg

        return psycopg.connect(self.socket_url(database), **{"autocommit": True, "options": _PLAIN, **options})

    def execute(self, sql: str, parameters: Sequence[Any] | None = None, *, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run it on a connection of its own, committed; the rows of the last statement. `%` stands for itself without parameters."""
        with self.connect(database) as connection:
            cursor = connection.execute(sql, parameters)  # type: ignore[arg-type,unused-ignore]
            return cursor.fetchall() if cursor.description else []

    def new_database(self, prefix: str = "shop") -> str:
        """The name of a new, empty database."""
        name = f"{prefix}_{secrets.token_hex(4)}"
        self.execute(f'CREATE DATABASE "{name}"')
        return name

    def drop_database(self, name: str) -> None:
        """Drop it with its sessions and its replication slots."""
        slots = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE database = %s AND active"
        self.execute(slots, [name])
        idle = "SELECT count(*) FROM pg_replication_slots WHERE database = %s AND active"
        wait_until(lambda: self.execute(idle, [name]) == [(0,)], what="idle replication slots")
        drop = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = %s"
        self.execute(drop, [name], database=name)
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def role(self, name: str, attributes: str = "") -> str:
        """Make a role that may log in (with `PASSWORD` over TCP), such as `role("sync", "REPLICATION")`; its name."""
        assert re.fullmatch(r"[a-z_0-9]+", name)
        self.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}' {attributes}")
        return name

    def end_sessions(self, database: str) -> int:
        """Have the server end every other session of a database, as an administrator would; how many there were."""
        sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"
        return int(self.execute(sql, [database])[0][0])

    # Within

    def _is_ready_or_gone(self) -> bool:
        if not self.is_running():
            return True
        ready = [str(self._programs / "pg_isready"), "-q", "-h", str(self.folder), "-p", str(self.port)]
        if subprocess.run(ready, check=False, env=_environment()).returncode == 0:
            return True
        time.sleep(0.05)  # Why: each question is a process
        return False

    def _run(self, program: str, *arguments: str) -> None:
        answer = subprocess.run(
            [str(self._programs / program), *arguments], capture_output=True, text=True, check=False, cwd=self.folder,
            env=_environment(), **self._who(),
        )  # fmt: skip
        assert answer.returncode == 0, f"{program} failed:\n{answer.stdout}{answer.stderr}"

    def _write(self, name: str, text: str) -> None:
        (self.data / name).write_text(text)  # initdb made both; they keep their owner

    def _who(self) -> dict[str, Any]:
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []} if self._user else {}


def is_installed() -> bool:
    """Whether PostgreSQL's server programs are on this machine."""
    return _find() is not None


def _programs() -> Path:
    found = _find()
    if found is not None:
        return found
    message = "PostgreSQL's server is not installed: `script/test` installs it as root; else install the package postgresql"
    if os.environ.get("CI"):
        pytest.fail(message)  # Why: nobody reads what was skipped there
    pytest.skip(message)


@functools.cache
def _find() -> Path | None:
    folders = [Path(os.environ["PG_BIN"])] if "PG_BIN" in os.environ else []
    if program := shutil.which("initdb"):
        folders.append(Path(program).resolve().parent)
    versions = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if path.parent.name.isdigit()]
    folders += sorted(versions, key=lambda path: int(path.parent.name), reverse=True)
    return next((folder for folder in folders if (folder / "initdb").exists() and (folder / "postgres").exists()), None)


def _unprivileged_user() -> pwd.struct_passwd | None:
    """Who runs the server: None is we ourselves, as long as we are not root."""
    if os.geteuid() != 0:
        return None
    with suppress(KeyError):
        return pwd.getpwnam("postgres")
    return pwd.getpwnam("nobody")


def _environment() -> dict[str, str]:
    """Ours, without what libpq and the server would read from it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return kept | {"LC_ALL": "C.UTF-8", "TZ": "UTC"}
