"""What keeps a file from being downloaded."""

from __future__ import annotations


class Trouble(Exception):
    """A file could not be had; the text says why, and names no URL: those hold tokens.

    `passing`: it may work when it is tried again, after `wait_s` where the server has said so. `unreachable`: the server gave
    no answer of its own making, so that all its files share the trouble.
    """

    def __init__(
        self,
        message: str,
        *,
        http_status: int | None = None,
        passing: bool = False,
        wait_s: float | None = None,
        unreachable: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.http_status = http_status
        self.passing = passing
        self.wait_s = wait_s
        self.unreachable = unreachable


class Stopped(Exception):
    """The run is to end; what has come of the file stays where it is."""
