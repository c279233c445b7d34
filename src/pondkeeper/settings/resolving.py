"""What the automatic values (0) become on a machine, and the settings as a table for people."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from pondkeeper.settings.leaves import Leaf, leaves
from pondkeeper.settings.tree import GIB, MIB, Settings

LEAST_READERS = 4
LEAST_MEMORY_BYTES = 256 * MIB
MOST_READER_MEMORY_BYTES = 4 * GIB
MOST_STAGER_MEMORY_BYTES = 4 * GIB


@dataclass(frozen=True, slots=True)
class Description:
    """One setting as `pondkeeper settings` prints it. `effective` is the value after `resolve`."""

    name: str
    value: Any
    effective: Any
    unit: str
    default: Any
    origin: str
    help: str
    environment: str
    automatic: str
    choices: tuple[str, ...]


def resolve(settings: Settings, cpus: int, ram_bytes: int) -> Settings:
    """The settings with every automatic 0 replaced by what it stands for on a machine of that size."""
    readers, writer, ingest = settings.readers, settings.writer, settings.ingest
    count = readers.count or max(LEAST_READERS, cpus)
    reader_memory = readers.memory_limit_bytes or _reader_memory_bytes(count, ram_bytes)
    stager_memory = ingest.memory_limit_bytes or _stager_memory_bytes(ram_bytes)
    writer_memory = writer.memory_limit_bytes or max(LEAST_MEMORY_BYTES, ram_bytes // 4)
    return dataclasses.replace(
        settings,
        readers=dataclasses.replace(
            readers, count=count, memory_limit_bytes=reader_memory, threads=readers.threads or cpus
        ),
        writer=dataclasses.replace(writer, memory_limit_bytes=writer_memory, threads=writer.threads or cpus),
        ingest=dataclasses.replace(ingest, memory_limit_bytes=stager_memory, threads=ingest.threads or cpus),
    )


def _stager_memory_bytes(ram_bytes: int) -> int:
    return min(MOST_STAGER_MEMORY_BYTES, max(LEAST_MEMORY_BYTES, ram_bytes // 8))


def _reader_memory_bytes(count: int, ram_bytes: int) -> int:
    return min(MOST_READER_MEMORY_BYTES, max(LEAST_MEMORY_BYTES, ram_bytes // 2 // count))


def describe(settings: Settings, resolved: Settings | None = None) -> list[Description]:
    """Every setting with value, unit, default, origin and help, in the order of the tree."""
    return [_description(leaf, settings, resolved or settings) for leaf in leaves().values()]


def _description(leaf: Leaf, settings: Settings, resolved: Settings) -> Description:
    return Description(
        name=leaf.name,
        value=settings.get(leaf.name),
        effective=resolved.get(leaf.name),
        unit=leaf.unit,
        default=leaf.default,
        origin=settings.origin(leaf.name),
        help=leaf.help,
        environment=leaf.environment,
        automatic=leaf.automatic,
        choices=leaf.choices,
    )
