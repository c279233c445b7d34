"""What a short process does not import."""

from __future__ import annotations

import subprocess
import sys

import pytest

PRINT = "import httpx, sys; print('rich' in sys.modules)"
QUICKLY = "from pondkeeper.workers.importing import import_quickly; import_quickly(); "


@pytest.mark.parametrize(("first", "expected"), [("", "True"), (QUICKLY, "False")], ids=["the control", "quickly"])
def test_httpx_comes_without_its_command_line(first: str, expected: str) -> None:
    pytest.importorskip("rich")
    done = subprocess.run([sys.executable, "-c", first + PRINT], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected
