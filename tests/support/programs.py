"""Programs under `pondkeeper run`, held where a test wants them."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import TracebackType

from tests.support.keeper import command_line, program_environment

STAY = "echo there; read line"


class Program:
    """`pondkeeper run OPTIONS -d FILE -- COMMAND`; the default COMMAND says that it is there and stays until `let_go`."""

    def __init__(self, file: Path, *options: str, command: tuple[str, ...] = ("sh", "-c", STAY)) -> None:
        self.process = subprocess.Popen(
            command_line("run", *options, "-d", str(file), "--", *command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=program_environment(),
        )

    def there(self) -> Program:
        """Wait until the default COMMAND says that it has the lease."""
        assert self.heard() == "there", self.end()
        return self

    @property
    def pid(self) -> int:
        """That of `pondkeeper run`."""
        return self.process.pid

    def heard(self) -> str:
        """The next line that COMMAND says; it has the lease then."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def told(self) -> str:
        """The next line on stderr."""
        assert self.process.stderr is not None
        return self.process.stderr.readline().strip()

    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def let_go(self, timeout_s: float = 30.0) -> tuple[int, str]:
        """Let COMMAND go on, and wait for the end: the exit code, and what was said on stderr since."""
        _, errors = self.process.communicate("\n", timeout=timeout_s)
        return self.process.returncode, errors

    def end(self, timeout_s: float = 30.0) -> tuple[int, str]:
        """Wait for the end without a word to COMMAND: the exit code, and what was said on stderr since."""
        assert self.process.stderr is not None
        self.process.wait(timeout_s)
        return self.process.returncode, self.process.stderr.read()

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None and not stream.closed:
                stream.close()  # Why first: a COMMAND that reads ends by that, also when `run` is killed
        self.process.kill()
        self.process.wait()
