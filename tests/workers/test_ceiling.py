"""The ceiling on a child's memory: each of its two walls alone, and that what fits passes."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import replace

import pytest

from pondkeeper.workers.ceiling import Ceiling
from pondkeeper.workers.child import Child, ChildGone
from pondkeeper.workers.spawning import ChildSpec, Template

pytestmark = pytest.mark.fault
MIB = 1 << 20
FITS, TOO_MUCH = 16 * MIB, 400 * MIB


async def take(child: Child, size_bytes: int, *, shared: bool = False) -> str:
    child.send({"op": "take", "size_bytes": size_bytes, "shared": shared})
    frame = await child.next_frame()
    assert isinstance(frame, dict)
    return str(frame["op"])


async def take_until_killed(child: Child) -> None:
    """It may be killed at any moment after the first."""
    for _ in range(1000):
        await take(child, TOO_MUCH, shared=True)
        await asyncio.sleep(0.05)


async def started(template: Template, spec: ChildSpec) -> Child:
    child = await template.spawn(spec)
    assert await child.next_frame() == {"op": "ready"}
    return child


async def test_an_allocation_above_the_limit_fails_and_the_process_goes_on(template: Template, echo: ChildSpec) -> None:
    """RLIMIT_DATA: what fits passes, what does not is refused, and what fits passes again. Without it all passes."""
    limits = {"data": Ceiling(128 * MIB, room_bytes=64 * MIB).rlimit_data_bytes}
    child = await started(template, replace(echo, limits=limits))
    assert [await take(child, size) for size in (FITS, TOO_MUCH, FITS)] == ["taken", "refused", "taken"]
    unlimited = await started(template, replace(echo, limits={}))
    assert await take(unlimited, TOO_MUCH) == "taken"


async def test_what_the_kernel_does_not_count_is_killed_by_the_watchdog(template: Template, echo: ChildSpec) -> None:
    """Shared memory passes RLIMIT_DATA; the watchdog sees it, says so first, and kills. Unwatched it lives."""
    ceiling = Ceiling(128 * MIB, room_bytes=64 * MIB, watch_room_bytes=32 * MIB)
    told: list[bool] = []
    child = await started(template, replace(echo, limits=ceiling.rlimits))
    watching = asyncio.create_task(ceiling.watch(child, lambda: told.append(child.exited.done())))
    assert await take(child, FITS, shared=True) == "taken"
    assert not told
    with pytest.raises(ChildGone) as gone:
        await take_until_killed(child)
    assert gone.value.status == -signal.SIGKILL
    assert told == [False]
    async with asyncio.timeout(40):
        await watching

    unwatched = await started(template, replace(echo, limits=ceiling.rlimits))
    assert await take(unwatched, TOO_MUCH, shared=True) == "taken"


async def test_the_watch_ends_with_its_child(template: Template, echo: ChildSpec) -> None:
    child = await started(template, echo)
    watching = asyncio.create_task(Ceiling(128 * MIB).watch(child, lambda: None))
    child.kill()
    async with asyncio.timeout(40):
        await watching


def test_the_walls_stand_in_their_order() -> None:
    """The engine's own limit first, then the kernel's, then the watchdog's."""
    for memory_limit_bytes in (1, 256 * MIB, 64 << 30):
        ceiling = Ceiling(memory_limit_bytes)
        assert memory_limit_bytes < ceiling.rlimit_data_bytes < ceiling.rss_bytes
