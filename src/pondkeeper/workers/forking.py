"""Forking from a process that has loaded everything: children that the keeper adopts, with no descriptors but their own."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Final, NoReturn

_DESCRIPTORS: Final = 4096  # Why no more: a process that forks was started with hardly any, and old kernels close them one by one


def fork_adopted(become: Callable[[int], NoReturn]) -> int | None:
    """Fork a process through a parent that exits at once, so that the nearest subreaper adopts it: its pid, None where the
    kernel has no room for it. `become` is what it does; it is given the pid of that parent.
    """
    read_end, write_end = os.pipe()
    between = os.fork()
    if between == 0:
        try:
            parent = os.getpid()
            child = os.fork()
            if child == 0:
                become(parent)
            os.write(write_end, str(child).encode())
        finally:
            os._exit(0)
    os.close(write_end)
    said = os.read(read_end, 32)
    os.close(read_end)
    os.waitpid(between, 0)
    return int(said) if said else None


def keep_only(descriptors: Sequence[int]) -> None:
    """Close all descriptors of this process but these (which are no less than 3) and the first three: a fork inherits every one."""
    after = 3
    for kept in sorted(descriptors):
        os.closerange(after, kept)
        after = kept + 1
    os.closerange(after, _DESCRIPTORS)
