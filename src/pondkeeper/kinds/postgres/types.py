"""PostgreSQL's types and DuckDB's: for each column what it becomes here, and how its values get there without a loss.

Values come two ways. COPY BINARY, read by the ADBC driver, brings what both sides have in the same form; what it would
bring in another (lists of several dimensions, intervals, bits …) the source writes as text. Logical replication brings
text only. DuckDB makes the staged value of either; what it cannot make exactly fails, and the message names the remedy.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from pondkeeper.engine.direct import Direct
from pondkeeper.errors import JobInvalid
from pondkeeper.kinds.postgres.describing import Kind, SourceColumn

TEXT: Final = "VARCHAR"
_VALUE: Final = "{value}"
_MOST_DIGITS: Final = 38
_TYPE: Final = re.compile(r"[A-Za-z_][A-Za-z_ ]*(\(\s*\d+\s*(,\s*\d+\s*)?\))?(\[\])*\Z")
_DECIMAL: Final = re.compile(r"(?:DECIMAL|NUMERIC)\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?\)\Z", re.IGNORECASE)
_IN_PARQUET: Final = re.compile(
    r"(BOOLEAN|BOOL|U?TINYINT|U?SMALLINT|U?INTEGER|INT|U?BIGINT|FLOAT|REAL|DOUBLE|DECIMAL|NUMERIC|VARCHAR|TEXT|STRING|BLOB|BYTEA|DATE|TIME"
    r"|TIMESTAMP|TIMESTAMPTZ|TIMESTAMP WITH TIME ZONE|UUID|JSON)(\(.*\))?(\[\])*\Z",
    re.IGNORECASE,
)

# Trap: the driver adds its epoch to whatever comes, so both infinities wrap around; so does what lies past DuckDB's last
# timestamp (294247-01-10). Nothing that PostgreSQL has otherwise lies before 4714 BC.
_DATE: Final = (
    "CASE WHEN {value} IS NULL OR {value} > DATE '5000-01-01 (BC)' THEN {value} "
    "WHEN {value} = DATE '5877612-06-21 (BC)' THEN DATE 'infinity' ELSE DATE '-infinity' END"
)


@dataclass(frozen=True)
class _Scalar:
    """How one value of a type is carried. `select` is SQL of PostgreSQL, `decode` of DuckDB from what COPY brings then,
    `of_text` of DuckDB from PostgreSQL's text; {value} is the value. `direct`: where Arrow's cast does what `decode` does."""

    type: str
    staged: str
    select: str
    decode: str
    of_text: str
    direct: Direct | None = None


@dataclass(frozen=True)
class Mapped:
    """How a column is carried. `type`: what it is here; `staged`: in Parquet, from which the load casts it.

    `select(sql)`: what the source is asked for; `decode(sql)`: the staged value of what comes then. For replication:
    `prepare(text)` of what came, in Python, then `of_text(sql)`, in DuckDB, of the prepared text.
    """

    column: str
    type: str
    staged: str
    scalar: _Scalar
    is_list: bool = False
    dimensions: int = 0

    def select(self, name: str) -> str:
        """SQL of PostgreSQL."""
        return self.scalar.select.replace(_VALUE, name)

    def decode(self, name: str) -> str:
        """SQL of DuckDB, from what COPY brings."""
        return self.scalar.decode.replace(_VALUE, name)

    @property
    def direct(self) -> Direct | None:
        """Where what COPY brings is staged without `decode`."""
        return self.scalar.direct

    def prepare(self, text: str) -> str:
        """What `of_text` takes, from PostgreSQL's text of a value."""
        return json.dumps(parse_array(text)) if self.is_list else text

    def of_text(self, name: str) -> str:
        """SQL of DuckDB, from a prepared text."""
        return self.scalar.of_text.replace(_VALUE, name)


def mapped(column: SourceColumn, wanted: str = "", numeric: str = TEXT) -> Mapped:
    """How this column is carried: as `wanted` says, else as its type has it; `numeric` is for those without a precision."""
    kind = column.kind
    if wanted:
        scalar = _wanted(kind, _checked(wanted, column.name))
        return Mapped(column.name, scalar.type, scalar.staged, scalar, is_list=bool(kind.element) and scalar.type != TEXT)
    if kind.element:
        scalar = _list(kind.element, _scalar(kind.element, _checked(numeric, column.name)), kind.dimensions)
        return Mapped(column.name, scalar.type, scalar.staged, scalar, is_list=True, dimensions=kind.dimensions)
    scalar = _scalar(kind, _checked(numeric, column.name))
    if column.is_domain and "::" not in scalar.select:
        # Why: the driver looks a column's own type up, and knows no domains.
        scalar = replace(scalar, select="{value}::" + kind.name)
    return Mapped(column.name, scalar.type, scalar.staged, scalar)


