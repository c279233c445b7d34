"""The short form of each part of the campaign of writes, against real keepers. The long form: `script/campaign writes`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.keeper import program_environment

# Seconds, several times what a part takes here: a machine that is busy with other things is no finding.
TIMEOUTS = {"kill": 900, "recovery": 300, "torn": 400, "disk": 300, "errors": 300, "history": 600}
# On a busy machine a part makes fewer rounds instead of holding up everybody; on a quiet one all take less than half of it.
BUDGETS_S = {"kill": 240}
BUDGET_S = 120
KILLS = 200
CONTROLS = {"kill": 3, "recovery": 1, "torn": 1, "disk": 1, "errors": 2, "history": 13}


def played(part: str, work: Path) -> tuple[int, list[dict[str, Any]], str]:
    """Exit code, lines and narration of one part in its short form."""
    command = [sys.executable, "-m", "campaigns.writes", "--short", "--only", part, "--budget", str(BUDGETS_S.get(part, BUDGET_S))]
    command += ["--work", str(work)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=program_environment(), stdin=subprocess.DEVNULL
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


@pytest.mark.fault
@pytest.mark.parametrize(
    "part", [pytest.param(part, marks=pytest.mark.timeout(timeout_s)) for part, timeout_s in TIMEOUTS.items()]
)
def test_the_short_form_finds_nothing_but_its_controls(part: str, tmp_path: Path) -> None:
    """No violation under any fault, and every planted fault found; what failed is in the artefacts that the last line names."""
    code, lines, narration = played(part, tmp_path)
    if any("skipped" in line for line in lines):
        pytest.skip(str(lines[0]))
    shown = "\n".join([narration, *(json.dumps(line) for line in lines if line.get("violations"))])
    assert code == 0, shown
    assert sum("control" in line and line["found"] for line in lines) == CONTROLS[part]
    assert lines[-1]["violations"] == []
    if part == "kill":
        [summary] = [line for line in lines if line.get("summary")]
        made, seconds = summary["rounds"], lines[-1]["seconds"]
        assert made == KILLS or seconds > BUDGETS_S[part], f"{made} rounds in {seconds} s"
