"""Database files that cannot be served, each made on purpose."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import duckdb

from pondkeeper.engine.fileformat import HEADERS_BYTES, checksum

BLOCK_BYTES = 262_144
NO_SUCH_STORAGE_VERSION = 9_999
# What DuckDB 2.0 makes by default: an empty database of its own storage version, which 1.5.5 cannot read.
MADE_BY_2_0 = (
    "eNrt1z0KwQEYB+B/MTAaOIV822woJRuDSb5zAZsrOICyOQEXcAALqwOYLVYGSSmyKMPzLL/e3rd3/+233fh6dVxUWuX6KRR8ZZpLZVKZ9/tBsdDv9Yb5"
    "wejzn82udJ7FOtllODqJNQ7pAAAAAPiJxLg5b1+Stcd8ffG8DN8jco9qoP8DAACA/q//AwAAwL+4Ab3LS8Q="
)


def good(path: Path, rows: int = 100_000) -> None:
    """A sound database with one table."""
    with duckdb.connect(str(path)) as connection:
        connection.execute(f"CREATE TABLE t AS SELECT range AS x, hash(range) AS h FROM range({rows})")


def not_duckdb(path: Path) -> None:
    path.write_text("id,name\n1,a CSV file under the wrong name\n" * 1000)


def empty(path: Path) -> None:
    path.touch()


def truncated(path: Path) -> None:
    good(path)
    with path.open("r+b") as file:
        file.truncate(HEADERS_BYTES + 1000)


def truncated_by_half(path: Path) -> None:
    """Only data is missing, which DuckDB finds when somebody reads it."""
    good(path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def truncated_in_its_headers(path: Path) -> None:
    good(path)
    with path.open("r+b") as file:
        file.truncate(5000)


def damaged(path: Path) -> None:
    """One flipped bit in a block of data: DuckDB opens it, and only who reads the block sees it."""
    good(path)
    data = bytearray(path.read_bytes())
    data[HEADERS_BYTES + 2 * BLOCK_BYTES + 1000] ^= 1
    path.write_bytes(data)


def damaged_in_its_header(path: Path) -> None:
    good(path)
    data = bytearray(path.read_bytes())
    for header in (4096, 8192):
        data[header + 20] ^= 1
    path.write_bytes(data)


def too_new(path: Path) -> None:
    """Storage version 9,999: the number and its checksum, as a release to come would write them."""
    good(path)
    data = bytearray(path.read_bytes())
    struct.pack_into("<Q", data, 12, NO_SUCH_STORAGE_VERSION)
    struct.pack_into("<Q", data, 0, checksum(bytes(data[8:4096])))
    path.write_bytes(data)


def made_by_2_0(path: Path) -> None:
    path.write_bytes(zlib.decompress(base64.b64decode(MADE_BY_2_0)))


def encrypted(path: Path) -> None:
    with duckdb.connect() as connection:
        # Why unsafe: the engine's own cryptography does not write without an extension, and this file hides nothing.
        connection.execute("SET force_mbedtls_unsafe = 'true'")
        connection.execute(f"ATTACH '{path}' AS locked (ENCRYPTION_KEY 'the key')")
        connection.execute("CREATE TABLE locked.t AS SELECT 1 AS x")


def a_folder(path: Path) -> None:
    path.mkdir()


@dataclass(frozen=True)
class Broken:
    """A way to be broken, and what the keeper calls it."""

    make: Callable[[Path], None]
    code: str
    says: str

    @property
    def name(self) -> str:
        return self.make.__name__


BROKEN = [
    Broken(not_duckdb, "database_unreadable", "not a DuckDB database"),
    Broken(empty, "database_unreadable", "not a DuckDB database"),
    Broken(truncated, "database_unreadable", "truncated"),
    Broken(truncated_by_half, "database_unreadable", "truncated"),
    Broken(truncated_in_its_headers, "database_unreadable", "truncated"),
    Broken(damaged, "database_unreadable", "damaged"),
    Broken(damaged_in_its_header, "database_unreadable", "checksum"),
    Broken(too_new, "database_too_new", "version number 9999"),
    Broken(encrypted, "database_encrypted", "encrypted"),
]
