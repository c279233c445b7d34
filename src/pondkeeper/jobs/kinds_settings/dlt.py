"""Settings of jobs of the kind `dlt`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from pondkeeper.jobs.kinds_settings.leaves import mapping_setting
from pondkeeper.settings.tree import setting


@dataclass(frozen=True, slots=True)
class DltSettings:
    """A source or a resource of dlt: extracted beside everything else, loaded in one short transaction."""

    required: ClassVar[tuple[str, ...]] = ("source",)

    source: str = setting(
        "",
        "What is loaded: a function or an object, in a file (`sources/github.py:issues`) or in an installed module "
        "(`dlt.sources.rest_api:rest_api_source`). A function is called with `arguments`.",
    )
    arguments: str = setting("", 'Arguments of the function by name, as JSON: \'{"repository": "duckdb", "limit": 10}\'.')
    resources: tuple[str, ...] = setting((), "Of a source with many resources only these; empty is all of them.")
    dataset: str = setting("", "The schema to load into; empty is the job's name.")
    table: str = setting("", "The table, where the source does not name one itself: rows from a plain function.")
    write_disposition: str = setting(
        "",
        "How rows get into their tables, where it is not to be as the source says (dlt's own default is to append).",
        choices=("", "append", "replace", "merge"),
    )
    primary_key: tuple[str, ...] = setting((), "Columns by which `merge` recognises a row, where the source does not say it.")
    drift: str = setting(
        "allow",
        "What is done when the source has new tables or columns: `allow` adds them, `freeze` fails the run, `ask` fails it "
        "until somebody has accepted just this change.",
        choices=("allow", "freeze", "ask"),
    )
    folder: str = setting(
        "",
        "The folder to work in, with `.dlt/config.toml` and `.dlt/secrets.toml`; empty is the folder of the settings file.",
        unit="path",
    )
    environment: Mapping[str, str] = mapping_setting(
        "Environment variables to set, beside those of the keeper; dlt takes its settings from them too. "
        'A value "env:NAME" or "file:/path" names a secret.'
    )

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with values that are each of the right type: name of the setting, and what."""
        if ":" not in self.source:
            yield "source", "must be `FILE.py:NAME` or `MODULE:NAME`"
        try:
            arguments = json.loads(self.arguments or "{}")
        except ValueError as error:
            yield "arguments", f"is not JSON: {error}"
        else:
            if not isinstance(arguments, dict):
                yield "arguments", "must be a JSON object: arguments have names"
