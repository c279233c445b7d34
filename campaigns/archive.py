"""The campaign of the archive: what was archived comes back as it was, or is refused, whatever happened to it.

    python -m campaigns.archive [--rounds N] [--budget S] [--seed S] [--short] [--only flips,…]

A line of JSON per round on stdout, narration on stderr. The seed is printed; the same seed draws the same plan. Exit
code 0: nothing was violated and every positive control was found; 1: otherwise, and the artefacts' folder is named.
"""

from __future__ import annotations

import sys

from campaigns import archivers, flips, outages, points, replicas, restores
from campaigns.command_line import options_of, parser_of, play_chosen
from campaigns.running import Part

PARTS: dict[str, Part] = {
    "archivers": archivers.play,
    "bucket": outages.play_bucket,
    "flips": flips.play,
    "full": outages.play_full,
    "points": points.play,
    "replicas": replicas.play,
    "restores": restores.play,
}


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and play; the exit code."""
    parsed = parser_of("archive", __doc__, PARTS).parse_args(arguments)
    return play_chosen(PARTS, parsed.only, options_of(parsed))


if __name__ == "__main__":
    sys.exit(main())
