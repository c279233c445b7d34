"""The short form of the campaign of the gate; the whole of it is `script/campaign gate`."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from campaigns.canaries import TOKEN, leaks
from campaigns.vectors import Targets, vectors
from pondkeeper.workers.walls import try_walls
from tests.support.keeper import program_environment

CONTROLS = {"doors": 9, "fence": 3}
LEAST_VECTORS = 1500


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose name leaves room for that of a socket, of which the kernel takes 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="gate-") as folder:
        yield Path(folder)


@pytest.mark.fault
@pytest.mark.timeout(300)
@pytest.mark.skipif(any(try_walls().values()), reason="this kernel cannot put up every wall")
@pytest.mark.parametrize("part", list(CONTROLS))
def test_nothing_gets_out(part: str, short_folder: Path) -> None:
    """No vector reads, makes, reaches, changes or shows anything; without the fence they do."""
    command = [sys.executable, "-m", "campaigns.gate", "--short", "--only", part, "--work", str(short_folder)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=program_environment(), stdin=subprocess.DEVNULL
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr
    assert sum("control" in line and line["found"] for line in lines) == CONTROLS[part]


def test_the_corpus_is_large_and_without_doubles() -> None:
    targets = Targets(*(f"/bait/{number}" for number in range(9)), url="http://127.0.0.1:9")
    found = vectors(targets)
    assert len(found) >= LEAST_VECTORS
    assert len({vector.texts for vector in found}) == len(found)


def test_a_leak_is_seen_and_an_echo_is_none() -> None:
    assert leaks(f'{{"rows": [["{TOKEN}"]]}}', "FROM 'secret.csv'") == [TOKEN]
    assert leaks("root:x:0:0:root", "FROM '/etc/passwd'") == ["root:x:0"]
    assert leaks(f"no such table {TOKEN}", f"FROM {TOKEN}") == []
