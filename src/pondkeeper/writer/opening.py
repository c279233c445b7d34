"""One attempt to open the file, on a thread of its own: recovering what a dead writer left may outlast a request."""

from __future__ import annotations

import threading

from pondkeeper.engine.opening import WriterConfig
from pondkeeper.writer.session import Session


class Opening:
    """Begins at once. Who waited for it in vain leaves it to the next one: it is never begun anew for impatience."""

    def __init__(self, config: WriterConfig) -> None:
        self._config = config
        self._session: Session | None = None
        self._error: BaseException | None = None
        self._done = threading.Event()
        threading.Thread(target=self._open, name="opening", daemon=True).start()

    def _open(self) -> None:
        try:
            self._session = Session(self._config)
        except BaseException as error:  # noqa: BLE001  Why: it is raised again, where somebody can judge it.
            self._error = error
        self._done.set()

    @property
    def is_done(self) -> bool:
        return self._done.is_set()

    def wait(self, timeout_s: float) -> bool:
        """Wait for the end of the attempt; whether it came in time."""
        return self._done.wait(timeout_s)

    def result(self) -> Session:
        """The open session, of an attempt that is done. Raises why there is none."""
        if self._session is None:
            raise self._error or RuntimeError("the attempt is not done")
        return self._session
