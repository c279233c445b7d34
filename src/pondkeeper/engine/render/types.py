"""DuckDB's types as small trees of ours: what a column is, as far as rendering must know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from duckdb.sqltypes import DuckDBPyType

WHOLE: Final = frozenset({"tinyint", "smallint", "integer", "bigint", "utinyint", "usmallint", "uinteger", "ubigint"})
FLOATING: Final = frozenset({"float", "double"})
NESTED: Final = frozenset({"list", "array", "struct", "tuple", "map", "union", "variant"})
_WITH_CHILDREN: Final = {"list": 1, "array": 1, "map": 2}


@dataclass(frozen=True, slots=True)
class Type:
    """A type: DuckDB's id for its kind ("decimal", "list", "json" …), its full name, its children by name."""

    id: str
    name: str
    children: tuple[tuple[str, Type], ...] = ()

    @property
    def child(self) -> Type:
        """The type of the elements of a list or an array."""
        return self.children[0][1]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of an answer."""

    name: str
    type: Type


def described(duck: DuckDBPyType) -> Type:
    """Our tree of DuckDB's type."""
    name = str(duck)
    found = _known.get(name)
    if found is None:
        found = _described(duck, name)
        if len(name) <= _LONGEST_KNOWN:  # Why: a guest chooses names, and must not fill this process with them.
            if len(_known) >= _MOST_KNOWN:
                _known.clear()
            _known[name] = found
    return found


def _described(duck: DuckDBPyType, name: str) -> Type:
    identity = duck.id
    if identity == "varchar" and name == "JSON":
        return Type("json", name)
    # Why: 2.0 writes the type of a bare NULL as a quoted name.
    return Type(identity, "NULL" if name == '"NULL"' else name, _children(duck, identity))


def _children(duck: DuckDBPyType, identity: str) -> tuple[tuple[str, Type], ...]:
    if identity not in NESTED or identity == "variant":
        return ()
    found: list[tuple[str, Any]] = list(duck.children)
    if identity in _WITH_CHILDREN:
        found = found[: _WITH_CHILDREN[identity]]  # An array tells its size behind its child.
    elif identity == "union":
        found = found[1:]  # The first is the tag.
    return tuple((name, described(child)) for name, child in found)


# Trap: keyed by the name and not by DuckDB's object, which a cache would keep past the end of its library.
_known: dict[str, Type] = {}
_MOST_KNOWN: Final = 4096
_LONGEST_KNOWN: Final = 400
