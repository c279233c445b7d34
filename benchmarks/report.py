"""What a benchmark measured, against which bar, and whether it was met: as a table or as JSON."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from os import cpu_count
from typing import Any


@dataclass(frozen=True)
class Bar:
    """A bound on a figure; `of` says whether the ratio to the peer or the measured value itself is bounded."""

    of: str
    relation: str
    limit: float

    def met(self, measured: float, ratio: float | None) -> bool:
        value = ratio if self.of == "ratio" else measured
        if value is None:
            return False
        return value <= self.limit if self.relation == "<=" else value >= self.limit

    def __str__(self) -> str:
        sign = "≤" if self.relation == "<=" else "≥"
        return f"{'×' if self.of == 'ratio' else ''}{sign} {self.limit:g}"


@dataclass(frozen=True)
class Figure:
    """One measured number, and the peer's number from the same run where there is a peer."""

    name: str
    measured: float
    unit: str
    peer: str = ""
    peer_measured: float | None = None
    bar: Bar | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        return self.measured / self.peer_measured if self.peer_measured else None

    @property
    def met(self) -> bool | None:
        return self.bar.met(self.measured, self.ratio) if self.bar else None

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "bar": str(self.bar) if self.bar else None, "ratio": self.ratio, "met": self.met}


def at_most(limit: float) -> Bar:
    return Bar("measured", "<=", limit)


def ratio_at_most(limit: float) -> Bar:
    return Bar("ratio", "<=", limit)


def ratio_at_least(limit: float) -> Bar:
    return Bar("ratio", ">=", limit)


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile: a value that was really measured."""
    if not values:
        raise ValueError("nothing was measured")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    return {
        "cpus": cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "duckdb": version("duckdb"),
        "pyarrow": version("pyarrow"),
    }


def as_json(name: str, figures: Iterable[Figure], **about: Any) -> str:
    body = {"benchmark": name, "machine": machine(), **about, "figures": [figure.to_json() for figure in figures]}
    return json.dumps(body, indent=2, ensure_ascii=False)


def as_table(figures: Sequence[Figure]) -> str:
    """Figure, measured, peer, ratio, bar, met: aligned columns, a note below its row."""
    head = ("figure", "measured", "peer in the same run", "ratio", "bar", "met")
    rows = [head, *(_cells(figure) for figure in figures)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    notes = [f"  {figure.name}: {figure.note}" for figure in figures if figure.note]
    return "\n".join([*lines, *([""] if notes else []), *notes])


def _cells(figure: Figure) -> tuple[str, str, str, str, str, str]:
    peer = f"{figure.peer} {_number(figure.peer_measured)} {figure.unit}" if figure.peer_measured is not None else ""
    ratio = f"{figure.ratio:.2f}" if figure.ratio is not None else ""
    met = {True: "yes", False: "NO", None: ""}[figure.met]
    bar = str(figure.bar) if figure.bar else ""
    return figure.name, f"{_number(figure.measured)} {figure.unit}", peer, ratio, bar, met


def _number(value: float) -> str:
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"
