"""The program `pondkeeper`: its commands, and how an exception becomes an exit code."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

import click

from pondkeeper import __version__
from pondkeeper.cli import narration
from pondkeeper.cli.help import SETTINGS, LazyGroup, StdoutClosed, example
from pondkeeper.cli.target import outer_options
from pondkeeper.errors import PondkeeperError
from pondkeeper.workers.importing import import_quickly

MODULES: Final = {
    name: f"pondkeeper.cli.{name}"
    for name in (
        "serve",
        "replica",
        "promote",
        "query",
        "execute",
        "ingest",
        "run",
        "job",
        "status",
        "queries",
        "queue",
        "events",
        "ticket",
        "rejects",
        "cancel",
        "snapshot",
        "backup",
        "clone",
        "diff",
        "export",
        "notebook",
        "key",
        "audit",
        "check",
        "settings",
        "completion",
    )
}  # fmt: skip


@click.group(
    cls=LazyGroup,
    modules=MODULES,
    context_settings=SETTINGS,
    examples=(
        example("keep a database (made if missing) and print an admin key once", "pondkeeper serve warehouse.duckdb"),
        example(
            "read from it, in another terminal in the same folder", 'pondkeeper query "SELECT count(*) FROM flights"'
        ),
        example("write to it yourself, in your turn", "pondkeeper run -- dbt build"),
        example("open the newest snapshot with any DuckDB program", 'duckdb -readonly "$(pondkeeper snapshot path)"'),
    ),
)
@outer_options
@click.version_option(__version__, "-V", "--version", prog_name="pondkeeper")
def cli() -> None:
    """Keep DuckDB files in production: many writers in turn, readers that never block.

    Data goes to stdout, everything else to stderr. Without --home or --url a command finds the keeper whose
    .pondkeeper/ lies in the working folder or above it. These options may stand after the command as well.
    """


def main() -> NoReturn:
    """The console script."""
    import_quickly()
    atexit.register(gc.freeze)  # Why: or the collector would look through all of it twice at the end.
    sys.exit(run())


def run(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command line and return its exit code; errors are narrated, never traced."""
    try:
        code = cli.main(arguments, prog_name="pondkeeper", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except PondkeeperError as error:
        narration.show_error(error)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return narration.INTERRUPTED
    except OSError as error:
        return narration.show_os_error(error)
    except StdoutClosed:
        return _reader_gone()


def _reader_gone() -> int:
    """Whoever read our stdout has enough (`| head`): end as a program killed by SIGPIPE does."""
    # Why: the interpreter flushes stdout once more at its end, and must not find the broken pipe again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return narration.BROKEN_PIPE


if __name__ == "__main__":
    main()
