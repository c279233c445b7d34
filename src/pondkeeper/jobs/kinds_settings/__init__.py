"""The settings of each kind of job: one frozen dataclass each, filled in by the owner of the kind."""

from __future__ import annotations

from typing import Any, Final

from pondkeeper.jobs.kinds_settings.command import CommandSettings
from pondkeeper.jobs.kinds_settings.dbt import DbtSettings
from pondkeeper.jobs.kinds_settings.dlt import DltSettings
from pondkeeper.jobs.kinds_settings.download import DownloadSettings
from pondkeeper.jobs.kinds_settings.postgres import PostgresSettings
from pondkeeper.jobs.kinds_settings.python import PythonSettings

KINDS: Final[dict[str, type[Any]]] = {
    "command": CommandSettings,
    "dbt": DbtSettings,
    "dlt": DltSettings,
    "download": DownloadSettings,
    "postgres": PostgresSettings,
    "python": PythonSettings,
}
"""Name of a kind, as in `kind = "dbt"` → its settings."""
