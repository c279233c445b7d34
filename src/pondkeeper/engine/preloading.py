"""The engine's libraries loaded without a thread of their own, so that the template can fork.

Imported first by the template; what it sets must be there before the libraries are loaded.
"""

import os

# Trap: pyarrow's allocator starts a background thread when it is loaded.
os.environ["JE_ARROW_MALLOC_CONF"] = "background_thread:false"

import duckdb  # noqa: E402
import pyarrow as pa  # noqa: E402, F401

# Trap: importing duckdb 1.5 opens a default in-memory database, with a thread for each further core.
duckdb.default_connection().close()
