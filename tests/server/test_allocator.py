"""Pieces of large answers come and go without asking the kernel for memory each time."""

from __future__ import annotations

import subprocess
import sys

import pytest

PIECES = """
import resource, sys
if sys.argv[1] == "keep":
    from pondkeeper.server.allocator import keep_freed_memory
    keep_freed_memory()
source = memoryview(bytearray(200_000))
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(300):
    pieces = [bytes(source) for _ in range(10)]
    del pieces
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _page_faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", PIECES, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_pieces_of_answers_cost_no_page_faults() -> None:
    """With freed memory kept the faults are those of the first pieces; without (the control) they go on."""
    control = _page_faults("default")
    if control < 5000:
        pytest.skip("this allocator keeps freed memory by itself")
    assert _page_faults("keep") < control / 5
