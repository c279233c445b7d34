"""From a table of the settings file to a frozen dataclass of leaves: every problem found, each with its line."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pondkeeper.jobs.kinds_settings.leaves import Place, places
from pondkeeper.jobs.secrets import is_reference
from pondkeeper.settings.leaves import nearest
from pondkeeper.settings.values import ValueUnusable, from_value

if TYPE_CHECKING:
    from pondkeeper.settings.toml_file import SettingsFile

T = TypeVar("T")
_BREAKS = str.maketrans("\n\t", "  ")


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a key of the file, and in which line it stands."""

    key: str
    line: int | None
    message: str


class Tables:
    """Reads the tables of one file. `problems` fills up; a table with one is read as far as it goes."""

    def __init__(self, written: SettingsFile, folder: Path) -> None:
        self.problems: list[Problem] = []
        self._written = written
        self._folder = folder

    def refuse(self, key: str, message: str) -> None:
        """Note a problem with a dotted key of the file."""
        self.problems.append(Problem(key, self._written.line(key), message))

    def read(self, kind: type[T], table: Any, key: str, *, hints: Iterable[str] = ()) -> T | None:
        """The dataclass that the table at `key` describes; None when that cannot be. `hints`: what else may be meant."""
        if not isinstance(table, Mapping):
            self.refuse(key, f"`{key}` is a table: write [{key}] and its keys")
            return None
        known = places(kind)
        count = len(self.problems)
        names, meant = self._names(known, table, key, hints)
        values = {place.name: self._value(place, table[name], f"{key}.{name}") for name, place in names.items()}
        for place in known.values():
            if place.is_required and place.name not in values and not {place.name, place.short} & meant:
                self.refuse(key, f"`{key}` needs `{place.short or place.name}`: {place.leaf.help}")
        if len(self.problems) > count:
            return None
        made = kind(**values)
        for name, message in getattr(made, "problems", tuple)():
            self.refuse(f"{key}.{name}" if name else key, message)
        return made if len(self.problems) == count else None

    def _names(
        self, known: dict[str, Place], table: Mapping[str, Any], key: str, hints: Iterable[str]
    ) -> tuple[dict[str, Place], set[str | None]]:
        """The keys of the table with the leaf that each means, and what was probably meant by those that mean none."""
        short = {place.short: place for place in known.values() if place.short}
        found: dict[str, Place] = {}
        meant: set[str | None] = set()
        for name, value in table.items():
            place = known.get(name) or (short.get(name) if isinstance(value, str) else None)
            if place in found.values():
                self.refuse(f"{key}.{name}", f"`{key}.{name}` is given twice, with and without its unit")
            elif place is not None:
                found[name] = place
            elif name in short:
                self.refuse(f"{key}.{name}", _without_unit(f"{key}.{name}", short[name]))
            else:
                meant.add(self._refuse_unknown(f"{key}.{name}", [*known, *short, *hints]))
        return found, meant - {None}

    def _refuse_unknown(self, key: str, known: list[str]) -> str | None:
        """Note the problem; the key that was probably meant."""
        table, _, name = key.rpartition(".")
        near = nearest(name, known)
        shown = name[:80] if name[:80].isprintable() else ascii(name[:80])
        self.refuse(key, f"there is no `{shown}` in `{table}`" + (f"; did you mean `{near}`?" if near else ""))
        return near

    def _value(self, place: Place, value: Any, key: str) -> Any:
        try:
            return self._read_value(place, value, key)
        except ValueUnusable as error:
            self.refuse(key, f"`{key}`: {error}")
            return None

    def _read_value(self, place: Place, value: Any, key: str) -> Any:
        match place.leaf.kind:
            case "tables":
                return self._tables(place, value, key)
            case "table":
                return self.read(_element(place), value, key)
            case "path":
                return str(self._folder / Path(_text(place, value)).expanduser())
        if place.leaf.kind == "list":
            return _texts(place, value)
        if place.leaf.kind in _OWN:
            return _OWN[place.leaf.kind](value)
        return from_value(place.leaf, value)

    def _tables(self, place: Place, value: Any, key: str) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise ValueUnusable(f"a list of tables was expected: write [[{key}]] and the keys of each")
        return tuple(self.read(_element(place), part, f"{key}.{number}") for number, part in enumerate(value))


def _element(place: Place) -> type[Any]:
    assert place.element is not None
    return place.element


def _texts(place: Place, value: Any) -> tuple[str, ...]:
    """Texts, which may span lines: an argument of a command is often a small script."""
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        from_value(place.leaf, [part.translate(_BREAKS) or " " for part in value])
        return tuple(value)
    return tuple(from_value(place.leaf, value))


def _text(place: Place, value: Any) -> str:
    return str(from_value(dataclasses.replace(place.leaf, kind="text"), value))


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueUnusable(f"{value!r} is neither true nor false"[:120])
    return value


def _integers(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(part) is int for part in value):
        raise ValueUnusable("a list of whole numbers was expected")
    return tuple(value)


def _mapping(value: Any) -> Mapping[str, str]:
    if not isinstance(value, Mapping) or not all(isinstance(part, str) for part in value.values()):
        raise ValueUnusable("a table of texts was expected")
    return dict(value)


def _sql(value: Any) -> str:
    """A text that may span lines."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ValueUnusable("a text was expected; it may span several lines")
    return value


def _secret(value: Any) -> str:
    if not isinstance(value, str) or not is_reference(value):
        raise ValueUnusable(
            'a secret is not written into the settings, which end up in backups: write "env:NAME" for a variable of the environment '
            'of the keeper, or "file:/path" for a file'
        )
    return value


_OWN: dict[str, Callable[[Any], Any]] = {"flag": _flag, "integers": _integers, "mapping": _mapping, "sql": _sql, "secret": _secret}


def _without_unit(key: str, place: Place) -> str:
    unit = "seconds" if place.leaf.kind == "duration" else "bytes"
    example = "30m" if place.leaf.kind == "duration" else "64MB"
    return f'`{key}` needs a unit, as "{example}"; a plain number of {unit} is `{place.name}`'
