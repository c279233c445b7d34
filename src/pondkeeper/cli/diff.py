"""`pondkeeper diff`: which tables of two databases differ, and in how many rows."""

from __future__ import annotations

from typing import Any, Final

import click

from pondkeeper.cli.help import example, new_command
from pondkeeper.cli.narration import Progress, say
from pondkeeper.cli.output import print_json, print_table
from pondkeeper.cli.target import Target, home_option, json_option

DIFFERENT: Final = 1


@new_command(
    "diff",
    "Which tables and rows of two databases differ.",
    example("what a version has changed", "pondkeeper diff warehouse@41 warehouse@42"),
    example("what the development copy has become", "pondkeeper diff warehouse dev.duckdb"),
    example("only whether they differ, in a script", "pondkeeper diff warehouse dev.duckdb >/dev/null || echo different"),
)
@click.argument("left", metavar="A")
@click.argument("right", metavar="B")
@json_option
@home_option
def command(left: str, right: str, as_json: bool, target: Target) -> int:
    """Compare two databases: each a name, NAME@VERSION, or a file.

    Of a database that has snapshots the newest is read, or the version; of any other the file itself. Rows are compared
    whole, whatever their order. With a primary key, a row of the same key with other values counts as changed. The exit
    code is 0 when nothing differs, 1 when something does.
    """
    from pondkeeper.local.copying import compare, side

    with Progress("Comparing") as progress:
        found = compare(side(left, target.home), side(right, target.home), lambda text: setattr(progress, "what", text))
    is_equal = not found["tables"] and not found["objects"]
    if as_json:
        print_json({**found, "equal": is_equal})
    else:
        _print(found)
    count = found["tables_compared"]
    say(f"{count} {'table' if count == 1 else 'tables'} compared: {'nothing differs' if is_equal else 'they differ'}")
    return 0 if is_equal else DIFFERENT


def _print(found: dict[str, Any]) -> None:
    rows = [
        (table["table"], f"-{table['only_left']}", f"+{table['only_right']}", f"~{table['changed']}", _what(table))
        for table in found["tables"]
    ]
    rows += [(each["name"], "", "", "", f"{each['kind']} {_SIDES[each['difference']]}") for each in found["objects"]]
    if rows:
        print_table(("name", "only A", "only B", "changed", "what"), rows, numbers=(1, 2, 3), whole=range(5))


_SIDES: Final = {"only_left": "only in A", "only_right": "only in B", "changed": "differs", "rows": "rows differ"}


def _what(table: dict[str, Any]) -> str:
    if table["difference"] == "columns":
        return f"columns differ: {', '.join(table['columns'])}" if table["columns"] else "order or key of columns differs"
    return f"table {_SIDES[table['difference']]}" if table["difference"] != "rows" else _SIDES["rows"]
