"""Pruning removes what may go and nothing else, whatever writes beside it and wherever it is ended: a model is checked."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from pondkeeper.archive import pruning
from pondkeeper.archive.history import Archived, databases, read_archived, versions
from pondkeeper.archive.manifest import ArchivedVersion
from pondkeeper.archive.names import BLOCKS, PAGES, block_name
from pondkeeper.archive.opening import Archive
from pondkeeper.archive.pruning import Pruned, prune
from pondkeeper.archive.reading import assemble
from pondkeeper.archive.retention import DAY_S, HOUR_S, Retention, kept
from pondkeeper.archive.sealing import Sealer
from pondkeeper.archive.store import local
from pondkeeper.archive.store.local import LocalGuard, LocalStore
from pondkeeper.archive.store.protocol import Stored
from pondkeeper.archive.tree import Tree, block_count, block_span
from pondkeeper.archive.writing import About, Written, write_version
from pondkeeper.errors import ArchiveBusy, ArchiveDamaged
from tests.archive import plainfiles

RETENTION = Retention(everything_s=60, hourly_s=4 * HOUR_S, daily_s=3 * DAY_S)
BEGAN = datetime(2026, 11, 20, 12, tzinfo=UTC)


class Killed(BaseException):
    """The process ended here."""


class HookedStore(LocalStore):
    """A folder whose every step can be the moment at which something else happens, or everything ends."""

    at_once = 1  # Why: with one thread the same plan plays the same way

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.at: dict[int, Callable[[], None]] = {}
        self._step = 0

    @contextlib.contextmanager
    def hooked(self, at: dict[int, Callable[[], None]]) -> Iterator[None]:
        """The n-th step from now on is preceded by that."""
        before, self.at, self._step = (self.at, self._step), at, 0
        try:
            yield
        finally:
            self.at, self._step = before

    def step(self) -> None:
        self._step += 1
        happening = self.at.pop(self._step, None)
        if happening is not None:
            with self.hooked({}):
                happening()

    def get(self, name: str) -> bytes:
        self.step()
        return super().get(name)

    def has(self, name: str) -> bool:
        self.step()
        return super().has(name)

    def put(self, name: str, data: bytes) -> None:
        self.step()
        super().put(name, data)
        self.step()

    def stored(self, prefix: str) -> Iterator[Stored]:
        self.step()
        yield from super().stored(prefix)

    def delete(self, names: list[str]) -> None:  # type: ignore[override]  # the model takes lists only
        for name in names:
            self.step()
            super().delete([name])


class UnguardedStore(HookedStore):
    """The positive control: nobody excludes anybody."""

    @contextlib.contextmanager
    def writing(self, timeout_s: float = 60.0) -> Iterator[LocalGuard]:
        yield LocalGuard()

    removing = writing


class Archiving(RuleBasedStateMachine):
    """Two databases that share blocks, one store; a writer that remembers what it wrote last, and a pruner."""

    kind: type[HookedStore] = HookedStore

    def __init__(self) -> None:
        super().__init__()
        self._patches = pytest.MonkeyPatch()
        # Why: nothing here cuts the power.
        self._patches.setattr(pruning, "_AT_ONCE", 2)
        self._patches.setattr("os.fsync", lambda descriptor: None)
        self._folder = tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
        self.root = Path(self._folder.name)
        self.store = self.kind(self.root / "archive")
        self.archive = Archive(self.store, Sealer())
        self.now = BEGAN
        self.last: dict[str, Archived] = {}
        self.wanted: dict[ArchivedVersion, Tree] = {}
        self.number = 0

    def teardown(self) -> None:
        self._folder.cleanup()
        self._patches.undo()

    def write(self, database: str, letters: str, knows: bool) -> None:
        self.number += 1
        iteration = self.number
        file = plainfiles.write(self.root / f"{database}-{iteration}", letters, iteration)
        wanted = file.read_bytes()
        created_at = self.now
        previous = self.last.get(database)
        changed = self._changed(previous, wanted) if knows else None
        try:
            about = About(database, iteration, created_at, "first")
            written: Written = write_version(self.archive, file, about, previous, changed)
        finally:
            file.unlink()
            # Why also when it was killed: its last step may have been the one that made the version visible.
            self.wanted[ArchivedVersion(iteration, created_at, database)] = self._tree(wanted)
        self.last[database] = written.archived

    def _tree(self, wanted: bytes) -> Tree:
        spans = [block_span(block, len(wanted)) for block in range(block_count(len(wanted)))]
        return Tree(len(wanted), b"".join(self.archive.sealer.digest(wanted[start : start + length]) for start, length in spans))

    def _changed(self, previous: Archived | None, wanted: bytes) -> list[tuple[int, int]]:
        """What a copier would name: the blocks that differ."""
        differing = self._tree(wanted).differing(previous.tree if previous else None)
        return [(block - 1, block) for block in differing if block]

    def prune(self) -> Pruned | None:
        try:
            return prune(self.archive, RETENTION, now=self.now, timeout_s=0)
        except ArchiveBusy:
            return None

    @rule(seconds=st.sampled_from([1, 50, HOUR_S, DAY_S, 5 * DAY_S]))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(
        database=st.sampled_from(["a", "b"]),
        letters=st.text("xyz", max_size=3),
        short=st.booleans(),
        knows=st.booleans(),
        prune_at=st.none() | st.integers(1, 12),
        killed_at=st.none() | st.integers(1, 12),
    )
    def a_version_is_written(
        self, database: str, letters: str, short: bool, knows: bool, prune_at: int | None, killed_at: int | None
    ) -> None:
        """Somewhere in it somebody prunes, or the writer is killed; perhaps both."""
        at: dict[int, Callable[[], None]] = {}
        if prune_at:
            at[prune_at] = lambda: self.prune() and None
        if killed_at:
            at[killed_at] = _kill
        with self.store.hooked(at), contextlib.suppress(Killed):
            self.write(database, letters + "." * short, knows)

    @rule(
        write_at=st.none() | st.integers(1, 25),
        killed_at=st.none() | st.integers(1, 25),
        letters=st.text("xyz", max_size=3),
    )
    def somebody_prunes(self, write_at: int | None, killed_at: int | None, letters: str) -> None:
        """Somewhere in it a version is written; perhaps the pruner is killed."""
        at: dict[int, Callable[[], None]] = {}
        if write_at:
            at[write_at] = lambda: self._write_if_free(letters)
        if killed_at:
            at[killed_at] = _kill
        with self.store.hooked(at), contextlib.suppress(Killed):
            self.prune()

    def _write_if_free(self, letters: str) -> None:
        with self._patches.context() as patches, contextlib.suppress(ArchiveBusy):
            patches.setattr(local, "_BETWEEN_ATTEMPTS_S", 0)
            waiting = self.store.writing
            patches.setattr(self.store, "writing", lambda: waiting(timeout_s=0))
            self.write("a", letters, knows=True)

    @precondition(lambda self: self.wanted)
    @rule()
    def a_prune_that_nobody_disturbs_leaves_only_what_is_needed(self) -> None:
        stay = [
            found
            for name in databases(self.store)
            for found in kept(versions(self.store, name), self.now, RETENTION)
        ]
        pruned = self.prune()
        assert pruned is not None
        assert self.listed() == set(stay)
        needed, target = set(), self.root / "restored"
        for found in stay:
            archived = read_archived(self.store, self.archive.sealer, found)
            assemble(self.store, self.archive.sealer, archived.tree, target)
            assert self._tree(target.read_bytes()) == self.wanted[found]
            target.unlink()
            needed |= {archived.tree.digest(block).hex() for block in range(len(archived.tree))}
            needed |= set(archived.manifest.pages)
        assert {name.rsplit("/", 1)[1] for kind in (BLOCKS, PAGES) for name in self.store.names(kind)} == needed

    @invariant()
    def every_version_that_can_be_seen_comes_back_as_it_was(self) -> None:
        for found in self.listed():
            tree = read_archived(self.store, self.archive.sealer, found).tree
            assert tree == self.wanted[found]
            for block in range(len(tree)):
                if not self.store.has(block_name(tree.digest(block))):
                    raise ArchiveDamaged("A block is missing.")

    def listed(self) -> set[ArchivedVersion]:
        return {found for name in databases(self.store) for found in versions(self.store, name)}


def _kill() -> None:
    raise Killed


class Unguarded(Archiving):
    kind = UnguardedStore


LONG = settings(
    max_examples=40,
    stateful_step_count=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    database=None,
)


@pytest.mark.fault
@pytest.mark.timeout(300)
def test_the_model_holds() -> None:
    """No plan of writers, pruners, deaths and time makes a visible version lack a block."""
    run_state_machine_as_test(Archiving, settings=LONG)


@pytest.mark.fault
@pytest.mark.timeout(300)
def test_without_the_guard_the_model_finds_a_lost_block() -> None:
    """The positive control: the same plans, and nobody excludes anybody."""
    with pytest.raises(ArchiveDamaged):
        run_state_machine_as_test(Unguarded, settings=settings(LONG, max_examples=400, phases=[Phase.generate]))
