"""The canonical text of every scalar: the one spelling that JSON strings, CSV cells and Arrow strings share.

Dates and times are ISO 8601 (years outside 0001 to 9999 with a sign and six digits, as ECMAScript reads them), infinite
ones `infinity` and `-infinity`; TIMESTAMPTZ is in UTC; a BLOB is base64; everything else is DuckDB's cast to VARCHAR.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pondkeeper.engine.render import sql
from pondkeeper.engine.render.types import FLOATING, Type

NAN: Final = "NaN"
INFINITE: Final = "Infinity"

# Texts of these never hold a character that JSON escapes or CSV quotes.
PLAIN: Final = frozenset(
    {"hugeint", "uhugeint", "bignum", "decimal", "uuid", "bit", "time", "time_ns", "time with time zone", "interval"}
    | {"date", "timestamp", "timestamp_s", "timestamp_ms", "timestamp_ns", "timestamp with time zone", "timestamptz_ns"}
    | {"blob"}
)


def text(kind: Type, reference: str) -> str:
    """SQL for the canonical text of a scalar; NULL stays NULL."""
    if kind.id in FLOATING:
        return floating(reference)
    spelled = _SPELLED.get(kind.id)
    return spelled(reference) if spelled else sql.text(reference)


def floating(reference: str, quote: str = "") -> str:
    """A float or a double: shortest text that reads back the same, or a name where JSON has no number for it."""
    finite = sql.call("isfinite", reference)
    return (
        f"CASE WHEN {finite} THEN {sql.text(reference)} WHEN {sql.call('isnan', reference)} THEN '{quote}{NAN}{quote}'"
        f" WHEN {reference} > 0 THEN '{quote}{INFINITE}{quote}'"
        f" WHEN {reference} < 0 THEN '{quote}-{INFINITE}{quote}' END"
    )


def _date(reference: str) -> str:
    return (
        f"CASE WHEN {reference} BETWEEN DATE '0001-01-01' AND DATE '9999-12-31' THEN {sql.text(reference)}"
        f" WHEN {sql.call('isfinite', reference)} THEN {_far_day(reference)} ELSE {sql.text(reference)} END"
    )


def _far_day(reference: str) -> str:
    year = sql.call("format", "'{:+07d}'", sql.call("year", reference))
    return sql.concat(year, sql.call("strftime", reference, "'-%m-%d'"))


def _timestamp(reference: str) -> str:
    near = "TIMESTAMP '0001-01-01 00:00:00' AND TIMESTAMP '9999-12-31 23:59:59.999999'"
    return (
        f"CASE WHEN {reference} BETWEEN {near} THEN {_with_t(reference)}"
        f" WHEN {sql.call('isfinite', reference)} THEN {_far_moment(reference)} ELSE {sql.text(reference)} END"
    )


def _coarse(reference: str) -> str:
    # Trap: DuckDB takes seconds and milliseconds to nanoseconds for strftime, which do not reach far.
    return _timestamp(f"({reference})::TIMESTAMP")


def _with_t(reference: str) -> str:
    return sql.call("replace", sql.text(reference), "' '", "'T'")


def _far_moment(reference: str) -> str:
    clock = sql.call("regexp_extract", sql.text(reference), r"'\d\d:\d\d:\d\d(\.\d+)?'")
    return sql.concat(_far_day(reference), "'T'", clock)


def _timestamptz(reference: str) -> str:
    # Trap: DuckDB's cast goes through the session's time zone, and near the ends of the range it is off by a millisecond.
    moment = sql.call("make_timestamp", sql.call("epoch_us", reference))
    near = "TIMESTAMPTZ '0001-01-01 00:00:00+00' AND TIMESTAMPTZ '9999-12-31 23:59:59.999999+00'"
    return (
        f"CASE WHEN {reference} BETWEEN {near} THEN {sql.concat(_with_t(moment), _UTC)}"
        f" WHEN {sql.call('isfinite', reference)} THEN {sql.concat(_far_moment(moment), _UTC)}"
        f" ELSE {sql.text(reference)} END"
    )


def _timestamptz_ns(reference: str) -> str:
    moment = sql.call("make_timestamp_ns", sql.call("epoch_ns", reference))
    infinite = sql.call("contains", sql.text(reference), "'infinity'")  # there is no isfinite for this type
    return (
        f"CASE WHEN {reference} IS NULL OR {infinite} THEN {sql.text(reference)}"
        f" ELSE {sql.concat(_with_t(moment), _UTC)} END"
    )


def _timetz(reference: str) -> str:
    """The offset always with its minutes, as RFC 3339 wants it; DuckDB leaves out the `:00` of +01."""
    text = sql.text(reference)
    short = f"{sql.call('substring', text, '-3', '1')} IN ('+', '-')"
    return f"CASE WHEN {short} THEN {sql.concat(text, _ZERO_MINUTES)} ELSE {text} END"


def _blob(reference: str) -> str:
    return sql.call("base64", reference)


_UTC: Final = "'+00:00'"
_ZERO_MINUTES: Final = "':00'"
_SPELLED: Final[dict[str, Callable[[str], str]]] = {
    "date": _date,
    "timestamp": _timestamp,
    "timestamp_s": _coarse,
    "timestamp_ms": _coarse,
    "timestamp_ns": _with_t,
    "timestamp with time zone": _timestamptz,
    "timestamptz_ns": _timestamptz_ns,
    "time with time zone": _timetz,
    "blob": _blob,
}
