"""The environment of programs that a kind starts: what the job sets, its secrets revealed and hidden in the log."""

from __future__ import annotations

import os
from collections.abc import Mapping

from pondkeeper.jobs.secrets import is_reference, reveal
from pondkeeper.kinds.context import RunContext


def set_by_job(context: RunContext, given: Mapping[str, str]) -> dict[str, str]:
    """The variables that the job sets. Raises SettingInvalid when a secret cannot be had."""
    found = {}
    for name, value in given.items():
        found[name] = reveal(value) if is_reference(value) else value
        if is_reference(value):
            context.secret(found[name])
    return found


def environment_for(context: RunContext, given: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of a program: the run's own (which says where the database is), and what the job sets."""
    return {**os.environ, **set_by_job(context, given)}
