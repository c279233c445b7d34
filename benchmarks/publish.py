"""What a publish costs by the size of the database, and where the time goes: the copier alone, without keeper or HTTP.

    python -m benchmarks.publish 0.1 1            # sizes in GB; needs five times that on disk
    python -m benchmarks.publish 10 --rounds 30

One-row commits, each followed by CHECKPOINT and a publish; the parts are those of the copier's own process.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any

from pondkeeper.files.leases import ignore_lease_signals

KEEP = 2
GIVE_UP_PREPARING_S = 600.0
PARTS = ("observe", "written_between", "take_target", "bring_up", "publish_target", "point_links", "retire")


def copy(pipe: Connection, file: Path, snapshots: Path) -> None:
    """The copier's process: publish on request, answer with milliseconds by part, then prepare the next spare."""
    from pondkeeper.snapshots import copier as copier_module
    from pondkeeper.snapshots.cancelling import Cancelling
    from pondkeeper.snapshots.shelf import Shelf
    from pondkeeper.snapshots.source import Source

    spent: dict[str, float] = {}
    owners: list[Any] = [copier_module, Source, Shelf]
    for owner in owners:
        for name in PARTS:
            if name in vars(owner):
                setattr(owner, name, _timed(vars(owner)[name], name, spent))
    ignore_lease_signals()
    copier = copier_module.Copier(file, snapshots, Cancelling())
    links = [snapshots.parent / "published.duckdb", snapshots.parent / "published" / file.name]
    while version := pipe.recv():
        spent.clear()
        published = copier.publish(version, links, KEEP)
        pipe.send((published.elapsed_ms, published.manifest, dict(spent)))
        deadline = time.monotonic() + GIVE_UP_PREPARING_S
        while copier.idle_step() and time.monotonic() < deadline:
            pass
        pipe.send("prepared")


def _timed(function: Callable[..., Any], name: str, spent: dict[str, float]) -> Callable[..., Any]:
    def timed(*arguments: Any, **options: Any) -> Any:
        started = time.perf_counter()
        try:
            return function(*arguments, **options)
        finally:
            spent[name] = spent.get(name, 0.0) + (time.perf_counter() - started) * 1000

    return timed


@contextlib.contextmanager
def copying(file: Path, snapshots: Path) -> Iterator[Callable[[int], Any]]:
    """A function that publishes a version in the copier's process and waits until its next spare is prepared."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=copy, args=(theirs, file, snapshots))
    process.start()

    def publish(version: int) -> Any:
        ours.send(version)
        answer = ours.recv()
        ours.recv()
        return answer

    try:
        yield publish
    finally:
        ours.send(0)
        process.join()


def measure(gigabytes: float, rounds: int, folder: Path) -> None:
    import duckdb

    file = folder / "big.duckdb"
    connection = duckdb.connect(str(file), config={"checkpoint_threshold": "1TB"})
    connection.execute("SET enable_progress_bar = false")
    rows = int(gigabytes * 1e9 / 45)  # measured: bytes of such a row in the file
    wide = "SELECT range i, (random() * 1e9)::BIGINT a, random() b, uuid() u, md5(range::VARCHAR) s FROM range(?)"
    connection.execute(f"CREATE TABLE big AS {wide}", [rows])
    connection.execute("CREATE TABLE event(id INT, note VARCHAR)")
    connection.execute("CHECKPOINT")
    checkpoints, answers = [], []
    with copying(file, folder / "snapshots") as publish:
        for version in range(1, rounds + 6):
            connection.execute("INSERT INTO event VALUES (?, 'a row')", [version])
            started = time.perf_counter()
            connection.execute("CHECKPOINT")
            checkpoints.append((time.perf_counter() - started) * 1000)
            answers.append(publish(version))
        report(gigabytes, checkpoints[5:], answers[0], answers[5:])
    connection.close()


def report(gigabytes: float, checkpoints: list[float], first: Any, answers: list[Any]) -> None:
    elapsed = [answer[0] for answer in answers]
    manifest = answers[-1][1]
    p99 = quantiles(elapsed, n=100)[98]
    print(f"{gigabytes:g} GB: {manifest.blocks:,} blocks; first publish ({first[1].method}) {first[0]:,.0f} ms")
    print(f"  checkpoint p50 {median(checkpoints):.1f} ms; publish p50 {median(elapsed):.1f} ms, p99 {p99:.1f} ms")
    copied = median(answer[1].blocks_copied for answer in answers)
    print(f"  {manifest.method}: {copied:g} blocks, {copied * 262_144 / 1e6:.2f} MB copied (median)")
    parts = {name: median(answer[2].get(name, 0.0) for answer in answers) for name in PARTS}
    print("  " + ", ".join(f"{name} {value:.2f}" for name, value in parts.items()) + " ms (medians)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gigabytes", nargs="+", type=float)
    parser.add_argument("--rounds", type=int, default=50)
    options = parser.parse_args()
    for gigabytes in options.gigabytes:
        with TemporaryDirectory(prefix="pondkeeper-publish-") as folder:
            measure(gigabytes, options.rounds, Path(folder))


if __name__ == "__main__":
    main()
