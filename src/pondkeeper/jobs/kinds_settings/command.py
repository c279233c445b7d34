"""Settings of jobs of the kind `command`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

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
    environment: Mapping[str, str] = field(
        default_factory=dict, metadata={"help": "Environment variables to set, beside those of the keeper."}
    )
