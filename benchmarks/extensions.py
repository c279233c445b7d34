"""Load a DuckDB extension: from a Python package `duckdb_extension_<name>` where one is installed, else by INSTALL."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import duckdb


class ExtensionMissing(Exception):
    """Neither a package nor DuckDB's own repository has the extension."""


def packaged(name: str) -> Path | None:
    """The extension file of the installed package, for this DuckDB version."""
    spec = find_spec(f"duckdb_extension_{name}")
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin).parent / "extensions" / f"v{duckdb.__version__}" / f"{name}.duckdb_extension"
    return file if file.exists() else None


def load(connection: duckdb.DuckDBPyConnection, name: str) -> None:
    """LOAD the extension into this connection's database, or raise `ExtensionMissing` with what to install."""
    file = packaged(name)
    if file is not None:
        connection.execute(f"LOAD '{file}'")
        return
    try:
        connection.execute(f"INSTALL {name}")
        connection.execute(f"LOAD {name}")
    except duckdb.Error as error:
        remedy = f"pip install duckdb-extension-{name}=={duckdb.__version__}"
        raise ExtensionMissing(f"extension {name} for DuckDB {duckdb.__version__}: try `{remedy}`") from error
