"""Flushing a large file while it is written, so that its end is not one long wait for the disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

_EVERY_BYTES: Final = 64 << 20


@contextmanager
def flushing(descriptor: int) -> Iterator[Callable[[int], None]]:
    """What is told how many bytes have been written so far, from one thread at a time; at the end of the block all are durable."""
    begun: list[Future[None]] = []

    def told(written_bytes: int) -> None:
        if written_bytes >= _EVERY_BYTES * (1 + len(begun)) and (not begun or begun[-1].done()):
            begun.append(disk.submit(os.fdatasync, descriptor))

    with ThreadPoolExecutor(1) as disk:
        yield told
    for one in begun:
        one.result()  # Why: an error of the disk is told once, and perhaps it was told here.
    os.fsync(descriptor)
