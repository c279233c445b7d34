"""A request's parameters as DuckDB takes them: checked against the statement, never silently changed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from pondkeeper.errors import ParameterInvalid

Parameters = list[Any] | dict[str, Any]

_SMALLEST: Final = -(2**127)
_LARGEST: Final = 2**128 - 1
_MAX_DEPTH: Final = 64


def bind(names: Iterable[str], given: object) -> Parameters | None:
    """`given` (a list, an object or nothing) as what binds the placeholders `names`; None when there are none."""
    expected = frozenset(names)
    if given is None or given in ([], {}):
        if expected:
            raise _mismatch("The statement has placeholders and got no parameters.", expected, 0)
        return None
    if isinstance(given, (list, tuple)):
        return _positional(expected, list(given))
    if isinstance(given, dict):
        return _named(expected, given)
    raise ParameterInvalid("Parameters are a list or an object.")


def _positional(expected: frozenset[str], given: list[Any]) -> list[Any]:
    if expected != {str(place) for place in range(1, len(given) + 1)}:
        raise _mismatch(
            "The parameters in the list do not fit the placeholders of the statement.", expected, len(given)
        )
    return [_value(value, f"parameter {place}") for place, value in enumerate(given, 1)]


def _named(expected: frozenset[str], given: dict[Any, Any]) -> dict[str, Any]:
    # Why: DuckDB does not tell $Name from $name, so neither does the comparison.
    by_name = {str(name).lower(): (str(name), value) for name, value in given.items()}
    wanted = {name.lower(): name for name in expected}
    if by_name.keys() != wanted.keys() or len(by_name) != len(given):
        missing, unknown = sorted(wanted.keys() - by_name.keys()), sorted(by_name.keys() - wanted.keys())
        told = [f"missing: {', '.join(missing)}"] if missing else []
        told += [f"unknown: {', '.join(unknown)}"] if unknown else []
        raise _mismatch(f"The named parameters do not fit the statement ({'; '.join(told)}).", expected, len(given))
    return {wanted[name]: _value(value, f"parameter {given_name}") for name, (given_name, value) in by_name.items()}


def _mismatch(message: str, expected: frozenset[str], given: int) -> ParameterInvalid:
    return ParameterInvalid(message, expected=sorted(expected), given=given)


def _value(value: Any, where: str, depth: int = 0) -> Any:
    """The value as it is, when DuckDB keeps it exactly."""
    if value is None or isinstance(value, (bool, float, bytes)):
        return value
    if isinstance(value, int):
        return _whole(value, where)
    if isinstance(value, str):
        return _text(value, where)
    if depth >= _MAX_DEPTH:
        raise ParameterInvalid(f"{where.capitalize()} is nested deeper than {_MAX_DEPTH} levels.")
    if isinstance(value, (list, tuple)):
        return [_value(item, where, depth + 1) for item in value]
    if isinstance(value, dict):
        return _struct(value, where, depth)
    raise ParameterInvalid(f"{where.capitalize()} has a type that no column can hold: {type(value).__name__}.")


def _whole(value: int, where: str) -> int:
    # Trap: DuckDB turns an integer beyond 128 bits into a double without a word.
    if not _SMALLEST <= value <= _LARGEST:
        raise ParameterInvalid(
            f"{where.capitalize()} has more than 128 bits.", remedy="Send it as a string and cast it."
        )
    return value


def _text(value: str, where: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ParameterInvalid(f"{where.capitalize()} is not valid Unicode text.") from None
    return value


def _struct(value: dict[Any, Any], where: str, depth: int) -> dict[str, Any]:
    if not value:
        raise ParameterInvalid(f"{where.capitalize()} is an empty object, which no type can hold.")
    if value.keys() == {"key", "value"}:
        # Trap: DuckDB's Python API takes this very shape for a MAP, not for a STRUCT.
        raise ParameterInvalid(
            f"{where.capitalize()} is an object of exactly `key` and `value`, which DuckDB would take for a MAP.",
            remedy="Send it as a JSON string and cast it: `$1::JSON`.",
        )
    return {str(key): _value(item, where, depth + 1) for key, item in value.items()}
