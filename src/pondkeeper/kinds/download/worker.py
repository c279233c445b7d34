"""What each of the threads does: take a file, fetch it, tell what became of it; what may work later goes back into the line."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from pondkeeper.kinds.download.fetching import Fetched, Fetcher
from pondkeeper.kinds.download.line import Line, Task
from pondkeeper.kinds.download.place import Place, PlaceRefused
from pondkeeper.kinds.download.trouble import Stopped, Trouble
from pondkeeper.kinds.download.wanted import Wanted

FIRST_WAIT_S: Final = 0.5
LONGEST_WAIT_S: Final = 60.0
MOST_WAITING: Final = 10_000
FULL_S: Final = 0.05
BUSY: Final = frozenset({429, 503})


@dataclass(frozen=True, slots=True)
class Failure:
    """A file that could not be had, however often it was tried."""

    wanted: Wanted
    trouble: Trouble
    attempts: int


class Results:
    """What became of files. Its reader is not woken for each of them: at a thousand a second that would cost more than the files."""

    def __init__(self) -> None:
        self._told: deque[Fetched | Failure] = deque()
        self._fault: BaseException | None = None
        self._awake = threading.Event()

    def tell(self, result: Fetched | Failure) -> None:
        """A file is over."""
        self._told.append(result)
        while len(self._told) > MOST_WAITING and self._fault is None:
            time.sleep(FULL_S)

    def end(self, fault: BaseException | None = None) -> None:
        """A worker has ended; by `fault`, which ends the run: a full disk, say."""
        self._fault = self._fault or fault
        self._awake.set()

    def take(self, wait_s: float) -> Iterator[Fetched | Failure]:
        """What has been told since, after a wait; it is cut short when a worker ends. Raises the fault."""
        self._awake.wait(wait_s)
        self._awake.clear()
        if self._fault is not None:
            raise self._fault
        yield from self.rest()

    def rest(self) -> Iterator[Fetched | Failure]:
        """What has been told since."""
        while self._told:
            yield self._told.popleft()


class Worker:
    """One thread with connections of its own."""

    def __init__(
        self,
        line: Line,
        fetcher: Callable[[], tuple[Fetcher, Callable[[], None]]],
        place: Callable[[Wanted], Place],
        results: Results,
        attempts: int,
    ) -> None:
        self._line = line
        self._make = fetcher
        self._place = place
        self._results = results
        self._attempts = attempts
        self._has_ended = False
        self._thread = threading.Thread(target=self._run, name="download", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    @property
    def is_working(self) -> bool:
        """Whether it has not ended yet."""
        return not self._has_ended

    def _run(self) -> None:
        close: Callable[[], None] | None = None
        try:
            fetcher, close = self._make()
            while (task := self._line.take()) is not None:
                self._do(fetcher, task)
            self._end()
        except BaseException as error:  # noqa: BLE001  Why: no thread may end without a word; the run decides
            self._end(error)
        finally:
            if close is not None:
                close()

    def _end(self, fault: BaseException | None = None) -> None:
        self._has_ended = True
        self._results.end(fault)

    def _do(self, fetcher: Fetcher, task: Task) -> None:
        unreachable = False
        try:
            place = self._place(task.wanted)
            self._results.tell(fetcher.fetch(task.wanted, place))
        except PlaceRefused as error:
            self._results.tell(Failure(task.wanted, Trouble(str(error)), task.attempts))
        except Stopped:
            self._line.close()
        except Trouble as trouble:
            if self._again(task, trouble):
                return
            unreachable = trouble.unreachable
            self._results.tell(Failure(task.wanted, trouble, task.attempts))
        self._line.done(unreachable=unreachable)

    def _again(self, task: Task, trouble: Trouble) -> bool:
        """Whether it is tried again later."""
        if not trouble.passing or task.attempts >= self._attempts:
            return False
        wait_s = trouble.wait_s
        if wait_s is None:
            wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(task.attempts - 1, 30)) * random.uniform(0.5, 1.5)
        elif trouble.http_status in BUSY:
            self._line.pause(task.host, wait_s)
        self._line.park(task, wait_s)
        return True
