"""A folder as a store: what was put is flushed before its name appears, and its folder after."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pondkeeper.archive.store.protocol import Stored
from pondkeeper.errors import ArchiveBusy, ArchiveUnavailable, DiskFull, ObjectMissing
from pondkeeper.files.durable import PRIVATE_FILE, empty_folder, make_folder, sync_file, sync_folder

_UNFINISHED = ".unfinished"
_LOCK = ".store.lock"
_SYNC_THREADS = 8
_FLUSH_AFTER_BYTES = 64 * 1024 * 1024
_BETWEEN_ATTEMPTS_S = 0.01
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class LocalStore:
    """Objects as files below `root`. Half-made ones lie in `.unfinished` and are nobody's; the lock is an flock."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._known_folders: set[Path] = set()

    @property
    def address(self) -> str:
        return str(self.root)

    @property
    def at_once(self) -> int:
        # Why no more: one waits for the disk while the others hash, and a fourth on two processors only waits for the GIL.
        return min(8, (os.cpu_count() or 2) + 1)

    def get(self, name: str) -> bytes:
        with _disk_errors():
            try:
                return _read_all(f"{self.root}/{name}")
            except FileNotFoundError as error:
                raise ObjectMissing(private=str(error), object=name) from error

    def has(self, name: str) -> bool:
        with _disk_errors():
            return os.path.exists(self.root / name)

    def put(self, name: str, data: bytes) -> None:
        with self.putting() as batch:
            batch.put(name, data)

    @contextlib.contextmanager
    def putting(self) -> Iterator[_Batch]:
        batch = _Batch(self)
        try:
            yield batch
            batch.flush()
        finally:
            batch.discard()

    def names(self, prefix: str, after: str = "") -> Iterator[str]:
        return (name for path, _ in self._files(prefix) if (name := prefix + path) > after)

    def stored(self, prefix: str) -> Iterator[Stored]:
        for path, entry in self._files(prefix):
            with _disk_errors():
                try:
                    size_bytes = entry.stat().st_size
                except FileNotFoundError:  # Why: removed since the folder was read.
                    continue
            yield Stored(prefix + path, size_bytes)

    def folders(self, prefix: str) -> list[str]:
        with _disk_errors():
            return sorted(entry.name for entry in self._entries(prefix) if entry.is_dir())

    def delete(self, names: Sequence[str]) -> None:
        with _disk_errors():
            for name in names:
                (self.root / name).unlink(missing_ok=True)
            for folder in {(self.root / name).parent for name in names}:
                with contextlib.suppress(FileNotFoundError):
                    sync_folder(folder)

    @contextlib.contextmanager
    def writing(self, timeout_s: float = 60.0) -> Iterator[LocalGuard]:
        with self._locked(fcntl.LOCK_SH, timeout_s) as guard:
            yield guard

    @contextlib.contextmanager
    def removing(self, timeout_s: float = 60.0) -> Iterator[LocalGuard]:
        with self._locked(fcntl.LOCK_EX, timeout_s) as guard:
            empty_folder(self.root / _UNFINISHED)  # Why here: nobody writes, so what lies there is a dead writer's.
            yield guard

    def close(self) -> None:
        """Nothing is held between calls."""

    @contextlib.contextmanager
    def _locked(self, mode: int, timeout_s: float) -> Iterator[LocalGuard]:
        with _disk_errors():
            make_folder(self.root)
            descriptor = os.open(self.root / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
        try:
            _lock(descriptor, mode, timeout_s)
            yield LocalGuard()
        finally:
            os.close(descriptor)

    def _files(self, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
        for entry in self._entries(prefix):
            if entry.is_dir():
                yield from ((f"{entry.name}/{path}", file) for path, file in self._files(f"{prefix}{entry.name}/"))
            else:
                yield entry.name, entry

    def _entries(self, prefix: str) -> list[os.DirEntry[str]]:
        with _disk_errors():
            try:
                with os.scandir(self.root / prefix) as entries:
                    return [entry for entry in entries if not entry.name.startswith(".")]
            except FileNotFoundError:
                return []

    def forget_folders(self) -> None:
        """Something failed: perhaps somebody has removed or unmounted what we know to be there."""
        self._known_folders.clear()

    def ready_folder(self, folder: Path) -> None:
        """Make the folder, durably: a name in a folder that a power cut takes is no name."""
        if folder in self._known_folders:
            return
        if not folder.exists():
            self.ready_folder(folder.parent)
            make_folder(folder)
        # Why suppressed: a fenced process may not open what is above the store; whoever forked it has flushed that.
        with contextlib.suppress(*([PermissionError] if folder == self.root else [])):
            sync_folder(folder.parent)  # Why always: another process may have made it and not flushed it yet.
        self._known_folders.add(folder)


class LocalGuard:
    """The kernel holds the lock for as long as its holder lives: it cannot be lost."""

    def check(self) -> None:
        """Nothing can have happened."""


class _Batch:
    """Objects written under private names; `flush` makes them durable together and gives them their own."""

    def __init__(self, store: LocalStore) -> None:
        self._store = store
        self._written: dict[str, Path] = {}
        self._begun: set[str] = set()
        self._found: set[Path] = set()
        self._bytes = 0
        self._lock = threading.Lock()

    def put_missing(self, name: str, make: Callable[[], bytes]) -> int:
        path = self._store.root / name
        with self._lock:
            if name in self._begun:
                return 0
            self._begun.add(name)
        if path.exists():
            with self._lock:
                self._found.add(path.parent)
            return 0
        data = make()
        self.put(name, data)
        with self._lock:
            if self._bytes >= _FLUSH_AFTER_BYTES:
                self._flush()
        return len(data)

    def put(self, name: str, data: bytes) -> None:
        with _disk_errors():
            unfinished = self._store.root / _UNFINISHED
            self._store.ready_folder(unfinished)
            temp = unfinished / secrets.token_hex(12)
            try:
                descriptor = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_FILE)
                with os.fdopen(descriptor, "wb", buffering=0) as file:
                    _write_all(file.fileno(), data)
            except BaseException:  # Why: whatever ended the write, the half-made file must not stay behind.
                self._store.forget_folders()
                with contextlib.suppress(OSError):
                    temp.unlink(missing_ok=True)
                raise
        with self._lock:
            twin = self._written.pop(name, None)
            self._written[name] = temp
            self._bytes += len(data)
        if twin is not None:
            twin.unlink(missing_ok=True)

    def flush(self) -> None:
        with self._lock:
            self._flush()

    def _flush(self) -> None:
        with _disk_errors():
            written, found = self._written, self._found
            folders = found | {(self._store.root / name).parent for name in written}
            _each(sync_file, list(written.values()))
            for folder in sorted(folders):
                self._store.ready_folder(folder)
            for name, temp in written.items():
                temp.replace(self._store.root / name)
            _each(sync_folder, sorted(folders))
            self._written, self._found, self._bytes = {}, set(), 0

    def discard(self) -> None:
        """Remove what was not flushed."""
        if not self._written:
            return
        self._store.forget_folders()
        for temp in self._written.values():
            with contextlib.suppress(OSError):
                temp.unlink(missing_ok=True)
        self._written = {}


def _read_all(path: str) -> bytes:
    """What `read_bytes` does with half the calls: a restore reads some thousand objects each second."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, os.fstat(descriptor).st_size)  # Why once: Linux reads up to 2 GB of a file at a time
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _each(sync: Callable[[Path], None], paths: list[Path]) -> None:
    """All of them, several at a time: the disk flushes what waits together."""
    if len(paths) < 2:
        for path in paths:
            sync(path)
        return
    with ThreadPoolExecutor(min(_SYNC_THREADS, len(paths))) as threads:
        for _ in threads.map(sync, paths):
            pass


def _lock(descriptor: int, mode: int, timeout_s: float) -> None:
    ends_at = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() >= ends_at:
                raise ArchiveBusy from error
        time.sleep(_BETWEEN_ATTEMPTS_S)


@contextlib.contextmanager
def _disk_errors() -> Iterator[None]:
    """Turn what a disk may refuse into our errors."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFull("The disk of the archive is full.", private=str(error)) from error
        raise ArchiveUnavailable(private=str(error)) from error
