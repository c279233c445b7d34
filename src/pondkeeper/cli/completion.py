"""`pondkeeper completion`: the Tab key in a shell."""

from __future__ import annotations

import click

from pondkeeper.cli.help import example, new_command

VARIABLE = "_PONDKEEPER_COMPLETE"


@new_command(
    "completion",
    "Print a shell's completion script.",
    example("bash, from now on", "echo 'eval \"$(pondkeeper completion bash)\"' >> ~/.bashrc"),
    example("zsh, from now on", "echo 'eval \"$(pondkeeper completion zsh)\"' >> ~/.zshrc"),
    example("fish, from now on", "pondkeeper completion fish > ~/.config/fish/completions/pondkeeper.fish"),
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the script that makes SHELL complete commands, options and names of databases, jobs and runs."""
    from click.shell_completion import get_completion_class

    from pondkeeper.cli.main import cli

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(cli, {}, "pondkeeper", VARIABLE).source())
