"""Settings of jobs of the kind `command`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from pondkeeper.jobs.kinds_settings.leaves import mapping_setting
from pondkeeper.settings.tree import DAY_S, setting


@dataclass(frozen=True, slots=True)
class CommandSettings:
    """Any program, with its arguments; no shell between."""

    required: ClassVar[tuple[str, ...]] = ("command",)

    command: tuple[str, ...] = setting((), 'The program and its arguments, such as ["python", "sync.py", "--all"].')
    lease: str = setting(
        "none",
        "`whole`: the program has the database to itself from its start to its end, and may open the file "
        "(`$PONDKEEPER_DATABASE`). `none`: it runs beside everything else, and must not.",
        choices=("none", "whole"),
    )
    folder: str = setting("", "The folder to run in; empty is the folder of the settings file.", unit="path")
    environment: Mapping[str, str] = mapping_setting(
        'Environment variables to set, beside those of the keeper. A value "env:NAME" or "file:/path" names a secret.'
    )
    max_hold_s: float = setting(
        0.0,
        'With `lease = "whole"`: how long the program may have the database; then it is ended.',
        unit="s",
        minimum=0,
        maximum=7 * DAY_S,
        automatic="as long as the run may take",
    )
