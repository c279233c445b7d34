"""CPU time of a process tree, from the kernel."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from benchmarks.processes import cpu_used_s, tree

PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"


def test_the_cpu_of_a_grandchild_is_counted() -> None:
    """A busy grandchild shows in the tree of its grandparent; a sleeping one (the control) does not."""
    used = {}
    for name, child in {"busy": "while True: pass", "idle": "import time; time.sleep(60)"}.items():
        process = subprocess.Popen([sys.executable, "-c", PARENT.format(child=child)], start_new_session=True)
        try:
            while len(tree(process.pid)) < 2:
                time.sleep(0.01)
            time.sleep(0.5)
            before = tree(process.pid)
            time.sleep(1.0)
            used[name] = cpu_used_s(before, tree(process.pid))
        finally:
            os.killpg(process.pid, 9)
            process.wait()
    assert used["busy"] > 0.1
    assert used["idle"] < 0.05
