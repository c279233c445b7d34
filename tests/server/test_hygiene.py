"""What the keeper's process must never load, and what the server's own room promises."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.support.keeper import program_environment

ROOM = Path(__file__).parents[2] / "src" / "pondkeeper" / "server"
IMPORT_ALL = """
import importlib, json, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print(json.dumps(sorted(sys.modules)))
"""


def test_server_loads_neither_duckdb_nor_pyarrow() -> None:
    """The event loop cannot wait for an engine that its process has not loaded; nor does it need numpy or pandas."""
    names = [
        ".".join(("pondkeeper", "server", *path.relative_to(ROOM).with_suffix("").parts)) for path in ROOM.rglob("*.py")
    ]
    names = [name.removesuffix(".__init__") for name in names]
    command = [sys.executable, "-c", IMPORT_ALL, *names]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, env=program_environment())
    loaded = set(json.loads(answer.stdout))
    assert "pondkeeper.server.serving" in loaded
    assert not {"duckdb", "_duckdb", "pyarrow", "numpy", "pandas"} & loaded
