"""Asking the keeper, where one runs, to publish what a program has written."""

from __future__ import annotations

from typing import Any

from pondkeeper.files.paths import DatabasePaths
from pondkeeper.local.known import serving_home

ANSWER_TIMEOUT_S = 60.0


def publish(paths: DatabasePaths) -> dict[str, Any] | None:
    """The snapshot that has what was written; None where no keeper runs. Raises PondkeeperError.

    Without it, or where it fails, the keeper notices the change by itself, at its start at the latest.
    """
    from pondkeeper.client import Client

    home = serving_home(paths)
    if home is None:
        return None
    with Client.local(home.root, timeout_s=ANSWER_TIMEOUT_S) as client:
        return client.take_snapshot(paths.name, only_changes=True)
