"""The settings of a keeper: `Settings.load()` reads them, `resolve()` fills in what depends on the machine.

Why not empty, as other rooms keep it: these names are what every room imports, and nothing here imports a library.
"""

from __future__ import annotations

from pondkeeper.settings.leaves import Leaf, leaves
from pondkeeper.settings.machine import Machine, this_machine
from pondkeeper.settings.resolving import Description, describe, resolve
from pondkeeper.settings.tree import (
    ArchiveSettings,
    AuditSettings,
    FenceSettings,
    IngestSettings,
    LeaseSettings,
    LimitSettings,
    LogSettings,
    ReaderSettings,
    ReplicaSettings,
    RunSettings,
    ServerSettings,
    Settings,
    SnapshotSettings,
    SpoolSettings,
    WriterSettings,
)

__all__ = [
    "ArchiveSettings",
    "AuditSettings",
    "Description",
    "FenceSettings",
    "IngestSettings",
    "Leaf",
    "LeaseSettings",
    "LimitSettings",
    "LogSettings",
    "Machine",
    "ReaderSettings",
    "ReplicaSettings",
    "RunSettings",
    "ServerSettings",
    "Settings",
    "SnapshotSettings",
    "SpoolSettings",
    "WriterSettings",
    "describe",
    "leaves",
    "resolve",
    "this_machine",
]
