"""The short form of each part of the campaign of jobs. The long form: `script/campaign jobs`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.keeper import program_environment

CONTROLS = {"runs": 2, "captures": 2, "schedules": 4}
BUDGET_S = "60"


@pytest.mark.fault
@pytest.mark.timeout(400)
@pytest.mark.parametrize("part", list(CONTROLS))
def test_the_short_form_finds_nothing_but_its_controls(part: str, tmp_path: Path) -> None:
    """No violation under any kill, and every planted fault found; what failed is in the artefacts that the last line names."""
    command = [sys.executable, "-m", "campaigns.jobs", "--short", "--only", part, "--budget", BUDGET_S]
    done = subprocess.run(
        [*command, "--work", str(tmp_path)],
        capture_output=True, text=True, check=False, env=program_environment(), stdin=subprocess.DEVNULL,
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr
    assert sum("control" in line and line["found"] for line in lines) == CONTROLS[part]
    assert lines[-1]["violations"] == []
