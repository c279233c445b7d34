"""The table of paths: where everything of a home and of a database lies on disk."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

HOME_NAME = ".pondkeeper"
SUFFIX = ".duckdb"
OF_REPLACED = ".of-replaced-file"  # behind the name of a WAL whose file was replaced while a writer had it open
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}\Z")


def is_database_name(name: str) -> bool:
    """Whether `name` can be a database's name: it appears in URLs, paths and as DuckDB's catalog name."""
    return bool(_NAME.match(name))


def default_home(database_file: Path) -> Path:
    """The home of a database file, or of a folder of them: `.pondkeeper` beside it."""
    folder = database_file if database_file.is_dir() else database_file.parent
    return folder.resolve() / HOME_NAME


@dataclass(frozen=True)
class Home:
    """The paths of one keeper's home."""

    root: Path

    @property
    def control_db(self) -> Path:
        return self.root / "control.db"

    @property
    def socket(self) -> Path:
        return self.root / "keeper.sock"

    @property
    def pipeline_socket(self) -> Path:
        return self.root / "pipeline.sock"

    @property
    def keeper_json(self) -> Path:
        return self.root / "keeper.json"

    @property
    def keeper_lock(self) -> Path:
        return self.root / "keeper.lock"

    @property
    def settings_file(self) -> Path:
        return self.root / "pondkeeper.toml"

    @property
    def audit(self) -> Path:
        """The segments of the audit."""
        return self.root / "audit"

    @property
    def archive(self) -> Path:
        """Where `pondkeeper backup now` writes when no other place is named."""
        return self.root / "archive"

    @property
    def archive_json(self) -> Path:
        """Where the archive of the keeper that ran last is, for commands without one."""
        return self.root / "archive.json"

    @property
    def runs(self) -> Path:
        """A folder per run of a job."""
        return self.root / "runs"

    def run(self, run_id: str) -> RunPaths:
        return RunPaths(self.runs / run_id)

    def job(self, name: str) -> Path:
        """What a job keeps from one run to the next."""
        return self.root / "jobs" / name

    @property
    def temp(self) -> Path:
        """Temp folders of the children, one each; emptied when a keeper starts."""
        return self.root / "temp"

    def database(self, file: Path) -> DatabasePaths:
        return DatabasePaths(file=file.resolve(), home=self.root)


@dataclass(frozen=True)
class RunPaths:
    """The paths of one run of a job."""

    folder: Path

    @property
    def run_id(self) -> str:
        return self.folder.name

    @property
    def plan_json(self) -> Path:
        """What is to be done."""
        return self.folder / "plan.json"

    @property
    def status_json(self) -> Path:
        """How far it is."""
        return self.folder / "status.json"

    @property
    def log(self) -> Path:
        """What it has written, masked, each line with its moment."""
        return self.folder / "log"

    @property
    def lock(self) -> Path:
        """flock of the supervisor: the only proof that the run lives."""
        return self.folder / "lock"

    @property
    def cancel_json(self) -> Path:
        """Somebody wants the run to end, and who."""
        return self.folder / "cancel.json"

    @property
    def recorded(self) -> Path:
        """Empty; there once the history has the run."""
        return self.folder / "recorded"

    @property
    def staging(self) -> Path:
        """What waits to be loaded; removed when the attempt has ended."""
        return self.folder / "staging"


@dataclass(frozen=True)
class DatabasePaths:
    """The paths of one database.

    What excludes others (lease, tickets, claim) lies beside the file whatever the home, so that two homes cannot
    disagree about who may write.
    """

    file: Path
    home: Path

    @property
    def name(self) -> str:
        return self.file.stem

    @property
    def wal(self) -> Path:
        return self.file.with_name(self.file.name + ".wal")

    @property
    def turn(self) -> Path:
        """The folder that decides whose turn it is."""
        return self.file.parent / HOME_NAME / "databases" / self.name

    @property
    def claim_lock(self) -> Path:
        """flock of the keeper that serves this database."""
        return self.turn / "keeper.lock"

    @property
    def claim_json(self) -> Path:
        """Who that keeper is: pid, url, home."""
        return self.turn / "keeper.json"

    @property
    def replica_json(self) -> Path:
        """Whose replica the database is; it counts while there is no file."""
        return self.turn / "replica.json"

    @property
    def lease_lock(self) -> Path:
        return self.turn / "lease.lock"

    @property
    def lease_json(self) -> Path:
        return self.turn / "lease.json"

    @property
    def tickets(self) -> Path:
        return self.turn / "tickets"

    @property
    def preimage(self) -> Path:
        """What the next checkpoint rewrites in place, where no snapshot has it."""
        return self.turn / "preimage"

    @property
    def cut_wal(self) -> Path:
        """The last WAL whose torn end was cut off, as it was."""
        return self.turn / "cut.wal"

    @property
    def folder(self) -> Path:
        return self.home / "databases" / self.name

    @property
    def snapshots(self) -> Path:
        return self.folder / "snapshots"

    @property
    def lineage_json(self) -> Path:
        """Which unbroken history the versions of this database belong to."""
        return self.folder / "lineage.json"

    @property
    def archived_json(self) -> Path:
        """What is known of the archived versions: when one was last verified."""
        return self.folder / "archived.json"

    @property
    def spool(self) -> Path:
        return self.folder / "spool"

    @property
    def incoming(self) -> Path:
        """Bodies of ingests. `*.receiving` is nobody's promise and goes when a keeper starts; other names stay."""
        return self.spool / "incoming"

    @property
    def staging(self) -> Path:
        """A folder per ingest under way; all of them go when a keeper starts."""
        return self.spool / "staging"

    @property
    def rejects(self) -> Path:
        """Rows that an ingest did not take, a file for each such ingest."""
        return self.folder / "rejects"

    @property
    def published(self) -> Path:
        """Link to the newest snapshot, under a fixed name."""
        return self.folder / "published.duckdb"

    @property
    def published_by_name(self) -> Path:
        """Link to the newest snapshot under the database's own name, so that views that name the catalog work."""
        return self.folder / "published" / self.file.name

    def snapshot(self, version: int) -> Path:
        """The snapshot's file: a folder per version, so that DuckDB's catalog name stays the database's."""
        return self.snapshots / f"{version:012d}" / self.file.name

    def manifest(self, version: int) -> Path:
        return self.snapshots / f"{version:012d}" / "manifest.json"
