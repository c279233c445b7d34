"""Frames: whatever arrives in whatever pieces comes out whole, and garbage is refused."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pondkeeper.workers.frames import DATA, HEADER, FrameInvalid, Pipe, decode, encode
from pondkeeper.workers.inbox import Inbox

MESSAGES = st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=20) | st.none(), max_size=4).filter(
    lambda message: all(abs(value) < 2**63 for value in message.values() if isinstance(value, int))
)
FRAMES = st.lists(MESSAGES | st.binary(max_size=300), max_size=8)


@given(FRAMES, st.lists(st.integers(1, 200), min_size=1))
def test_frames_survive_any_cut(frames: list[dict[str, object] | bytes], cuts: list[int]) -> None:
    """However the kernel cuts the bytes, messages come out equal and data comes out in order."""
    wire = b"".join(HEADER.pack(DATA, len(f)) + f if isinstance(f, bytes) else encode(f) for f in frames)
    inbox = Inbox("test")
    position = 0
    while position < len(wire):
        size = cuts[position % len(cuts)]
        inbox.feed(wire[position : position + size])
        position += size

    assert merged(list(iter(inbox.pop, None))) == merged(list(frames))


def merged(frames: list[dict[str, object] | bytes]) -> list[dict[str, object] | bytes]:
    """Neighbouring pieces of data joined: where data is cut means nothing."""
    joined: list[dict[str, object] | bytes] = []
    for frame in frames:
        if isinstance(frame, bytes) and joined and isinstance(joined[-1], bytes):
            joined[-1] += frame
        elif frame != b"":
            joined.append(frame)
    return joined


@given(st.binary(max_size=100))
def test_pipe_never_takes_garbage_for_a_message(garbage: bytes) -> None:
    """Random bytes are refused or end the stream; nothing else ever escapes."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(garbage)
        theirs.shutdown(socket.SHUT_WR)
        pipe = Pipe(ours)
        try:
            while (message := pipe.receive()) is not None:
                assert isinstance(message, dict)
        except FrameInvalid:
            pass


def test_a_keeper_that_died_with_something_unread_is_an_end_and_no_error() -> None:
    """The kernel resets the connection then; the child ends quietly, as after any death of its keeper."""
    ours, theirs = socket.socketpair()
    with ours:
        ours.sendall(b"an answer that nobody reads")
        theirs.close()
        assert Pipe(ours).receive() is None


def test_announced_size_is_bounded() -> None:
    """A child cannot make the keeper allocate by announcing a huge message."""
    with pytest.raises(FrameInvalid):
        Inbox("test").feed(HEADER.pack(1, 2**32 - 1))


def test_decode_refuses_what_is_no_object() -> None:
    """A message is a JSON object and nothing else."""
    for body in (b"[1]", b"{", b"\xff", b""):
        with pytest.raises(FrameInvalid):
            decode(body)
