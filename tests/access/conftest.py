"""A control.db of one's own, and other processes that work on it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from pondkeeper.access.keyring import Keyring
from pondkeeper.access.keys import Keys
from pondkeeper.access.store import Store

PRELUDE = """
import os, signal, sqlite3, sys, time
from pathlib import Path
import pondkeeper.access.store as store_module
from pondkeeper.access.keys import Keys
from pondkeeper.access.store import Store
control_db = Path(sys.argv[1])
"""


class OtherProcess:
    """Runs Python code on the control.db in a process of its own, as the CLI does."""

    def __init__(self, control_db: Path) -> None:
        self._control_db = control_db

    def start(self, code: str, *arguments: str) -> subprocess.Popen[str]:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        command = [sys.executable, "-c", PRELUDE + code, str(self._control_db), *arguments]
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )

    def run(self, code: str, *arguments: str) -> str:
        """Its stdout; fails when it fails."""
        with self.start(code, *arguments) as process:
            output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        return output.strip()


@pytest.fixture
def control_db(tmp_path: Path) -> Path:
    return tmp_path / "home" / "control.db"


@pytest.fixture
def other_process(control_db: Path) -> OtherProcess:
    return OtherProcess(control_db)


@pytest.fixture
def store(control_db: Path) -> Iterator[Store]:
    with Store.open(control_db) as store:
        yield store


@pytest.fixture
def keys(store: Store) -> Keys:
    return Keys(store)


@pytest.fixture
async def keyring(control_db: Path) -> AsyncIterator[Keyring]:
    keyring = await Keyring.open(control_db)
    yield keyring
    await keyring.close()
