"""The leaves of a job's settings as data: what the loader of jobs, their reference and `pondkeeper job show` iterate."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

from pondkeeper.settings.leaves import Leaf

PLAIN = {str: "text", int: "integer", float: "number", bool: "flag"}
TEXTS = {"sql": "sql", "secret": "secret", "path": "path"}


@dataclass(frozen=True, slots=True)
class Place:
    """One leaf of a job, and what its elements are where it holds tables."""

    leaf: Leaf
    element: type[Any] | None
    is_required: bool

    @property
    def name(self) -> str:
        return self.leaf.name

    @property
    def short(self) -> str | None:
        """The name without its unit, for a value that has one: `timeout = "30m"`."""
        for kind, ending in (("duration", "_s"), ("size", "_bytes")):
            if self.leaf.kind == kind and self.leaf.name.endswith(ending):
                return self.leaf.name.removesuffix(ending)
        return None


def mapping_setting(about: str) -> Mapping[str, str]:
    """A leaf that holds texts by name, such as an environment."""
    found: Mapping[str, str] = field(default_factory=dict, metadata={"help": about})
    return found


def tables_setting(about: str) -> tuple[Any, ...]:
    """A leaf that holds any number of tables: `[[jobs.NAME.key]]`."""
    found: tuple[Any, ...] = field(default=(), metadata={"help": about})
    return found


def places(kind: type[Any]) -> dict[str, Place]:
    """The leaves of a frozen dataclass by their names, in its order. Fields that are no setting (no help) are left out."""
    return _places(cast("Any", kind))


@cache
def _places(kind: Any) -> dict[str, Place]:
    hints = get_type_hints(kind)
    required = getattr(kind, "required", ())
    return {
        field_.name: _place(field_, hints[field_.name], is_required=field_.name in required)
        for field_ in dataclasses.fields(kind)
        if "help" in field_.metadata
    }


def _place(field_: dataclasses.Field[Any], hint: Any, *, is_required: bool) -> Place:
    about = {"unit": "", "minimum": None, "maximum": None, "choices": (), "automatic": "", **field_.metadata}
    kind, element = _kind(_without_none(hint), about["unit"])
    default = field_.default if field_.default is not dataclasses.MISSING else None
    return Place(Leaf(name=field_.name, kind=kind, default=default, **about), element, is_required)


def _without_none(hint: Any) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        return next(part for part in get_args(hint) if part is not type(None))
    return hint


def _kind(hint: Any, unit: str) -> tuple[str, type[Any] | None]:
    if dataclasses.is_dataclass(hint):
        return "table", hint if isinstance(hint, type) else type(hint)
    if get_origin(hint) is tuple:
        element = get_args(hint)[0]
        if dataclasses.is_dataclass(element):
            return "tables", element if isinstance(element, type) else type(element)
        return ("integers" if element is int else "list"), None
    if hint is str:
        return TEXTS.get(unit, "text"), None
    if hint is float and unit == "s":
        return "duration", None
    if hint is int and unit == "bytes":
        return "size", None
    return PLAIN.get(hint, "mapping"), None
