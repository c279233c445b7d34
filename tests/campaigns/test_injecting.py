"""The evidence of I/O errors: what a tracer's log says of a failed fsync."""

from __future__ import annotations

import pytest

from campaigns.injecting import failed_call, judge

WAL, FILE = "9</data/pond.duckdb.wal>", "7</data/pond.duckdb>"
FAILED = f"71 fdatasync({WAL}) = -1 EIO (Input/output error) (INJECTED)\n"
SPLIT = f"72 fsync({WAL} <unfinished ...>\n71 write({WAL}, ..., 10) = 10\n72 <... fsync resumed>) = -1 EIO (Input/output error) (INJECTED)\n"


@pytest.mark.parametrize("failed", [FAILED, SPLIT])
def test_a_retry_of_a_failed_sync_is_seen(failed: str) -> None:
    """By whatever thread, and by either call; a sync of another file is none."""
    assert judge(failed + f"71 fsync({WAL}) = 0\n") == ["a failed fsync was retried on pond.duckdb.wal"]
    assert judge(failed + f"71 fsync({FILE}) = 0\n") == []
    assert judge(f"71 fsync({WAL}) = 0\n" + failed) == []


def test_the_call_that_failed_is_named() -> None:
    """With its file; and nothing when none did."""
    assert failed_call(f"71 write({WAL}, ..., 10) = 10\n" + FAILED) == "fdatasync pond.duckdb.wal"
    assert failed_call(f"71 write({WAL}, ..., 10) = 10\n") is None
