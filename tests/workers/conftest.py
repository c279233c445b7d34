"""A template that can fork the tests' own child."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pondkeeper.workers.spawning import ChildSpec, Template

HERE = Path(__file__).parent
ECHO = "echo_child"


@pytest.fixture
async def template(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Template]:
    paths = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    template = Template([ECHO])
    yield template
    await template.stop()


@pytest.fixture
def echo() -> ChildSpec:
    return ChildSpec("echo", ECHO, {"colour": "green"}, {"data": 900_000_000}, oom_score_adj=500)
