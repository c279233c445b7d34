"""Check every block of a database file or snapshot.

    python -m pondkeeper.snapshots.verifying FILE

is the doctor's child: it prints a `Verified`, or an error, as JSON.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from pondkeeper.engine.checksum import block_checksum
from pondkeeper.engine.fileformat import CHECKSUM_BYTES, is_whole
from pondkeeper.errors import DatabaseUnavailable, PondkeeperError
from pondkeeper.snapshots.cancelling import Cancelling
from pondkeeper.snapshots.source import Source

_ATTEMPTS = 3


@dataclass(frozen=True)
class Verified:
    """`damaged` are the blocks in use whose checksum is wrong; `known` is False for a format we have not tested.

    `changed`: a checkpoint ended meanwhile, so that what looks damaged may only be new.
    """

    known: bool
    blocks: int
    blocks_used: int
    damaged: list[int]
    changed: bool = False

    @property
    def whole(self) -> bool:
        return not self.damaged


def verify(path: Path, cancelling: Cancelling) -> Verified:
    """Read all blocks in use. Raises DatabaseUnreadable where headers or the list of blocks are damaged."""
    source = Source(path)
    with source.open():
        now = source.observe()
        source.forget()
        if now.use is None:
            raise DatabaseUnavailable("This storage version or block size is not known, so it cannot be verified.")
        damaged = []
        for block in now.used:
            cancelling.check()
            data = source.peek_block(block, now.block_size_bytes)
            if len(data) < CHECKSUM_BYTES or len(data) % CHECKSUM_BYTES or not is_whole(data, block_checksum):
                damaged.append(block)
        return Verified(True, now.block_count, len(now.used), damaged, changed=not source.is_still(now))


def main(path: Path) -> None:
    """Verify the file, again when somebody has written it meanwhile, and print what was found."""
    try:
        print(json.dumps(asdict(_settled(path))))  # noqa: T201  Why: stdout is the answer
    except PondkeeperError as error:
        print(json.dumps(error.to_wire(with_private=True)))  # noqa: T201  Why: as above


def _settled(path: Path) -> Verified:
    for _ in range(_ATTEMPTS - 1):
        verified = verify(path, Cancelling())
        if verified.whole or not verified.changed:
            return verified
    return verify(path, Cancelling())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
