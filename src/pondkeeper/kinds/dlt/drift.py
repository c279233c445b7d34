"""New tables and columns of a source: taken over, refused, or refused until somebody has accepted just these."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from pondkeeper.errors import SchemaDrifted

SHOWN: Final = 10
DIGEST_CHARS: Final = 12


class Drift:
    """The job's setting for drift, and what somebody has accepted. `found` is what the last load has changed."""

    def __init__(self, setting: str, accepted: Callable[[], Collection[str]], dataset: str) -> None:
        self._setting = setting
        self._accepted = accepted
        self._dataset = dataset
        self.found: list[str] = []

    def judge(self, changes: Mapping[str, Mapping[str, Any]], known: Collection[str]) -> None:
        """Note what is new, or raise SchemaDrifted. `changes`: tables with their new columns, as dlt describes them."""
        texts = sorted(text for name, table in changes.items() for text in _told(name, table, is_new=name not in known))
        if not texts:
            return
        digest = hashlib.sha256("\n".join([self._dataset.lower(), *texts]).encode()).hexdigest()[:DIGEST_CHARS]
        if self._setting == "allow" or (self._setting == "ask" and digest in self._accepted()):
            self.found = texts
            return
        shown = "; ".join(texts[:SHOWN]) + ("; …" if len(texts) > SHOWN else "")
        details: dict[str, Any] = {"digest": digest} if self._setting == "ask" else {}
        raise SchemaDrifted(f"The source of {self._dataset!r} has what the tables have not: {shown}.", table=self._dataset, changes=texts, **details)


def _told(name: str, table: Mapping[str, Any], *, is_new: bool) -> list[str]:
    if is_new:
        return [f"table {name!r} is new"]
    columns = table.get("columns") or {}
    return [f"column {column!r} {kind.get('data_type', '')} of {name!r} is new" for column, kind in columns.items()]
