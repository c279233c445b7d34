"""`pondkeeper export`: a database as Parquet files, with the SQL that loads them anywhere."""

from __future__ import annotations

from pathlib import Path

import click

from pondkeeper.cli.help import example, new_command
from pondkeeper.cli.narration import Progress, say, warn
from pondkeeper.cli.output import print_json
from pondkeeper.cli.quantities import show_bytes
from pondkeeper.cli.target import Target, home_option, json_option, wanted_options


@new_command(
    "export",
    "Write a database as Parquet files, for leaving.",
    example("everything, as Parquet and SQL", "pondkeeper export warehouse leaving/"),
    example("load it into another DuckDB, of any version", "pondkeeper export warehouse leaving && duckdb new.duckdb \"IMPORT DATABASE 'leaving'\""),
)
@click.argument("database")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@wanted_options
@json_option
@home_option
def command(database: str, folder: Path, at: str | None, version: int | None, as_json: bool, target: Target) -> None:
    """Write DATABASE (a name, or its file) into FOLDER, which is new or empty: a Parquet file for each table, schema.sql
    and load.sql, as DuckDB's EXPORT DATABASE does.

    It is made from a snapshot, so nobody waits for it. Each file is compared with its table; a column that Parquet cannot
    hold as it is (an INTERVAL, a TIME WITH TIME ZONE) is written as text, which is cast back when it is
    loaded. The folder appears when it is whole.
    """
    from pondkeeper.local.copying import export, named, time_of
    from pondkeeper.snapshots.holding import Wanted

    wanted = Wanted(version, time_of(at) if at else None)
    with Progress("Exporting the database") as progress:
        made = export(named(database, target.home), wanted, folder, lambda text: setattr(progress, "what", text))
    for table in made["tables"]:
        if table["inexact"]:
            warn(f"{table['table']}: not exact in Parquet: {', '.join(table['inexact'])}")
    if as_json:
        print_json(made)
        return
    rows = sum(table["rows"] for table in made["tables"])
    say(f"version {made['version']}: {len(made['tables'])} tables, {rows:,} rows, {show_bytes(made['size_bytes'])}")
    as_text = [f"{table['table']}.{name}" for table in made["tables"] for name in table["as_text"]]
    if as_text:
        say(f"as text, because Parquet has no such type: {', '.join(as_text)}")
    click.echo(made["folder"])
