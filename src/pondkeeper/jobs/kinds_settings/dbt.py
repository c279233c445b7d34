"""Settings of jobs of the kind `dbt`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from pondkeeper.jobs.kinds_settings.leaves import mapping_setting
from pondkeeper.settings.tree import DAY_S, setting


@dataclass(frozen=True, slots=True)
class DbtSettings:
    """A dbt project over dbt-duckdb: read beside everything else, built while it has the database to itself."""

    required: ClassVar[tuple[str, ...]] = ("project",)

    project: str = setting("", "The folder with dbt_project.yml.", unit="path")
    profiles: str = setting("", "The folder with profiles.yml; empty is the project's.", unit="path")
    target: str = setting("", "The target of the profile; empty is its default.")
    command: str = setting("build", "What dbt does.", choices=("build", "run", "test", "seed", "snapshot"))
    select: tuple[str, ...] = setting((), 'What of the project, as for `dbt build --select`: ["staging", "+orders"].')
    exclude: tuple[str, ...] = setting((), "What of it not, as for `dbt build --exclude`.")
    vars: str = setting("", 'Variables of the project, as for `dbt build --vars`: "{day: 2026-11-21}".')
    full_refresh: bool = setting(False, "Build incremental models anew, as `dbt build --full-refresh` does.")
    threads: int = setting(
        0, "Models that are built at the same time.", minimum=0, maximum=256, automatic="what the profile says"
    )
    deps: bool = setting(False, "Install the project's packages first, as `dbt deps` does.")
    python: str = setting(
        "", "The Python that has dbt and dbt-duckdb; empty is the keeper's own (`pip install 'pondkeeper[dbt]'`).", unit="path"
    )
    environment: Mapping[str, str] = mapping_setting(
        'Environment variables to set, beside those of the keeper. A value "env:NAME" or "file:/path" names a secret.'
    )
    max_hold_s: float = setting(
        0.0,
        "How long a build may have the database; then it is ended.",
        unit="s",
        minimum=0,
        maximum=7 * DAY_S,
        automatic="as long as the run may take",
    )
