"""`pondkeeper backup`: the past of a database: what is kept of it, and making it what it was."""

from __future__ import annotations

from pondkeeper.cli.archived import list_, now, prune, verify
from pondkeeper.cli.help import example, new_group
from pondkeeper.cli.restoring import restore
from pondkeeper.cli.target import outer_options


@new_group(
    "backup",
    "Archive databases, and restore them.",
    example("archive what is committed now", "pondkeeper backup now"),
    example("which versions there are", "pondkeeper backup list"),
    example("what it was before the load went wrong", 'pondkeeper backup restore --at "2026-11-20 14:03:07"'),
    example("take that back", "pondkeeper backup restore --undo"),
)
@outer_options
def command() -> None:
    """Keep what a database was, look whether it is good, and go back to it.

    With `pondkeeper serve --archive` every second in which something was written is kept by itself.
    """


for each in (now, list_, verify, restore, prune):
    command.add_command(each)
