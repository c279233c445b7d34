"""CPU time of a process tree, from the kernel."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.processes import cpu_used_s, tree
from tests.support.keeper import wait_until

PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"


def test_the_cpu_of_a_grandchild_is_counted() -> None:
    """A busy grandchild shows in the tree of its grandparent; a sleeping one (the control) does not."""
    with grandchild("import time; print('on', flush=True); time.sleep(60)") as idle:
        before = tree(idle.pid)
        with grandchild("print('on', flush=True)\nwhile True: pass") as busy:
            busy_before = tree(busy.pid)
            wait_until(lambda: cpu_used_s(busy_before, tree(busy.pid)) > 0.2, what="CPU time of a grandchild")
        assert cpu_used_s(before, tree(idle.pid)) < 0.1


@contextmanager
def grandchild(code: str) -> Iterator[subprocess.Popen[bytes]]:
    """The parent of a process that runs this code, as soon as it has said something."""
    command = [sys.executable, "-c", PARENT.format(child=code)]
    with subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"on\n"
            yield process
        finally:
            os.killpg(process.pid, 9)
