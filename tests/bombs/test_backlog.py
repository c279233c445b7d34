"""A herd that comes while the keeper is busy stands in the kernel's line, and is not sent away to try again."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import ExitStack

import pytest

from tests.support.keeper import KeeperProcess

pytestmark = pytest.mark.fault
HERD = 400


def test_a_herd_is_let_in_while_the_keeper_stands_still(keeper: KeeperProcess) -> None:
    """Beyond the backlog the kernel drops what comes, and clients try again after one, three, seven seconds and more."""
    with ExitStack() as stack:
        os.kill(keeper.pid, signal.SIGSTOP)
        try:
            for _ in range(HERD):
                stack.enter_context(socket.create_connection(("127.0.0.1", keeper.port), timeout=5))
        finally:
            os.kill(keeper.pid, signal.SIGCONT)
    assert keeper.client().query("SELECT 1").scalar() == 1
