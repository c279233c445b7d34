"""Hidden folders in which something is made: gone at the end, and swept when their maker was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from pondkeeper.files.scratch import scratch_folder, sweep_scratch
from tests.support.keeper import program_environment

MAKER = """
import sys
from pathlib import Path
from pondkeeper.files.scratch import scratch_folder
with scratch_folder(Path(sys.argv[1])) as folder:
    (folder / "half").write_bytes(b"x" * 1000)
    print(folder, flush=True)
    sys.stdin.read()
"""


def hidden(folder: Path) -> list[Path]:
    return [entry for entry in folder.iterdir() if entry.name.startswith(".")]


def test_it_is_private_and_gone_at_the_end(tmp_path: Path) -> None:
    with scratch_folder(tmp_path) as folder:
        assert folder.parent == tmp_path
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "deep").mkdir()
        (folder / "deep" / "file").touch()
    assert hidden(tmp_path) == []


def test_what_a_killed_maker_left_is_removed_by_the_next_and_what_a_living_one_has_is_not(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", MAKER, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=program_environment(),
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        theirs = Path(process.stdout.readline().strip())
        sweep_scratch(tmp_path)
        with scratch_folder(tmp_path) as ours:
            assert set(hidden(tmp_path)) == {theirs, ours}
            assert (theirs / "half").stat().st_size == 1000
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert hidden(tmp_path) == [theirs]  # the control: nobody cleans up after a kill -9
    with scratch_folder(tmp_path) as ours:
        assert hidden(tmp_path) == [ours]


def test_a_folder_without_its_lock_is_nobodys(tmp_path: Path) -> None:
    """Its maker died between the two, or has not come to it: then it notices, and makes another."""
    (tmp_path / ".pondkeeper-making-0123456789ab").mkdir()
    (tmp_path / ".pondkeeper-else").mkdir()
    sweep_scratch(tmp_path)
    assert [entry.name for entry in hidden(tmp_path)] == [".pondkeeper-else"]
