"""One bit flips, anywhere in an archive or in a snapshot on its way there: every one is noticed before it is used."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb

from campaigns.running import Stage
from pondkeeper.archive.history import read_archived, versions
from pondkeeper.archive.keys import ArchiveKey
from pondkeeper.archive.manifest import ArchivedVersion
from pondkeeper.archive.names import BLOCKS, DATABASES, IDENTITY, PAGES, block_name, page_name
from pondkeeper.archive.opening import Archive, identify
from pondkeeper.archive.reading import assemble
from pondkeeper.archive.sealing import Sealer
from pondkeeper.archive.store.local import LocalStore
from pondkeeper.archive.writing import About, write_version
from pondkeeper.engine.checksum import block_checksum
from pondkeeper.engine.fileformat import Bytes
from pondkeeper.errors import PondkeeperError
from pondkeeper.snapshots.taking_out import take_out

LONG, SHORT, CONTROLS = 2000, 120, 30
SNAPSHOT, TAKEN_OUT = "snapshot", "taken out"
KINDS = (BLOCKS, BLOCKS, PAGES, DATABASES, IDENTITY, SNAPSHOT, TAKEN_OUT)
NAME = "sales"
BEGAN = datetime(2026, 11, 20, 14, tzinfo=UTC)
STEPS = (
    "CREATE TABLE t AS SELECT range AS id, hash(range) AS x, 'the same ' || range % 7 AS y FROM range(150000)",
    "INSERT INTO t SELECT range + 1000000, hash(range), 'other' FROM range(30000)",
    "DELETE FROM t WHERE id % 3 = 0; UPDATE t SET y = 'changed' WHERE id < 5000",
    "CREATE TABLE u AS SELECT hash(id) AS z FROM t; DROP TABLE t",
)


@dataclass(frozen=True)
class Subject:
    """A database with its archive: what each version is, and which objects it stands on."""

    archive: Archive
    key: ArchiveKey | None
    file: Path
    contents: dict[ArchivedVersion, bytes]
    objects: dict[ArchivedVersion, frozenset[str]]
    scratch: Path


def play(stage: Stage) -> None:
    """Rounds on a plain and an encrypted archive in turn; the control trusts what it reads."""
    memory = Path("/dev/shm")  # Why: thousands of files that nobody keeps need no disk; the store is on one.
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else stage.folder) as scratch:
        _play(stage, Path(scratch) / NAME)


def _play(stage: Stage, scratch: Path) -> None:
    chance = stage.chance
    kinds = (("plain", None), ("encrypted", ArchiveKey(chance.randbytes(32))))
    subjects = [_subject(stage.room(name), key, scratch) for name, key in kinds]
    rounds, by_kind = 0, dict.fromkeys(KINDS, 0)
    for number in range(stage.options.of(LONG, SHORT)):
        if not stage.has_time:
            break
        kind = KINDS[number % len(KINDS)]
        found = _round(subjects[number // len(KINDS) % 2], kind, chance)
        stage.violated(found)
        by_kind[kind] += 1
        rounds += 1
    stage.line(rounds=rounds, flips=by_kind)
    _control(stage, subjects[0], chance)


def _control(stage: Stage, subject: Subject, chance: random.Random) -> None:
    trusting = Archive(subject.archive.store, Trusting())
    blind = Subject(trusting, None, subject.file, subject.contents, subject.objects, subject.scratch)
    found = [text for _ in range(CONTROLS) for text in _round(blind, BLOCKS, chance)]
    stage.control("who does not prove what it reads", found, flips=CONTROLS)
    found = [text for _ in range(CONTROLS) for text in _flipped_and_taken_out(subject, chance, _copied)]
    stage.control("who copies a snapshot without proving it", found, flips=CONTROLS)


class Trusting(Sealer):
    """Opens without proving: every name is right."""

    def opened(self, sealed: bytes, digest: bytes) -> Bytes:
        return self._contents(sealed, digest)


def _subject(room: Path, key: ArchiveKey | None, scratch: Path) -> Subject:
    archive, file = Archive(LocalStore(room / "archive"), Sealer(key)), room / f"{NAME}.duckdb"
    identify(archive.store, key, make=True)
    contents: dict[ArchivedVersion, bytes] = {}
    objects: dict[ArchivedVersion, frozenset[str]] = {}
    for number, statements in enumerate(STEPS, 1):
        with duckdb.connect(file) as connection:
            connection.execute(statements)
            connection.execute("CHECKPOINT")
        about = About(NAME, number, BEGAN + timedelta(seconds=number), "first")
        archived = write_version(archive, file, about, checksum_of=block_checksum).archived
        version = max(versions(archive.store, NAME))
        tree, pages = archived.tree, archived.manifest.pages
        assemble(archive.store, archive.sealer, tree, room / "whole")
        contents[version] = (room / "whole").read_bytes()
        (room / "whole").unlink()
        blocks = {block_name(tree.digest(block)) for block in range(len(tree))}
        objects[version] = frozenset({IDENTITY, version.name, *blocks, *(page_name(bytes.fromhex(p)) for p in pages)})
    return Subject(archive, key, file, contents, objects, scratch)


def _round(subject: Subject, kind: str, chance: random.Random) -> list[str]:
    """Flip a bit of an object of this kind; what went unnoticed."""
    if kind == SNAPSHOT:
        return _flipped_snapshot(subject, chance)
    if kind == TAKEN_OUT:
        return _flipped_and_taken_out(subject, chance, _taken_out_of_snapshot)
    names = sorted({name for found in subject.objects.values() for name in found if name.startswith(kind)})
    name = chance.choice(names)
    path = Path(subject.archive.store.address) / name
    bit = chance.randrange(8 * path.stat().st_size)
    violations = []
    touched_ones = [version for version, objects in subject.objects.items() if name in objects]
    others = [version for version in subject.objects if version not in touched_ones]
    with _flipped(path, bit):
        for version in touched_ones + others[:1]:
            touched = version in touched_ones
            found = _taken_out(subject, version)
            if isinstance(found, PondkeeperError):
                if not touched:
                    violations.append(f"bit {bit} of {name}: version {version.version}, which does not need it: {found}")
            elif touched:
                wrong = "other contents" if found != subject.contents[version] else "the right contents"
                violations.append(f"bit {bit} of {name} was not noticed: version {version.version} came out with {wrong}")
    return violations


def _taken_out(subject: Subject, version: ArchivedVersion) -> bytes | PondkeeperError:
    """The file of a version, or why there is none."""
    store, sealer = subject.archive.store, subject.archive.sealer
    for leftover in subject.scratch.parent.glob(f"{subject.scratch.name}*"):
        leftover.unlink()
    try:
        identify(store, subject.key)
        assemble(store, sealer, read_archived(store, sealer, version).tree, subject.scratch)
    except PondkeeperError as error:
        return error
    return subject.scratch.read_bytes()


def _flipped_snapshot(subject: Subject, chance: random.Random) -> list[str]:
    """A bit of the newest snapshot's file: it is refused, or lies in what the database does not use."""
    newest, bit = max(subject.contents), chance.randrange(8 * subject.file.stat().st_size)
    about = About("flipped", 1, BEGAN, "first")
    with _flipped(subject.file, bit):
        try:
            tree = write_version(subject.archive, subject.file, about, checksum_of=block_checksum).archived.tree
        except PondkeeperError:
            return []
    whole = read_archived(subject.archive.store, subject.archive.sealer, newest).tree
    subject.archive.store.delete([found.name for found in versions(subject.archive.store, "flipped")])
    return [] if tree == whole else [f"bit {bit} of the snapshot was not noticed, and archived"]


def _flipped_and_taken_out(subject: Subject, chance: random.Random, take_out_of: Callable[[Subject], bytes]) -> list[str]:
    """A bit of a snapshot that is restored from: it is refused, or lies in what the database does not use."""
    bit = chance.randrange(8 * subject.file.stat().st_size)
    whole = take_out_of(subject)
    with _flipped(subject.file, bit):
        try:
            found = take_out_of(subject)
        except PondkeeperError:
            return []
    return [] if found == whole else [f"bit {bit} of the snapshot was not noticed, and restored"]


def _taken_out_of_snapshot(subject: Subject) -> bytes:
    with subject.file.open("rb") as source, subject.scratch.open("w+b") as target:
        take_out(source.fileno(), target.fileno(), lambda done, of: None)
    return subject.scratch.read_bytes()


def _copied(subject: Subject) -> bytes:
    return subject.file.read_bytes()


@contextmanager
def _flipped(path: Path, bit: int) -> Iterator[None]:
    _flip(path, bit)
    try:
        yield
    finally:
        _flip(path, bit)


def _flip(path: Path, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(bit // 8)
        (byte,) = file.read(1)
        file.seek(bit // 8)
        file.write(bytes([byte ^ (1 << bit % 8)]))
