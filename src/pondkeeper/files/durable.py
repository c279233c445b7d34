"""Durable bytes: what is written here is there after a power cut, whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700


def make_folder(path: Path, *, durable: bool = True) -> None:
    """Make a private folder and its parents (0700); an existing one keeps its mode.

    `durable`: with its name, so that what is synced in it can be found after a power cut. Not for what is thrown away.
    """
    if path.exists():
        return
    make_folder(path.parent, durable=durable)  # Why: mkdir(parents=True) gives the parents the umask's mode, not ours.
    path.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
    if durable:
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """fsync a folder, so that creations, renames and removals in it survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """fsync a file that somebody else has written. Trap: never one that this process has locked by fcntl."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def empty_folder(path: Path) -> None:
    """Remove what lies in the folder, as far as that goes; the folder stays. It blocks as long as the disk does."""
    with suppress(FileNotFoundError), os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                with suppress(OSError):
                    Path(entry.path).unlink()


def write_atomic(path: Path, data: bytes, *, mode: int = PRIVATE_FILE) -> None:
    """Replace `path` by `data`: temp file, fsync, rename, fsync of the folder. Readers see the old or the new."""
    temp = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    descriptor = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temp.replace(path)
    except BaseException:  # Why: whatever ended the write, the half-made temp file must not stay behind.
        temp.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_volatile(path: Path, data: bytes, *, mode: int = PRIVATE_FILE) -> None:
    """Replace `path` in one step, without a wait for the disk: for what the next writing makes worthless."""
    temp = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    descriptor = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        temp.replace(path)
    except BaseException:  # Why: whatever ended the write, the half-made temp file must not stay behind.
        temp.unlink(missing_ok=True)
        raise


def link_atomic(link: Path, target: Path) -> None:
    """Point the symbolic link `link` at `target` (relative to it) in one step."""
    relative = os.path.relpath(target, link.parent)
    temp = link.with_name(f".{link.name}.{secrets.token_hex(4)}.tmp")
    temp.symlink_to(relative)
    temp.replace(link)
    sync_folder(link.parent)
