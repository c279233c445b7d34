"""How our commands describe themselves: every command carries examples, the group loads a command only when it is used."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

import click

SETTINGS: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

COMMENT: Final = re.compile(r"--(\s|.*\n)")

Example = tuple[str, str]


class ExamplesCommand(click.Command):
    """A command whose help ends with examples: (what it does, the line to type)."""

    def __init__(self, *args: Any, examples: tuple[Example, ...] = (), **rest: Any) -> None:
        super().__init__(*args, **rest | {"context_settings": SETTINGS | rest.get("context_settings", {})})
        self.examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(self.examples, formatter)
        super().format_epilog(ctx, formatter)


class SqlCommand(ExamplesCommand):
    """A command that takes SQL, which may begin with a `--` comment: that is no option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, ["\n" + each if COMMENT.match(each) else each for each in args])


class ExamplesGroup(click.Group):
    """A group of commands with examples of its own."""

    command_class = ExamplesCommand

    def __init__(self, *args: Any, examples: tuple[Example, ...] = (), **rest: Any) -> None:
        super().__init__(*args, **rest)
        self.examples = examples

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        return list(self.commands)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(self.examples, formatter)
        super().format_epilog(ctx, formatter)


class StdoutClosed(Exception):
    """Whoever read our stdout has enough."""


class LazyGroup(ExamplesGroup):
    """The program: command name → module, imported when the command is needed and not before."""

    def __init__(self, *args: Any, modules: dict[str, str], **rest: Any) -> None:
        super().__init__(*args, **rest)
        self.modules = modules

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        return list(self.modules)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in self.modules:
            return None
        found = import_module(self.modules[cmd_name]).command
        assert isinstance(found, click.Command)
        return found

    def invoke(self, ctx: click.Context) -> Any:
        try:
            found = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError as error:  # Why: click would end the program with 1, as if it had failed.
            raise StdoutClosed from error
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = click.utils.make_str(args[0])
        if name not in self.modules and not name.startswith("-"):
            ctx.fail(_no_such_command(name, list(self.modules)))
        return super().resolve_command(ctx, args)


def _no_such_command(name: str, known: list[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, known, n=1)
    return f"There is no command {name!r}." + (f" Did you mean {near[0]!r}?" if near else "")


def write_examples(examples: tuple[Example, ...], formatter: click.HelpFormatter) -> None:
    """The section "Examples" of a help page."""
    if not examples:
        return
    with formatter.section("Examples"):
        for number, (what, line) in enumerate(examples):
            if number:
                formatter.write_paragraph()
            formatter.write_text(f"# {what}")
            formatter.write(f"{'':>{formatter.current_indent}}{line}\n")


def example(what: str, line: str) -> Example:
    """One example of a help page."""
    return what, line


def new_command(
    name: str, short: str, *examples: Example, kind: type[ExamplesCommand] = ExamplesCommand, **context_settings: Any
) -> Callable[[Callable[..., Any]], ExamplesCommand]:
    """Make a function a command with examples; its docstring is the help, `short` its line in the list."""
    return click.command(
        name, cls=kind, short_help=short, examples=examples, context_settings=context_settings
    )


def new_group(name: str, short: str, *examples: Example) -> Callable[[Callable[..., Any]], ExamplesGroup]:
    """Make a function a group of commands with examples; its docstring is the help, `short` its line in the list."""
    return click.group(name, cls=ExamplesGroup, short_help=short, examples=examples, context_settings=SETTINGS)
