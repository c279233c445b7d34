"""What the copier knows of the contents of a copy, compared with the source at its last observation."""

from __future__ import annotations

from dataclasses import dataclass, field

from pondkeeper.engine.fileformat import BlockUse


@dataclass
class Contents:
    """`stale` are the blocks that may differ. When `certain` is False any block may, and bytes must be compared.

    Only blocks in use count: a block that is free may hold anything, and becomes stale when it is taken into use.
    """

    certain: bool = False
    stale: set[int] = field(default_factory=set)

    @classmethod
    def nothing(cls, block_count: int) -> Contents:
        """Of a new, empty file: every block is missing."""
        return cls(True, set(range(block_count)))

    def note(self, written: set[int] | None) -> None:
        """The source has moved on: these blocks may differ now; None when nobody can say which."""
        if written is None:
            self.certain = False
        else:
            self.stale |= written

    def to_copy(self, use: BlockUse) -> list[int]:
        """The blocks to copy, ascending, when the contents are certain."""
        return sorted(block for block in self.stale if use.is_used(block))

    def settle(self) -> None:
        """Every used block is now as in the source."""
        self.certain = True
        self.stale.clear()
