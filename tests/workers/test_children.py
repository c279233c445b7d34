"""Children: forked from the template, the keeper's own, fenced, and ended by the kernel."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pondkeeper.workers.child import Child, ChildGone
from pondkeeper.workers.spawning import ChildSpec, Template, TemplateFailed


async def started(template: Template, spec: ChildSpec) -> Child:
    child = await template.spawn(spec)
    assert await child.next_frame() == {"op": "ready"}
    return child


async def facts_of(child: Child) -> dict[str, Any]:
    child.send({"op": "facts"})
    frame = await child.next_frame()
    assert isinstance(frame, dict)
    return frame


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_child_is_the_keepers_own_and_fenced(template: Template, echo: ChildSpec) -> None:
    """A child's parent is the keeper, its environment empty, its limits set, and no descriptor leaks into it."""
    os.environ["SECRET_FOR_NOBODY"] = "x"
    try:
        child = await started(template, echo)
        facts = await facts_of(child)
    finally:
        del os.environ["SECRET_FOR_NOBODY"]
    child.kill()

    assert facts["parent"] == os.getpid()
    assert facts["pid"] == child.pid
    assert facts["environment"] == {}
    assert facts["config"] == {"colour": "green"}
    assert facts["data_limit"] == 900_000_000
    assert facts["oom_score_adj"] == 500
    assert facts["no_new_privileges"] is True
    assert len(facts["descriptors"]) <= 8  # 0, 1, 2, pipe, control, and the three that reading the facts opens


async def test_killed_child_tells_its_signal(template: Template, echo: ChildSpec) -> None:
    """SIGKILL ends a child that hangs, and whoever waits for it learns how it died."""
    child = await started(template, echo)
    child.send({"op": "hang"})
    child.kill()

    with pytest.raises(ChildGone) as gone:
        await child.next_frame()
    assert gone.value.status == -signal.SIGKILL


async def test_child_tells_its_exit_code(template: Template, echo: ChildSpec) -> None:
    """A child that ends by itself leaves its exit code, and no zombie."""
    child = await started(template, echo)
    child.send({"op": "exit"})

    with pytest.raises(ChildGone) as gone:
        await child.next_frame()
    assert gone.value.status == 3
    assert not Path(f"/proc/{child.pid}").exists()


async def test_interrupt_carries_its_number(template: Template, echo: ChildSpec) -> None:
    """An interrupt names the request that it means, so that a late one cannot hit the next."""
    child = await started(template, echo)
    child.send({"op": "wait"})
    child.interrupt(41)

    assert await child.next_frame() == {"op": "interrupted", "number": 41}
    child.kill()


async def test_dead_template_is_replaced(template: Template, echo: ChildSpec) -> None:
    """The death of the template costs nothing: its children live on, and the next child comes from a new one."""
    first = await started(template, echo)
    assert template.pid is not None
    os.kill(template.pid, signal.SIGKILL)
    second = await started(template, echo)

    assert (await facts_of(first))["pid"] == first.pid
    assert (await facts_of(second))["parent"] == os.getpid()
    first.kill()
    second.kill()


async def test_template_that_cannot_import_is_an_error() -> None:
    """A template whose imports fail says so instead of hanging."""
    template = Template(["no_such_module"])
    with pytest.raises(TemplateFailed):
        await template.spawn(ChildSpec("x", "no_such_module", {}))


async def test_back_pressure_bounds_the_keepers_memory(template: Template, echo: ChildSpec) -> None:
    """A child that sends without end is held up while nobody reads, instead of filling the keeper."""
    child = await started(template, echo)
    child.send({"op": "data", "frames": 200, "size_bytes": 1 << 20})
    await asyncio.sleep(0.3)
    buffered = child.buffered_bytes
    received = 0
    while isinstance(frame := await child.next_frame(), bytes):
        received += len(frame)
    child.kill()

    assert buffered <= 4 << 20
    assert received == 200 << 20


@pytest.mark.parametrize("victim", ["keeper", "template"])
def test_children_die_with_the_keeper_only(tmp_path: Path, victim: str) -> None:
    """kill -9 of the keeper ends every child at once; of the template, none (the positive control)."""
    program = tmp_path / "little_keeper.py"
    program.write_text(
        "import asyncio\n"
        "from pondkeeper.workers.spawning import ChildSpec, Template\n"
        "async def main():\n"
        "    template = Template(['echo_child'])\n"
        "    child = await template.spawn(ChildSpec('echo', 'echo_child', {}))\n"
        "    await child.next_frame()\n"
        "    print(template.pid, child.pid, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    here = str(Path(__file__).parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([here, *sys.path])}
    keeper = subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, env=environment)
    assert keeper.stdout is not None
    template_pid, child_pid = map(int, keeper.stdout.readline().split())

    os.kill(keeper.pid if victim == "keeper" else template_pid, signal.SIGKILL)
    deadline = time.monotonic() + (40 if victim == "keeper" else 0.3)
    while is_alive(child_pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    survived = is_alive(child_pid)
    keeper.kill()
    keeper.communicate()

    assert survived is (victim == "template")
