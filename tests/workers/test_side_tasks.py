"""Side tasks: one that dies of a fault ends its process in order; one that ends or is cancelled does not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, sys
from pondkeeper.workers.side_tasks import SideTasks

async def fault(): raise KeyError("the watcher met what nobody thought of")
async def end(): return None
async def wait(): await asyncio.sleep(60)

async def main():
    tasks = SideTasks()
    task = tasks.start({"fault": fault, "end": end, "cancelled": wait}[sys.argv[1]]())
    await asyncio.sleep(0.05)
    tasks.cancel()
    await asyncio.sleep(0.05)
    print("went on")

asyncio.run(main())
"""


@pytest.mark.parametrize(("how", "status"), [("fault", -signal.SIGTERM), ("end", 0), ("cancelled", 0)])
def test_side_task_that_dies_of_a_fault_stops_the_process(how: str, status: int) -> None:
    """A fault is logged and becomes SIGTERM, which a keeper takes as the order to stop; an end is no fault."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, env=environment, check=False)

    assert run.returncode == status
    assert ("nobody thought of" in run.stdout + run.stderr) is (how == "fault")
    assert ("went on" in run.stdout) is (how != "fault")
