"""Which versions an archive has, and their manifests and trees. Only names are listed; contents are read for one version."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pondkeeper.archive.manifest import ArchivedVersion, Manifest, parse_name, versions_prefix
from pondkeeper.archive.names import DATABASES, page_name
from pondkeeper.archive.sealing import Sealer
from pondkeeper.archive.store.protocol import Fetching, Store
from pondkeeper.archive.tree import Tree
from pondkeeper.errors import ArchiveDamaged, ObjectMissing, VersionNotArchived


@dataclass(frozen=True)
class Archived:
    """A version that is in the archive, whole: what the next one is written as a difference to."""

    manifest: Manifest
    tree: Tree


def databases(store: Store) -> list[str]:
    """The names of the databases that have a version in the store, or had one."""
    return store.folders(DATABASES)


def versions(store: Store, database: str) -> list[ArchivedVersion]:
    """All versions of a database, oldest first."""
    names = store.names(versions_prefix(database))
    return sorted(found for name in names if (found := parse_name(database, name)) is not None)


def newest(store: Store, database: str, known: ArchivedVersion | None = None) -> ArchivedVersion | None:
    """The newest version; of one that is `known` only what came after it is asked for, which costs little however many there are."""
    names = sorted(store.names(versions_prefix(database), known.name if known else ""), reverse=True)
    if known is not None and not names:
        return known
    # Why by names: they sort as versions do, and faster.
    return next((found for name in names if (found := parse_name(database, name)) is not None), None)


def version_numbered(store: Store, database: str, version: int) -> ArchivedVersion:
    """Raises VersionNotArchived."""
    prefix = versions_prefix(database)
    wanted = f"{prefix}{version:012d}-"
    for name in store.names(prefix):
        if name.startswith(wanted) and (found := parse_name(database, name)) is not None:
            return found
    raise VersionNotArchived(database=database, version=version)


def version_at(store: Store, database: str, time: datetime) -> ArchivedVersion:
    """The newest version that was published at that time or before. Raises VersionNotArchived when all are younger."""
    older = [found for found in versions(store, database) if found.created_at <= time]
    if not older:
        raise VersionNotArchived("The archive has no version that old.", database=database)
    return max(older)


def read_manifest(store: Fetching, sealer: Sealer, version: ArchivedVersion) -> Manifest:
    """Raises VersionNotArchived when it was pruned meanwhile, ArchiveDamaged when it is not as it was written."""
    try:
        data = store.get(version.name)
    except ObjectMissing as error:
        raise VersionNotArchived(database=version.database, version=version.version) from error
    return Manifest.decode(data, version.name, sealer)


def read_tree(store: Fetching, sealer: Sealer, manifest: Manifest, known: Archived | None = None) -> Tree:
    """The tree of a manifest. Pages that are those of `known` are not read again."""
    have = {} if known is None else dict(zip(known.manifest.pages, known.tree.pages(), strict=True))
    pages = [have[page] if page in have else read_page(store, sealer, bytes.fromhex(page)) for page in manifest.pages]
    try:
        return Tree.of_pages(manifest.size_bytes, pages)
    except ValueError as error:
        raise ArchiveDamaged(object=manifest.name) from error


def read_archived(store: Fetching, sealer: Sealer, version: ArchivedVersion, known: Archived | None = None) -> Archived:
    """Manifest and tree of a version."""
    manifest = read_manifest(store, sealer, version)
    return Archived(manifest, read_tree(store, sealer, manifest, known))


def read_page(store: Fetching, sealer: Sealer, digest: bytes) -> bytes:
    """The digests of a page, one after the other."""
    return sealer.open(store.get(page_name(digest)), digest)
