"""The campaign of bombs: what takes as much as it is given, thrown at a keeper; each must end at its limit.

    python -m campaigns.bombs [--short] [--rounds N] [--seed S] [--only corpus,deaths,herd] [--work FOLDER]

A line of JSON per bomb on stdout, narration on stderr. Exit code 0: every bomb ended as it must, nothing leaked, others
were answered meanwhile, and every positive control was found; 1: otherwise.
"""

from __future__ import annotations

import sys

from campaigns import corpus, deaths, herd
from campaigns.command_line import options_of, parser_of, play_chosen
from campaigns.running import Part

PARTS: dict[str, Part] = {"corpus": corpus.play, "deaths": deaths.play, "herd": herd.play}


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and play; the exit code."""
    parsed = parser_of("bombs", __doc__, PARTS, rounds="kills of the deaths (default 2,000; short: 100)").parse_args(arguments)
    return play_chosen(PARTS, parsed.only, options_of(parsed))


if __name__ == "__main__":
    sys.exit(main())
