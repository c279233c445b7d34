"""Programs that want the file and know nothing of turns: heard by their opens, and let in within about a second.

Without this a keeper that writes a little all the time never has the file closed for `writer.idle_close_s`, and a plain
`duckdb.connect` that tries again and again would never get in.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from pondkeeper.files.knocks import Knocks

PAUSE_S = 0.05
PATIENCE_S = 1.0
GIVEN_UP_S = 3.0
COURTESY_S = 0.3
ENTERING_S = 0.05
POLL_S = 0.01


class Guests:
    """Whether somebody knocks while the writer has the file, and the moment of courtesy after it gave the file back."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._knocks: Knocks | None = None
        self._since = 0.0
        self._latest = 0.0
        self._courtesy_until = 0.0

    def listen(self) -> None:
        """The writer has opened the file: from now on every open of it is somebody else's."""
        self.stop_listening()
        self._since = self._latest = self._courtesy_until = 0.0
        self._knocks = Knocks(self._file)

    def forget(self) -> None:
        """What was heard was the copier. Called on the receiving thread too."""
        if self._knocks is not None:
            self._knocks.heard()

    def are_due(self, last_used_at: float) -> bool:
        """Whether to give the file back now: at a guest's first pause of ours, or when it has knocked for long enough."""
        now = time.monotonic()
        if self._knocks is not None and self._knocks.heard():
            self._since = self._since or now
            self._latest = now
        if self._since and now - self._latest > GIVEN_UP_S:
            self._since = 0.0
        return self._since > 0.0 and (now - last_used_at > PAUSE_S or now - self._since > PATIENCE_S)

    def invite(self) -> None:
        """The writer has given the file back: whoever knocked gets a moment to come in."""
        if self._since:
            self.forget()
            self._courtesy_until = time.monotonic() + COURTESY_S
        else:
            self.stop_listening()

    def let_in(self, is_cancelled: Callable[[], bool]) -> None:
        """Before the writer opens again: wait until the invited guest is in, for a moment at most."""
        while time.monotonic() < self._courtesy_until and not is_cancelled():
            if self._knocks is not None and self._knocks.heard():
                time.sleep(ENTERING_S)  # Why: DuckDB looks into the file before it locks it; do not slip in between.
                break
            time.sleep(POLL_S)

    def stop_listening(self) -> None:
        """Nobody need be heard."""
        if self._knocks is not None:
            self._knocks.close()
            self._knocks = None
