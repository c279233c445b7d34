"""The template may die or hang: the next child comes from a new one, and no two children ever share a pipe."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import pytest

from pondkeeper.workers import spawning
from pondkeeper.workers.child import ChildGone
from pondkeeper.workers.spawning import ChildSpec, Template

pytestmark = pytest.mark.fault


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_template_that_died_or_hangs_is_replaced(
    template: Template, echo: ChildSpec, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """Its children live on; whoever asks for a child gets one, a little later."""
    monkeypatch.setattr(spawning, "FORK_TIMEOUT_S", 0.5)
    first = await template.spawn(echo)
    assert await first.next_frame() == {"op": "ready"}
    before = template.pid
    assert before is not None
    os.kill(before, number)
    second = await template.spawn(echo)
    assert await second.next_frame() == {"op": "ready"}
    for child in (first, second):
        child.send({"op": "echo", "to": child.pid})
        assert await child.next_frame() == {"op": "echo", "to": child.pid}
        child.kill()

    assert template.pid != before
    assert [await first.exited, await second.exited] == [-signal.SIGKILL] * 2


async def test_message_to_a_child_that_had_died_is_known_to_be_unread(template: Template, echo: ChildSpec) -> None:
    """Who sent it may send it to another child: it had no effect. One that was read is not called unread."""
    for number in range(20):
        dead = await template.spawn(echo)
        assert await dead.next_frame() == {"op": "ready"}
        dead.kill()
        if number % 2:
            await dead.exited
        dead.send({"op": "echo"})
        with pytest.raises(ChildGone) as gone:
            await dead.next_frame()
        assert gone.value.unread
        await dead.exited
    exiting = await template.spawn(echo)
    assert await exiting.next_frame() == {"op": "ready"}
    exiting.send({"op": "exit"})
    with pytest.raises(ChildGone) as gone:
        await exiting.next_frame()
    assert (gone.value.unread, gone.value.status) == (False, 3)


def test_a_template_whose_keeper_has_died_ends_in_silence() -> None:
    """The kernel says "reset" of a keeper that died with something unread: that is an end, and no traceback."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        command = [sys.executable, "-m", "pondkeeper.workers.template", str(theirs.fileno()), str(os.getpid()), "off"]
        with subprocess.Popen(command, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE) as process:
            theirs.close()
            assert ours.recv(1, socket.MSG_PEEK)  # its "ready", which stays unread
            ours.close()
            _, narration = process.communicate(timeout=60)
    assert (process.returncode, narration) == (0, b"")
