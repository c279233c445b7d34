"""The short form of each part of the campaign of bombs, against real keepers. The long form: `script/campaign bombs`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from campaigns.arsenal import arsenal
from tests.support.keeper import program_environment

# Seconds, several times what a part takes here: a machine that is busy with other things is no finding.
TIMEOUTS = {"corpus": 400, "deaths": 240, "herd": 240}


def played(part: str, work: Path) -> tuple[int, list[dict[str, Any]], str]:
    """Exit code, lines and narration of one part in its short form."""
    command = [sys.executable, "-m", "campaigns.bombs", "--short", "--only", part, "--work", str(work)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=program_environment(), stdin=subprocess.DEVNULL
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


@pytest.mark.fault
@pytest.mark.parametrize(
    "part", [pytest.param(part, marks=pytest.mark.timeout(timeout_s)) for part, timeout_s in TIMEOUTS.items()]
)
def test_every_bomb_ends_and_nothing_stays(part: str, tmp_path: Path) -> None:
    """No violation, and the planted fault found; what failed is in the artefacts that the last line names."""
    code, lines, narration = played(part, tmp_path)
    assert code == 0, narration
    assert [line["found"] for line in lines if "control" in line] == [True]
    assert lines[-1]["violations"] == []


def test_the_arsenal_is_what_it_says() -> None:
    """Sixty bombs and more, each under a name of its own, with an end."""
    names = [bomb.name for bomb in arsenal()]
    assert len(names) == len(set(names)) >= 60
    assert all(bomb.ends for bomb in arsenal())
