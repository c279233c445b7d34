"""What a process may use of its machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from pondkeeper.settings import this_machine


def test_without_limits_the_machine_is_the_hardware(tmp_path: Path) -> None:
    """With no cgroup files the affinity and the physical memory count."""
    machine = this_machine(tmp_path)

    assert machine.cpus >= 1
    assert machine.ram_bytes > 64 * 1024**2


def test_container_limits_count(tmp_path: Path) -> None:
    """In a container with half a CPU and 128 MiB, nothing is planned for more."""
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    (tmp_path / "memory.max").write_text(f"{128 * 1024**2}\n")

    assert this_machine(tmp_path).cpus == 1
    assert this_machine(tmp_path).ram_bytes == 128 * 1024**2


@pytest.mark.parametrize("content", ["max 100000\n", "", "x y z", "0 0", "\xff"])
def test_no_limit_and_nonsense_are_no_limit(tmp_path: Path, content: str) -> None:
    """`max` and what cannot be read limit nothing."""
    (tmp_path / "cpu.max").write_text(content, encoding="latin-1")
    (tmp_path / "memory.max").write_text("max\n")

    assert this_machine(tmp_path) == this_machine(tmp_path / "nowhere")


def test_a_systemd_unit_is_limited_by_every_group_it_stands_in(tmp_path: Path) -> None:
    """The least of the unit's own limit and those of the slices above it holds."""
    cgroup, own = tmp_path / "cgroup", tmp_path / "own"
    unit = cgroup / "system.slice" / "pondkeeper.service"
    unit.mkdir(parents=True)
    own.write_text("0::/system.slice/pondkeeper.service\n")
    (unit / "memory.max").write_text("300000000\n")
    (unit.parent / "memory.max").write_text("200000000\n")
    (unit / "cpu.max").write_text("100000 100000\n")

    machine = this_machine(cgroup, own)

    assert (machine.cpus, machine.ram_bytes) == (1, 200_000_000)
    (unit.parent / "memory.max").write_text("max\n")
    assert this_machine(cgroup, own).ram_bytes == 300_000_000
