"""Pondkeeper keeps DuckDB files in production.

    with pondkeeper.write("warehouse.duckdb", reason="nightly load") as con: …   the file to oneself, in one's turn
    con = pondkeeper.read("warehouse.duckdb")                                    its newest snapshot
    pondkeeper.Client(url, key)                                                  a keeper over HTTP
    with pondkeeper.Pipeline("warehouse.duckdb") as pipe: …                      many small writes, here and at once
    @pondkeeper.job                                                              a function that is run as a job
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# Why late: every process of the keeper imports this package, and most must load neither DuckDB nor a web stack.
# Their types are in `__init__.pyi`.
_LATE = {
    "Client": "pondkeeper.client.client",
    "JobContext": "pondkeeper.kinds.python.job",
    "Pipeline": "pondkeeper.client.pipeline",
    "job": "pondkeeper.kinds.python.job",
    "read": "pondkeeper.local.reading",
    "version_of": "pondkeeper.local.reading",
    "write": "pondkeeper.local.writing",
}
__all__ = ["Client", "JobContext", "Pipeline", "job", "read", "version_of", "write"]


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LATE[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_LATE])
