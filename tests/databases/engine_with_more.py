"""Imported by a template under test: an engine that has a function which nobody has judged."""

from __future__ import annotations

from pondkeeper.engine import judged

_catalogue = judged.catalogue


def _with_one_more() -> dict[str, set[str]]:
    found = _catalogue()
    found["functions"].add("read_the_moon")
    return found


judged.catalogue = _with_one_more
