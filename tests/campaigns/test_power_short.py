"""The short form of the campaign of power cuts: states rebuilt from recorded calls. The long form: `script/campaign power`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from campaigns.diskstates import Disk
from campaigns.tracing import Call
from tests.support.keeper import program_environment

BUDGET_S = "45"  # on a busy machine fewer states, and never fewer than the controls need


def played(part: str, work: Path) -> list[dict[str, Any]]:
    """The lines of the short form of a part, which found nothing wrong; skips where it cannot be played."""
    command = [sys.executable, "-m", "campaigns.power", "--short", "--only", part, "--budget", BUDGET_S, "--work", str(work)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=program_environment(), stdin=subprocess.DEVNULL
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    if any("skipped" in line for line in lines):
        pytest.skip(str(lines[0]))
    shown = "\n".join([done.stderr, *(json.dumps(line) for line in lines if line.get("violations") or line.get("wrong"))])
    assert done.returncode == 0, shown
    assert lines[-1]["violations"] == []
    return lines


@pytest.mark.fault
@pytest.mark.privileged
@pytest.mark.timeout(600)  # several times what it takes here: recording under a tracer on a busy machine
@pytest.mark.parametrize("part", ["calls", "repair"])
def test_every_state_opens_by_itself_with_what_was_acknowledged(part: str, tmp_path: Path) -> None:
    """No acknowledged row is missing, nothing torn stays torn; DuckDB alone fails on some of the same states."""
    lines = played(part, tmp_path)
    assert [line["found"] for line in lines if "control" in line] == [True]
    assert next(line["states"] for line in lines if line.get("summary")) >= 100


@pytest.mark.fault
@pytest.mark.privileged
@pytest.mark.timeout(600)  # as above: keepers start and die again and again
def test_a_keeper_whose_disk_loses_its_power_comes_back_with_what_was_acknowledged(tmp_path: Path) -> None:
    """And is seen to lose it on a disk that does not sync; so does DuckDB alone on one that does."""
    lines = played("live", tmp_path)
    assert [line["found"] for line in lines if "control" in line] == [True, True]
    assert next(line["cuts"] for line in lines if line.get("summary")) >= 1


class Known:
    """A chance that always says the same: all is lost, or nothing is."""

    def __init__(self, *, keeps: bool) -> None:
        self._keeps = keeps

    def choice(self, options: list[object] | tuple[object, ...]) -> object:
        return options[-1] if self._keeps else options[0]

    def random(self) -> float:
        return 0.5 if self._keeps else 0.99


def disk_after(*calls: Call) -> Disk:
    disk = Disk(Path("/disk"))
    for call in calls:
        disk.take(call)
    return disk


CREATED = (
    Call("open", "/disk/f", descriptor=3, flags="O_CREAT"),
    Call("write", "/disk/f", descriptor=3, data=b"old", offset=0),
)
SYNCED = (Call("sync", "/disk/f", begins=True), Call("sync", "/disk/f"))
NAMED = (Call("sync", "/disk"),)


def test_what_was_not_synced_may_be_lost_and_may_be_kept() -> None:
    """Bytes by the file's fsync, names by the folder's: one without the other is not enough."""
    for calls, least in (
        (CREATED, {}),
        (CREATED + SYNCED, {}),
        (CREATED + NAMED, {"f": b""}),
        (CREATED + SYNCED + NAMED, {"f": b"old"}),
    ):
        disk = disk_after(*calls)
        assert disk.after_a_cut(Known(keeps=False)) == least  # type: ignore[arg-type]  # it decides as a Random does
        assert disk.after_a_cut(Known(keeps=True)) == {"f": b"old"}  # type: ignore[arg-type]  # it decides as a Random does


def test_what_is_written_during_an_fsync_is_not_in_it() -> None:
    """It may have come too late."""
    late = Call("write", "/disk/f", descriptor=3, data=b"new", offset=0)
    disk = disk_after(*CREATED, SYNCED[0], late, SYNCED[1], *NAMED)
    assert disk.after_a_cut(Known(keeps=False)) == {"f": b"old"}  # type: ignore[arg-type]  # it decides as a Random does
    assert disk.after_a_cut(Known(keeps=True)) == {"f": b"new"}  # type: ignore[arg-type]  # it decides as a Random does


def test_a_rename_is_lost_or_kept_as_a_whole() -> None:
    """Never both names, never none."""
    disk = disk_after(*CREATED, *SYNCED, *NAMED, Call("rename", "/disk/f", "/disk/g"))
    assert disk.after_a_cut(Known(keeps=False)) == {"f": b"old"}  # type: ignore[arg-type]  # it decides as a Random does
    assert disk.after_a_cut(Known(keeps=True)) == {"g": b"old"}  # type: ignore[arg-type]  # it decides as a Random does
