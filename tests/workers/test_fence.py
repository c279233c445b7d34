"""What a child cannot do behind its fence, and can without one (the control)."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from pondkeeper.errors import FenceMissing
from pondkeeper.workers import landlock, seccomp
from pondkeeper.workers.fence import Fence
from pondkeeper.workers.spawning import ChildSpec, Template
from pondkeeper.workers.walls import try_walls

HERE = Path(__file__).parent
PROBER = "probing_child"
pytestmark = pytest.mark.skipif(any(try_walls().values()), reason="this kernel cannot put up every wall")

Probe = Callable[..., "asyncio.Future[list[str]]"]
REFUSED = frozenset({"EPERM", "EACCES"})


@pytest.fixture
async def probing(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Probe]:
    """`await probing(fence, (attempt, argument)…)` gives the outcome of each attempt in a new child."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]))
    templates: dict[str, Template] = {}

    async def probe(fence: Fence, *attempts: tuple[str, str], mode: str = "strict") -> list[str]:
        template = templates.setdefault(mode, Template([PROBER], mode))
        child = await template.spawn(ChildSpec("prober", PROBER, {}, fence=fence))
        child.send({"attempts": attempts})
        async with asyncio.timeout(30):
            frame = await child.next_frame()
        child.close()
        await child.exited
        assert isinstance(frame, dict)
        outcomes: list[str] = frame["outcomes"]
        return outcomes

    yield probe  # type: ignore[misc]
    for template in templates.values():
        await template.stop()
    await asyncio.sleep(0)


@pytest.mark.parametrize(("mode", "gets_out"), [("strict", False), ("off", True)])
async def test_only_its_folders_are_open_to_a_child(probing: Probe, tmp_path: Path, mode: str, gets_out: bool) -> None:
    """Files outside are neither read nor made nor changed; without the fence all of it succeeds."""
    readable, own, outside = (tmp_path / name for name in ("readable", "own", "outside"))
    for folder in (readable, own, outside):
        folder.mkdir()
        (folder / "file").write_text("secret")
    (own / "link").symlink_to(outside / "file")
    attempts = [
        ("read", str(outside / "file")),
        ("list", str(outside)),
        ("write", str(outside / "made")),
        ("write", str(readable / "made")),
        ("read", str(own / "link")),
        ("chmod", str(outside / "file")),
        ("utime", str(outside / "file")),
        ("list", "/proc/self"),
        ("read", "/proc/self/environ"),
        ("read", "/etc/passwd"),
        ("remove", str(outside / "file")),
    ]
    found = await probing(Fence((str(readable),), (str(own),)), *attempts, mode=mode)
    if gets_out:
        assert found == ["done"] * len(attempts)
    else:
        assert set(found) <= REFUSED
        assert sorted(path.name for path in outside.iterdir()) == ["file"]
        assert sorted(path.name for path in readable.iterdir()) == ["file"]


async def test_a_child_can_work_in_its_folders(probing: Probe, tmp_path: Path) -> None:
    (tmp_path / "readable").mkdir()
    (tmp_path / "readable" / "file").write_text("open")
    (tmp_path / "own").mkdir()
    fence = Fence((str(tmp_path / "readable"), "/no/such/folder"), (str(tmp_path / "own"),))
    attempts = [
        ("read", str(tmp_path / "readable" / "file")),
        ("list", str(tmp_path / "readable")),
        ("write", str(tmp_path / "own" / "made")),
        ("read", str(tmp_path / "own" / "made")),
        ("remove", str(tmp_path / "own" / "made")),
        ("thread", ""),
        ("signal itself", ""),
        ("read", os.__file__),
    ]
    assert await probing(fence, *attempts) == ["done"] * len(attempts)


