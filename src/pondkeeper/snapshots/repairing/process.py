"""The repairer process: one look at one database, and where it is torn the file that is to replace it; then its end.

Not the writer: what looks at the file as bytes must not be who has it open. Not the keeper: DuckDB replays the WAL.

    → {"op": "whole"}                      nothing is torn
    → {"op": "torn"}  ← {"op": "mend", "file"}  → {"op": "mended", "report"}   the keeper swaps it in
    → {"op": "cut", "report"}              only the end of the WAL was torn, and was cut off
    → {"op": "error", "error"}             beyond repair, or whatever went wrong

The keeper has the lease meanwhile.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from pondkeeper.engine.faults import translate
from pondkeeper.engine.opening import WriterConfig
from pondkeeper.files.paths import DatabasePaths
from pondkeeper.snapshots.repairing.mending import look_after
from pondkeeper.workers.frames import Pipe


def main(pipe: Pipe, control: socket.socket, config: dict[str, Any]) -> None:
    """Entry point, called by the template in the forked child."""
    del control  # nobody interrupts it: it is killed, and the next one begins anew
    paths = DatabasePaths(Path(config["file"]), Path(config["home"]))
    engine = WriterConfig(
        path=str(paths.file),
        memory_limit_bytes=config["memory_limit_bytes"],
        threads=config["threads"],
        temp_directory=config["temp_directory"],
        temp_limit_bytes=config["temp_limit_bytes"],
        may_make=False,
    )
    asked: list[Path] = []

    def begin() -> Path:
        pipe.send({"op": "torn"})
        message = pipe.receive()
        if message is None:
            raise SystemExit  # the keeper is gone: nobody is left to swap anything in
        asked.append(Path(message["file"]))
        return asked[0]

    try:
        done = look_after(paths, engine, begin, thorough=config["thorough"])
        answer: dict[str, Any] = {"op": "whole"}
        if done is not None:
            answer = {"op": "mended" if asked else "cut", "report": done.describe()}
    except Exception as error:  # noqa: BLE001  Why: whatever keeps it from looking is the answer; the keeper judges it.
        answer = {"op": "error", "error": translate(error).to_wire(with_private=True)}
    pipe.send(answer)
