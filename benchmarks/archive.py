"""What the archive costs and gives: incremental backups, restores, a thousand versions, and what the writer notices.

The database is the one of `freshness`: incompressible ballast, so that compression flatters nothing, and a small table that
is written to. Beside each figure stands what one would do without it: `cp` of the whole file (flushed, as a backup must be),
the `copy2` of a live file, and DuckDB's own EXPORT DATABASE. What changed is counted by comparing the blocks of two versions.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import duckdb

from benchmarks.crowd import HttpCrowd
from benchmarks.keeper import RunningKeeper, environment, keeping
from benchmarks.lean import LeanClient
from benchmarks.report import Figure, ratio_at_least, ratio_at_most
from benchmarks.running import Run, run
from benchmarks.warehouse import BALLAST_ROW_BYTES, sized, workplace

BLOCK_BYTES, HEADERS_BYTES = 262_144, 12_288
INSERT = "INSERT INTO event (id, note) VALUES (?, 'a row of a few bytes')"
UPDATE = "UPDATE ballast SET c0 = c0 + 1 WHERE rowid >= ? AND rowid < ?"
CHANGED_SHARE = 0.01
TIMEOUT_S = 600
CLIENTS = 8
COMMITS_AT_MOST = 20
STORED_BAR, TIME_BAR, RESTORE_BAR = ratio_at_most(1.2), ratio_at_most(0.1), ratio_at_most(1.5)
VERSIONS_BAR, THROUGHPUT_BAR = ratio_at_most(3.0), ratio_at_least(0.9)


@dataclass(frozen=True)
class Sizes:
    """How large, how many."""

    backup_gb: float
    history_gb: float
    versions: int
    commits_each: int
    turns: int
    turn_s: float
    restores: int


FULL = Sizes(5.0, 1.0, 1000, 10, 5, 4.0, 5)
SHORT = Sizes(0.1, 0.1, 50, 10, 2, 1.0, 1)


def measure(this: Run) -> None:
    sizes = SHORT if this.short else FULL
    _throughput(this, sizes)
    _history(this, sizes)
    _backup_and_restore(this, sizes)


# One incremental backup, and a restore


def _backup_and_restore(this: Run, sizes: Sizes) -> None:
    source = sized(this, sizes.backup_gb)
    # Why no verification: the first one comes when a keeper has run for minutes, and would restore all of it beside ours.
    quiet = {"snapshots__keep": "1", "archive__verify_every_s": "0"}
    with workplace(this, source, "backup", lend=True) as file, keeping(file, **quiet) as keeper:
        client = keeper.client(TIMEOUT_S)
        version = client.execute(INSERT, parameters=[0])["version"]
        client.query("SELECT 1", at_least=version, limits={"timeout_s": TIMEOUT_S})  # the first snapshot copies all of it
        this.say(f"{sizes.backup_gb:g} GB: the first backup")
        began = time.perf_counter()
        first = client.post("/v1/backups")
        first_s = time.perf_counter() - began
        before = _blocks(keeper.published)
        rows = int(sizes.backup_gb * 1e9 / BALLAST_ROW_BYTES)
        count = int(rows * CHANGED_SHARE)
        at = rows // 3
        version = client.execute(UPDATE, parameters=[at, at + count], limits={"timeout_s": TIMEOUT_S})["version"]
        client.query("SELECT 1", at_least=version, limits={"timeout_s": TIMEOUT_S})
        changed_bytes = _changed_bytes(before, keeper.published)
        this.say("the incremental backup")
        stored_before_bytes = _folder_bytes(keeper.home / "archive")
        began = time.perf_counter()
        taken = client.post("/v1/backups")
        took_s = time.perf_counter() - began
        stored_bytes = _folder_bytes(keeper.home / "archive") - stored_before_bytes
        copy = file.parent / "copy.duckdb"
        copy_s = _timed(lambda: _copy(keeper.published, copy))
        name = f"{sizes.backup_gb:g} GB, {CHANGED_SHARE:.0%} changed"
        this.add(
            Figure(f"{name}: stored", stored_bytes / 1e6, "MB", "changed blocks", changed_bytes / 1e6, STORED_BAR, "it does not compress"),
            Figure(f"{name}: incremental backup", took_s, "s", "cp, flushed", copy_s, TIME_BAR, f"the first one took {first_s:.1f} s"),
        )
        copy.unlink()
        newest = _without_snapshot(client, keeper, first["version"], taken["version"])
        _restores(this, keeper, file.parent, {"snapshot": newest, "archive": first["version"]}, sizes)
        _peers(this, keeper, file, sizes)
        client = keeper.client(TIMEOUT_S)  # Why anew: the keeper has closed a connection that was idle for so long
        client.execute("DELETE FROM event")
        client.execute("UPDATE ballast SET c0 = c0 - 1 WHERE rowid >= ? AND rowid < ?", parameters=[at, at + count], limits={"timeout_s": TIMEOUT_S})


def _without_snapshot(client: LeanClient, keeper: RunningKeeper, version: int, newest: int) -> int:
    """Commit until there is no snapshot of that version any more: a reader may have kept it open. The version that is newest then."""
    folder = keeper.published.resolve().parent.with_name(f"{version:012}")
    for number in range(COMMITS_AT_MOST):
        if not folder.exists():
            return newest
        newest = client.execute(INSERT, parameters=[1 + number])["version"]
        client.query("SELECT 1", at_least=newest, limits={"timeout_s": TIMEOUT_S})
        time.sleep(0.5)  # readers let go, and one more publish finds it out
    raise RuntimeError(f"the snapshot of version {version} does not go")


def _restores(this: Run, keeper: RunningKeeper, folder: Path, versions: dict[str, int], sizes: Sizes) -> None:
    """As a user does it: by the command, which opens and proves what it has made. Of the older version there is no snapshot any more.

    Both sides in turn, and the middle of them, each with what it reads in the page cache, and nothing else of this benchmark:
    its files are more than the machine's memory, and whoever came first would make room for the other.
    """
    target, copy = folder / "restored.duckdb", folder / "copy.duckdb"
    kept = {"snapshot": keeper.published, "archive": keeper.home / "archive"}
    for source, version in versions.items():
        restores_s, copies_s = [], []
        for turn in range(sizes.restores):
            this.say(f"turn {turn}: a restore into a new file, from the {source}, and a copy")
            command = ["backup", "restore", "--version", str(version), "--to", str(target), "--json"]
            _cache_only(kept[source], folder)
            began = time.perf_counter()
            said = json.loads(_pondkeeper(keeper, *command))
            restores_s.append(time.perf_counter() - began)
            if said["source"] != source:
                raise RuntimeError(f"version {version} was restored from the {said['source']}, not from the {source}")
            target.unlink()
            _cache_only(keeper.published, folder)
            copies_s.append(_timed(lambda: _copy(keeper.published, copy)))
            copy.unlink()
        name = f"restore of {sizes.backup_gb:g} GB from the {source}, proved"
        note = f"ours: {_listed(restores_s)}; cp: {_listed(copies_s)}"
        this.add(Figure(name, median(restores_s), "s", "cp, flushed", median(copies_s), RESTORE_BAR, note))


def _listed(seconds: list[float]) -> str:
    return ", ".join(f"{each:.2f}" for each in seconds)


def _peers(this: Run, keeper: RunningKeeper, file: Path, sizes: Sizes) -> None:
    """What one does without an archive: the whole file each time, or the whole content."""
    this.say("copy2 of the live file, EXPORT DATABASE of a snapshot")
    copy, exported = file.parent / "copy2.duckdb", file.parent / "exported"
    copy_s = _timed(lambda: shutil.copy2(file, copy))
    copy_bytes = copy.stat().st_size
    copy.unlink()

    def export() -> None:
        with duckdb.connect(str(keeper.published), read_only=True) as connection:
            connection.execute("SET enable_progress_bar = false")
            connection.execute(f"EXPORT DATABASE '{exported}' (FORMAT parquet)")

    export_s = _timed(export)
    export_bytes = _folder_bytes(exported)
    shutil.rmtree(exported)
    note = "each time, and not to be trusted: a copy of a live file may be torn (FACTS)"
    this.add(
        Figure(f"{sizes.backup_gb:g} GB by copy2 of the live file, unflushed", copy_s, "s", note=f"{copy_bytes / 1e6:,.0f} MB {note}"),
        Figure(f"{sizes.backup_gb:g} GB by EXPORT DATABASE to Parquet", export_s, "s", note=f"{export_bytes / 1e6:,.0f} MB each time"),
    )


# Many versions


def _history(this: Run, sizes: Sizes) -> None:
    source = sized(this, sizes.history_gb)
    with workplace(this, source, "history") as file, keeping(file, snapshots__keep="1") as keeper:
        client = keeper.client(TIMEOUT_S)
        seconds = []
        for version in range(sizes.versions):
            if version % 100 == 0:
                this.say(f"version {version} of {sizes.versions}")
            for commit in range(sizes.commits_each):
                client.execute(INSERT, parameters=[1 + version * sizes.commits_each + commit])
            began = time.perf_counter()
            client.post("/v1/backups")
            seconds.append(time.perf_counter() - began)
        stored_mb = _folder_bytes(keeper.home / "archive") / 1e6
        one_mb = keeper.published.stat().st_size / 1e6
        note = f"{sizes.versions * sizes.commits_each:,} one-row commits; a backup takes {1000 * median(seconds):.0f} ms"
        name = f"archive of {sizes.versions:,} versions of {sizes.history_gb:g} GB"
        this.add(Figure(name, stored_mb, "MB", "one copy", one_mb, VERSIONS_BAR, note))


# What the writer notices


def _throughput(this: Run, sizes: Sizes) -> None:
    """Eight clients on a keeper that archives every second, and on one that archives nothing, in turns.

    After the first copy: until the archive has all of the database once, it takes half of a processor, some seconds a GB.
    """
    source = sized(this, sizes.history_gb)
    with ExitStack() as stack:
        sides: dict[str, Callable[[], float]] = {}
        for name in ("on", "off"):
            file = stack.enter_context(workplace(this, source, name))
            settings = {"archive__to": str(file.parent / "archive")} if name == "on" else {}
            keeper = stack.enter_context(keeping(file, snapshots__keep="1", **settings))
            client = keeper.client(TIMEOUT_S)
            client.execute("CREATE TABLE t (k INTEGER, name VARCHAR, x DOUBLE)")
            if settings:
                client.post("/v1/backups")
            crowd = HttpCrowd(keeper.url, keeper.key, CLIENTS, "INSERT INTO t VALUES (?, ?, ?)", [1, "a name", 1.5])
            sides[name] = lambda crowd=crowd: crowd.run(sizes.turn_s).rate  # type: ignore[misc]  # mypy infers no lambda with a default
        rates: dict[str, list[float]] = {name: [] for name in sides}
        for turn in range(sizes.turns + 1):
            this.say(f"turn {turn}: writes with the archive on and off")
            for name, side in sides.items():
                rate = side()
                if turn:
                    rates[name].append(rate)
        name = f"one-row inserts with the archive on, {CLIENTS} clients, {sizes.history_gb:g} GB"
        this.add(Figure(name, median(rates["on"]), "/s", "off", median(rates["off"]), THROUGHPUT_BAR))


# Measures


def _timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _cache_only(wanted: Path, folder: Path) -> None:
    """The page cache has this file, or the files of this folder, and no other file of the folder."""
    needed = set(_files(wanted.resolve()))
    for file in set(_files(folder)) - needed:
        with suppress(FileNotFoundError), file.open("rb") as opened:  # the keeper's small files come and go
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    for file in needed:
        with file.open("rb", buffering=0) as opened:
            while opened.read(1 << 20):
                pass


def _files(path: Path) -> list[Path]:
    """The file, or all that are in the folder."""
    return [each for each in (path.rglob("*") if path.is_dir() else [path]) if each.is_file() and not each.is_symlink()]


def _copy(source: Path, target: Path) -> None:
    """`cp`, and to the disk: a backup that a power cut takes is none."""
    subprocess.run(["cp", str(source), str(target)], check=True)
    descriptor = os.open(target, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _pondkeeper(keeper: RunningKeeper, *arguments: str) -> str:
    command = [sys.executable, "-m", "pondkeeper.cli.main", *arguments, "--home", str(keeper.home)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment({}), timeout=TIMEOUT_S)
    if done.returncode:
        raise RuntimeError(f"pondkeeper {' '.join(arguments)}: {done.stderr[-500:]}")
    return done.stdout


def _blocks(file: Path) -> list[bytes]:
    """A hash of each block of a snapshot, the headers first."""
    with file.open("rb") as opened:
        found = [hashlib.blake2b(opened.read(HEADERS_BYTES), digest_size=16).digest()]
        while block := opened.read(BLOCK_BYTES):
            found.append(hashlib.blake2b(block, digest_size=16).digest())
    return found


def _changed_bytes(before: list[bytes], file: Path) -> int:
    now = _blocks(file)
    changed = sum(new != old for new, old in zip(now, before, strict=False)) + max(0, len(now) - len(before))
    return changed * BLOCK_BYTES


def _folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    sys.exit(run("archive", __doc__, measure, budget_s=1200, short_budget_s=240))
