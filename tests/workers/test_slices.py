"""A process asks the kernel for short or long slices; nothing else of how it is scheduled changes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pondkeeper.workers import slices

BUSY = "import os, threading; threading.Thread(target=threading.Event().wait, daemon=True).start(); os.nice(3); print('up', flush=True); input()"


@contextmanager
def _process() -> Iterator[int]:
    """A process with two threads and a nice value of 3."""
    process = subprocess.Popen([sys.executable, "-c", BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
    finally:
        process.kill()
        process.communicate()


def _slices(pid: int) -> set[float | None]:
    return {slices.slice_s(int(thread)) for thread in os.listdir(f"/proc/{pid}/task")}


def _kernel_has_slices() -> bool:
    return bool(slices.slice_s(threading.get_native_id()))


@pytest.mark.skipif(
    not _kernel_has_slices(), reason="this kernel does not say slices (before 6.12, or another machine)"
)
def test_every_thread_gets_what_is_asked_for_and_can_get_it_back() -> None:
    """Long, then short again, in all threads of another process; a kernel that ignored it would show its own length."""
    with _process() as pid:
        for wanted in (slices.LONG_S, slices.SHORT_S):
            slices.ask_for(pid, wanted)
            assert _slices(pid) == {wanted}


def test_the_nice_value_stays() -> None:
    """Asking for a slice sets the whole record of the scheduler: what we did not mean to change is as it was."""
    with _process() as pid:
        before = os.getpriority(os.PRIO_PROCESS, pid)
        slices.ask_for(pid, slices.LONG_S)
        assert os.getpriority(os.PRIO_PROCESS, pid) == before
        assert os.sched_getscheduler(pid) == os.SCHED_OTHER


def test_a_process_that_is_gone_is_no_error() -> None:
    """A reader may die at any moment: asking for its sake must not raise."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    slices.ask_for(process.pid, slices.LONG_S)
