"""`pondkeeper backup`: the past of a database: what is kept of it, and making it what it was."""

from __future__ import annotations

from pondkeeper.cli.help import example, new_group
from pondkeeper.cli.restoring import restore
from pondkeeper.cli.target import outer_options


@new_group(
    "backup",
    "Restore a database as it was.",
    example("what it was before the load went wrong", 'pondkeeper backup restore --at "2026-11-20 14:03:07"'),
    example("take that back", "pondkeeper backup restore --undo"),
)
@outer_options
def command() -> None:
    """Go back to what a database was."""


command.add_command(restore)
