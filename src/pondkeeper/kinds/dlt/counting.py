"""dlt's own progress, as that of the run."""

from __future__ import annotations

import time

from dlt.common.runtime.collector_base import Collector

from pondkeeper.errors import RunCancelled
from pondkeeper.kinds.context import RunContext

OF_THE_STEP = frozenset({"Resources", "Files", "Items", "Jobs"})


class Counting(Collector):
    """What dlt calls while it works. It is also where a run that is to end leaves dlt."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._rows = 0
        self._began = 0.0
        self.step = ""

    def update(
        self,
        name: str,
        inc: int = 1,
        total: int | None = None,  # noqa: ARG002 - dlt's signature
        inc_total: int | None = None,  # noqa: ARG002
        message: str | None = None,  # noqa: ARG002
        label: str | None = None,
    ) -> None:
        """One of dlt's counters has grown. Raises RunCancelled when the run is to end."""
        if self._context.stopping.is_set():
            raise RunCancelled
        if label:
            return
        if name not in OF_THE_STEP or name == "Items":
            self._rows += inc
            self._context.progress(self._rows, unit="rows", message=f"{self._word}: {name}" if name != "Items" else "")

    @property
    def _word(self) -> str:
        return self.step.split(" ")[0].lower() or "dlt"

    def _start(self, step: str) -> None:
        self.step, self._rows = step, 0
        self._context.progress(0, unit="rows", message=step)
        self._began = time.monotonic()

    def _stop(self) -> None:
        if self._rows:
            self._context.say(f"{self.step}: {self._rows:,} rows in {time.monotonic() - self._began:.1f} s")
