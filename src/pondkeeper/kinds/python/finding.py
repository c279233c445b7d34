"""The function that a job names: in a file or in an installed module, by its name or as the only job in there."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from pondkeeper.errors import JobInvalid
from pondkeeper.kinds.python.job import is_job


def function_of(place: str, folder: Path) -> Callable[..., Any]:
    """The function of `jobs/enrich.py:enrich`, `pipelines.enrich:enrich`, or of either without its name. Raises JobInvalid."""
    where, _, name = place.partition(":")
    module = _file(folder / where) if where.endswith(".py") else _module(where)
    jobs = {each: found for each, found in vars(module).items() if is_job(found) and found.__module__ == module.__name__}
    if not name:
        return _only(jobs, where)
    found = getattr(module, name, None)
    if found is None:
        raise JobInvalid(f"There is no {name!r} in {where}; its jobs are: {_listed(jobs)}.")
    if not is_job(found):
        raise JobInvalid(f"{name!r} in {where} is not decorated with `@pondkeeper.job`.", remedy="Write it above the function.")
    function: Callable[..., Any] = found
    return function


def _only(jobs: dict[str, Callable[..., Any]], where: str) -> Callable[..., Any]:
    if len(jobs) != 1:
        raise JobInvalid(
            f"{where} has {len(jobs)} functions decorated with `@pondkeeper.job`: {_listed(jobs)}.",
            remedy='Name the one that is meant: `function = "FILE.py:NAME"`.',
        )
    return next(iter(jobs.values()))


def _listed(jobs: dict[str, Callable[..., Any]]) -> str:
    return ", ".join(jobs) or "none"


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise JobInvalid(f"There is no module {error.name!r}.", remedy="Install it where the keeper runs, or name a file.") from error


def _file(path: Path) -> ModuleType:
    """The module of a file. Its folder is importable: a job of several files finds its others."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise JobInvalid(f"There is no file {path.name!r} with the job's function.", private=str(path))
    sys.path.insert(0, str(path.parent))
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as error:
        raise JobInvalid(f"{path.name} needs the module {error.name!r}, which is not there.", remedy="Install it where the keeper runs.") from error
    return module
