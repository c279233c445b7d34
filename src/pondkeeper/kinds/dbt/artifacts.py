"""What dbt has done, from its own artifacts: `run_results.json` and `manifest.json`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pondkeeper.errors import RunFailed

GOOD: Final = frozenset({"success", "pass", "warn", "no-op"})
SKIPPED: Final = "skipped"
STORED: Final = frozenset({"table", "incremental", "snapshot", "seed"})
MOST_NODES: Final = 500
MOST_NAMED: Final = 5
LONGEST_MESSAGE: Final = 300


@dataclass(frozen=True)
class Node:
    """One model, test, seed or snapshot, and what became of it. `relation`: the table that it made; "" where it made none."""

    unique_id: str
    name: str
    type: str
    status: str
    time_s: float
    message: str
    relation: str
    materialized: str

    @property
    def is_bad(self) -> bool:
        """Whether it makes the run a failure: it failed, or was not done because something else had."""
        return self.status not in GOOD

    @property
    def table(self) -> str:
        """The table for people: its schema and name."""
        return ".".join(part.strip('"') for part in self.relation.split(".")[-2:])

    @property
    def changed_a_table(self) -> bool:
        """Whether rows of a table are now others."""
        return bool(self.relation) and not self.is_bad and self.materialized in STORED


def read_nodes(target: Path, began: float) -> list[Node]:
    """The nodes of the last invocation, in its order; none when it began before `began` (seconds since the epoch)."""
    results_file = target / "run_results.json"
    try:
        if results_file.stat().st_mtime < began:
            return []
        results = json.loads(results_file.read_bytes())["results"]
        known = json.loads((target / "manifest.json").read_bytes())["nodes"]
    except (OSError, ValueError, KeyError):
        return []
    return [_node(result, known.get(result["unique_id"], {})) for result in results]


def _node(result: Mapping[str, Any], known: Mapping[str, Any]) -> Node:
    unique_id = result["unique_id"]
    kind = unique_id.partition(".")[0]
    config = known.get("config") or {}
    makes = kind in ("model", "seed", "snapshot")
    return Node(
        unique_id=unique_id,
        name=known.get("name") or unique_id.split(".")[2],
        type=kind,
        status=str(result["status"]),
        time_s=round(float(result.get("execution_time") or 0.0), 3),
        message=str(result.get("message") or "").strip()[:LONGEST_MESSAGE],
        relation=str(result.get("relation_name") or known.get("relation_name") or "") if makes else "",
        materialized=kind if kind in ("seed", "snapshot") else str(config.get("materialized") or ""),
    )


def only(nodes: Sequence[Node], chosen: Collection[str]) -> list[Node]:
    """The nodes that one of several runs had asked for."""
    return [node for node in nodes if node.unique_id in chosen]


def details(nodes: Sequence[Node]) -> dict[str, Any]:
    """What the status of the run shows: how many of each outcome, and each node."""
    counts = Counter(node.status for node in nodes)
    shown = sorted(nodes, key=lambda node: not node.is_bad)[:MOST_NODES] if len(nodes) > MOST_NODES else nodes
    return {"outcomes": dict(sorted(counts.items())), "nodes": [_shown(node) for node in shown]}


def _shown(node: Node) -> dict[str, Any]:
    shown = {"name": node.name, "type": node.type, "status": node.status, "time_s": node.time_s}
    return shown | ({"message": node.message} if node.is_bad and node.message else {})


def failure(nodes: Sequence[Node], why: str | None) -> RunFailed | None:
    """The error of a build that did not succeed as a whole; None when it did."""
    bad = [node for node in nodes if node.is_bad and node.status != SKIPPED]
    if bad:
        skipped = sum(node.status == SKIPPED for node in nodes)
        told = "; ".join(f"{node.type} {node.name}: {node.message or node.status}" for node in bad[:MOST_NAMED])
        more = f"; and {len(bad) - MOST_NAMED} more" if len(bad) > MOST_NAMED else ""
        also = f", {skipped} skipped because of it" if skipped else ""
        return RunFailed(f"{len(bad)} of {len(nodes)} nodes of the project failed{also}. {told}{more}.")
    if why is not None:
        return RunFailed(f"dbt did not do what it was asked for: {why[:LONGEST_MESSAGE]}")
    return None
