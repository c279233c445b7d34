"""The log on stderr: structlog, for people on a terminal, JSON lines otherwise; no secrets in it, and never a wait.

Why a thread writes: stderr may be a pipe that nobody reads, and the event loop must not stand still for it. Lines
beyond a bound are dropped and counted.
"""

from __future__ import annotations

import logging
import queue
import re
import sys
import threading
from typing import IO, TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor, WrappedLogger

    from pondkeeper.settings import LogSettings

MAX_WAITING_LINES: Final = 10_000
FLUSH_TIMEOUT_S: Final = 2.0
_TOKEN: Final = re.compile(r"pk_[0-9A-Za-z]+_[0-9A-Za-z_-]+")
_SECRET_FIELDS: Final = frozenset({"authorization", "token", "secret", "password", "digest"})
_QUIET: Final = ("uvicorn.error", "uvicorn.access", "asyncio")


class Writer:
    """A file-like object that structlog and logging write to; a thread of its own passes it on."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._lines: queue.Queue[str | None] = queue.Queue(MAX_WAITING_LINES)
        self._dropped = 0
        self._thread = threading.Thread(target=self._run, name="narration", daemon=True)
        self._thread.start()

    def write(self, text: str) -> None:
        """Take a text without waiting, tokens cut to their public ids."""
        if "pk_" in text:
            text = _TOKEN.sub(_public_part, text)
        try:
            self._lines.put_nowait(text)
        except queue.Full:
            self._dropped += 1

    def flush(self) -> None:
        """Nothing: the thread flushes."""

    def close(self) -> None:
        """Write what is left, for a short while."""
        try:
            self._lines.put(None, timeout=FLUSH_TIMEOUT_S)
        except queue.Full:
            return
        self._thread.join(FLUSH_TIMEOUT_S)

    def _run(self) -> None:
        while (text := self._lines.get()) is not None:
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                text += f'{{"event": "log lines were dropped", "count": {dropped}}}\n'
            try:
                self._stream.write(text)
                self._stream.flush()
            except (OSError, ValueError):  # Why: a log that cannot be written must not end what it tells of
                continue


def narrate(settings: LogSettings, stream: IO[str] = sys.stderr) -> Writer:
    """Set up the log of this process; close what is returned at the end."""
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    is_console = settings.format == "console" or (settings.format == "auto" and stream.isatty())
    writer = Writer(stream)
    renderers = _renderers(is_console=is_console, colors=stream.isatty())
    structlog.configure(
        processors=[*_PROCESSORS, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(writer),  # type: ignore[arg-type]
        cache_logger_on_first_use=False,
    )
    _adopt_logging(level, writer, renderers)
    return writer


def without_secrets(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """The event with the fields emptied that hold secrets. Tokens anywhere else are cut by the `Writer`."""
    return {name: "…" if name.lower() in _SECRET_FIELDS else value for name, value in event.items()}


_PROCESSORS: Final[list[Processor]] = [
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
    without_secrets,
]


def _renderers(*, is_console: bool, colors: bool) -> list[Processor]:
    if is_console:
        return [
            structlog.dev.ConsoleRenderer(
                colors=colors, pad_event_to=0, exception_formatter=structlog.dev.plain_traceback
            )
        ]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]


def _adopt_logging(level: int, writer: Writer, renderers: list[Processor]) -> None:
    """What libraries log by the standard module takes the same way."""
    handler = logging.StreamHandler(writer)
    remove_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=_PROCESSORS, processors=[remove_meta, *renderers])
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


def _public_part(match: re.Match[str]) -> str:
    return match[0].rsplit("_", 1)[0] + "_…" if match[0].count("_") == 2 else "pk_…"
