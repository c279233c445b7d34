"""The engine's libraries loaded without a thread of their own, so that the process can fork. Import it before anything loads them."""

import os

# Trap: pyarrow's allocator starts a background thread when it is loaded.
os.environ["JE_ARROW_MALLOC_CONF"] = "background_thread:false"

import duckdb
import pyarrow as pa  # noqa: F401  Why: it reads the line above when it is loaded

# Trap: importing duckdb 1.5 opens a default in-memory database, with a thread for each further core.
duckdb.default_connection().close()
