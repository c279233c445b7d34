"""A disk that loses its power: a file system in memory, which knows what was synced and drops of the rest what it likes.

    python -m campaigns.droppingdisk PLACE BEFORE AFTER --seed S [--deaf]

It holds what is in the folder BEFORE and is mounted at PLACE. Lines of JSON come from stdin: {"cut_at": "file", "after": 7}
cuts the power after the seventh change of the database file, {"cut": true} at once. With the cut it answers nobody any
more, puts into AFTER what the disk may hold, says so on stdout, and ends when stdin does. `--deaf`: it says that it syncs.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import random
import select
import stat
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from campaigns.diskstates import Disk, File, Folder, Node, lay_out, read_tree
from campaigns.fusekernel import Attributes, Kernel

ANYWHERE = "anywhere"
DATABASE = "pond.duckdb"
TOP = Path("/disk")


@dataclass
class Inode:
    """A file, folder or link, and what the model does not know of it."""

    node: Node
    mode: int
    links: int
    modified_ns: int
    path: str  # where it was made, or moved to


class DroppingDisk:
    """The file system. `is_deaf`: an fsync has no effect, and says that it had."""

    def __init__(self, before: Path, *, is_deaf: bool) -> None:
        self._disk = Disk(TOP)
        self._disk.begin_with(read_tree(before))
        self._is_deaf = is_deaf
        self._inodes: dict[int, Inode] = {}
        self._numbers: dict[int, int] = {}  # by the identity of the node; nothing is ever forgotten, so that it stays unique
        self._number_of(self._disk.top, "")
        self._left: int | None = None
        self._cut_at = ANYWHERE
        self.cut_by: str | None = None

    def arm(self, cut_at: str, after: int) -> None:
        """Cut the power after so many changes of this kind of file."""
        self._cut_at, self._left = cut_at, after

    def after_a_cut(self, chance: random.Random, folder: Path) -> None:
        """Put into `folder` what the disk may hold now."""
        lay_out(self._disk.after_a_cut(chance), folder)

    # What programs see

    def look(self, number: int) -> Attributes:
        inode = self._inodes[number]
        size = len(inode.node.live) if isinstance(inode.node, File) else len(inode.node) if isinstance(inode.node, str) else 0
        return Attributes(number, inode.mode, size, inode.links, inode.modified_ns)

    def find(self, folder: int, name: str) -> Attributes:
        within = self._folder(folder)
        if name not in within.live:
            raise FileNotFoundError(errno.ENOENT, name)
        return self.look(self._number_of(within.live[name], self._path(folder, name)))

    def target_of(self, number: int) -> str:
        node = self._inodes[number].node
        assert isinstance(node, str)
        return node

    def names_in(self, folder: int) -> list[tuple[str, int, int]]:
        found = []
        for name, node in self._folder(folder).live.items():
            number = self._number_of(node, self._path(folder, name))
            found.append((name, number, self._inodes[number].mode))
        return found

    def read(self, number: int, offset: int, size: int) -> bytes:
        return bytes(self._file(number).live[offset : offset + size])

    # Names

    def make(self, folder: int, name: str, mode: int) -> Attributes:
        self._must_be_new(folder, name)
        node: Node = Folder() if stat.S_ISDIR(mode) else File()
        path = self._path(folder, name)
        number = self._number_of(node, path)
        self._inodes[number].mode = mode
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
            self._disk.name(node, None, (self._folder(folder), name))
            self._changed(folder, "create", path)
        else:  # Why: a socket is nothing without its program; the model does not know any.
            self._folder(folder).live[name] = node
        return self.look(number)

    def make_link(self, folder: int, name: str, target: str) -> Attributes:
        self._must_be_new(folder, name)
        path = self._path(folder, name)
        self._disk.name(target, None, (self._folder(folder), name))
        self._changed(folder, "symlink", path)
        return self.look(self._number_of(target, path))

    def link(self, number: int, folder: int, name: str) -> Attributes:
        self._must_be_new(folder, name)
        inode = self._inodes[number]
        inode.links += 1
        self._disk.name(inode.node, None, (self._folder(folder), name))
        self._changed(folder, "link", self._path(folder, name))
        return self.look(number)

    def unlink(self, folder: int, name: str) -> None:
        within = self._folder(folder)
        inode = self._inodes[self.find(folder, name).number]
        inode.links -= 1
        self._disk.name(inode.node, (within, name), None)
        self._changed(folder, "unlink", self._path(folder, name))

    def remove_folder(self, folder: int, name: str) -> None:
        node = self._inodes[self.find(folder, name).number].node
        if not isinstance(node, Folder):
            raise NotADirectoryError(errno.ENOTDIR, name)
        if node.live:
            raise OSError(errno.ENOTEMPTY, name)
        self._disk.name(node, (self._folder(folder), name), None)
        self._changed(folder, "rmdir", self._path(folder, name))

    def rename(self, folder: int, name: str, new_folder: int, new_name: str) -> None:
        source, target = self._folder(folder), self._folder(new_folder)
        inode = self._inodes[self.find(folder, name).number]
        replaced = target.live.get(new_name)
        if replaced is inode.node:
            return  # Why: two names of one file, which POSIX leaves as they are
        if isinstance(replaced, Folder) and replaced.live:
            raise OSError(errno.ENOTEMPTY, new_name)
        if replaced is not None:
            self._inodes[self._number_of(replaced, "")].links -= 1
        inode.path = self._path(new_folder, new_name)
        self._disk.name(inode.node, (source, name), (target, new_name))
        self._changed(folder, "rename", inode.path)
        self._inodes[new_folder].modified_ns = time.time_ns()

    # Contents

    def write(self, number: int, offset: int, data: bytes) -> None:
        self._file(number).write(offset, data)
        self._changed(number, "write", self._inodes[number].path)

    def truncate(self, number: int, size: int) -> None:
        file = self._file(number)
        if len(file.live) != size:
            file.truncate(size)
            self._changed(number, "truncate", self._inodes[number].path)

    def change(self, number: int, mode: int | None, modified_ns: int | None) -> None:
        inode = self._inodes[number]
        if mode is not None:
            inode.mode = stat.S_IFMT(inode.mode) | stat.S_IMODE(mode)
        if modified_ns is not None:
            inode.modified_ns = modified_ns

    def sync(self, number: int) -> None:
        inode = self._inodes[number]
        if not self._is_deaf:
            if isinstance(inode.node, File):
                inode.node.end_sync()
            elif isinstance(inode.node, Folder):
                self._disk.sync_names(inode.node)
        self._counted("sync", inode.path)

    # Below

    def _number_of(self, node: Node, path: str) -> int:
        number = self._numbers.get(id(node))
        if number is None:
            number = self._numbers[id(node)] = len(self._inodes) + 1
            mode = 0o100600 if isinstance(node, File) else 0o040700 if isinstance(node, Folder) else 0o120777
            self._inodes[number] = Inode(node, mode, 1, time.time_ns(), path)
        return number

    def _folder(self, number: int) -> Folder:
        node = self._inodes[number].node
        if not isinstance(node, Folder):
            raise NotADirectoryError(errno.ENOTDIR, self._inodes[number].path)
        return node

    def _file(self, number: int) -> File:
        node = self._inodes[number].node
        if not isinstance(node, File):
            raise IsADirectoryError(errno.EISDIR, self._inodes[number].path)
        return node

    def _path(self, folder: int, name: str) -> str:
        return f"{self._inodes[folder].path}/{name}"

    def _must_be_new(self, folder: int, name: str) -> None:
        if name in self._folder(folder).live:
            raise FileExistsError(errno.EEXIST, name)

    def _changed(self, number: int, what: str, path: str) -> None:
        self._inodes[number].modified_ns = time.time_ns()
        self._counted(what, path)

    def _counted(self, what: str, path: str) -> None:
        if self._left is None or self._cut_at not in (ANYWHERE, _kind(path)):
            return
        self._left -= 1
        if self._left <= 0:
            self.cut_by = f"{what} {Path(path).name}"


def _kind(path: str) -> str:
    """Which kind of file that is, for the choice of a moment."""
    name = Path(path).name
    if "/snapshots/" in path or not name.startswith(DATABASE):
        return "other"
    return "file" if name == DATABASE else "wal"


def _told(disk: DroppingDisk, line: dict[str, Any]) -> None:
    if line.get("cut"):
        disk.cut_by = "nothing in particular"
    else:
        disk.arm(line["cut_at"], line["after"])


def serve(disk: DroppingDisk, kernel: Kernel) -> bool:
    """Answer until the power is cut; False when stdin ended before."""
    polled = select.poll()
    polled.register(kernel.fileno(), select.POLLIN)
    polled.register(sys.stdin.fileno(), select.POLLIN)
    while True:
        for descriptor, _ in polled.poll():
            if descriptor == kernel.fileno():
                if not kernel.answer_one(is_over=lambda: disk.cut_by is not None):
                    return disk.cut_by is not None
            else:
                line = os.read(descriptor, 65_536)  # Why not readline: a line is one write, and a buffer would hide the next
                if not line:
                    return False
                for each in line.splitlines():
                    _told(disk, json.loads(each))
        if disk.cut_by is not None:
            return True


def main() -> None:
    """Be the disk until the power is cut."""
    parser = argparse.ArgumentParser()
    parser.add_argument("place", type=Path)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--seed", required=True)
    parser.add_argument("--deaf", action="store_true")
    asked = parser.parse_args()
    disk = DroppingDisk(asked.before, is_deaf=asked.deaf)
    kernel = Kernel(disk, asked.place)
    print(json.dumps({"mounted": True}), flush=True)
    if serve(disk, kernel):
        disk.after_a_cut(random.Random(asked.seed), asked.after)
        print(json.dumps({"cut": disk.cut_by}), flush=True)
        sys.stdin.buffer.read()  # Why: whoever asks now is to wait, and to be killed while he does


if __name__ == "__main__":
    main()
