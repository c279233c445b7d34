"""The reference of jobs: the keys that every job has, and those of each kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pondkeeper.jobs.job_keys import JobKeys
from pondkeeper.jobs.kinds_settings import KINDS
from pondkeeper.jobs.kinds_settings.leaves import Place, places
from pondkeeper.settings.tree import DAY_S
from pondkeeper.settings.values import shown

VALUES = {
    "size": 'a size with its unit, such as "512MB", or in bytes where the name says so',
    "duration": 'a duration with its unit, such as "30s", "5m" or "26h", or in seconds where the name says so',
    "integer": "a whole number",
    "number": "a number",
    "flag": "true or false",
    "text": "a text",
    "sql": "a text, of several lines where one likes (`'''…'''`)",
    "secret": '"env:NAME" or "file:/path": where the secret is found',
    "path": "a path, relative to the folder of the settings file, or to the one that the home (`.pondkeeper/`) lies in",
    "list": "a list of texts",
    "integers": "a list of whole numbers",
    "mapping": 'a table of texts: `{ NAME = "value" }`',
    "table": "a table",
    "tables": "any number of tables",
}
INTRODUCTION = """\
A job is a table `[jobs.NAME]` of the settings file (`pondkeeper.toml`): the keys that every job may have, and beside them
those of its kind. The keeper reads them again when the file changes; a mistake is told with its line, and the jobs before
it stand until it is mended.

```toml
[jobs.nightly]
kind = "command"
command = ["python", "nightly.py"]
schedule = "30 5 * * *"
timezone = "Europe/Berlin"
timeout = "1h"
retries = 3
notify = "https://hooks.example.com/jobs"

[jobs.report]
kind = "command"
command = ["python", "report.py"]
after = ["nightly"]
```

A key whose name ends in its unit (`timeout_s`) may be written without it when the value has one: `timeout = "1h"` is
`timeout_s = 3600`. Secrets are never written into the file: such a key takes `"env:NAME"`, a variable of the environment
that the keeper was started in, or `"file:/path"`. The name of a job has letters, digits, `_` and `-`.
"""


def jobs_page(notice: str, guides: Path) -> str:
    """The page, with links to those guides of kinds that there are."""
    lines = [notice, "# Jobs\n", INTRODUCTION, "## Every job\n", _about(JobKeys), *_leaves(JobKeys, "")]
    for name, kind in KINDS.items():
        lines += ["", f"## Kind {name}\n", _about(kind), *_guide(guides, name), *_leaves(kind, f"{name}: ")]
    return "\n".join(lines) + "\n"


def _about(kind: type[Any]) -> str:
    return " ".join((kind.__doc__ or "").split("\n\n")[0].split())


def _guide(guides: Path, kind: str) -> list[str]:
    page = guides / f"job-{kind}.md"
    return ["", f"Guide: [{page.read_text().splitlines()[0].lstrip('# ')}](../how-to/{page.name})."] if page.exists() else []


def _leaves(kind: type[Any], prefix: str) -> Iterator[str]:
    for place in places(kind).values():
        yield from ["", f"### {prefix}{place.short or place.name}\n", place.leaf.help, "", *_facts(place)]
        if place.element is not None:
            key = prefix + place.name + "."
            yield from _leaves(place.element, key)


def _facts(place: Place) -> Iterator[str]:
    leaf = place.leaf
    if place.short:
        yield f"- Also `{place.name}`, as a plain number"
    if place.is_required:
        yield "- Must be given"
    elif leaf.default not in (None, "", ()):
        yield f"- Default: {_default(place)}"
    is_choice = leaf.choices and leaf.kind == "text"
    yield f"- Value: {' or '.join(f'`{choice}`' for choice in leaf.choices) if is_choice else VALUES[leaf.kind]}"
    if leaf.minimum is not None and leaf.maximum is not None:
        yield f"- From {_amount(place, leaf.minimum)} to {_amount(place, leaf.maximum)}"


def _default(place: Place) -> str:
    if isinstance(place.leaf.default, bool):
        return str(place.leaf.default).lower()
    if isinstance(place.leaf.default, tuple):
        return ", ".join(map(str, place.leaf.default))
    return _amount(place, place.leaf.default)


def _amount(place: Place, value: Any) -> str:
    if place.leaf.kind == "duration" and value >= DAY_S and value % DAY_S == 0:
        return f"{value / DAY_S:g} d"
    is_count = place.leaf.kind == "integer" and not place.leaf.unit
    return str(int(value)) if is_count else str(shown(place.leaf, value))
