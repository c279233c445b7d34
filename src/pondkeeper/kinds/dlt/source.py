"""The source that a job names: a function or an object in a file or a module, called with the job's arguments."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from dlt.extract import DltResource, DltSource

from pondkeeper.errors import JobInvalid, SourceRefused
from pondkeeper.jobs.kinds_settings.dlt import DltSettings


def source_of(settings: DltSettings, folder: Path) -> Any:
    """What the pipeline extracts. Raises JobInvalid, and whatever the job's own function raises."""
    found = _named(settings.source, folder)
    arguments = json.loads(settings.arguments or "{}")
    if isinstance(found, DltSource) or (isinstance(found, DltResource) and not arguments and found.args_bound):
        made: Any = found
    elif callable(found):
        made = found(**arguments)
    else:
        made = found
    if made is None:
        raise JobInvalid(f"{settings.source} returned nothing to load.", remedy="Let it return a source, a resource or rows.")
    return _only(made, settings)


def _only(made: Any, settings: DltSettings) -> Any:
    if not settings.resources:
        return made
    if not isinstance(made, DltSource):
        raise JobInvalid(f"{settings.source} is no source with several resources.", remedy="Leave out `resources`.")
    missing = sorted(set(settings.resources) - set(made.resources))
    if missing:
        there = ", ".join(sorted(made.resources))
        raise JobInvalid(f"{settings.source} has no resource {', '.join(missing)}; it has: {there}.")
    return made.with_resources(*settings.resources)


def _named(place: str, folder: Path) -> Any:
    """The object of a name such as `sources/github.py:issues` or `dlt.sources.rest_api:rest_api_source`."""
    where, _, name = place.rpartition(":")
    module = _file(folder / where) if where.endswith(".py") else _module(where)
    found: Any = module
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            raise JobInvalid(f"There is no {name!r} in {where}.") from error
    return found


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise JobInvalid(f"There is no module {error.name!r}.", remedy="Install it where the keeper runs, or name a file.") from error


def _file(path: Path) -> ModuleType:
    """The module of a file. Its folder is importable: a source of several files finds its others."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise JobInvalid(f"There is no file {path.name!r} with the job's source.", private=str(path))
    sys.path.insert(0, str(path.parent))
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def hide_secrets(folder: Path, hide: Callable[[str], None]) -> None:
    """Hide in the log what `.dlt/secrets.toml` holds. Raises SourceRefused when that is no TOML."""
    try:
        found = tomllib.loads((folder / ".dlt" / "secrets.toml").read_text())
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise SourceRefused("`.dlt/secrets.toml` cannot be read.", private=str(error)) from error
    for text in _texts(found):
        hide(text)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)
