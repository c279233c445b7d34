"""A file system in a process of its own: the kernel's side of FUSE, spoken over /dev/fuse without a library.

Why no library: those for Python sit on libfuse's paths, which hides a removed file that is still open under another name
and knows no `fstat` of it. A disk does neither, and names are what a power cut takes. Only what a keeper calls is
answered; the rest gets ENOSYS, and the kernel does it itself or says that it cannot be done. flock, fcntl locks and
leases are the kernel's own here.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

DEVICE = Path("/dev/fuse")
ROOT = 1  # the number of the uppermost folder
MAJOR, MINOR = 7, 31  # what is spoken here; a later kernel speaks it too
BIG_WRITES, MAX_PAGES = 1 << 5, 1 << 22
MOST_PAGES = 256
PAGE_BYTES = 4_096
MOST_BYTES = MOST_PAGES * PAGE_BYTES
KEEP_CACHE = 2  # Why: all that changes a file comes through this mount, so what the kernel has cached stays right
VALID_S = 3_600
MNT_DETACH = 2
CLONE_NEWNS = 0x20000
MS_REC, MS_PRIVATE = 1 << 14, 1 << 18
SIZE_GIVEN, MODE_GIVEN, MTIME_GIVEN, MTIME_NOW = 1 << 3, 1 << 0, 1 << 5, 1 << 8
FREE_BLOCKS = 1 << 22

_IN = struct.Struct("<IIQQIIIHH")
_OUT = struct.Struct("<IiQ")
_ATTRIBUTES = struct.Struct("<6Q10I")
_ENTRY = struct.Struct("<4Q2I")
_OPENED = struct.Struct("<QII")
_SETATTR = struct.Struct("<II6Q3I5I")
_TRANSFER = struct.Struct("<QQIIQII")
_DIRENT = struct.Struct("<QQII")
_NOT_ANSWERED = frozenset({2, 36, 42})  # forget, interrupt, forget many
_INIT, _DESTROY = 26, 38
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Attributes:
    """What `stat` shows of a file."""

    number: int
    mode: int
    size_bytes: int
    links: int
    modified_ns: int


class Files(Protocol):
    """What the file system does; each may raise OSError. Files and folders are known by their numbers."""

    def look(self, number: int) -> Attributes: ...
    def find(self, folder: int, name: str) -> Attributes: ...
    def make(self, folder: int, name: str, mode: int) -> Attributes: ...
    def make_link(self, folder: int, name: str, target: str) -> Attributes: ...
    def link(self, number: int, folder: int, name: str) -> Attributes: ...
    def target_of(self, number: int) -> str: ...
    def names_in(self, folder: int) -> list[tuple[str, int, int]]: ...
    def unlink(self, folder: int, name: str) -> None: ...
    def remove_folder(self, folder: int, name: str) -> None: ...
    def rename(self, folder: int, name: str, new_folder: int, new_name: str) -> None: ...
    def read(self, number: int, offset: int, size: int) -> bytes: ...
    def write(self, number: int, offset: int, data: bytes) -> None: ...
    def truncate(self, number: int, size: int) -> None: ...
    def change(self, number: int, mode: int | None, modified_ns: int | None) -> None: ...
    def sync(self, number: int) -> None: ...


def private_mounts() -> None:
    """From now on what this thread and its children mount is theirs, and gone with the last of them. Raises OSError."""
    _checked(_libc.unshare(CLONE_NEWNS))
    _checked(_libc.mount(None, b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None))


def unmount(place: Path) -> None:
    """Take the file system away, whoever still uses it. Raises OSError."""
    _checked(_libc.umount2(os.fsencode(place), MNT_DETACH))


def try_mounting() -> None:
    """Mount one that answers nothing, and take it away. Raises OSError."""
    descriptor = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    with tempfile.TemporaryDirectory() as place:
        _mount(descriptor, Path(place))
        unmount(Path(place))
    os.close(descriptor)


def _mount(descriptor: int, place: Path) -> None:
    who = f"user_id={os.getuid()},group_id={os.getgid()}"
    options = f"fd={descriptor},rootmode=40000,{who},default_permissions,allow_other"
    _checked(_libc.mount(b"pondkeeper-campaign", os.fsencode(place), b"fuse", ctypes.c_ulong(0), options.encode()))


def _checked(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


class Kernel:
    """The mounted file system: whoever has it answers one request of the kernel after the other."""

    def __init__(self, files: Files, place: Path) -> None:
        self._files = files
        self._listed: dict[int, list[tuple[str, int, int]]] = {}
        self._answers = self._all_answers()
        self._descriptor = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
        _mount(self._descriptor, place)

    def fileno(self) -> int:
        """Readable when there is something to answer."""
        return self._descriptor

    def answer_one(self, is_over: Callable[[], bool]) -> bool:
        """Take one request and answer it, unless it is over with its effect; False when there is no more to come."""
        try:
            asked = os.read(self._descriptor, MOST_BYTES + PAGE_BYTES)
        except OSError as error:
            if error.errno in (errno.EINTR, errno.EAGAIN, errno.ENOENT):  # ENOENT: whoever asked was killed meanwhile
                return True
            if error.errno == errno.ENODEV:
                return False
            raise
        _, operation, unique, number, *_ = _IN.unpack_from(asked)
        if operation in _NOT_ANSWERED:
            return True
        failed, answer = 0, b""
        try:
            answer = self._answer(operation, number, asked[_IN.size :])
        except OSError as error:
            failed = error.errno or errno.EIO
        if is_over():
            return False
        try:
            os.write(self._descriptor, _OUT.pack(_OUT.size + len(answer), -failed, unique) + answer)
        except FileNotFoundError:  # whoever asked was killed meanwhile
            pass
        return bool(operation != _DESTROY)

    def _answer(self, operation: int, number: int, body: bytes) -> bytes:
        handler = self._answers.get(operation)
        if handler is None:
            raise OSError(errno.ENOSYS, f"operation {operation}")
        return handler(number, body)

    def _all_answers(self) -> dict[int, Callable[[int, bytes], bytes]]:
        files = self._files
        return {  # the numbers are those of linux/fuse.h
            1: lambda number, body: _entry(files.find(number, _texts(body)[0])),
            3: lambda number, _: _attributes_answer(files.look(number)),
            4: self._setattr,
            5: lambda number, _: os.fsencode(files.target_of(number)),
            6: lambda number, body: _entry(files.make_link(number, *_texts(body))),
            8: lambda number, body: _entry(files.make(number, _texts(body[16:])[0], _first(body))),
            9: lambda number, body: _entry(files.make(number, _texts(body[8:])[0], stat.S_IFDIR | _first(body))),
            10: self._unlink,
            11: self._rmdir,
            12: lambda number, body: self._rename(number, body, 8),
            13: lambda number, body: _entry(files.link(_first_long(body), number, _texts(body[8:])[0])),
            14: lambda _number, _body: _OPENED.pack(0, KEEP_CACHE, 0),
            15: self._read,
            16: self._write,
            17: _room,
            18: lambda _number, _body: b"",
            20: self._sync,
            25: lambda _number, _body: b"",
            _INIT: self._init,
            27: self._opendir,
            28: self._readdir,
            29: self._releasedir,
            30: self._sync,
            35: self._create,
            _DESTROY: lambda _number, _body: b"",
            45: lambda number, body: self._rename(number, body, 16),
        }

    def _init(self, _number: int, body: bytes) -> bytes:
        major, _minor, ahead, offered = struct.unpack_from("<4I", body)
        if major != MAJOR:
            raise OSError(errno.EPROTO, f"the kernel speaks FUSE {major}")
        flags = offered & (BIG_WRITES | MAX_PAGES)
        return struct.pack("<4I2H2I2H8I", MAJOR, MINOR, ahead, flags, 16, 12, MOST_BYTES, 1, MOST_PAGES, 0, *[0] * 8)

    def _setattr(self, number: int, body: bytes) -> bytes:
        given, _, _handle, size, _owner, _accessed, modified, _changed, _, modified_ns, _, mode, *_ = _SETATTR.unpack_from(body)
        if given & SIZE_GIVEN:
            self._files.truncate(number, size)
        times = modified * 10**9 + modified_ns if given & MTIME_GIVEN and not given & MTIME_NOW else None
        self._files.change(number, mode if given & MODE_GIVEN else None, times)
        return _attributes_answer(self._files.look(number))

    def _create(self, number: int, body: bytes) -> bytes:
        _flags, mode, *_ = struct.unpack_from("<4I", body)
        return _entry(self._files.make(number, _texts(body[16:])[0], stat.S_IFREG | mode)) + _OPENED.pack(0, KEEP_CACHE, 0)

    def _unlink(self, number: int, body: bytes) -> bytes:
        self._files.unlink(number, _texts(body)[0])
        return b""

    def _rmdir(self, number: int, body: bytes) -> bytes:
        self._files.remove_folder(number, _texts(body)[0])
        return b""

    def _sync(self, number: int, _body: bytes) -> bytes:
        self._files.sync(number)
        return b""

    def _rename(self, number: int, body: bytes, names_at: int) -> bytes:
        if names_at == 16 and struct.unpack_from("<8xI", body)[0]:
            raise OSError(errno.EINVAL, "no flags of rename are known here")
        old, new = _texts(body[names_at:])
        self._files.rename(number, old, _first_long(body), new)
        return b""

    def _read(self, number: int, body: bytes) -> bytes:
        _handle, offset, size, *_ = _TRANSFER.unpack_from(body)
        return self._files.read(number, offset, size)

    def _write(self, number: int, body: bytes) -> bytes:
        _handle, offset, size, *_ = _TRANSFER.unpack_from(body)
        self._files.write(number, offset, body[_TRANSFER.size : _TRANSFER.size + size])
        return struct.pack("<II", size, 0)

    def _opendir(self, number: int, _body: bytes) -> bytes:
        handle = max(self._listed, default=0) + 1
        self._listed[handle] = self._files.names_in(number)
        return _OPENED.pack(handle, 0, 0)

    def _readdir(self, _number: int, body: bytes) -> bytes:
        handle, offset, size, *_ = _TRANSFER.unpack_from(body)
        out = bytearray()
        for place, (name, number, mode) in enumerate(self._listed[handle][offset:], start=offset + 1):
            text = os.fsencode(name)
            entry = _DIRENT.pack(number, place, len(text), mode >> 12) + text
            entry += bytes(-len(entry) % 8)
            if len(out) + len(entry) > size:
                break
            out += entry
        return bytes(out)

    def _releasedir(self, _number: int, body: bytes) -> bytes:
        self._listed.pop(_first_long(body), None)
        return b""


def _room(_number: int, _body: bytes) -> bytes:
    """What `statfs` shows: there is always room."""
    return struct.pack("<5Q10I", 2 * FREE_BLOCKS, FREE_BLOCKS, FREE_BLOCKS, *[1 << 20] * 2, PAGE_BYTES, 255, PAGE_BYTES, *[0] * 7)


def _attributes(of: Attributes) -> bytes:
    seconds, rest_ns = divmod(of.modified_ns, 10**9)
    blocks = -(-of.size_bytes // 512)
    times = (seconds, seconds, seconds, rest_ns, rest_ns, rest_ns)
    who = (os.getuid(), os.getgid(), 0, PAGE_BYTES, 0)
    return _ATTRIBUTES.pack(of.number, of.size_bytes, blocks, *times, of.mode, of.links, *who)


def _attributes_answer(of: Attributes) -> bytes:
    return struct.pack("<QII", VALID_S, 0, 0) + _attributes(of)


def _entry(of: Attributes) -> bytes:
    return _ENTRY.pack(of.number, 0, VALID_S, VALID_S, 0, 0) + _attributes(of)


def _texts(body: bytes) -> list[str]:
    return [os.fsdecode(part) for part in body.split(b"\0")[:-1]]


def _first(body: bytes) -> int:
    return int(struct.unpack_from("<I", body)[0])


def _first_long(body: bytes) -> int:
    return int(struct.unpack_from("<Q", body)[0])
