"""After a bulk load: what DuckDB 1.5 writes into the WAL and cannot replay.

Rows from a whole row group on go into the file at once, and only pointers to them into the WAL. When the table has an index
made by CREATE INDEX, and rows are inserted into it by a later commit of the same WAL, then 1.5 cannot open the file after
a crash ("Attempted to access index 2 within vector of size 2"): everything since the last checkpoint is out of reach, until
2.0 replays it. Measured on 1.5.5, with one row and with 122,880, and not with 122,879; primary keys are not affected. So
such a commit is folded into the file by a CHECKPOINT before the next one.
"""

from __future__ import annotations

from typing import Final

import duckdb

ROW_GROUP_ROWS: Final = 122_880
"""Of DuckDB's row groups; another size is an option of ATTACH, and of this instance only."""
_CANNOT_REPLAY: Final = duckdb.__version__.startswith(("0.", "1."))


def must_be_folded(connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether a commit of a row group or more must be in the file, and no longer in the WAL, before the next commit."""
    return _CANNOT_REPLAY and connection.execute("SELECT 1 FROM duckdb_indexes() LIMIT 1").fetchone() is not None
