"""One opening of the database file by the writer, from connect to close."""

from __future__ import annotations

import os
from collections.abc import Callable

from pondkeeper.engine.opening import WriterConfig, open_database
from pondkeeper.engine.writing import Transaction, checkpoint


class Session:
    """The open file. `recovered` says whether a WAL was there, so that its commits are not in any snapshot yet."""

    def __init__(self, config: WriterConfig) -> None:
        self.recovered = os.path.exists(config.path + ".wal") or not os.path.exists(config.path)
        self._connection = open_database(config)
        self._cursor = self._connection.cursor()

    def transaction(self, number: int, on_commit: Callable[[], None]) -> Transaction:
        """A transaction for request `number`; one at a time."""
        return Transaction(self._cursor, number, on_commit)

    def checkpoint(self) -> None:
        """Fold the WAL into the file; commits may go on meanwhile. Raises CheckpointPostponed or PondkeeperError."""
        checkpoint(self._connection)

    def close(self) -> None:
        """Close the file, without a checkpoint."""
        self._cursor.close()
        self._connection.close()
