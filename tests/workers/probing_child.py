"""A child that tries what it is told to, and says how it went: what the fence lets through."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pondkeeper.workers.frames import Pipe

_libc = ctypes.CDLL(None, use_errno=True)


def _thread(_: str) -> None:
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()


def _fork(_: str) -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def _sync(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(descriptor)
    os.close(descriptor)


def _raise_limit(_: str) -> None:
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, resource.getrlimit(resource.RLIMIT_NOFILE))
    except ValueError as error:  # Python's word for EPERM
        raise PermissionError(errno.EPERM, "setrlimit") from error


def _ptrace(pid: str) -> None:
    if _libc.ptrace(16, int(pid), 0, 0) != 0:  # PTRACE_ATTACH
        raise OSError(ctypes.get_errno(), "ptrace")


def _connect(port: str) -> None:
    with socket.create_connection(("127.0.0.1", int(port)), timeout=10):
        pass


def _listen(_: str) -> None:
    with socket.socket() as listening:
        listening.listen(1)


ATTEMPTS: dict[str, Callable[[str], Any]] = {
    "read": lambda path: Path(path).read_bytes(),
    "list": os.listdir,
    "write": lambda path: Path(path).write_text("x"),
    "remove": os.unlink,
    "move": lambda path: Path(path).rename(f"{path}.moved").rename(path),
    "link": lambda path: (os.link(path, f"{path}.linked"), Path(f"{path}.linked").unlink()),
    "sync": _sync,
    "folder": os.mkdir,
    "remove folder": os.rmdir,
    "symlink": lambda path: Path(path).symlink_to("/etc/passwd"),
    "pipe": os.mkfifo,
    "chmod": lambda path: Path(path).chmod(0o600),
    "utime": os.utime,
    "inet": lambda _: socket.socket(socket.AF_INET).close(),
    "udp": lambda _: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).close(),
    "unix": lambda _: socket.socket(socket.AF_UNIX).close(),
    "netlink": lambda _: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close(),
    "connect": _connect,
    "listen": _listen,
    "fork": _fork,
    "run": lambda _: os.execv("/bin/true", ["true"]),
    "signal": lambda pid: os.kill(int(pid), 0),
    "signal itself": lambda _: os.kill(os.getpid(), 0),
    "ptrace": _ptrace,
    "limit": _raise_limit,
    "thread": _thread,
}


def _outcome(name: str, argument: str) -> str:
    try:
        ATTEMPTS[name](argument)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"


def main(pipe: Pipe, control: socket.socket, config: dict[str, Any]) -> None:
    """Entry point: a list of attempts in, their outcomes out."""
    while (message := pipe.receive()) is not None:
        pipe.send({"outcomes": [_outcome(name, argument) for name, argument in message["attempts"]]})
