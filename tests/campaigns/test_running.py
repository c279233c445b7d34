"""The frame of campaigns: seeds, exit codes, artefacts; and the plan that a seed draws."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from campaigns import kill
from campaigns.running import Options, Stage, percentile, play
from campaigns.victims import VICTIMS


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def well(stage: Stage) -> None:
    stage.room("place")
    stage.line(round=1, drawn=stage.chance.random())


def violating(stage: Stage) -> None:
    (stage.room("place") / "evidence").write_text("here")
    stage.violated(["a row is lost"])


def blind(stage: Stage) -> None:
    stage.control("a planted fault", [])


def breaking(stage: Stage) -> None:
    raise RuntimeError("out of luck")


def test_a_campaign_without_findings_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 0, a line per round with the seed in the last, no folder left."""
    assert play({"well": well}, Options(seed=3, work=tmp_path)) == 0
    first, last = lines(capsys)
    assert first["round"] == 1
    assert (last["over"], last["seed"], last["violations"], last["artefacts"]) == (True, 3, [], None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("part", [violating, blind, breaking])
def test_a_finding_is_an_exit_code_and_stays(part: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A violation, a control that was not found, a part that breaks off: each fails the campaign; the others still play."""
    assert play({"bad": part, "well": well}, Options(seed=3, work=tmp_path)) == 1  # type: ignore[dict-item]
    ends = [line for line in lines(capsys) if line.get("over")]
    assert [bool(line["violations"]) for line in ends] == [True, False]
    assert Path(str(ends[0]["artefacts"])).is_dir()


def test_the_same_seed_draws_the_same_plan() -> None:
    """And another seed another one; each victim and each of its moments has its rounds."""
    rounds = kill.plan(Options(seed=1))
    assert rounds == kill.plan(Options(seed=1))
    assert rounds != kill.plan(Options(seed=2))
    assert len(rounds) == 2_000
    assert len(kill.plan(Options(seed=1, short=True))) == 200
    assert {(each.victim, each.moment) for each in rounds} == {
        (name, moment) for name, victim in VICTIMS.items() for moment in victim.moments
    }
    assert rounds[:200] == kill.plan(Options(seed=1, short=True))


def test_percentiles_are_values_that_were_measured() -> None:
    """The nearest rank, and None of nothing."""
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([float(value) for value in range(1, 101)], 0.99) == 99.0
    assert percentile([], 0.5) is None
