"""Settings of jobs of the kind `python`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from pondkeeper.jobs.kinds_settings.leaves import mapping_setting
from pondkeeper.jobs.secrets import is_reference
from pondkeeper.settings.tree import setting


@dataclass(frozen=True, slots=True)
class PythonSettings:
    """A function decorated with `@pondkeeper.job`."""

    required: ClassVar[tuple[str, ...]] = ("function",)

    function: str = setting(
        "",
        "What is run: a function decorated with `@pondkeeper.job`, in a file (`jobs/enrich.py:enrich`) or in an installed "
        "module (`pipelines.enrich:enrich`). Its name may be left out where the file or the module has one such function.",
    )
    arguments: str = setting("", 'Arguments of the function by name, as JSON: \'{"day": "2026-11-21", "limit": 10}\'.')
    folder: str = setting(
        "", "The folder to run in and to import from; empty is the folder of the settings file.", unit="path"
    )
    environment: Mapping[str, str] = mapping_setting(
        'Environment variables to set, beside those of the keeper. A value "env:NAME" or "file:/path" names a secret.'
    )
    secrets: Mapping[str, str] = mapping_setting(
        'What `ctx.secret(NAME)` gives: "env:NAME" or "file:/path" for each. It is masked in the log.'
    )

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with values that are each of the right type: name of the setting, and what."""
        if not self.function.partition(":")[0]:
            yield "function", "must be `FILE.py:NAME` or `MODULE:NAME`"
        try:
            arguments = json.loads(self.arguments or "{}")
        except ValueError as error:
            yield "arguments", f"is not JSON: {error}"
        else:
            if not isinstance(arguments, dict):
                yield "arguments", "must be a JSON object: arguments have names"
        for name, value in self.secrets.items():
            if not is_reference(value):
                yield "secrets", f'`{name[:40]}` must be written as "env:NAME" or "file:/path"'
