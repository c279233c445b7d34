"""A function over many items in threads, for what waits more than it computes; it ends in order when the run is ended."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Generic, TypeVar

from pondkeeper.errors import RunCancelled

Item = TypeVar("Item")
Value = TypeVar("Value")

POLL_S: Final = 0.1
UNDER_WAY_S: Final = 3.0
_LAST: Final = object()


class Mapped(Generic[Item, Value]):
    """What became of one item: its value, or the exception of the function."""

    __slots__ = ("_error", "_seen", "_value", "item")

    def __init__(self, item: Item, value: Value | None, error: Exception | None) -> None:
        self.item = item
        self._value = value
        self._error = error
        self._seen = error is None

    @property
    def error(self) -> Exception | None:
        """The exception that the function raised; None when it gave a value."""
        self._seen = True
        return self._error

    @property
    def value(self) -> Value:
        """What the function gave; raises what it raised."""
        self._seen = True
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]  # Why: None is what the function gave, then

    @property
    def was_seen(self) -> bool:
        """Whether anybody has asked what became of it, where it failed."""
        return self._seen


def map_in_threads(
    function: Callable[[Item], Value], items: Iterable[Item], *, workers: int, stopping: threading.Event
) -> Iterator[Mapped[Item, Value]]:
    """Apply the function to the items, as many at once as there are workers; each as soon as it is done.

    Items are taken as they are needed, one at a time. When `stopping` is set no new one is begun; those under way are
    given if they end within three seconds, and then RunCancelled is raised.
    """
    work = _Work(function, iter(items), stopping, workers)
    try:
        yield from work.results()
    finally:
        work.stop()
    if stopping.is_set() and not work.is_complete:
        raise RunCancelled("The run was ended before all items were done.")


class _Work(Generic[Item, Value]):
    """The threads of one map. Why not ThreadPoolExecutor: its threads keep a process alive that is to end."""

    def __init__(
        self, function: Callable[[Item], Value], items: Iterator[Item], stopping: threading.Event, workers: int
    ) -> None:
        if workers < 1:
            raise ValueError("workers must be at least 1")
        self.is_complete = False
        self._function = function
        self._items = items
        self._stopping = stopping
        self._ended = threading.Event()
        self._taking = threading.Lock()
        self._source_error: BaseException | None = None
        # Why bounded: results that nobody takes yet must not pile up before those who make them.
        self._done: queue.Queue[Any] = queue.Queue(maxsize=2 * workers)
        self._threads = [
            threading.Thread(target=self._run, name=f"map-{place}", daemon=True) for place in range(workers)
        ]

    def results(self) -> Iterator[Mapped[Item, Value]]:
        for thread in self._threads:
            thread.start()
        left = len(self._threads)
        give_up_at: float | None = None
        while left:
            if self._stopping.is_set():
                give_up_at = give_up_at or time.monotonic() + UNDER_WAY_S
                if time.monotonic() >= give_up_at:
                    return
            try:
                result = self._done.get(timeout=POLL_S)
            except queue.Empty:
                continue
            if result is _LAST:
                left -= 1
                continue
            yield result
        if self._source_error is not None:
            raise self._source_error

    def stop(self) -> None:
        """Begin nothing new, and wait for nobody: what hangs in a thread must not keep its caller."""
        self._ended.set()
        while True:  # Why: a thread that waits for room to put its result can go, too.
            try:
                self._done.get_nowait()
            except queue.Empty:
                return

    def _run(self) -> None:
        while (taken := self._take()) is not None:
            self._put(self._applied(taken[0]))
        self._put(_LAST)

    def _applied(self, item: Item) -> Mapped[Item, Value]:
        try:
            return Mapped(item, self._function(item), None)
        except Exception as error:  # noqa: BLE001  Why: whatever it is belongs to the item, and its caller decides
            return Mapped(item, None, error)

    def _take(self) -> tuple[Item] | None:
        with self._taking:
            if self.is_complete or self._ended.is_set() or self._stopping.is_set() or self._source_error is not None:
                return None
            try:
                return (next(self._items),)
            except StopIteration:
                self.is_complete = True
            except Exception as error:  # noqa: BLE001  Why: raised again to the one who gave the items
                self._source_error = error
            return None

    def _put(self, result: object) -> None:
        while not self._ended.is_set():
            try:
                self._done.put(result, timeout=POLL_S)
                return
            except queue.Full:
                continue
