"""The change mark: eight bytes that differ after every change of the keys, readable without a system call.

So a key revoked by one process is refused by another's next request, and the check costs the event loop nothing.
"""

from __future__ import annotations

import mmap
import os
import secrets
from typing import TYPE_CHECKING

from pondkeeper.files.durable import PRIVATE_FILE

if TYPE_CHECKING:
    from pathlib import Path

SIZE_BYTES = 8


class ChangeMark:
    """The mark in a small shared file. It is a hint, never a truth: what changed is read from control.db."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._view = mmap.mmap(descriptor, SIZE_BYTES, prot=mmap.PROT_READ)

    @staticmethod
    def open(path: Path) -> ChangeMark:
        """The mark at `path`, made where there is none."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, PRIVATE_FILE)
        try:
            if os.fstat(descriptor).st_size < SIZE_BYTES:
                os.ftruncate(descriptor, SIZE_BYTES)  # Trap: never shrink it, a mapping would end in SIGBUS.
            return ChangeMark(descriptor)
        except BaseException:  # Why: the descriptor must not stay open behind any failure.
            os.close(descriptor)
            raise

    def read(self) -> bytes:
        """The mark as it is now."""
        return self._view[:SIZE_BYTES]

    def change(self) -> None:
        """Make it differ. Random and not counted, so that two processes at once cannot write the same."""
        os.pwrite(self._descriptor, secrets.token_bytes(SIZE_BYTES), 0)

    def close(self) -> None:
        """Let go of the file."""
        self._view.close()
        os.close(self._descriptor)
