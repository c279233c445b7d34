"""The system calls of a traced program that change files, read from strace's log: what a power cut could lose.

A write is seen where it begins and an fsync where it ends: what lies between may or may not have reached the disk.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

WRITES = ("write", "pwrite64")
SYNCS = ("fsync", "fdatasync")
NAMING = (
    *("openat", "open", "creat", "rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir", "link", "linkat"),
    *("symlink", "symlinkat", "mkdir", "mkdirat"),
)
MOVING = ("ftruncate", "copy_file_range", "lseek")
# Were one of these used on our files, the model would not know of it: better to say so than to be wrong.
UNKNOWN = ("writev", "pwritev", "pwritev2", "truncate", "fallocate", "sendfile", "splice")
_LINE = re.compile(r"(\d+) +(.*)", re.DOTALL)
_RESUMED = re.compile(r"<\.\.\. (\w+) resumed>(.*)", re.DOTALL)
_CALL = re.compile(r"(\w+)\((.*)\) += (-?\d+)(?:<[^>]*>)?(?: .*)?", re.DOTALL)
_DESCRIPTOR = re.compile(r"(?:AT_FDCWD|(\d+))<([^>]*)>(?:\(deleted\))?")
_OFFSET = re.compile(r", (\d+)(?:\) += -?\d+.*)?$")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


@dataclass
class Call:
    """One call on files below the root, or one line of the markers (`name` is then "mark").

    `begins`: an fsync has begun; what was written later is not in it. `path`, `target`: absolute.
    """

    name: str
    path: str
    target: str = ""
    descriptor: int = -1
    data: bytes = b""
    offset: int | None = None
    size: int = 0
    flags: str = ""
    begins: bool = False


def tracer(log: Path) -> list[str]:
    """The command before a command whose calls are to be recorded, its children's too."""
    strace = shutil.which("strace")
    assert strace is not None
    calls = ",".join((*WRITES, *SYNCS, *NAMING, *MOVING, *UNKNOWN))
    how = ["-f", "--seccomp-bpf", "-y", "-xx", "-s", "1048576", "-e", "signal=none", "-e", f"trace={calls}"]
    return [strace, *how, "-o", str(log)]


def read_trace(log: Path, root: Path, markers: Path) -> Iterator[Call]:
    """The calls in the order in which they had their effect. Raises ValueError for one that the model does not know."""
    begun: dict[str, str] = {}
    where, marks = str(root), str(markers)
    with log.open() as lines:
        for line in lines:
            parsed = _LINE.match(line.rstrip("\n"))
            if parsed is None:
                continue
            thread, text = parsed[1], parsed[2]
            is_new = True
            if resumed := _RESUMED.match(text):
                text, is_new = begun.pop(thread, "") + resumed[2], False
            elif text.endswith("<unfinished ...>"):
                begun[thread] = text = text.removesuffix("<unfinished ...>").rstrip()
                yield from _at_begin(text, where, marks)
                continue
            if is_new:
                yield from _at_begin(text, where, marks)
            yield from _at_end(text, where)


def _at_begin(text: str, root: str, marks: str) -> Iterator[Call]:
    name = text.partition("(")[0]
    if name not in WRITES and name not in SYNCS:
        return
    found = _DESCRIPTOR.search(text)
    if found is None:
        return
    path = _decoded(found[2])
    if path == marks and name == "write":
        yield Call("mark", path, data=_data(text))
    if not _is_below(path, root):
        return
    descriptor = int(found[1])
    if name in SYNCS:
        yield Call("sync", path, descriptor=descriptor, begins=True)
    else:
        offset = int(_OFFSET.search(text)[1]) if name == "pwrite64" else None  # type: ignore[index]  # strace always prints an offset
        yield Call("write", path, descriptor=descriptor, data=_data(text), offset=offset)


def _at_end(text: str, root: str) -> Iterator[Call]:
    parsed = _CALL.match(text)
    if parsed is None or int(parsed[3]) < 0:
        return
    name, arguments, result = parsed[1], parsed[2], int(parsed[3])
    if name in UNKNOWN and any(_is_below(_decoded(path), root) for _, path in _DESCRIPTOR.findall(arguments)):
        raise ValueError(f"the model of a disk does not know {name}")
    if name in SYNCS or name in ("ftruncate", "lseek"):
        found = _DESCRIPTOR.match(arguments)
        if found is None or not _is_below(path := _decoded(found[2]), root):
            return
        size = result if name == "lseek" else int(arguments.rsplit(", ", 1)[1]) if name == "ftruncate" else 0
        yield Call("sync" if name in SYNCS else name, path, descriptor=int(found[1]), size=size)
    elif name == "copy_file_range":
        yield from _copied(arguments, result, root)
    elif name in NAMING:
        yield from _named(name, arguments, result, root)


def _copied(arguments: str, result: int, root: str) -> Iterator[Call]:
    (_, source), (_, target) = _DESCRIPTOR.findall(arguments)
    offsets = re.findall(r"\[(\d+)\]", arguments)
    if not _is_below(_decoded(target), root) or not result:
        return
    if len(offsets) != 2:
        raise ValueError("the model of a disk does not know a copy without offsets")
    yield Call("copy", _decoded(target), _decoded(source), offset=int(offsets[1]), size=result, flags=offsets[0])


def _named(name: str, arguments: str, result: int, root: str) -> Iterator[Call]:
    paths = list(_paths(arguments))
    if name in ("openat", "open", "creat"):
        if _is_below(paths[0], root) and ("O_CREAT" in arguments or "O_TRUNC" in arguments or "O_WR" in arguments or "O_RDWR" in arguments):
            yield Call("open", paths[0], descriptor=result, flags=arguments.rpartition('"')[2])
        return
    kind = {"unlinkat": "unlink", "rmdir": "unlink"}.get(name, name.removesuffix("2").removesuffix("at"))
    if kind == "symlink":
        text = _decode_bytes(_STRING.findall(arguments)[0]).decode()
        if _is_below(paths[-1], root):
            yield Call("symlink", paths[-1], text)
    elif _is_below(paths[-1], root) or _is_below(paths[0], root):
        yield Call(kind, paths[0], paths[-1] if len(paths) > 1 else "")


def _paths(arguments: str) -> Iterator[str]:
    """The paths of a call: each string, below the folder of the descriptor that stands before it."""
    folder = ""
    for match in re.finditer(rf"{_DESCRIPTOR.pattern}|{_STRING.pattern}", arguments):
        if match[2] is not None:
            folder = _decoded(match[2])
        else:
            yield os.path.normpath(Path(folder, _decode_bytes(match[3]).decode()))


def _data(text: str) -> bytes:
    found = _STRING.search(text)
    return _decode_bytes(found[1]) if found else b""


def _decode_bytes(escaped: str) -> bytes:
    return bytes.fromhex(escaped.replace("\\x", ""))


def _decoded(annotation: str) -> str:
    return _decode_bytes(annotation).decode(errors="replace") if annotation.startswith("\\x") else annotation


def _is_below(path: str, root: str) -> bool:
    return path == root or path.startswith(root + "/")
