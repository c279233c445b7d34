"""The limits of a request: what the caller asks for, cut to what holds for its key on this database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pondkeeper.errors import BodyTooLarge, ParameterInvalid

if TYPE_CHECKING:
    from pondkeeper.access.limits import Effective

Parameters = list[Any] | dict[str, Any] | None


def check_statement(effective: Effective, sql: str, parameters: Parameters) -> None:
    """Raise BodyTooLarge or ParameterInvalid when one statement is more than it may be."""
    limits = effective.limits
    most_bytes = limits.max_statement_bytes
    if most_bytes is not None and len(sql) * 4 > most_bytes and len(sql.encode(errors="replace")) > most_bytes:
        raise BodyTooLarge(
            f"The statement is longer than {most_bytes:,.0f} bytes.",
            remedy="Send rows as parameters, or by an ingest.",
            limit="max_statement_bytes",
            level=effective.levels["max_statement_bytes"],
        )
    most = limits.max_parameters
    if most is not None and parameters and len(parameters) > most:
        raise ParameterInvalid(
            f"The statement has more than {most:,.0f} parameters.",
            remedy="Send fewer at a time, or the rows by an ingest.",
            limit="max_parameters",
            level=effective.levels["max_parameters"],
        )


def smallest(*values: float | None) -> float | None:
    """The smallest of those that are given; NaN counts as not given."""
    given = [value for value in values if value is not None and value == value]  # noqa: PLR0124  Why: NaN is not itself
    return min(given, default=None)


def smallest_int(*values: float | None) -> int | None:
    """As `smallest`, a whole number."""
    found = smallest(*values)
    return None if found is None else int(found)
