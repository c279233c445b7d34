"""Fixtures that every room may use: real keepers, the flights warehouse, the engine line under test."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Generator, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from _pytest._code.code import ExceptionRepr

from tests.support.keeper import KeeperProcess
from tests.support.postgres import PostgresServer
from tests.support.warehouse import flights_file

StartKeeper = Callable[..., KeeperProcess]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Why: a shell starts what runs in the background with interrupts ignored, and every program that we start inherits it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With a failed test, what its keepers logged of errors: the answer to a client says no more than that there was one."""
    report = yield
    if report.failed and isinstance(report.longrepr, ExceptionRepr):
        for keeper in KeeperProcess.living:
            if troubles := keeper.troubles():
                report.longrepr.addsection(f"the log of the keeper on port {keeper.port}", "\n".join(f"E   {line}" for line in troubles))
    return report


@pytest.fixture(scope="session", autouse=True)
def no_settings_from_outside() -> Iterator[None]:
    """No setting of the person who runs the tests may reach them, nor what they share."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("PONDKEEPER_")]:
            patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def duckdb_version() -> tuple[int, ...]:
    """The engine line under test, e.g. (1, 5, 5)."""
    return tuple(int(part) for part in version("duckdb").split(".")[:3])


@pytest.fixture(scope="session")
def flights_master() -> Path:
    """The flights warehouse that copies are taken from; never open it for writing."""
    return flights_file()


@pytest.fixture
def flights(flights_master: Path, tmp_path: Path) -> Path:
    """A flights warehouse of the test's own."""
    folder = tmp_path / "flights"
    folder.mkdir()
    return Path(shutil.copy(flights_master, folder / "flights.duckdb"))


@pytest.fixture
def start_keeper(tmp_path: Path) -> Iterator[StartKeeper]:
    """Starts keepers: `start_keeper()` on a new database, `start_keeper(path, "--readers", "2")` on that one."""
    started: list[KeeperProcess] = []

    def start(target: Path | None = None, *arguments: str, **options: Any) -> KeeperProcess:
        keeper = KeeperProcess(target or tmp_path / "pond.duckdb", *arguments, **options)
        started.append(keeper)
        return keeper.start()

    yield start
    for keeper in started:
        keeper.dispose()


@pytest.fixture
def keeper(start_keeper: StartKeeper) -> KeeperProcess:
    """A keeper on a new, empty database."""
    return start_keeper()


@pytest.fixture
def flights_keeper(start_keeper: StartKeeper, flights: Path) -> KeeperProcess:
    """A keeper on a flights warehouse of the test's own."""
    return start_keeper(flights)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL that all tests of a run share; who stops or kills it starts it again. Each takes a database of its own."""
    with PostgresServer() as server:
        yield server


@pytest.fixture
def source(postgres: PostgresServer) -> Iterator[str]:
    """The name of a new, empty database of that PostgreSQL; dropped after the test, with its replication slots."""
    if not postgres.is_running():
        postgres.start()
    name = postgres.new_database()
    yield name
    if not postgres.is_running():
        postgres.start()
    postgres.drop_database(name)
