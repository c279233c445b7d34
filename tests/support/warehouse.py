"""The flights warehouse for tests: built once per engine line and build script, kept in `.cache/`."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from tests.support.keeper import REPOSITORY, program_environment

BUILD = REPOSITORY / "examples" / "flights" / "build.py"
CACHE = REPOSITORY / ".cache"
DBT_PROJECT = REPOSITORY / "examples" / "flights" / "dbt"

FLIGHTS = 336_776
TOTAL_DISTANCE = 350_217_607
CARRIERS = 16


def flights_file() -> Path:
    """The built warehouse; nobody may write it: tests take a copy."""
    recipe = hashlib.sha256(BUILD.read_bytes()).hexdigest()[:8]
    target = CACHE / f"flights-{version('duckdb')}-{recipe}" / "flights.duckdb"
    if not target.exists():
        command = [sys.executable, str(BUILD), str(target), "--cache", str(CACHE / "data")]
        answer = subprocess.run(command, capture_output=True, text=True, env=program_environment(), check=False)
        assert answer.returncode == 0, answer.stderr
    return target
