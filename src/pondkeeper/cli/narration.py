"""Everything on stderr and the exit codes: what we say beside the data, errors, and progress of slow things."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from types import TracebackType
from typing import Final

import click

from pondkeeper.errors import PondkeeperError

QUIET_FOR_S: Final = 2.0
TICK_S: Final = 0.2
INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141
USAGE: Final = 2


def say(text: str) -> None:
    """A sentence for people, on stderr."""
    click.echo(text, err=True, color=has_colour())


def warn(text: str) -> None:
    """A sentence that should not be overlooked, on stderr."""
    say(f"{click.style('warning:', fg='yellow', bold=True)} {text}")


def show_error(error: PondkeeperError) -> None:
    """An error on stderr: its code and what happened, details for people at this machine, and what to do."""
    say(f"{click.style(f'error [{error.code}]:', fg='red', bold=True)} {error.message}")
    if error.private and error.private != error.message:
        say(f"  {error.private}")
    for each in error.details.get("problems", [])[1:]:  # of a settings file, which has its first in the message
        say(f"  line {each['line']}: {each['message']}")
    say(f"  {error.remedy}")


def show_os_error(error: OSError) -> int:
    """What the operating system refused, and where; the exit code for it."""
    where = f"{error.filename}: " if error.filename else ""
    say(f"{click.style('error:', fg='red', bold=True)} {where}{error.strerror or error}")
    return PondkeeperError.exit_code


def has_colour() -> bool:
    """Whether stderr takes colours: a terminal, and NO_COLOR not set."""
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR")


class Progress:
    """Says on stderr that something goes on, from two seconds on: a moving line on a terminal, else a line now and then.

    `what` may change meanwhile; `with Progress("Running the query") as progress: … progress.what = "Fetching"`.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def __enter__(self) -> Progress:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def say(self, text: str) -> None:
        """A sentence of its own, above the moving line."""
        if sys.stderr.isatty():
            sys.stderr.write("\r\x1b[K")
        say(text)

    def _run(self) -> None:
        # Why: a signal that this thread gets is one that the main thread waits for in vain.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        began = time.monotonic()
        if self._done.wait(QUIET_FOR_S):
            return
        if sys.stderr.isatty():
            self._move(began)
        else:
            self._repeat(began)

    def _move(self, began: float) -> None:
        """Redraw one line until it is over, then wipe it."""
        while not self._done.wait(TICK_S):
            sys.stderr.write(f"\r\x1b[K{self.what} … {time.monotonic() - began:.0f} s")
            sys.stderr.flush()
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()

    def _repeat(self, began: float) -> None:
        """A line at 2, 4, 8, … seconds: a log must not fill up with them."""
        pause_s = QUIET_FOR_S
        while True:
            say(f"{self.what} … {time.monotonic() - began:.0f} s")
            if self._done.wait(pause_s):
                return
            pause_s = min(2 * pause_s, 60.0)
