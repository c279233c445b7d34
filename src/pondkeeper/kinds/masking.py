"""Secrets kept out of logs: those that the run has named, and what looks like one wherever it stands."""

from __future__ import annotations

import re
from typing import Any, Final

LEAST_CHARS: Final = 4
HIDDEN: Final = "***"

_KEY = re.compile(r"pk_[A-Za-z0-9]+_[A-Za-z0-9_-]{8,}")
_IN_URL = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*://[^\s:/@]*):[^\s@/]+@")
_BY_NAME = re.compile(
    r"""(?ix) \b ([A-Za-z0-9_-]*(?:password|passwd|secret|token|api[_-]?key|access[_-]?key|sslpassword))
    (["']? \s* [=:] \s* ["']?) ([^\s"',;&]{4,})"""
)
_BEARER = re.compile(r"(?i)\b(authorization:\s*\w+|bearer)\s+[A-Za-z0-9._~+/=-]{8,}")


class Mask:
    """What must not be shown, so far. Texts of less than four characters are not hidden: they are everywhere."""

    def __init__(self) -> None:
        self._secrets: list[str] = []

    def hide(self, text: str) -> None:
        """Never show this again, nor any line of it (a key in PEM is many)."""
        parts = {part.strip() for part in (text, *text.splitlines())}
        known = {*self._secrets, *(part for part in parts if len(part) >= LEAST_CHARS)}
        self._secrets = sorted(known, key=len, reverse=True)  # Why the longest first: one may be a part of another.

    def masked(self, line: str) -> str:
        """The line without its secrets."""
        for secret in self._secrets:
            line = line.replace(secret, HIDDEN)
        line = _IN_URL.sub(rf"\1:{HIDDEN}@", line)
        line = _BY_NAME.sub(rf"\1\2{HIDDEN}", line)
        line = _BEARER.sub(rf"\1 {HIDDEN}", line)
        return _KEY.sub(f"pk_{HIDDEN}", line)

    def masked_error(self, error: dict[str, Any] | None) -> dict[str, Any] | None:
        """The error as plain data, without secrets in what it says: messages of drivers repeat what they were given."""
        return None if error is None else {name: self.masked(text) if isinstance(text, str) else text for name, text in error.items()}
