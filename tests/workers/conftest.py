"""A template that can fork the tests' own child."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pondkeeper.workers.child import Child
from pondkeeper.workers.fence import Fence
from pondkeeper.workers.spawning import ChildSpec, Template

HERE = Path(__file__).parent
ECHO = "echo_child"


class RecordingTemplate(Template):
    """A template that remembers its children, so that none outlives its test."""

    def __init__(self, modules: list[str]) -> None:
        super().__init__(modules)
        self.children: list[Child] = []

    async def spawn(self, spec: ChildSpec) -> Child:
        self.children.append(await super().spawn(spec))
        return self.children[-1]


@pytest.fixture
async def template(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Template]:
    paths = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    template = RecordingTemplate([ECHO])
    yield template
    await template.stop()
    for child in template.children:
        child.kill()
        await child.exited
        child.close()
    await asyncio.sleep(0)  # the closed transports are taken down in the next turn of the loop


@pytest.fixture
def echo() -> ChildSpec:
    fence = Fence(read=("/proc/self",))
    return ChildSpec("echo", ECHO, {"colour": "green"}, {"data": 900_000_000}, oom_score_adj=500, fence=fence)
