"""A keeper asks its engine at the start whether it has anything that nobody has judged."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from pondkeeper.databases.judging import ENTRY, judge_engine
from pondkeeper.databases.registry import PRELOADING
from pondkeeper.errors import EngineUnjudged
from pondkeeper.workers.spawning import Template

HERE = Path(__file__).parent
MakeTemplate = Callable[..., Template]


@pytest.fixture
async def make_template(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[MakeTemplate]:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]))
    made: list[Template] = []

    def make(*more: str) -> Template:
        made.append(Template([PRELOADING, ENTRY, *more]))
        return made[-1]

    yield make
    for template in made:
        await template.stop()


async def test_an_engine_with_more_than_was_judged_does_not_start_in_strict_mode(make_template: MakeTemplate) -> None:
    with pytest.raises(EngineUnjudged, match="read_the_moon"):
        await judge_engine(make_template("engine_with_more"), "strict")


async def test_in_auto_mode_it_is_told_of(make_template: MakeTemplate) -> None:
    with capture_logs() as logged:
        await judge_engine(make_template("engine_with_more"), "auto")
    assert [line["unjudged"] for line in logged if "unjudged" in line] == [{"functions": ["read_the_moon"]}]


async def test_the_installed_engine_is_judged(make_template: MakeTemplate) -> None:
    """The control: neither an error nor a word."""
    with capture_logs() as logged:
        await judge_engine(make_template(), "strict")
    assert [line for line in logged if "unjudged" in line] == []
