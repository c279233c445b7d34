"""The writer process at its keeper's end."""

from __future__ import annotations

import socket
import threading

import pytest

from pondkeeper.workers.frames import Pipe
from pondkeeper.writer.process import sender


def test_whoever_speaks_to_a_dead_keeper_ends_quietly() -> None:
    """From the main thread and from any other, such as the one of a checkpoint: no traceback in the keeper's log."""
    ours, theirs = socket.socketpair()
    theirs.close()
    raised: list[object] = []
    before, threading.excepthook = threading.excepthook, raised.append
    try:
        with ours:
            pipe = Pipe(ours)
            send = sender(pipe)
            with pytest.raises(SystemExit):
                send({"op": "ready"})
            thread = threading.Thread(target=send, args=({"op": "checkpointed"},))
            thread.start()
            thread.join()
            pipe._file.close()
    finally:
        threading.excepthook = before
    # Why: the hook is called for SystemExit too, and the one that was there says nothing of it.
    assert [args.exc_type for args in raised] in ([], [SystemExit])  # type: ignore[attr-defined]