@pytest.mark.parametrize(("mode", "gets_out"), [("strict", False), ("off", True)])
async def test_a_folder_for_files_takes_files_only(probing: Probe, tmp_path: Path, mode: str, gets_out: bool) -> None:
    """A writer makes, moves and removes its WALs beside its database; folders, links, sockets and pipes it makes nowhere."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "below").mkdir()
    own = tmp_path / "own"
    fence = Fence(files_in=(str(own),))
    files = [("write", str(own / "wal")), ("move", str(own / "wal")), ("link", str(own / "wal")), ("sync", str(own))]
    files += [("remove", str(own / "wal")), ("write", str(own / "below" / "file"))]
    assert await probing(fence, *files, mode=mode) == ["done"] * len(files)
    others = [("folder", str(own / "new")), ("symlink", str(own / "linked")), ("pipe", str(own / "fifo"))]
    others += [("remove folder", str(own / "empty")), ("write", str(tmp_path / "beside"))]
    (own / "empty").mkdir()
    found = await probing(fence, *others, mode=mode)
    assert set(found) <= REFUSED if not gets_out else found == ["done"] * len(others)


async def test_no_network_no_process_no_other_process(probing: Probe) -> None:
    """Sockets of every family, programs, forks, signals and tracing are refused; without the fence, none of the harmless."""
    target = str(os.getpid())
    attempts = [(name, target) for name in ("inet", "udp", "unix", "netlink", "fork", "signal", "limit")]
    behind = await probing(Fence(), *attempts, ("ptrace", target), ("run", ""))
    assert set(behind) == {"EPERM"}
    assert await probing(Fence(), *attempts, mode="off") == ["done"] * len(attempts)


async def test_a_child_that_may_connect_asks_others_and_nobody_asks_it(probing: Probe) -> None:
    """What fetches from other machines connects, and reads whom to trust; it neither listens nor reaches local sockets."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        attempts = [("connect", port), ("udp", ""), ("read", "/etc/hosts")]
        assert await probing(Fence(may_connect=True), *attempts) == ["done"] * len(attempts)
        assert set(await probing(Fence(), *attempts)) <= REFUSED
        refused = [(name, port) for name in ("listen", "unix", "fork", "limit")]
        assert set(await probing(Fence(may_connect=True), *refused, ("read", "/etc/passwd"))) <= REFUSED


async def test_the_keepers_environment_is_not_in_the_child_at_all(
    probing: Probe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even in what the kernel shows of how the process was started."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2-hunter2")
    template = Template([PROBER])
    try:
        child = await template.spawn(ChildSpec("prober", PROBER, {}))
        started_with = Path(f"/proc/{child.pid}/environ").read_bytes()
        child.close()
        await child.exited
    finally:
        await template.stop()
    assert b"hunter2" not in started_with
    assert b"PYTHONPATH" in started_with  # the control: this is where it would be


@pytest.mark.parametrize("mode", ["strict", "auto"])
async def test_a_missing_wall_ends_a_strict_start_only(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]))
    template = Template([PROBER, "walls_that_fail"], mode)
    try:
        if mode == "strict":
            with pytest.raises(FenceMissing, match="not in this kernel"):
                await template.spawn(ChildSpec("prober", PROBER, {}))
            return
        child = await template.spawn(ChildSpec("prober", PROBER, {}))
        child.send({"attempts": [("read", "/etc/hostname"), ("inet", "")]})
        async with asyncio.timeout(30):
            assert await child.next_frame() == {"outcomes": ["done", "EPERM"]}
        child.close()
        await child.exited
    finally:
        await template.stop()


def test_every_version_of_landlock_handles_what_it_knows() -> None:
    """Each version of the kernel's interface gets the rights that it knows, and no other: unknown bits are EINVAL."""
    assert [landlock.handled(version).bit_count() for version in range(1, 8)] == [13, 14, 15, 15, 16, 16, 16]
    assert landlock.version() >= 1


def test_the_filter_fits_the_kernel() -> None:
    """At most 4096 steps, each jump inside the program; the refused calls are in no group twice."""
    for column, architecture in ((0, 0xC000003E), (1, 0xC00000B7)):
        for may_connect in (False, True):
            code = seccomp.assembled(column, architecture, may_touch=False, may_connect=may_connect)
            assert len(code) % 8 == 0
            assert len(code) // 8 < 1000


def test_no_thread_is_left_by_trying() -> None:
    before = threading.active_count()
    assert not any(try_walls().values())
    assert threading.active_count() == before
