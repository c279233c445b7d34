"""The feeder process of a primary: hashes the blocks of snapshots that replicas ask for, and hands them out sealed.

Messages in, answers out, one at a time:

    {"op": "look", "keep", "version", "path", "since", "changed"}
        → {"op": "looked", "version", "size_bytes", "pages", "hashed"} and a DATA frame with the digests of all blocks
    {"op": "blocks", "keep", "digests"}
        → {"op": "block", "digest", "size_bytes"} and a DATA frame with it sealed, or {"op": "missing", "digest"}; for each
    anything that fails → {"op": "error", "code", "message", "remedy", …}

It reads snapshots, never a database file, and has one open only while somebody fetches it: an open snapshot cannot become
the next one. `keep` are the versions that are being fetched now.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from pondkeeper.archive.sealing import Sealer
from pondkeeper.archive.tree import BLOCK_BYTES, PAGE_BLOCKS, Tree, block_count, block_span, blocks_within
from pondkeeper.engine.checksum import block_checksum
from pondkeeper.engine.fileformat import BlockUse, Headers, block_offset, is_whole, read_block_use, read_headers
from pondkeeper.errors import DatabaseUnreadable, InvalidRequest, PondkeeperError, SnapshotNotFound
from pondkeeper.snapshots.changes import Ranges
from pondkeeper.workers.frames import Pipe

Message = dict[str, Any]


class Look(msgspec.Struct):
    """A version to be given out. `changed`: blocks of the database that may differ from version `since`; None: any may."""

    version: int
    path: str
    keep: list[int]
    since: int | None = None
    changed: Ranges | None = None


class Blocks(msgspec.Struct):
    """Blocks by their digests, in hexadecimal."""

    digests: list[str]
    keep: list[int]


@dataclass
class Offered:
    """A version that was looked at: its tree, and its snapshot as long as somebody fetches it."""

    version: int
    path: str
    tree: Tree
    headers: Headers
    use: BlockUse | None
    places: dict[bytes, int]
    descriptor: int | None = None

    def opened(self) -> int:
        """The snapshot, open. Raises FileNotFoundError when it has gone."""
        if self.descriptor is None:
            self.descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        return self.descriptor

    def close(self) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None

    def contents(self, block: int) -> bytes:
        """A block of the snapshot as replicas get it: what is free in it, and may hold anything, is zero."""
        offset, length = block_span(block, self.tree.size_bytes)
        return _contents(self.opened(), offset, length, self.headers, self.use)


class Feeder:
    """The versions of one database that are given out."""

    def __init__(self) -> None:
        self._sealer = Sealer()
        self._offered: dict[int, Offered] = {}

    def look(self, look: Look) -> tuple[Message, bytes]:
        """Hash what may have changed since the version looked at before; its description, and the digests of all blocks."""
        offered = self._offered.get(look.version)
        hashed = 0
        if offered is None:
            offered, hashed = self._look(look)
            self._offered[look.version] = offered
        self._forget({*look.keep, look.version})
        pages = [self._sealer.digest(page).hex() for page in offered.tree.pages()]
        described = {"version": look.version, "size_bytes": offered.tree.size_bytes, "pages": pages, "hashed": hashed}
        header = offered.headers
        described |= {
            "iteration": header.active.iteration,
            "identity": header.identity.hex(),
            "storage_version": header.storage_version,
            "library_version": header.library_version,
        }
        return {"op": "looked", **described}, offered.tree.digests

    def block(self, digest: bytes) -> bytes | None:
        """The block of that digest, sealed; None when no version that is given out has it any more.

        Raises DatabaseUnreadable when the snapshot is not what it was when it was hashed.
        """
        for offered in reversed(self._offered.values()):
            if (block := offered.places.get(digest)) is None:
                continue
            try:
                contents = offered.contents(block)
            except FileNotFoundError:
                continue
            if self._sealer.digest(contents) != digest:
                raise _damaged(offered.path, block)
            return self._sealer.seal(contents, digest)
        return None

    def settle(self, keep: Iterable[int]) -> None:
        """Let go of the snapshots that nobody fetches. The newest tree stays: the next one is made from it."""
        wanted = set(keep)
        newest = max(self._offered, default=0)
        self._forget({*wanted, newest})
        for offered in self._offered.values():
            if offered.version not in wanted:
                offered.close()

    def _forget(self, keep: set[int]) -> None:
        for version in [version for version in self._offered if version not in keep]:
            self._offered.pop(version).close()

    def _look(self, look: Look) -> tuple[Offered, int]:
        try:
            descriptor = os.open(look.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise SnapshotNotFound(f"Version {look.version} has gone.") from None
        try:
            headers = read_headers(descriptor)
            use = read_block_use(descriptor, headers, block_checksum)
            size_bytes = os.fstat(descriptor).st_size
            before = self._offered.get(look.since) if look.since is not None else None
            blocks = _to_hash(before, use, headers, size_bytes, look.changed)
            digests: dict[int, bytes] = {}
            for block in blocks:
                offset, length = block_span(block, size_bytes)
                contents = _contents(descriptor, offset, length, headers, use)
                _check(contents, offset, headers, use, look.path)
                digests[block] = self._sealer.digest(contents)
            tree = (before.tree if before else Tree(0, b"")).replaced(size_bytes, digests)
        except BaseException:  # Why: whatever ended it, nobody else closes the snapshot.
            os.close(descriptor)
            raise
        places = {tree.digest(block): block for block in range(len(tree))}
        return Offered(look.version, look.path, tree, headers, use, places, descriptor), len(digests)


def _to_hash(
    before: Offered | None, use: BlockUse | None, headers: Headers, size_bytes: int, changed: Ranges | None
) -> Iterable[int]:
    """The blocks of the tree that may differ from the version before; all of them where that is not known."""
    everything = range(block_count(size_bytes))
    if before is None or changed is None or use is None or before.use is None:
        return everything
    size = headers.active.block_size_bytes
    if size != before.headers.active.block_size_bytes:
        return everything
    # Why also those that were freed: they may hold anything, and are zero to replicas.
    ranges = [*changed, *((block, block + 1) for block in use.free ^ before.use.free)]
    found = {0}
    for first, end in ranges:
        found.update(blocks_within(block_offset(first, size), min(block_offset(end, size), size_bytes)))
    # Why the last too: it may have been a shorter one.
    found.update(range(max(len(before.tree) - 1, 0), len(everything)))
    return sorted(block for block in found if block < len(everything))


def _contents(descriptor: int, offset: int, length: int, headers: Headers, use: BlockUse | None) -> bytes:
    contents = os.pread(descriptor, length, offset)
    if len(contents) < length:
        contents += bytes(length - len(contents))  # Why: a file ends where its last free blocks were never written.
    free = () if use is None else _within(offset, length, headers, use)
    if not free:
        return contents
    mended = bytearray(contents)
    for start, end in free:
        mended[start:end] = bytes(end - start)
    return bytes(mended)


def _within(offset: int, length: int, headers: Headers, use: BlockUse) -> list[tuple[int, int]]:
    """Where the free blocks of the database lie in this piece of its file."""
    return [
        (start, end)
        for block, start, end in _blocks_in(offset, length, headers.active.block_size_bytes)
        if not use.is_used(block)
    ]


def _blocks_in(offset: int, length: int, size: int) -> Iterable[tuple[int, int, int]]:
    """The blocks of the database in this piece of its file, each with its begin and end in the piece."""
    first_offset = block_offset(0, size)
    if offset < first_offset:
        return
    for start in range(0, length, size):
        yield (offset + start - first_offset) // size, start, min(start + size, length)


def _check(contents: bytes, offset: int, headers: Headers, use: BlockUse | None, path: str) -> None:
    """What is given out is whole by the engine's own checksums. Raises DatabaseUnreadable."""
    if use is None:
        return
    view = memoryview(contents)
    for block, start, end in _blocks_in(offset, len(contents), headers.active.block_size_bytes):
        if use.is_used(block) and not is_whole(view[start:end], block_checksum):
            raise _damaged(path, block)


