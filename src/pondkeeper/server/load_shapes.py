"""The shapes of loads: what a run of a job asks, and what it is answered."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

LONGEST_S: Final = 7 * 86_400.0


class LoadBody(Struct, forbid_unknown_fields=True, frozen=True):
    """A load of a job: its steps on staged files, in one transaction, once for each identity."""

    load: Annotated[
        dict[str, Any],
        Meta(description="`job`, `identity`, `steps` (see docs/reference/loads.md), `state`, `accepted`."),
    ]
    timeout_s: Annotated[float, Meta(gt=0, le=LONGEST_S, description="From its turn on.")] = 3600.0
    wait_s: Annotated[float, Meta(gt=0, le=LONGEST_S, description="For its turn to come.")] = 86_400.0
    priority: Literal["interactive", "normal", "background"] = "background"


class LoadAnswer(Struct):
    """What became of a load."""

    outcome: Annotated[str, Meta(description="committed; a refused or unknown outcome is an error.")]
    version: Annotated[int, Meta(description="The version that contains it.")]
    counts: Annotated[list[int], Meta(description="What each step has counted: rows put, changed or removed.")]
    changes: Annotated[list[str], Meta(description="How tables were changed for the rows.")]
    held_s: Annotated[float, Meta(description="How long its transaction was open; 0 when it had been committed before.")]
    waited_s: Annotated[float, Meta(description="How long it waited for its turn.")]
