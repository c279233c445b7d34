"""Programs that know nothing of the keeper and open a database file as anybody would."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import TracebackType

_HOLDER = """
import sys
import duckdb
connection = duckdb.connect(sys.argv[1])
print("open", flush=True)
for line in sys.stdin:
    connection.execute(line)
    print("done", flush=True)
connection.close()
"""


class Stranger:
    """A script that has the database open read-write; it runs what it is told, and lets go or is killed."""

    def __init__(self, file: Path, folder: Path) -> None:
        script = folder / "stranger.py"
        script.write_text(_HOLDER)
        self._process = subprocess.Popen(
            [sys.executable, str(script), str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            self._heard("open")
        except BaseException:  # Why: whoever asked for it does not get it, and nobody else would end it.
            self.kill()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def execute(self, statement: str) -> None:
        """Run a statement there; committed when this returns."""
        assert self._process.stdin is not None
        self._process.stdin.write(statement + "\n")
        self._process.stdin.flush()
        self._heard("done")

    def _heard(self, word: str) -> None:
        assert self._process.stdout is not None
        heard = self._process.stdout.readline().strip()
        assert heard == word, f"the stranger said {heard!r}"

    def let_go(self) -> None:
        """Close the database and end."""
        self._process.communicate(timeout=20)

    def kill(self) -> None:
        """kill -9: its WAL stays behind."""
        self._process.kill()
        self._process.communicate(timeout=20)

    def __enter__(self) -> Stranger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self.kill()
        for pipe in (self._process.stdin, self._process.stdout):  # Why also then: somebody else may have killed it
            assert pipe is not None
            pipe.close()
