"""The file of a staged body: an Arrow stream, packed, within a limit and never to the brim of the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pyarrow as pa

from pondkeeper.engine.intake.passes import Pass
from pondkeeper.engine.intake.sources.rows import insist_on_few
from pondkeeper.errors import BodyTooLarge
from pondkeeper.files.durable import PRIVATE_FILE
from pondkeeper.files.room import insist_on_room

BATCH_ROWS: Final = 65_536
_OPTIONS: Final = pa.ipc.IpcWriteOptions(compression="lz4")


def write_stream(attempt: Pass, query: str, path: Path, limit_bytes: int, max_rows: int) -> int:
    """Write the answer of the query; the rows. Raises BodyTooLarge or DiskFull."""
    rows = 0
    path.unlink(missing_ok=True)
    path.touch(PRIVATE_FILE)
    with attempt.faults():
        batches = attempt.stream(query, BATCH_ROWS)
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, batches.schema, options=_OPTIONS) as writer:
            for batch in batches:
                writer.write_batch(batch)
                rows += batch.num_rows
                insist_on_few(rows, max_rows)
                _check(file.tell(), path, limit_bytes)
    return rows


def _check(size_bytes: int, path: Path, limit_bytes: int) -> None:
    if size_bytes > limit_bytes:
        raise BodyTooLarge(
            f"The rows take more than {limit_bytes:,} bytes when they are staged.",
            remedy="Ingest it in pieces, or raise `ingest.staging_limit_bytes`.",
            max_bytes=limit_bytes,
        )
    insist_on_room(path)
