"""The page docs/reference/cli.md: every command with its options and examples, read from click."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from pondkeeper.cli.help import ExamplesCommand, ExamplesGroup
from pondkeeper.cli.main import cli

INTRODUCTION = """\
Data goes to stdout, everything else to stderr. Exit codes: [exit-codes.md](exit-codes.md). `pondkeeper COMMAND --help`
shows the same as this page. Durations are written `250ms`, `30s`, `5m`, `1h`, sizes `512MB`, `2GiB`.

Which keeper is meant, the first that is given: `--url` or `--home`, `PONDKEEPER_URL`, `PONDKEEPER_HOME`, the nearest
`.pondkeeper/` in the working folder or above it. On the keeper's own machine no key is needed: the owner of its
control socket is trusted.

Completion of commands, options and names of databases, jobs and runs: `pondkeeper completion bash` (or `zsh`, `fish`) prints the
script; [completion](#pondkeeper-completion) shows where it goes.
"""


def cli_page(notice: str) -> str:
    """The whole page."""
    sections = [section for path, command in _commands("pondkeeper", cli) for section in _section(path, command)]
    return "\n".join([notice, "# Command line\n", INTRODUCTION, *sections])


def _commands(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    """The command and everything below it, in the order of its help."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=path)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from _commands(f"{path} {name}", found)


def _section(path: str, command: click.Command) -> Iterator[str]:
    context = click.Context(command, info_name=path)
    depth = "#" * min(4, 1 + len(path.split()))
    yield f"{depth if path != 'pondkeeper' else '##'} {path}\n"
    yield f"```\n{' '.join([path, *command.collect_usage_pieces(context)])}\n```\n"
    yield f"{inspect.cleandoc(command.help or '')}\n"
    yield from _options(context, command)
    yield from _examples(command)


def _options(context: click.Context, command: click.Command) -> Iterator[str]:
    listed = [
        each for each in command.get_params(context) if isinstance(each, click.Option) and "--help" not in each.opts
    ]
    records = [record for each in listed if (record := each.get_help_record(context))]
    rows = [f"| `{_cell(names)}` | {_cell(text)} |" for names, text in records]
    if rows:
        yield "\n".join(["| option | |", "| --- | --- |", *rows, ""])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _examples(command: click.Command) -> Iterator[str]:
    examples = command.examples if isinstance(command, ExamplesCommand | ExamplesGroup) else ()
    if examples:
        lines = "\n\n".join(f"# {what}\n{line}" for what, line in examples)
        yield f"```console\n{lines}\n```\n"
