"""What a keeper must still know of a database after its own end, on disk beside the snapshots."""

from __future__ import annotations

from pathlib import Path

import msgspec

from pondkeeper.files.durable import write_atomic
from pondkeeper.files.state import FileState

VERSIONS_PROMISED = 2  # without a fault, a commit is answered with at most the last published version plus this


class Remembered(msgspec.Struct):
    """`file_state`: what the file looked like when the newest snapshot held all of it. `reserved`: versions up to this
    one may have been promised, where faults kept them from being published."""

    file_state: FileState = msgspec.field(default_factory=list)
    reserved: int = 0

    @classmethod
    def read(cls, path: Path) -> Remembered:
        """What the last keeper wrote down; nothing where there is no such file, or it makes no sense."""
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except (FileNotFoundError, msgspec.DecodeError):
            return cls()

    def write(self, path: Path) -> None:
        """Durable when this returns."""
        write_atomic(path, msgspec.json.encode(self))

    def first_version(self, published: int | None, *, has_past: bool) -> int:
        """The version to go on with: above all that was published, and not below what may have been promised."""
        if not has_past:
            return 1
        return max((published or 0) + VERSIONS_PROMISED, self.reserved)

    def reserve(self, version: int, published: int | None) -> bool:
        """Note what may be promised, and that the file is about to be written; whether there is anything to write down.

        Trap: a power cut can leave what was written under an old mtime, so `file_state` is of a file that nobody writes.
        """
        is_covered = self.covers(version, published)
        if is_covered and not self.file_state:
            return False
        self.reserved = self.reserved if is_covered else version
        self.file_state = []
        return True

    def covers(self, version: int, published: int | None) -> bool:
        """Whether a keeper that starts anew would begin at `version` at least."""
        return version <= self.first_version(published, has_past=True)
