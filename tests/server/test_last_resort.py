"""The last resort of a stop ends the process whatever has become of stderr."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pondkeeper.server.last_resort import EXIT_CODE
from tests.support.keeper import program_environment

STUCK = """
import asyncio, os, signal
from pondkeeper.server import last_resort

last_resort.AFTER_S = 0.2
signal.signal(signal.SIGPIPE, signal.SIG_IGN)

async def waits_in_vain():
    last_resort.LastResort(asyncio.get_running_loop()).arm(0.0)
    await asyncio.Event().wait()

asyncio.run(waits_in_vain())
"""


@pytest.mark.parametrize("stderr", ["is read", "is full", "is nobody's"])
def test_it_ends_the_process(stderr: str) -> None:
    """It says what is waited for where somebody can read it, and ends in any case."""
    read_end, write_end = os.pipe()
    if stderr == "is full":
        os.set_blocking(write_end, False)
        while True:
            try:
                os.write(write_end, b"x" * 4096)
            except BlockingIOError:
                break
        os.set_blocking(write_end, True)
    if stderr == "is nobody's":
        os.close(read_end)
    process = subprocess.Popen([sys.executable, "-c", STUCK], stderr=write_end, env=program_environment())
    os.close(write_end)
    try:
        assert process.wait(60) == EXIT_CODE
        if stderr == "is read":
            assert b"waits_in_vain > Event.wait" in os.read(read_end, 65_536)
    finally:
        process.kill()
        process.wait()
        if stderr != "is nobody's":
            os.close(read_end)
