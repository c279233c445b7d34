"""The steps of a load, as a kind of job names them: `warehouse.load([Upsert("main.orders", files, keys=["id"])], …)`."""

from __future__ import annotations

from pondkeeper.engine.loads.steps import (
    Append,
    Delete,
    Drift,
    Files,
    KeepOnly,
    Replace,
    Run,
    Step,
    Truncate,
    Update,
    Upsert,
)

__all__ = ["Append", "Delete", "Drift", "Files", "KeepOnly", "Replace", "Run", "Step", "Truncate", "Update", "Upsert"]
