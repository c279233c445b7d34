"""What a process does that has an archive open: put versions in, list them, take one out, remove what need not be kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pondkeeper.archive.history import Archived, newest, read_archived, version_numbered, versions
from pondkeeper.archive.manifest import ArchivedVersion, format_time, parse_time
from pondkeeper.archive.opening import Archive
from pondkeeper.archive.pruning import prune, to_remove
from pondkeeper.archive.reading import assemble
from pondkeeper.archive.retention import Retention
from pondkeeper.archive.writing import About, write_version
from pondkeeper.engine.checksum import block_checksum
from pondkeeper.errors import ArchiveConflict, ArchiveDamaged, DatabaseUnreadable, ObjectMissing, VersionNotArchived
from pondkeeper.snapshots.cancelling import Cancelling
from pondkeeper.snapshots.changes import Ranges
from pondkeeper.snapshots.verifying import verify

MOST_SHOWN = 1000
_COST = ("blocks_hashed", "blocks_put", "block_bytes", "bytes_put")
OnProgress = Callable[[int, int], None]
"""Told of the steps done and of all there are; 0 of all where that is not known."""


@dataclass(frozen=True)
class Wanted:
    """A snapshot to be archived. `changed`: blocks that may differ from version `since` of the same lineage."""

    database: str
    version: int
    path: str
    created_at: str
    lineage: str
    since: int | None = None
    changed: Ranges | None = None


class SnapshotRetired(Exception):
    """The snapshot's file has been taken back: there is a newer one."""


class Archivist:
    """One archive, open. Remembers of each database the version that it has put in last."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._last: dict[str, _Last] = {}

    def archive(self, wanted: Wanted, on_progress: OnProgress) -> dict[str, Any]:
        """Put a snapshot in; what that cost. One that is there already costs nothing. Raises SnapshotRetired."""
        last = self._last_of(wanted.database)
        if last.has(wanted):
            return {"version": wanted.version, **dict.fromkeys(_COST, 0)}
        steps = _Steps(on_progress)
        about = About(wanted.database, wanted.version, parse_time(wanted.created_at), wanted.lineage)
        try:
            written = write_version(
                self._archive, Path(wanted.path), about, last.archived, wanted.changed if last.precedes(wanted) else None,
                check=steps.one_more, checksum_of=block_checksum,
            )  # fmt: skip
        except FileNotFoundError as error:
            raise SnapshotRetired from error
        except BaseException:  # Why: whatever ended it, what the store has now is to be asked of the store.
            self._last.pop(wanted.database, None)
            raise
        self._last[wanted.database] = _Last.of(written.archived)
        return {"version": wanted.version, **{name: getattr(written, name) for name in _COST}}

    def newest_version(self, database: str) -> int | None:
        """The newest version that the archive has of a database, of whatever lineage."""
        found = newest(self._archive.store, database)
        return found.version if found else None

    def listed(self, database: str, limit: int) -> dict[str, Any]:
        """The newest versions, newest first; `total` and `oldest` tell of those that are left out."""
        found = versions(self._archive.store, database)
        shown = [_wire(each) for each in reversed(found[-limit:])] if limit else []
        return {"database": database, "versions": shown, "total": len(found), "oldest": _wire(found[0]) if found else None}

    def take_out(self, database: str, version: int | None, target: Path, on_progress: OnProgress) -> dict[str, Any]:
        """Restore a version (the newest) to a file that is not there yet, every block of it proved.

        Raises ArchiveDamaged, ObjectMissing, and DatabaseUnreadable for what was damaged before it was archived.
        """
        found = self._chosen(database, version)
        archived = read_archived(self._archive.store, self._archive.sealer, found)
        made = assemble(self._archive.store, self._archive.sealer, archived.tree, target, on_progress)
        checked = verify(target, Cancelling())
        if not checked.whole:
            raise DatabaseUnreadable("Blocks of the restored file are damaged.", blocks=checked.damaged[:100])
        return {
            **_wire(found),
            "size_bytes": archived.manifest.size_bytes,
            "blocks": checked.blocks_used,
            "bytes_fetched": made.bytes_fetched,
        }

    def prune(self, retention: Retention, on_progress: OnProgress, *, dry_run: bool) -> dict[str, Any]:
        """Remove the versions that retention lets go, of every database here, and what nobody refers to any more.

        With `dry_run` nothing is removed: which versions would go. Raises ArchiveBusy and ArchiveDamaged.
        """
        if dry_run:
            gone = to_remove(self._archive, retention)
            shown = [{"database": each.database, **_wire(each)} for each in gone[:MOST_SHOWN]]
            return {"dry_run": True, "versions_removed": len(gone), "versions": shown}
        return {"dry_run": False, **asdict(prune(self._archive, retention, check=_Steps(on_progress).one_more))}

    def _chosen(self, database: str, version: int | None) -> ArchivedVersion:
        if version is not None:
            return version_numbered(self._archive.store, database, version)
        found = newest(self._archive.store, database)
        if found is None:
            raise VersionNotArchived(f"The archive has no version of {database!r} yet.", database=database)
        return found

    def _last_of(self, database: str) -> _Last:
        if database not in self._last:
            self._last[database] = self._found(database)
        return self._last[database]

    def _found(self, database: str) -> _Last:
        """The newest version that was there before us. Where it is damaged, the next one is put in as if it were the first."""
        version = newest(self._archive.store, database)
        if version is None:
            return _Last(None, None)
        try:
            return _Last(version, read_archived(self._archive.store, self._archive.sealer, version))
        except (ArchiveDamaged, ObjectMissing):
            return _Last(version, None)


@dataclass(frozen=True)
class _Last:
    """The newest version in the archive, and what it is made of, where that can be read."""

    version: ArchivedVersion | None
    archived: Archived | None

    @classmethod
    def of(cls, archived: Archived) -> _Last:
        manifest = archived.manifest
        return cls(ArchivedVersion(manifest.version, parse_time(manifest.created_at), manifest.database), archived)

    def precedes(self, wanted: Wanted) -> bool:
        """Whether it is the version that the changes of `wanted` are counted from."""
        last = self.archived.manifest if self.archived is not None else None
        return last is not None and (last.version, last.lineage) == (wanted.since, wanted.lineage)

    def has(self, wanted: Wanted) -> bool:
        """Whether it is that version already. Raises ArchiveConflict for a number that is not above all that were given."""
        if self.version is None or wanted.version > self.version.version:
            return False
        if self.archived is not None and self.version == (
            ArchivedVersion(wanted.version, parse_time(wanted.created_at), wanted.database)
        ):
            return True
        raise ArchiveConflict(
            f"The archive has version {self.version.version} of {wanted.database!r} already, and versions only grow.",
            database=wanted.database,
            version=wanted.version,
            newest_version=self.version.version,
        )


class _Steps:
    """Counts the blocks that were looked at. Threads share it: a step that is counted once too few harms nobody."""

    def __init__(self, on_progress: OnProgress) -> None:
        self._on_progress = on_progress
        self._done = 0

    def one_more(self) -> None:
        self._done += 1
        self._on_progress(self._done, 0)


def _wire(version: ArchivedVersion) -> dict[str, Any]:
    return {"version": version.version, "created_at": format_time(version.created_at)}


