"""The engine's libraries as the keeper's children need them: without threads, and with little memory set aside.

Imported first by the template; what it sets must be there before the libraries are loaded.
"""

import os
import sys

# Trap: pyarrow's own allocator reserves 1 GiB at its first use, and all of it counts against a reader's RLIMIT_DATA.
os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"

import pondkeeper.engine.threadless  # noqa: F401  # isort: skip  # it loads them, without threads
import pyarrow as pa

# Trap: duckdb 1.5 looks for pandas six times at each statement with parameters, along the whole path: 0.2 ms of CPU. And
# where it is installed, each child would load it.
sys.modules["pandas"] = None  # type: ignore[assignment]

# Why here: the choice is made at the first use, and the children have no environment.
if pa.default_memory_pool().backend_name != "system":
    raise SystemExit("pyarrow does not use the allocator that it was told to use")
