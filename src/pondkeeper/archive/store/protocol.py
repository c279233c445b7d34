"""What the archive needs of a place for objects. Names are relative paths of ASCII letters, digits and `/._-`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol


class Stored(NamedTuple):
    """An object as a listing shows it."""

    name: str
    size_bytes: int


class Fetching(Protocol):
    """Where objects can be read from: a store, or another keeper."""

    @property
    def at_once(self) -> int:
        """How many threads are worth it: a disk answers soon, a bucket late."""
        ...

    def get(self, name: str) -> bytes:
        """The whole object. Raises ObjectMissing, or ArchiveUnavailable when it cannot be had right now."""
        ...


class Putting(Protocol):
    """Many objects on their way into a store. Threads may share it."""

    def put_missing(self, name: str, make: Callable[[], bytes]) -> int:
        """Put what `make` gives unless the object is there, or another thread brings it; the bytes put, 0 for such a one.

        When it raises, the whole of what is being put is to be given up: others may rely on this object.
        """
        ...

    def flush(self) -> None:
        """When this returns, everything put or found so far survives a power cut, and can be seen by others."""
        ...


class Guarded(Protocol):
    """The right to write into, or to remove from, a store for a while."""

    def check(self) -> None:
        """Raises ArchiveBusy when the right was lost (a bucket cannot see that its holder lives)."""
        ...


class Store(Fetching, Protocol):
    """A place for objects. Every method may be called by several threads at once; each blocks as long as the place does."""

    @property
    def address(self) -> str:
        """Where it is, for messages and listings; without credentials."""
        ...

    def has(self, name: str) -> bool: ...

    def put(self, name: str, data: bytes) -> None:
        """Durable when it returns, whole or not at all; replaces what had that name."""
        ...

    def putting(self) -> AbstractContextManager[Putting]:
        """For many objects at once: what the block has put is durable after it; an exception forgets what is not flushed."""
        ...

    def names(self, prefix: str, after: str = "") -> Iterator[str]:
        """The names that begin with `prefix` (which ends with `/`, or is empty) and come after that name, in any order."""
        ...

    def stored(self, prefix: str) -> Iterator[Stored]:
        """The objects below the prefix with their sizes, in any order."""
        ...

    def folders(self, prefix: str) -> list[str]:
        """The first parts of the names below `prefix`, ascending: the databases, for `databases/`."""
        ...

    def delete(self, names: Sequence[str]) -> None:
        """Remove these; those that are not there are no fault."""
        ...

    def writing(self, timeout_s: float = 60.0) -> AbstractContextManager[Guarded]:
        """Shared: while anybody is within, nobody removes. Raises ArchiveBusy when a removal lasts longer than this."""
        ...

    def removing(self, timeout_s: float = 60.0) -> AbstractContextManager[Guarded]:
        """Alone: nobody writes meanwhile."""
        ...

    def close(self) -> None: ...
