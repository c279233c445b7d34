"""The leaves of the settings tree as data: what the loader, the documentation and `pondkeeper settings` iterate."""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass
from functools import cache
from typing import Any, get_type_hints

from pondkeeper.settings.tree import Settings

ENVIRONMENT_PREFIX = "PONDKEEPER_"


@dataclass(frozen=True, slots=True)
class Leaf:
    """One setting. `kind` is size, duration, integer, number, text or list."""

    name: str
    kind: str
    unit: str
    default: Any
    help: str
    minimum: float | None
    maximum: float | None
    choices: tuple[str, ...]
    automatic: str

    @property
    def environment(self) -> str:
        """The environment variable that sets it."""
        return ENVIRONMENT_PREFIX + self.name.replace(".", "_").upper()


def _kind(hint: Any, unit: str) -> str:
    if hint is int:
        return "size" if unit == "bytes" else "integer"
    if hint is float:
        return "duration" if unit == "s" else "number"
    return "text" if hint is str else "list"


def _leaf(section: str, field: dataclasses.Field[Any], hint: Any) -> Leaf:
    about = field.metadata
    return Leaf(name=f"{section}.{field.name}", kind=_kind(hint, about["unit"]), default=field.default, **about)


def section_classes() -> dict[str, type[Any]]:
    """The groups of settings: name in the file → dataclass."""
    hints: dict[str, type[Any]] = get_type_hints(Settings)
    return {name: kind for name, kind in hints.items() if dataclasses.is_dataclass(kind)}


@cache
def leaves() -> dict[str, Leaf]:
    """Every setting by its dotted name, in the order of the tree."""
    found: dict[str, Leaf] = {}
    for section, kind in section_classes().items():
        hints = get_type_hints(kind)
        for field in dataclasses.fields(kind):
            leaf = _leaf(section, field, hints[field.name])
            found[leaf.name] = leaf
    return found


def nearest(name: str, names: list[str]) -> str | None:
    """The one of `names` that `name` was probably meant to be; None when nothing is near."""
    if swapped := [known for known in names if sorted(known) == sorted(name)]:
        return swapped[0]
    same_key = [known for known in names if known.rpartition(".")[2] == name.rpartition(".")[2]]
    found = difflib.get_close_matches(name[:100], same_key or names, n=1, cutoff=0.0 if same_key else 0.4)
    return found[0] if found else None
