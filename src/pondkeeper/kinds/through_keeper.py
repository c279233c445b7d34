"""A load through the queue of the keeper that serves the database, and what can be seen of it while it waits there."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from pondkeeper.client.loads import LoadsClient
from pondkeeper.engine.loads.plan import LoadPlan
from pondkeeper.errors import PondkeeperError
from pondkeeper.kinds.patience import Waiting

LONGEST_WAIT_S: Final = 6 * 86_400.0
LONGEST_RUN_S: Final = 86_400.0
_LOOKS_S: Final = (0.05, 0.1, 0.2, 0.4)
_LOOK_S: Final = 0.8


def load_through(home: Path, database: str, plan: LoadPlan, priority: str, waiting: Waiting) -> dict[str, Any]:
    """The keeper's answer. Raises what it refuses; OutcomeUnknown or KeeperNotRunning when it was lost."""
    with LoadsClient(home) as client, _Looking(home, database, plan.key, waiting):
        return client.load(database, plan.to_wire(), wait_s=LONGEST_WAIT_S, timeout_s=LONGEST_RUN_S, priority=priority)


class _Looking:
    """Looks at the keeper's queue from a thread while a load is in it, and takes the load out when it is given up."""

    def __init__(self, home: Path, database: str, key: str, waiting: Waiting) -> None:
        self._home = home
        self._database = database
        self._key = key
        self._waiting = waiting
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="looking at the queue", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        looks = iter(_LOOKS_S)
        with LoadsClient(self._home) as client:
            while not self._over.wait(next(looks, _LOOK_S)):
                with suppress(PondkeeperError):  # Why: what becomes of the load its own request says.
                    self._take(client, client.line(self._database))

    def _take(self, client: LoadsClient, line: dict[str, Any]) -> None:
        ours = next((write for write in line["writes"] if write["idempotency_key"] == self._key), None)
        if ours is None:
            return
        if ours["state"] != "waiting":
            self._waiting.holding()
            return
        if self._waiting.is_given_up():
            client.cancel(ours["id"])
        place = next((each["place"] for each in line["line"] if each["id"] == ours["id"]), 0)
        holder = line["holder"] or {}
        who = f"{holder['who']} (pid {holder.get('pid')})" if holder else None
        if line["foreign"] and not holder:
            foreign = line["foreign"][0]
            who = f"{foreign['program']} (pid {foreign['pid']})"
        self._waiting.tell(who, holder.get("why"), holder.get("since"), place)
