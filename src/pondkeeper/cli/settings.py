"""`pondkeeper settings`: every setting with its value, unit, default and origin."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from pondkeeper.cli.help import example, new_command
from pondkeeper.cli.output import print_json, print_table
from pondkeeper.cli.quantities import show_bytes
from pondkeeper.cli.target import Target, home_option, json_option
from pondkeeper.settings import Description, Leaf, Settings, describe, leaves, resolve, this_machine
from pondkeeper.settings.values import shown


@new_command(
    "settings",
    "Print every setting and its origin.",
    example("what a keeper started here would use, and why", "pondkeeper settings"),
    example("one group of them", "pondkeeper settings readers"),
    example("try a file before a keeper has it", "pondkeeper settings --config new.toml"),
)
@click.argument("prefix", metavar="[NAME]", default="")
@click.option(
    "--config",
    "file",
    metavar="FILE",
    envvar="PONDKEEPER_CONFIG",
    show_envvar=True,
    type=click.Path(path_type=Path),
    help="Another settings file than pondkeeper.toml of the home.",
)
@click.option("--meanings", "help_texts", is_flag=True, help="Show what each setting means.")
@json_option
@home_option
def command(prefix: str, file: Path | None, help_texts: bool, as_json: bool, target: Target) -> None:
    """Print the settings, or those whose name begins with NAME.

    Each has its value, unit, default and origin: the flags of `serve` go before the environment
    (PONDKEEPER_READERS_COUNT=8), that goes before the file, and that before the defaults.
    """
    settings = _load(file, target)
    machine = this_machine()
    described = describe(settings, resolve(settings, machine.cpus, machine.ram_bytes))
    chosen = [each for each in described if each.name.startswith(prefix)]
    if not chosen:
        raise click.UsageError(f"No setting begins with {prefix!r}.")
    if as_json:
        print_json([dataclasses.asdict(each) for each in chosen])
    else:
        _print(chosen, help_texts)


def _load(file: Path | None, target: Target) -> Settings:
    if file is not None:
        return Settings.load(file, must_exist=True)
    return Settings.load(target.home.settings_file if target.home else None)


def _print(described: list[Description], help_texts: bool) -> None:
    columns = ("setting", "value", "default", "origin", *(("meaning",) if help_texts else ()))
    print_table(columns, (_row(each, help_texts) for each in described), numbers=(1, 2))


def _row(each: Description, help_texts: bool) -> tuple[str, ...]:
    """Value and default with their unit, as one would write them."""
    leaf = leaves()[each.name]
    default = "auto" if each.automatic and each.default == 0 else shown(leaf, each.default)
    row = (each.name, _rounded(leaf, each.effective), default, each.origin)
    return (*row, each.help) if help_texts else row


def _rounded(leaf: Leaf, value: Any) -> str:
    """A size that no unit fits exactly (a share of the memory) is rounded."""
    text = shown(leaf, value)
    return show_bytes(value) if leaf.kind == "size" and int(text.split()[0]) >= 10_000 else text
