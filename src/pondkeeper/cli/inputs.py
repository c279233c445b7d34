"""SQL and parameters as typed on a command line: from arguments, from stdin, from a file."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click


def read_sql(argument: str) -> str:
    """The statement of an argument; `-` reads stdin."""
    if argument != "-":
        return argument
    return decoded(sys.stdin.buffer.read(), "stdin")


def read_file(path: Path) -> str:
    """The text of an SQL file; `-` reads stdin."""
    if str(path) == "-":
        return read_sql("-")
    return decoded(path.read_bytes(), str(path))


def decoded(content: bytes, where: str) -> str:
    """Text of UTF-8 bytes, whatever the locale says."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{where} is not UTF-8: byte {error.start} is {content[error.start]:#04x}.") from None


def parameters_option(function: Any) -> Any:
    """The options --param and --named, given to the command as `positional` and `named`."""
    function = click.option(
        "-n", "--named", metavar="NAME=VALUE", multiple=True, help="A value for $NAME; repeat for each."
    )(function)
    return click.option(
        "-p",
        "--param",
        "positional",
        metavar="VALUE",
        multiple=True,
        help="A value for the next ? or $1; repeat for each. JSON where it reads as such (5, true, null, [1, 2], "
        '"5"), else text.',
    )(function)


def parameters(positional: Sequence[str], named: Sequence[str]) -> list[Any] | dict[str, Any] | None:
    """What the two options say together; None when neither was given."""
    if positional and named:
        raise click.UsageError("--param and --named cannot be mixed: a statement has ? or $name placeholders.")
    if named:
        return dict(_pair(each) for each in named)
    return [value(each) for each in positional] or None


def _pair(text: str) -> tuple[str, Any]:
    name, equals, rest = text.partition("=")
    if not equals or not name:
        raise click.UsageError(f"--named takes NAME=VALUE, not {text!r}.")
    return name.removeprefix("$"), value(rest)


def value(text: str) -> Any:
    """The JSON value that a text is, else the text itself."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except ValueError:
        return text


def _refuse(constant: str) -> Any:
    """NaN and Infinity are not JSON: they stay text, which DuckDB casts."""
    raise ValueError(constant)