def _checked(type_: str, column: str) -> str:
    if not _TYPE.match(type_):
        raise JobInvalid(f"{column}: {type_} is no type.", remedy="`types` and `numeric` take types as DuckDB writes them, such as DECIMAL(18,4).")
    return type_.upper() if "(" not in type_ or _DECIMAL.match(type_) else type_


def _same(type_: str, of_text: str = "") -> _Scalar:
    """Carried in its own form."""
    return _Scalar(type_, type_, _VALUE, _VALUE, of_text or f"{_VALUE}::{type_}", Direct())


def _as_text(type_: str, of_text: str, name: str = "") -> _Scalar:
    """Carried as PostgreSQL's text; staged as text too where Parquet has no such type."""
    staged = type_ if _IN_PARQUET.match(type_) else TEXT
    made = of_text if staged == type_ else f"({of_text})::{TEXT}"
    return _Scalar(type_, staged, _WRITTEN if name in _CAST_OTHERWISE else f"{_VALUE}::text", made, made)


# Trap: a cast to text is not what PostgreSQL writes of these: `::1/128` for `::1`, `true` for `t`, no blanks at the end.
_CAST_OTHERWISE: Final = ("inet", "bool", "bpchar")
_WRITTEN: Final = "CASE WHEN {value} IS NOT NULL THEN concat({value}) END"


_ERA: Final = "CASE WHEN ends_with({value}, ' BC') THEN regexp_replace({value}, '^(\\S+)( .*)? BC$', '\\1 (BC)\\2')::%s ELSE {value}::%s END"


def _era(type_: str) -> str:
    """PostgreSQL writes BC at the end, DuckDB behind the date."""
    return _ERA % (type_, type_)


def _timestamp(type_: str) -> str:
    """Of what the driver brings: the infinities, and nothing that has wrapped around."""
    micros = "epoch_us({value})"
    return (
        f"CASE WHEN {{value}} IS NULL OR {{value}} > {type_} '5000-01-01 (BC) 00:00:00' THEN {{value}} "
        f"WHEN {micros} = {_INFINITE} THEN {type_} 'infinity' WHEN {micros} = {_INFINITE + 1} THEN {type_} '-infinity' "
        f"ELSE error('a timestamp lies past the last one that DuckDB has (294247-01-10)') END"
    )


_INFINITE: Final = -9222425352054775809
_BEFORE_DAYS: Final = -2_440_589  # the day before PostgreSQL's first: below lie only what has wrapped around
_DIRECT_TIMESTAMP: Final = Direct(_BEFORE_DAYS * 86_400_000_000)

_FIXED: Final[dict[str, _Scalar]] = {
    "bool": _same("BOOLEAN"),
    "int2": _same("SMALLINT"),
    "int4": _same("INTEGER"),
    "int8": _same("BIGINT"),
    "float4": _same("FLOAT"),
    "float8": _same("DOUBLE"),
    "text": _same(TEXT, _VALUE),
    "varchar": _same(TEXT, _VALUE),
    "bpchar": _same(TEXT, _VALUE),
    "name": _same(TEXT, _VALUE),
    "json": _same("JSON"),
    "jsonb": _same("JSON"),
    # Why cast: the driver calls it bytes.
    "uuid": _Scalar("UUID", "UUID", _VALUE, "{value}::UUID", "{value}::UUID", Direct()),
    "bytea": _same("BLOB", "unhex(substr({value}, 3))"),
    "time": _same("TIME"),
    # Trap: the driver takes an oid for a signed number.
    "oid": _Scalar("UINTEGER", "UINTEGER", "{value}::int8", "{value}::UINTEGER", "{value}::UINTEGER"),
    "date": _Scalar("DATE", "DATE", _VALUE, _DATE, _era("DATE"), Direct(_BEFORE_DAYS)),
    "timestamp": _Scalar("TIMESTAMP", "TIMESTAMP", _VALUE, _timestamp("TIMESTAMP"), _era("TIMESTAMP"), _DIRECT_TIMESTAMP),
    "timestamptz": _Scalar("TIMESTAMPTZ", "TIMESTAMPTZ", _VALUE, _timestamp("TIMESTAMPTZ"), _era("TIMESTAMPTZ"), _DIRECT_TIMESTAMP),
    "timetz": _as_text("TIMETZ", "{value}::TIMETZ"),
    # Why the plus goes: PostgreSQL writes it after a negative part, and DuckDB reads none.
    "interval": _as_text("INTERVAL", "replace(replace({value}, ' +', ' '), 'mon', 'month')::INTERVAL"),
    "bit": _as_text("BIT", "{value}::BIT"),
}


def _scalar(kind: Kind, numeric: str) -> _Scalar:
    if kind.is_builtin and kind.name in _FIXED:
        return _FIXED[kind.name]
    if kind.is_builtin and kind.name == "numeric":
        return _numeric(kind.modifier, numeric)
    return _as_text(TEXT, _VALUE, kind.name)


