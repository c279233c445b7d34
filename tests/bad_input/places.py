"""Places on disk that are difficult: one that may not be written, and one that is small enough to be full."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.keeper import KeeperProcess

MIB = 1024 * 1024
_MOUNT = 'mount -t tmpfs -o size="$1" tmpfs "$2" && shift 2 && exec "$@"'


def as_a_plain_user() -> list[str]:
    """A program under which modes of files count: root without capabilities is a user like any other."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("root may write everywhere, and there is no setpriv to take that away")
    return ["setpriv", "--inh-caps=-all", "--bounding-set=-all"]


def with_a_small_disk(place: Path, size_bytes: int) -> list[str]:
    """A program that sees a file system of its own at `place`, of this size."""
    if (reason := why_no_namespaces()) is not None:
        pytest.skip(f"no mounts in a namespace of our own: {reason}")
    return small_disk_command(place, size_bytes)


def small_disk_command(place: Path, size_bytes: int) -> list[str]:
    """The same where it is known that namespaces can be made."""
    return ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", _MOUNT, "sh", str(size_bytes), str(place)]


@functools.cache
def why_no_namespaces() -> str | None:
    """Why this machine lets us make no mounts of our own; None where it does."""
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", "mount -t tmpfs -o size=1M tmpfs /mnt"]
    if shutil.which("unshare") is None:
        return "unshare is not installed"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else done.stderr.strip()


class SmallDisk:
    """The small disk of a keeper, seen from outside its namespace."""

    def __init__(self, keeper: KeeperProcess, place: Path) -> None:
        self._inside = Path(f"/proc/{keeper.pid}/root{place}")

    @property
    def free_bytes(self) -> int:
        return shutil.disk_usage(self._inside).free

    def fill(self, leave_bytes: int = 0) -> None:
        """Take all space but this."""
        with (self._inside / "filler").open("wb") as filler:
            while (left := self.free_bytes - leave_bytes) > 0:
                try:
                    filler.write(b"\0" * min(left, MIB))
                    filler.flush()
                except OSError:
                    return

    def free(self) -> None:
        """Give the space back."""
        (self._inside / "filler").unlink()
