"""What a disk may hold after a power cut, from the calls that were made: everything synced, and of the rest any part.

A write reaches the disk sector by sector (512 or 4,096 bytes), each with what it held after any of the writes to it since
the last fsync. Sizes, creates, renames, links and removals are lost or kept, each for itself, until their folder is
synced. (Real file systems lose less: most keep the order of names, and make a file's name durable with its fsync.)
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from campaigns.tracing import Call

SECTORS = (512, 4_096)


@dataclass
class File:
    """`durable` survives for certain; `pending` are the writes and truncations since, `live` what programs see."""

    durable: bytes = b""
    live: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)  # (offset, data), or (size, None) to truncate
    syncing: list[int] = field(default_factory=list)

    def write(self, offset: int, data: bytes) -> None:
        _put(self.live, offset, data)
        self.pending.append((offset, data))

    def truncate(self, size: int) -> None:
        _resize(self.live, size)
        self.pending.append((size, None))

    def begin_sync(self) -> None:
        self.syncing.append(len(self.pending))

    def end_sync(self) -> None:
        count = self.syncing.pop(0) if self.syncing else len(self.pending)
        if not count:
            return
        content = bytearray(self.durable)
        for step in self.pending[:count]:
            _take(content, step)
        self.durable = bytes(content)
        del self.pending[:count]
        self.syncing = [max(0, other - count) for other in self.syncing]

    def after_a_cut(self, chance: random.Random) -> bytes:
        """One content that the disk may hold."""
        if not self.pending:
            return self.durable
        if any(data is None for _, data in self.pending):
            content = bytearray(self.durable)
            for step in self.pending[: chance.randint(0, len(self.pending))]:
                _take(content, step)
            return bytes(content)
        return self._by_sectors(chance, chance.choice(SECTORS), chance.choice((0.0, 0.1, 0.5, 0.9, 1.0)))

    def _by_sectors(self, chance: random.Random, sector_bytes: int, share: float) -> bytes:
        """Each sector as it was after one of the writes to it, or before all of them; the last of them with `share`."""
        touched: dict[int, list[int]] = {}
        for number, (offset, data) in enumerate(self.pending):
            assert data is not None
            for sector in range(offset // sector_bytes, -(-(offset + len(data)) // sector_bytes)):
                touched.setdefault(sector, []).append(number)
        chosen: dict[int, list[int]] = {}
        for sector, numbers in touched.items():
            number = numbers[-1] if chance.random() < share else chance.choice([-1, *numbers[:-1]])
            chosen.setdefault(number, []).append(sector)
        seen, out = bytearray(self.durable), bytearray(self.durable)
        for number, (offset, data) in enumerate(self.pending):
            assert data is not None
            _put(seen, offset, data)
            for sector in chosen.get(number, ()):
                begin = sector * sector_bytes
                _put(out, begin, bytes(seen[begin : begin + sector_bytes]))
        if chance.random() < 0.25:  # the size reached the disk, and what lies in between did not
            _resize(out, max(len(out), len(self.live)))
        return bytes(out)


@dataclass
class Folder:
    """`live` is what programs see, `durable` what survives for certain."""

    live: dict[str, Node] = field(default_factory=dict)
    durable: dict[str, Node] = field(default_factory=dict)


Node = File | Folder | str  # a text is where a symbolic link leads
Tree = dict[str, bytes | str | None]  # files, links (texts) and folders (None) by their paths
NamesOf = Callable[[Folder], dict[str, Node]]


@dataclass
class Naming:
    """One change of names that is not durable yet: a name goes, or comes, or both at once (a rename)."""

    node: Node
    gone: tuple[Folder, str] | None
    come: tuple[Folder, str] | None

    def concerns(self, folder: Folder) -> bool:
        return any(place is not None and place[0] is folder for place in (self.gone, self.come))


class Disk:
    """A folder and everything below it, as the calls change it."""

    def __init__(self, root: Path) -> None:
        self.top = Folder()
        self._root = str(root)
        self._pending: list[Naming] = []
        self._positions: dict[tuple[int, int], int] = {}
        self._appending: set[tuple[int, int]] = set()

    def begin_with(self, tree: Tree) -> None:
        """What is there from the start, all of it durable."""
        for path in sorted(tree):
            content = tree[path]
            node: Node = Folder() if content is None else content if isinstance(content, str) else _file(content)
            folder, name = self._place(f"{self._root}/{path}")
            folder.live[name] = folder.durable[name] = node

    def take(self, call: Call) -> None:
        """Let a call have its effect."""
        handler = getattr(self, "_on_" + call.name, None)
        if handler is not None:
            handler(call)

    # Calls

    def _on_open(self, call: Call) -> None:
        folder, name = self._place(call.path)
        node = folder.live.get(name)
        while isinstance(node, str):
            folder, name = self._place(os.path.normpath(Path(call.path).parent / node))
            node = folder.live.get(name)
        if node is None:
            node = File()
            self.name(node, None, (folder, name))
        if isinstance(node, File):
            if "O_TRUNC" in call.flags and node.live:
                node.truncate(0)
            key = (call.descriptor, id(node))
            self._positions[key] = 0
            self._appending.discard(key)
            if "O_APPEND" in call.flags:
                self._appending.add(key)

    def _on_write(self, call: Call) -> None:
        node = self._file(call.path)
        if node is None:
            return
        key = (call.descriptor, id(node))
        if call.offset is not None:
            node.write(call.offset, call.data)
            return
        offset = len(node.live) if key in self._appending else self._positions.get(key, 0)
        node.write(offset, call.data)
        self._positions[key] = offset + len(call.data)

    def _on_lseek(self, call: Call) -> None:
        if (node := self._file(call.path)) is not None:
            self._positions[call.descriptor, id(node)] = call.size

    def _on_copy(self, call: Call) -> None:
        source, target = self._file(call.target), self._file(call.path)
        if source is not None and target is not None:
            assert call.offset is not None
            begin = int(call.flags)
            target.write(call.offset, bytes(source.live[begin : begin + call.size]))

    def _on_ftruncate(self, call: Call) -> None:
        if (node := self._file(call.path)) is not None:
            node.truncate(call.size)

    def _on_sync(self, call: Call) -> None:
        node = self._find(call.path)
        if isinstance(node, File):
            if call.begins:
                node.begin_sync()
            else:
                node.end_sync()
        elif isinstance(node, Folder) and not call.begins:
            self.sync_names(node)

    def _on_mkdir(self, call: Call) -> None:
        self.name(Folder(), None, self._place(call.path))

    def _on_symlink(self, call: Call) -> None:
        self.name(call.target, None, self._place(call.path))

    def _on_link(self, call: Call) -> None:
        if (node := self._find(call.path)) is not None:
            self.name(node, None, self._place(call.target))

    def _on_unlink(self, call: Call) -> None:
        folder, name = self._place(call.path)
        if (node := folder.live.get(name)) is not None:
            self.name(node, (folder, name), None)

    def _on_rename(self, call: Call) -> None:
        folder, name = self._place(call.path)
        if (node := folder.live.get(name)) is not None:
            self.name(node, (folder, name), self._place(call.target))

    # Names

    def name(self, node: Node, gone: tuple[Folder, str] | None, come: tuple[Folder, str] | None) -> None:
        """A name goes, or comes, or both at once."""
        if gone is not None:
            gone[0].live.pop(gone[1], None)
        if come is not None:
            come[0].live[come[1]] = node
        self._pending.append(Naming(node, gone, come))

    def sync_names(self, folder: Folder) -> None:
        """What has become of the names in this folder survives from now on."""
        for change in [each for each in self._pending if each.concerns(folder)]:
            _apply(change, lambda place: place.durable)
        self._pending = [each for each in self._pending if not each.concerns(folder)]

    def _place(self, path: str) -> tuple[Folder, str]:
        folder = self.top
        *parents, name = os.path.relpath(path, self._root).split("/")
        for parent in parents:
            node = folder.live.get(parent)
            if not isinstance(node, Folder):
                node = Folder()  # Why: made before we looked, or by a call that we do not follow
                folder.live[parent] = folder.durable[parent] = node
            folder = node
        return folder, name

    def _find(self, path: str) -> Node | None:
        if path == self._root:
            return self.top
        folder, name = self._place(path)
        return folder.live.get(name)

    def _file(self, path: str) -> File | None:
        node = None if path.endswith(" (deleted)") else self._find(path)
        return node if isinstance(node, File) else None

    # After a cut

    def after_a_cut(self, chance: random.Random) -> Tree:
        """One tree that the disk may hold."""
        names: dict[int, dict[str, Node]] = {}

        def of(folder: Folder) -> dict[str, Node]:
            return names.setdefault(id(folder), dict(folder.durable))

        share = chance.choice((0.0, 0.5, 0.9, 1.0))
        for change in self._pending:
            if chance.random() < share:
                _apply(change, of)
        return _collected(self.top, of, chance)


def _collected(top: Folder, names_of: NamesOf, chance: random.Random) -> Tree:
    """The tree below, each file with one of its contents, the same under each of its names."""
    contents: dict[int, bytes] = {}
    tree: Tree = {}
    folders = [("", top)]
    while folders:
        below, folder = folders.pop()
        for name, node in names_of(folder).items():
            if isinstance(node, File):
                if id(node) not in contents:
                    contents[id(node)] = node.after_a_cut(chance)
                tree[below + name] = contents[id(node)]
            elif isinstance(node, Folder):
                tree[below + name] = None
                folders.append((f"{below}{name}/", node))
            else:
                tree[below + name] = node
    return tree


def lay_out(tree: Tree, folder: Path) -> None:
    """Make the tree on a real disk."""
    folder.mkdir(parents=True)
    for path in sorted(tree):
        place, content = folder / path, tree[path]
        if content is None:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
        elif isinstance(content, str):
            place.symlink_to(content)
        else:
            place.write_bytes(content)
            place.chmod(0o600)


def read_tree(folder: Path) -> Tree:
    """What lies in a folder, as `lay_out` takes it."""
    tree: Tree = {}
    for place in folder.rglob("*"):
        path = str(place.relative_to(folder))
        if place.is_symlink():
            tree[path] = str(place.readlink())
        elif place.is_dir():
            tree[path] = None
        elif place.is_file():
            tree[path] = place.read_bytes()
    return tree


def _apply(change: Naming, names_of: NamesOf) -> None:
    if change.gone is not None:
        folder, name = change.gone
        if names_of(folder).get(name) is change.node:
            del names_of(folder)[name]
    if change.come is not None:
        folder, name = change.come
        names_of(folder)[name] = change.node


def _file(content: bytes) -> File:
    return File(content, bytearray(content))


def _take(content: bytearray, step: tuple[int, bytes | None]) -> None:
    offset, data = step
    if data is None:
        _resize(content, offset)
    else:
        _put(content, offset, data)


def _put(content: bytearray, offset: int, data: bytes) -> None:
    if offset > len(content):
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


def _resize(content: bytearray, size: int) -> None:
    if size < len(content):
        del content[size:]
    else:
        content.extend(bytes(size - len(content)))