def _numeric(modifier: int, otherwise: str) -> _Scalar:
    """A number of so many digits is one here; without a precision, and with more than DuckDB has, as the job says."""
    precision, scale = numeric_shape(modifier)
    if not precision or precision > _MOST_DIGITS or not 0 <= scale <= precision:
        return _wanted(Kind("numeric", "base", modifier, is_builtin=True), otherwise)
    cast = f"{_VALUE}::DECIMAL({precision},{scale})"
    type_ = f"DECIMAL({precision},{scale})"
    return _Scalar(type_, type_, _VALUE, cast, cast, Direct())


def numeric_shape(modifier: int) -> tuple[int, int]:
    """Precision and scale of a numeric column; (0, 0) where it has none. A scale may be negative (since PostgreSQL 15)."""
    if modifier < 4:
        return 0, 0
    packed = modifier - 4
    scale = packed & 0x7FF
    return packed >> 16, scale - 0x800 if scale >= 0x400 else scale


def _wanted(kind: Kind, type_: str) -> _Scalar:
    """As text from the source, cast to the type that is asked for; no digit is rounded away."""
    if kind.element and type_ != TEXT:
        return _Scalar(type_, type_ if _IN_PARQUET.match(type_) else TEXT, _JSON_OF_ARRAY, *(_staged(f"{_VALUE}::JSON", type_),) * 2)
    cast = f"{_VALUE}::{type_}" if type_ != TEXT else _VALUE
    if kind.name == "numeric" and (decimal := _DECIMAL.match(type_)):
        scale = int(decimal[2] or 0)
        cast = (
            f"CASE WHEN regexp_matches({_VALUE}, '\\.[0-9]{{{scale}}}[0-9]*[1-9]') "
            f"THEN error('a number has more digits than {type_} holds: ' || {_VALUE}) ELSE {cast} END"
        )
    return _as_text(type_, cast, kind.name)


def _staged(value: str, type_: str) -> str:
    return f"{value}::{type_}" if _IN_PARQUET.match(type_) else f"({value}::{type_})::{TEXT}"


_JSON_OF_ARRAY: Final = "array_to_json({value}::text[])::text"


def _list(kind: Kind, element: _Scalar, dimensions: int) -> _Scalar:
    """Lists of lists as deep as declared, through JSON of the texts of their elements."""
    brackets = "[]" * dimensions
    body, plain = f"{_VALUE}::JSON::VARCHAR{brackets}", element.of_text in {_VALUE, f"{_VALUE}::{element.staged}"}
    if plain and element.staged != TEXT:
        body = f"({body})::{element.staged}{brackets}"
    elif not plain:
        body = _each(body, element.of_text, dimensions)
    # Trap: a list of texts takes a list in it for a text. PostgreSQL allows any depth in any column.
    deeper = f"starts_with({_VALUE}, {_quote('[' * (dimensions + 1))})"
    complaint = f"error('an array has more than the {dimensions} dimensions that its column is declared with')"
    guarded = f"CASE WHEN {deeper} THEN {complaint} ELSE {body} END"
    select = "array_to_json({value})::text" if kind.name in _CAST_OTHERWISE else _JSON_OF_ARRAY
    return _Scalar(element.type + brackets, element.staged + brackets, select, guarded, guarded)


def _each(of: str, each: str, dimensions: int) -> str:
    """The list with every element made what `each` says, at the depth of the elements."""
    inner = each.replace(_VALUE, "e1")
    for depth in range(1, dimensions):
        inner = f"list_transform(e{depth + 1}, lambda e{depth}: {inner})"
    return f"list_transform({of}, lambda e{dimensions}: {inner})"


def _quote(text: str) -> str:
    return "'" + text + "'"


def parse_array(text: str) -> list[Any]:
    """PostgreSQL's text of an array: lists of texts, None for NULL. Where it begins to count is not kept."""
    start = text.index("{")
    found, _ = _parse(text, start + 1)
    return found


_ITEM: Final = re.compile(r'"((?:[^"\\]|\\.)*)"|([^,{}"]+)')


def _parse(text: str, at: int) -> tuple[list[Any], int]:
    items: list[Any] = []
    while text[at] != "}":
        if text[at] == ",":
            at += 1
        elif text[at] == "{":
            inner, at = _parse(text, at + 1)
            items.append(inner)
        else:
            match = _ITEM.match(text, at)
            assert match is not None, "no array of PostgreSQL"
            items.append(_item(match))
            at = match.end()
    return items, at + 1


def _item(match: re.Match[str]) -> str | None:
    if match[1] is not None:
        return re.sub(r"\\(.)", r"\1", match[1], flags=re.DOTALL)
    return None if match[2] == "NULL" else match[2].replace("\\", "")


def load_types(columns: Iterator[Mapped] | list[Mapped]) -> dict[str, str]:
    """What a step says of columns whose type Parquet cannot say."""
    return {each.column: each.type for each in columns if each.type != each.staged}
