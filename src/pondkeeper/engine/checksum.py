"""DuckDB's block checksum, vectorised: 256 KiB in about 0.1 ms. Only the copier and the doctor's child need it."""

from __future__ import annotations

from functools import reduce
from operator import xor

import pyarrow as pa
import pyarrow.compute as pc

from pondkeeper.engine.fileformat import Bytes

_SEED = 5381
_FEW_WORDS = 128
_FACTOR = pa.scalar(0xBF58476D1CE4E5B9, pa.uint64())


def block_checksum(data: Bytes) -> int:
    """The checksum of a payload whose length is a multiple of 8 bytes; same result as `fileformat.checksum`."""
    count = len(data) // 8
    words = pa.Array.from_buffers(pa.uint64(), count, [None, pa.py_buffer(data)])
    words = pc.multiply(words, _FACTOR)
    result = _SEED
    while count > _FEW_WORDS:  # Why: Arrow has no xor aggregate, so the upper half is folded onto the lower.
        if count % 2:
            count -= 1
            result ^= words[count].as_py()
        count //= 2
        words = pc.bit_wise_xor(words.slice(0, count), words.slice(count, count))
    # Why not folded to the end: for so few words each call of Arrow costs more than all of them here.
    return reduce(xor, memoryview(words.buffers()[1]).cast("B")[: 8 * count].cast("Q"), result)
