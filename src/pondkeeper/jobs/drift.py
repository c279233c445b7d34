"""Changes of tables that a job asked about (`drift = "ask"`), and those that a person has accepted: `drift.json` of the job."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from pondkeeper.errors import InvalidRequest, SchemaDrifted
from pondkeeper.files.durable import make_folder, write_atomic
from pondkeeper.files.paths import Home

MOST_KEPT: Final = 200


@dataclass(frozen=True)
class Question:
    """A change that a run was refused for: of which table, what it is, and the digest that names just this one."""

    digest: str
    table: str
    changes: list[str]
    asked_at: float


def asked(home: Home, job: str) -> list[Question]:
    """What waits for a person, the newest last."""
    return [Question(**each) for each in _read(home, job)["asked"]]


def accepted(home: Home, job: str) -> list[str]:
    """The digests of what may be changed."""
    return list(_read(home, job)["accepted"])


def ask(home: Home, job: str, drifted: SchemaDrifted) -> None:
    """Note what a run was refused for, if a person may accept it."""
    details = drifted.details
    if "digest" not in details:
        return
    kept = _read(home, job)
    others = [each for each in kept["asked"] if each["table"].lower() != str(details["table"]).lower()]
    question = Question(details["digest"], details["table"], list(details["changes"]), time.time())
    _write(home, job, kept | {"asked": [*others, asdict(question)][-MOST_KEPT:]})


def accept(home: Home, job: str) -> list[Question]:
    """Let the next run make the changes that were asked about: which they are. Raises InvalidRequest when there are none."""
    kept = _read(home, job)
    found = asked(home, job)
    if not found:
        raise InvalidRequest(f"The job {job!r} has asked about no change of a table.", remedy="Run it first.")
    digests = list(dict.fromkeys([*kept["accepted"], *(each.digest for each in found)]))
    _write(home, job, {"asked": [], "accepted": digests[-MOST_KEPT:]})
    return found


def _file(home: Home, job: str) -> Path:
    return home.job(job) / "drift.json"


def _read(home: Home, job: str) -> dict[str, Any]:
    try:
        return {"asked": [], "accepted": []} | dict(json.loads(_file(home, job).read_bytes()))
    except (OSError, ValueError):
        return {"asked": [], "accepted": []}


def _write(home: Home, job: str, kept: dict[str, Any]) -> None:
    make_folder(home.job(job))
    write_atomic(_file(home, job), json.dumps(kept).encode())
