"""How many writes the queue hands over at once: more while the writer is quick, fewer when it is not, never too few."""

from __future__ import annotations

from pondkeeper.writer.batch_size import LEAST, MOST, QUICK_S, SLOW_S, BatchSize


def sizes(seconds: list[float], *, full: bool = True) -> list[int]:
    """The sizes of the batches when the writer takes so long for each."""
    size, now, found = BatchSize(), 0.0, []
    for took_s in seconds:
        found.append(size.writes)
        size.begin(size.writes if full else 1, now)
        now += took_s
        size.end(now)
    return found


def test_batches_grow_while_the_writer_is_quick() -> None:
    """Doubled after each that was full and done soon, up to the most; one that was not full tells nothing."""
    assert sizes([QUICK_S / 2] * 6) == [LEAST, 512, 1024, MOST, MOST, MOST]
    assert sizes([QUICK_S / 2] * 3, full=False) == [LEAST] * 3


def test_batches_shrink_when_it_is_not() -> None:
    """Halved after each that took too long, down to the least; what lies between stays as it is."""
    quick, middling, slow = QUICK_S / 2, (QUICK_S + SLOW_S) / 2, SLOW_S * 2
    assert sizes([quick, quick, middling, slow, slow, slow, slow]) == [256, 512, 1024, 1024, 512, 256, 256]
