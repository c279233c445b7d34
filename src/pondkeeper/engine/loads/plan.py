"""A load as plain data: whose it is, by what it is known, its steps, and the state that is committed with them. No DuckDB here."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from pondkeeper.engine.loads.steps import MOST_STEPS, Step
from pondkeeper.errors import InvalidRequest

MOST_STATE_CHARS: Final = 4 * 1024 * 1024
AUTOMATIC: Final = "auto/"  # how identities begin that nobody has chosen: no later attempt asks for them again
_SHOWN_TABLES: Final = 5
_WORD: Final = re.compile(r"[\x20-\x7e]{1,120}\Z")


@dataclass(frozen=True)
class Expected:
    """The state that the job must have when a load begins (None: none yet), or the load is refused."""

    state: dict[str, Any] | None


@dataclass(frozen=True)
class LoadPlan:
    """Steps in one transaction, applied once per `identity` of the job. `state` None: the job's state stays as it is.

    `accepted`: changes of tables that a person has accepted, by their digests (see `targets.py`). `expected`: for a job whose
    last attempt may have left a load in the queue, which comes before this one.
    """

    job: str
    identity: str
    steps: tuple[Step, ...]
    state: dict[str, Any] | None = None
    accepted: tuple[str, ...] = ()
    expected: Expected | None = None

    @property
    def key(self) -> str:
        """By what a repeated load is known in the database."""
        return f"job/{self.job}/{self.identity}"

    @property
    def is_automatic(self) -> bool:
        """Whether nobody has chosen its identity."""
        return self.identity.startswith(AUTOMATIC)

    @property
    def digest(self) -> str:
        """Of the identity alone. Why: the next attempt stages anew, and what it stages may differ from the last one's."""
        return hashlib.sha256(self.key.encode()).hexdigest()

    @property
    def files(self) -> list[str]:
        """The files of all steps, each once."""
        return list(dict.fromkeys(path for step in self.steps for path in step.paths))

    @property
    def title(self) -> str:
        """The load as lists of writes show it."""
        tables = list(dict.fromkeys(step.table for step in self.steps if step.table))
        more = f" and {len(tables) - _SHOWN_TABLES} more" if len(tables) > _SHOWN_TABLES else ""
        return f"LOAD {', '.join(tables[:_SHOWN_TABLES]) or 'nothing'}{more} (job {self.job})"

    def rows(self, counts: Sequence[int]) -> dict[str, int]:
        """The rows of each table, by what each step has counted."""
        found: dict[str, int] = {}
        for step, count in zip(self.steps, counts, strict=True):
            if step.table:
                found[step.table] = found.get(step.table, 0) + count
        return found

    def to_wire(self) -> dict[str, Any]:
        """The load as plain data."""
        return {
            "job": self.job,
            "identity": self.identity,
            "steps": [step.to_wire() for step in self.steps],
            "state": self.state,
            "accepted": list(self.accepted),
            "expected": {"state": self.expected.state} if self.expected is not None else None,
        }

    @classmethod
    def from_wire(cls, wire: Any) -> LoadPlan:
        """The load that `to_wire` described. Raises InvalidRequest."""
        try:
            checked = msgspec.convert(wire, _Wire)
        except msgspec.ValidationError as error:
            raise InvalidRequest(f"The load is not of the expected shape: {error}.") from error
        steps = list(map(Step.from_wire, checked.steps))
        return made(checked.job, checked.identity, steps, checked.state, checked.accepted, checked.expected)


def made(
    job: str,
    identity: str,
    steps: Sequence[Step],
    state: Mapping[str, Any] | None = None,
    accepted: Sequence[str] = (),
    expected: Expected | None = None,
) -> LoadPlan:
    """A load, if it is one. Raises InvalidRequest."""
    if not (_WORD.match(job) and _WORD.match(identity)):
        raise InvalidRequest("The job and the identity of a load are 1 to 120 printable ASCII characters.")
    if len(steps) > MOST_STEPS:
        raise InvalidRequest(f"The load has {len(steps)} steps, and {MOST_STEPS} are the most.")
    kept = dict(state) if state is not None else None
    try:
        size = len(msgspec.json.encode(kept))
    except TypeError as error:
        raise InvalidRequest(f"The state of a job is what JSON can say: {error}.") from error
    if size > MOST_STATE_CHARS:
        raise InvalidRequest(f"The state of the job has {size:,} bytes, and {MOST_STATE_CHARS:,} are the most.")
    return LoadPlan(job, identity, tuple(steps), kept, tuple(accepted), expected)


class _Wire(msgspec.Struct, forbid_unknown_fields=True):
    job: str
    identity: str
    steps: list[dict[str, Any]]
    state: dict[str, Any] | None = None
    accepted: list[str] = []
    expected: Expected | None = None
