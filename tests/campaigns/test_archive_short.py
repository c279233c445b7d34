"""The short form of each part of the campaign of the archive. The long form: `script/campaign archive`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.keeper import program_environment

TIMEOUTS = {"archivers": 300, "bucket": 300, "flips": 300, "full": 300, "points": 300, "replicas": 300, "restores": 300}
CONTROLS = {"archivers": 1, "bucket": 1, "flips": 2, "full": 1, "points": 2, "replicas": 5, "restores": 1}
BUDGET_S = "60"


@pytest.mark.fault
@pytest.mark.parametrize(
    "part", [pytest.param(part, marks=pytest.mark.timeout(timeout_s)) for part, timeout_s in TIMEOUTS.items()]
)
def test_the_short_form_finds_nothing_but_its_controls(part: str, tmp_path: Path) -> None:
    """No violation under any fault, and every planted fault found; what failed is in the artefacts that the last line names."""
    command = [sys.executable, "-m", "campaigns.archive", "--short", "--only", part, "--budget", BUDGET_S]
    done = subprocess.run(
        [*command, "--work", str(tmp_path)],
        capture_output=True, text=True, check=False, env=program_environment(), stdin=subprocess.DEVNULL,
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr
    assert sum("control" in line and line["found"] for line in lines) == CONTROLS[part]
    assert lines[-1]["violations"] == []