def _damaged(path: str, block: int) -> DatabaseUnreadable:
    return DatabaseUnreadable("A block of a snapshot is damaged, so it is not given out.", private=path, block=block)


def main(pipe: Pipe, control: socket.socket, config: dict[str, Any]) -> None:  # noqa: ARG001  Why: every entry takes them
    """Serve messages until the keeper closes its end."""
    feeder = Feeder()
    try:
        while (message := pipe.receive()) is not None:
            _answer(pipe, feeder, message)
    except (BrokenPipeError, ConnectionResetError):  # the keeper is gone: nobody is left to tell
        return


def _answer(pipe: Pipe, feeder: Feeder, message: Message) -> None:
    try:
        if message["op"] == "look":
            described, digests = feeder.look(msgspec.convert(message, Look))
            pipe.send_answer(described, [digests], {"op": "end"})
        elif message["op"] == "blocks":
            _send_blocks(pipe, feeder, msgspec.convert(message, Blocks))
        else:
            raise InvalidRequest("The feeder does not know this operation.", op=message["op"])
    except PondkeeperError as error:
        pipe.send({"op": "error", **error.to_wire(with_private=True)})
    except Exception as error:  # noqa: BLE001  Why: an unforeseen OSError must be answered, or the keeper waits for ever
        pipe.send({"op": "error", **PondkeeperError(private=repr(error)).to_wire(with_private=True)})


def _send_blocks(pipe: Pipe, feeder: Feeder, request: Blocks) -> None:
    for digest in request.digests:
        sealed = feeder.block(bytes.fromhex(digest))
        if sealed is None:
            pipe.send({"op": "missing", "digest": digest})
        else:
            pipe.send({"op": "block", "digest": digest, "size_bytes": len(sealed)})
            pipe.send_data(sealed)
    feeder.settle(request.keep)
    pipe.send({"op": "end"})


assert BLOCK_BYTES * PAGE_BLOCKS  # the units of the tree that replicas are told
