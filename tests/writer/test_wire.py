"""The wire of pipelines: whatever bytes come, frames come out or FrameInvalid, however the kernel cuts them."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as some

from pondkeeper.workers.frames import HEADER, FrameInvalid
from pondkeeper.writer import wire
from pondkeeper.writer.wire import FrameReader, Kind, WireAnswer, WireWrite, encoded, framed

DECODERS = [wire.decode_hello, wire.decode_welcome, wire.decode_writes, wire.decode_answers, wire.decode_goodbye]
VALUE = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats(allow_nan=False, allow_infinity=False) | some.text(),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(), inner, max_size=3),
    max_leaves=8,
)
WRITE = some.builds(
    WireWrite,
    some.integers(1, 2**53),
    some.lists(some.tuples(some.text(min_size=1), some.none() | some.lists(VALUE, max_size=4)), min_size=1, max_size=3),
    some.none() | some.text(some.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=255),
    some.none() | some.floats(0.001, 1e6),
    some.sampled_from(["interactive", "normal", "background"]),
    some.none() | some.floats(0.001, 1e6),
)


@given(some.lists(WRITE, min_size=1, max_size=5), some.lists(some.integers(1, 40), min_size=1, max_size=30))
def test_writes_arrive_as_they_were_sent(writes: list[Any], cuts: list[int]) -> None:
    """Encoded one by one, joined, cut anywhere: the same writes, and nothing is left over."""
    data = wire.writes_frame(map(encoded, writes)) + framed(Kind.HELLO, b"{}")
    reader, frames = FrameReader(10**7), []
    while data:
        cut = cuts.pop() if cuts else len(data)
        frames += reader.feed(data[:cut])
        data = data[cut:]

    assert [kind for kind, _ in frames] == [Kind.WRITES, Kind.HELLO]
    assert wire.decode_writes(frames[0][1]) == writes


@given(some.lists(some.binary(max_size=200), max_size=8))
@example([HEADER.pack(2, 0)])
@example([HEADER.pack(2, 2**32 - 1)])
def test_any_bytes_are_frames_or_invalid(pieces: list[bytes]) -> None:
    """Nothing else is raised, and nothing beyond the bound is kept."""
    reader = FrameReader(100)
    with contextlib.suppress(FrameInvalid):
        for piece in pieces:
            for kind, body in reader.feed(piece):
                assert isinstance(kind, Kind)
                assert len(body) <= 100


@pytest.mark.parametrize("decode", DECODERS)
@given(body=some.binary(max_size=300) | VALUE.map(encoded) | some.lists(WRITE, max_size=2).map(encoded))
@example(body=b"[" * 100_000)
@example(body=b'[[1,[["\xff",null]]]]')
@example(body=b'[[1,[["SELECT 1",[1e999]]]]]')
def test_any_body_is_decoded_or_invalid(decode: Any, body: bytes) -> None:
    """A stranger's bytes raise FrameInvalid and nothing else."""
    with contextlib.suppress(FrameInvalid):
        decode(body)


@pytest.mark.parametrize(
    "broken",
    [
        [1, [["", None]]],
        [1, []],
        [0, [["SELECT 1", None]]],
        [1, [["SELECT 1", 5]]],
        [1, [["SELECT 1"]]],
        [1, [["SELECT 1", None]], ""],
        [1, [["SELECT 1", None]], "x" * 256],
        [1, [["SELECT 1", None]], "new\nline"],
        [1, [["SELECT 1", None]], None, 0],
        [1, [["SELECT 1", None]], None, None, "urgent"],
        [1, [["SELECT 1", None]], None, None, "normal", -1],
        [1, [["SELECT 1", None]], None, None, "normal", None, "more"],
    ],
)
def test_a_write_is_of_its_shape(broken: list[Any]) -> None:
    """What no write is, is refused when it is decoded; the same without its fault is a write."""
    assert wire.decode_writes(encoded([[1, [["SELECT 1", None]]]]))[0].number == 1
    with pytest.raises(FrameInvalid):
        wire.decode_writes(encoded([broken]))


def test_answers_arrive_as_they_were_sent() -> None:
    """Committed and refused in one frame."""
    answers = [WireAnswer(1, 7, [1]), WireAnswer(2, error={"code": "sql_invalid"})]
    assert wire.decode_answers(encoded(answers)) == answers
