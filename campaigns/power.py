"""The campaign of power cuts: what a disk may hold when the power goes, rebuilt from recorded calls, and started from.

    python -m campaigns.power [--short] [--rounds N] [--seed S] [--only calls,repair,live] [--work FOLDER]

`calls`: strace records a keeper at its work (create, insert, load in bulk, update, checkpoint, publish, back up,
restore); `repair`: it records a repair. Of each record states are drawn: a cut anywhere, writes lost, reordered and
torn, names lost. Each must open by itself with every transaction that was acknowledged. Positive control: DuckDB alone
fails on some. `live`: a keeper works on a disk (FUSE) that loses its power, again and again (100 cuts; short: 3).
A line of JSON per finding on stdout, narration on stderr. Exit code 0: nothing was violated.
"""

from __future__ import annotations

import sys

from campaigns import powercalls, powerlive
from campaigns.command_line import options_of, parser_of, play_chosen
from campaigns.running import Part

PARTS: dict[str, Part] = {"calls": powercalls.play_calls, "repair": powercalls.play_repair, "live": powerlive.play_live}


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and play; the exit code."""
    parsed = parser_of("power", __doc__, PARTS, rounds="states of each part (default 20,000; short: 500), and cuts of `live` (100; short: 3)").parse_args(arguments)
    return play_chosen(PARTS, parsed.only, options_of(parsed))


if __name__ == "__main__":
    sys.exit(main())
