"""The steps of a plan by DuckDB alone, for what a disk without power leaves of them.

    python -m campaigns.plainwork FILE STEPS FIRST

Says `begin N` and `done N` on stdout; a checkpoint comes after each step after which a keeper would have published.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import duckdb


def main(file: str, steps: Path, first: int) -> None:
    """Do the steps from this one on."""
    with duckdb.connect(file) as connection:
        for number, step in enumerate(json.loads(steps.read_text())[first:], start=first):
            print(f"begin {number}", flush=True)
            connection.begin()
            for statement in step.get("sql", ()):
                connection.execute(statement)
            connection.commit()
            print(f"done {number}", flush=True)
            if step.get("look"):
                connection.execute("CHECKPOINT")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
