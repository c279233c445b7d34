"""Replacing a database file by another one, by a journalled plan: after a kill or a power cut at any step it is the old
one or the new one, whole, and what was replaced is kept.

The order, each step durable before the next:
    the new file lies whole in `swaps/<id>/new/`
    1  the journal `swap.json` names the swap: from here on it is carried out, by us or by whoever takes the lease next
    2  the old WAL, and `.wal.checkpoint`, go to `old/`: a stale WAL must never be replayed over another file
    3  the old file gets a second name in `old/`
    4  the new file takes its place, in one rename
    5  a WAL that belongs to the new file goes beside it
    6  `done.json` is written, and the journal removed

Why links and no moves: a new file keeps its name in `new/` until all is over, so that "is it in its place?" is asked of
the disk (the same inode) and not of a note that may be older than the disk.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from pondkeeper.errors import DatabaseBusy, DatabaseUnavailable, InvalidRequest
from pondkeeper.files.durable import make_folder, sync_file, sync_folder, write_atomic
from pondkeeper.files.locks import FlockFile, holders_of, is_flocked
from pondkeeper.files.paths import DatabasePaths

COMPANIONS: Final = (".wal", ".wal.checkpoint")
"""What DuckDB keeps beside a database file; with the file they make the database."""

_OF_AN_UNDO: Final = ("undoes", "undone")


@dataclass(frozen=True)
class Swap:
    """One replacement. `why`: restore, undo, repair. `about`: what is to be remembered of it, as JSON."""

    id: str
    why: str
    file_name: str
    made_at: str
    about: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Swap | None:
        """The swap that is described there; None where there is no such file."""
        try:
            return cls(**json.loads(path.read_bytes()))
        except FileNotFoundError:
            return None

    def encode(self) -> bytes:
        return json.dumps(asdict(self), indent=2).encode() + b"\n"


class Preparing:
    """A swap that is being prepared: write the file at `file` (and its WAL beside it), then `carry_out`, or `discard`.

    Nobody needs the lease for it. What a dead one has left half-made is removed by `finish` of a later one.
    """

    def __init__(self, paths: DatabasePaths, why: str, about: dict[str, Any] | None = None) -> None:
        now = datetime.now(UTC)
        swap_id = f"{now:%Y%m%dT%H%M%S.%fZ}-{secrets.token_hex(2)}"
        self.swap = Swap(swap_id, why, paths.file.name, now.isoformat(timespec="milliseconds"), about or {})
        self._paths = paths
        self._folder = _folder(paths, self.swap)
        make_folder(self._folder / "new")
        self._lock = FlockFile(self._folder / "preparing.lock")
        self._lock.try_acquire()

    @property
    def file(self) -> Path:
        """Where the new file is to be written."""
        return self._folder / "new" / self.swap.file_name

    def carry_out(self, about: dict[str, Any] | None = None) -> Swap:
        """Put the new file in its place. The caller holds the lease. Raises DatabaseBusy when somebody has the file open.

        Durable when this returns. It blocks: a flush of the new file, and a dozen small ones.
        """
        self.swap.about.update(about or {})
        _refuse_if_open(self._paths)
        for path in _present(self.file):
            sync_file(path)  # Trap: harmless only because nobody, and so not this process, has it open.
        for folder in (self._folder / "new", self._folder, self._folder.parent, self._paths.turn):
            sync_folder(folder)
        write_atomic(journal(self._paths), self.swap.encode())
        _go_on(self._paths, self.swap)
        self._lock.release()
        return self.swap

    def discard(self) -> None:
        """Leave everything as it is; safe to call after anything."""
        if not _is_journalled(self._paths, self.swap):
            shutil.rmtree(self._folder / "new", ignore_errors=True)
            if not (self._folder / "done.json").exists():
                shutil.rmtree(self._folder, ignore_errors=True)
        self._lock.release()


def journal(paths: DatabasePaths) -> Path:
    """Names the swap under way; where there is none, none is."""
    return paths.turn / "swap.json"


def is_under_way(paths: DatabasePaths) -> bool:
    """Whether a swap was begun and not ended: nobody may open the file before `finish`."""
    return journal(paths).exists()


def finish(paths: DatabasePaths) -> Swap | None:
    """End the swap that a dead process has begun; None when there is none. The caller holds the lease.

    Whoever takes the lease does this first (`writer/lease.py`).
    """
    swap = Swap.read(journal(paths))
    if swap is not None:
        _go_on(paths, swap)
    return swap


def tidy(paths: DatabasePaths) -> None:
    """Remove what was prepared by processes that died before they began, and what is left of swaps that are done."""
    for folder in _folders(paths):
        if is_flocked(folder / "preparing.lock") or _is_named_by_journal(paths, folder):
            continue
        if (folder / "done.json").exists():
            shutil.rmtree(folder / "new", ignore_errors=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)


def swaps(paths: DatabasePaths, *whys: str) -> list[Swap]:
    """The swaps that are done, oldest first; those of some kinds only, where kinds are given."""
    found = [swap for folder in _folders(paths) if (swap := Swap.read(folder / "done.json"))]
    return [swap for swap in found if not whys or swap.why in whys]


def set_aside(paths: DatabasePaths, swap: Swap) -> list[Path]:
    """The files that this swap has replaced: the database first, then its WALs. Empty when they were given up."""
    return _present(_folder(paths, swap) / "old" / swap.file_name)


def prepare_undo(paths: DatabasePaths, *whys: str) -> Preparing:
    """A swap that puts back what the last one of these kinds has replaced. Raises InvalidRequest when there is none.

    No bytes are copied: the old file gets a third name. Trap: what that file has lost since (nobody writes it) is nothing.
    """
    done = swaps(paths, *whys)
    files = set_aside(paths, done[-1]) if done else []
    if not files:
        raise InvalidRequest(
            f"Nothing that was replaced in database {paths.name!r} is kept, so there is nothing to undo.",
            remedy="Restore a version: `pondkeeper backup list` shows them.",
        )
    last = done[-1]
    undone = {"why": last.why, **{name: value for name, value in last.about.items() if name not in _OF_AN_UNDO}}
    preparing = Preparing(paths, "undo", {"undoes": last.id, "undone": undone})
    for file in files:
        os.link(file, preparing.file.with_name(file.name))
    return preparing


def forget(paths: DatabasePaths, *whys: str, keep: int) -> None:
    """Give up what swaps of these kinds have set aside, but for the newest `keep`."""
    done = swaps(paths, *whys)
    for swap in done[: len(done) - keep]:
        shutil.rmtree(_folder(paths, swap), ignore_errors=True)


def _go_on(paths: DatabasePaths, swap: Swap) -> None:
    """Carry out what is still to be done of a journalled swap; each step may have been done already."""
    folder, file = _folder(paths, swap), paths.file
    new, old = folder / "new" / swap.file_name, folder / "old" / swap.file_name
    if not new.exists():
        _end_without(paths, folder)
        return
    make_folder(old.parent)
    if not _is_same(new, file):
        _set_old_aside(file, old)
        _replace(file, new)
    for companion in COMPANIONS:
        if _beside(new, companion).exists():
            _link(_beside(new, companion), _beside(file, companion))
    sync_folder(file.parent)
    write_atomic(folder / "done.json", swap.encode())
    journal(paths).unlink(missing_ok=True)
    sync_folder(paths.turn)
    shutil.rmtree(new.parent, ignore_errors=True)
    if undone := swap.about.get("undoes"):  # Why: what it had set aside is the live file again, and changes with it.
        shutil.rmtree(paths.turn / "swaps" / undone, ignore_errors=True)


def _end_without(paths: DatabasePaths, folder: Path) -> None:
    """The new file is not there under its own name: all was done, or somebody has taken it away."""
    if not (folder / "done.json").exists():
        raise DatabaseUnavailable(
            f"The file that was to replace database {paths.name!r} was removed before it could.",
            remedy="Remove `swap.json` from the database's folder in `.pondkeeper/`; what was replaced lies in `swaps/`.",
            private=str(folder),
        )
    journal(paths).unlink(missing_ok=True)
    sync_folder(paths.turn)


def _set_old_aside(file: Path, old: Path) -> None:
    for companion in COMPANIONS:
        with suppress(FileNotFoundError):
            _beside(file, companion).rename(_beside(old, companion))
    sync_folder(old.parent)
    sync_folder(file.parent)
    with suppress(FileNotFoundError):  # Why: a database that was lost can be restored too.
        _link(file, old)
    sync_folder(old.parent)
    sync_folder(old.parent.parent)


def _replace(file: Path, new: Path) -> None:
    """Trap: a rename between two names of one file does nothing, so the name that is renamed is a fresh one."""
    temp = file.with_name(f".{file.name}.swap.tmp")
    temp.unlink(missing_ok=True)
    os.link(new, temp)
    temp.replace(file)
    sync_folder(file.parent)


def _link(source: Path, name: Path) -> None:
    """Give the file a second name; it may have it already."""
    with suppress(FileExistsError):
        os.link(source, name)


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except FileNotFoundError:
        return False


def _beside(file: Path, companion: str) -> Path:
    return file.with_name(file.name + companion)


def _present(file: Path) -> list[Path]:
    return [path for path in (file, *(_beside(file, companion) for companion in COMPANIONS)) if path.exists()]


def _folder(paths: DatabasePaths, swap: Swap) -> Path:
    return paths.turn / "swaps" / swap.id


def _folders(paths: DatabasePaths) -> list[Path]:
    root = paths.turn / "swaps"
    return sorted(root.iterdir()) if root.is_dir() else []


def _is_named_by_journal(paths: DatabasePaths, folder: Path) -> bool:
    swap = Swap.read(journal(paths))
    return swap is not None and swap.id == folder.name


def _is_journalled(paths: DatabasePaths, swap: Swap) -> bool:
    return _is_named_by_journal(paths, _folder(paths, swap))


def _refuse_if_open(paths: DatabasePaths) -> None:
    for holder in holders_of(paths.file):
        if holder.kind == "posix":
            raise DatabaseBusy(
                f"{holder.program} (pid {holder.pid}) has the database open.",
                holder_pid=holder.pid,
                holder_program=holder.program,
            )
