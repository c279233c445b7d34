"""The frozen tree: every setting with its name, type, default, unit and help. Everything else here reads this tree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path  # Why at run time: `leaves` asks for the types of the fields.
from types import MappingProxyType
from typing import Any, TypeVar

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB
DAY_S = 86_400.0

T = TypeVar("T")


def setting(
    default: T,
    about: str,
    *,
    unit: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
    automatic: str = "",
) -> T:
    """A leaf of the tree. `automatic` says what the default 0 stands for."""
    metadata = {
        "help": about,
        "unit": unit,
        "minimum": minimum,
        "maximum": maximum,
        "choices": choices,
        "automatic": automatic,
    }
    leaf: T = field(default=default, metadata=metadata)
    return leaf


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """The HTTP server: where it listens, and what it puts up with."""

    host: str = setting(
        "127.0.0.1",
        "Address to listen on. Set 0.0.0.0 to be reached from other machines, with server.tls_cert or a proxy that adds TLS.",
    )
    port: int = setting(8420, "TCP port to listen on; 0 takes any free one.", minimum=0, maximum=65_535)
    grace_s: float = setting(
        10.0, "How long a stopping keeper lets running requests finish.", unit="s", minimum=0, maximum=DAY_S
    )
    header_timeout_s: float = setting(
        10.0, "How long a client may take to send the head of a request.", unit="s", minimum=0.1, maximum=DAY_S
    )
    body_timeout_s: float = setting(
        60.0, "How long a client may take to send the body of a request.", unit="s", minimum=0.1, maximum=DAY_S
    )
    max_body_bytes: int = setting(
        16 * MIB, "Largest request body that is accepted.", unit="bytes", minimum=KIB, maximum=TIB
    )
    allowed_hosts: tuple[str, ...] = setting(
        (),
        "Host names that requests may carry in their Host header, beside the address listened on and localhost. "
        "Name your public host here when the keeper stands behind a proxy.",
    )
    max_url_bytes: int = setting(
        8 * KIB, "Longest URL of a request, its query string included.", unit="bytes", minimum=256, maximum=60 * KIB
    )
    tls_cert: str = setting(
        "", "File with the certificate (PEM, with its chain) to serve HTTPS with; empty serves HTTP. Read at the start."
    )
    tls_key: str = setting("", "File with the private key (PEM) of the certificate; may be in the same file.")
    cors_origins: tuple[str, ...] = setting(
        (),
        "Origins whose web pages may ask this keeper, such as `https://app.example.com`, one by one: there is no wildcard. "
        "None by default.",
    )


@dataclass(frozen=True, slots=True)
class ReaderSettings:
    """The readers: how many, and the most that one query may take."""

    count: int = setting(
        0,
        "Reader processes, that is queries that run at the same time.",
        minimum=0,
        maximum=1024,
        automatic="one for each CPU, at least 4",
    )
    memory_limit_bytes: int = setting(
        0,
        "Memory of one reader; a query that needs more spills to disk and then fails.",
        unit="bytes",
        minimum=0,
        maximum=64 * TIB,
        automatic="half of the memory divided by readers.count, from 256 MiB to 4 GiB",
    )
    threads: int = setting(0, "Threads of one reader.", minimum=0, maximum=1024, automatic="one for each CPU")
    temp_limit_bytes: int = setting(
        10 * GIB,
        "Temporary disk space of one reader, for what does not fit into memory.",
        unit="bytes",
        minimum=0,
        maximum=1024 * TIB,
    )
    timeout_s: float = setting(
        30.0,
        "Longest time of a query, its answer included; a request may ask for less.",
        unit="s",
        minimum=0.001,
        maximum=DAY_S,
    )
    max_rows: int = setting(
        20_000_000, "Most rows of an answer; it is cut there and says so.", unit="rows", minimum=1, maximum=2**62
    )
    max_bytes: int = setting(
        8 * GIB,
        "Most bytes of an answer; it is cut there and says so.",
        unit="bytes",
        minimum=KIB,
        maximum=1024 * TIB,
    )
    wait_s: float = setting(
        10.0, "How long a query waits for a free reader before it is refused.", unit="s", minimum=0, maximum=DAY_S
    )
    max_waiting: int = setting(
        512, "Queries that may wait for a reader; more are refused at once.", minimum=0, maximum=1_000_000
    )
    kill_after_s: float = setting(
        0.25, "Time between the interrupt at the deadline and the kill.", unit="s", minimum=0, maximum=60
    )


@dataclass(frozen=True, slots=True)
class WriterSettings:
    """The writer: the process that has the database open read-write while it has work."""

    timeout_s: float = setting(
        20.0,
        "Longest time of a write from its turn on; a request may ask for less.",
        unit="s",
        minimum=0.001,
        maximum=DAY_S,
    )
    wait_s: float = setting(
        60.0,
        "How long a write may wait for its turn, behind other writes and programs; a request may ask for less.",
        unit="s",
        minimum=0.001,
        maximum=DAY_S,
    )
    idle_close_s: float = setting(
        1.0,
        "How long the writer keeps the file open after its last write; after it other programs can open the file.",
        unit="s",
        minimum=0,
        maximum=DAY_S,
    )
    memory_limit_bytes: int = setting(
        0,
        "Memory of the writer.",
        unit="bytes",
        minimum=0,
        maximum=64 * TIB,
        automatic="a quarter of the memory, at least 256 MiB",
    )
    threads: int = setting(0, "Threads of the writer.", minimum=0, maximum=1024, automatic="one for each CPU")
    temp_limit_bytes: int = setting(
        50 * GIB, "Temporary disk space of the writer.", unit="bytes", minimum=0, maximum=1024 * TIB
    )
    idempotency_keep_s: float = setting(
        DAY_S, "How long the key and the outcome of a write are kept for its repetition.", unit="s", minimum=60, maximum=400 * DAY_S
    )
    max_waiting: int = setting(
        4096, "Writes that may wait for their turn; more are refused at once.", minimum=0, maximum=1_000_000
    )
    foreign_poll_s: float = setting(
        0.2,
        "How often the keeper looks whether a program that opened the file without asking has let go of it.",
        unit="s",
        minimum=0.01,
        maximum=60,
    )


@dataclass(frozen=True, slots=True)
class LeaseSettings:
    """The lease: what programs may do that get the file from `pondkeeper run`."""

    max_hold_s: float = setting(
        0.0,
        "How long a program may have the lease; after it the program and its children are ended. "
        "`pondkeeper run --max-hold` says otherwise for one program.",
        unit="s",
        minimum=0,
        maximum=400 * DAY_S,
        automatic="no limit",
    )


@dataclass(frozen=True, slots=True)
class SpoolSettings:
    """The spool: what `wait=accepted` has taken in and made durable, and is applied later."""

    max_bytes: int = setting(
        10 * GIB,
        "Most bytes that a database's spool may take; beyond it nothing more is accepted.",
        unit="bytes",
        minimum=MIB,
        maximum=1024 * TIB,
    )
    max_entries: int = setting(
        20_000_000,
        "Most accepted ingests that may wait for one database; beyond it nothing more is accepted.",
        minimum=1,
        maximum=2**40,
    )
    refused_keep_s: float = setting(
        7 * DAY_S, "How long the body of a refused ticket is kept, to be looked at or sent again.", unit="s", minimum=1, maximum=400 * DAY_S
    )
    refused_max_bytes: int = setting(
        GIB, "Most bytes of such bodies that a database keeps; the oldest go first. 0 keeps none.", unit="bytes", minimum=0, maximum=1024 * TIB
    )


@dataclass(frozen=True, slots=True)
class IngestSettings:
    """Ingests: how much may come, and what the stagers that read it may take."""

    timeout_s: float = setting(
        600.0,
        "Longest time of an ingest: its body arrives, is staged, waits for its turn and is loaded; a request may ask for less.",
        unit="s",
        minimum=0.001,
        maximum=DAY_S,
    )
    max_body_bytes: int = setting(
        64 * GIB, "Largest body of an ingest that is accepted.", unit="bytes", minimum=KIB, maximum=1024 * TIB
    )
    staging_limit_bytes: int = setting(
        64 * GIB, "Disk space that the staged rows of one ingest may take.", unit="bytes", minimum=MIB, maximum=1024 * TIB
    )
    max_rows: int = setting(
        1_000_000_000, "Most rows of one ingest: a body of a few kilobytes can stand for billions.", minimum=1, maximum=2**63 - 1
    )
    stagers: int = setting(2, "Processes that stage at the same time; more ingests wait for one.", minimum=1, maximum=64)
    memory_limit_bytes: int = setting(
        0,
        "Memory of one stager.",
        unit="bytes",
        minimum=0,
        maximum=64 * TIB,
        automatic="an eighth of the memory, from 256 MiB to 4 GiB",
    )
    threads: int = setting(0, "Threads of one stager.", minimum=0, maximum=1024, automatic="one for each CPU")
    temp_limit_bytes: int = setting(
        50 * GIB, "Temporary disk space of one stager, for what does not fit into memory.", unit="bytes", minimum=0, maximum=1024 * TIB
    )
    rejects_keep_s: float = setting(
        7 * DAY_S, "How long the rows that an ingest did not take are kept.", unit="s", minimum=60, maximum=400 * DAY_S
    )


@dataclass(frozen=True, slots=True)
class SnapshotSettings:
    """The snapshots: how many stay, and how often one is made."""

    keep: int = setting(
        3, "Newest snapshots that stay on disk; older ones go when nobody has them open.", minimum=1, maximum=1000
    )
    pause_ratio: float = setting(
        1.0,
        "A publish waits at least this many times the duration of the one before, so that publishing never takes "
        "the whole disk. 0 publishes without a pause.",
        unit="ratio",
        minimum=0,
        maximum=1000,
    )


@dataclass(frozen=True, slots=True)
class ArchiveSettings:
    """The archive: every version kept, each block once, so that every second can be restored."""

    to: str = setting(
        "",
        "Where versions are archived: a folder (its absolute path) or `s3://bucket/prefix`. Empty archives nothing by "
        "itself; `pondkeeper backup now` then writes into `archive/` of the home.",
    )
    key_file: str = setting(
        "", "File with the key that the archive is encrypted with: 64 hexadecimal digits, mode 0600. Empty encrypts nothing."
    )
    interval_s: float = setting(
        1.0,
        "A database is archived at most this often, and then its newest version: how fine the points in time are.",
        unit="s",
        minimum=0.1,
        maximum=DAY_S,
    )
    max_lag_s: float = setting(
        60.0,
        "How long a published version may wait for the archive before that is an alarm: in log, status, metrics, events.",
        unit="s",
        minimum=1,
        maximum=400 * DAY_S,
    )
    keep_all_s: float = setting(DAY_S, "How long every version is kept.", unit="s", minimum=0, maximum=100 * 400 * DAY_S)
    keep_hourly_s: float = setting(
        7 * DAY_S, "How long the last version of each hour is kept.", unit="s", minimum=0, maximum=100 * 400 * DAY_S
    )
    keep_daily_s: float = setting(
        30 * DAY_S, "How long the last version of each day (UTC) is kept.", unit="s", minimum=0, maximum=100 * 400 * DAY_S
    )
    prune_every_s: float = setting(
        21_600.0, "How often what need not be kept is removed; 0 only when asked to.", unit="s", minimum=0, maximum=400 * DAY_S
    )
    verify_every_s: float = setting(
        DAY_S,
        "How often the newest version of each database is restored and checked; 0 only when asked to.",
        unit="s",
        minimum=0,
        maximum=400 * DAY_S,
    )


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """Limits of keys. Of those of the server, a role, a database and the key itself, the tightest wins."""

    concurrent: int = setting(
        256, "Queries that one key may have at a time, running or waiting.", minimum=0, maximum=1_000_000, automatic="no limit"
    )
    requests_per_s: float = setting(
        0.0, "Requests that one key may make a second; twice as many may come in a burst.", unit="per second",
        minimum=0, maximum=1_000_000, automatic="no limit",
    )  # fmt: skip
    max_statement_bytes: int = setting(
        16 * MIB, "Longest text of one statement.", unit="bytes", minimum=KIB, maximum=TIB
    )
    max_parameters: int = setting(100_000, "Most parameters of one statement.", minimum=1, maximum=2**40)
    failed_logins_per_min: float = setting(
        60.0, "Requests without a valid key that one address may make a minute before they are answered with 429.",
        unit="per minute", minimum=0, maximum=1_000_000, automatic="no limit",
    )  # fmt: skip
    roles: tuple[str, ...] = setting(
        (),
        'Limits by role, each written as "reader timeout_s=5s max_rows=1000": timeout_s, max_rows, max_bytes, memory, '
        "threads, concurrent, requests_per_s, max_statement_bytes, max_parameters.",
    )
    databases: tuple[str, ...] = setting((), 'Limits by database, each written as "sales timeout_s=5s concurrent=8".')


@dataclass(frozen=True, slots=True)
class AuditSettings:
    """The audit: who asked what of which database, and what became of it."""

    mode: str = setting(
        "required",
        "`required`: a request that could not be recorded is refused. `best_effort`: it is answered all the same, and the "
        "audit says how many records it misses. `off`: nothing is recorded.",
        choices=("required", "best_effort", "off"),
    )
    sql: str = setting(
        "full",
        "What is kept of statements: `full`, `masked` (each literal and comment left out) or `none`.",
        choices=("full", "masked", "none"),
    )
    max_sql_bytes: int = setting(
        64 * KIB,
        "Most that is kept of one request's SQL; a longer one is cut and says so.",
        unit="bytes",
        minimum=0,
        maximum=GIB,
    )
    sync_s: float = setting(
        1.0, "How often records are forced to disk; they are written twenty times a second.", unit="s", minimum=0, maximum=3600
    )
    segment_bytes: int = setting(
        64 * MIB, "Size from which the audit goes on in a new file.", unit="bytes", minimum=4 * KIB, maximum=TIB
    )
    keep_s: float = setting(
        90 * DAY_S, "How long records are kept, at least.", unit="s", minimum=60, maximum=100 * 400 * DAY_S
    )
    keep_bytes: int = setting(
        10 * GIB,
        "Most that the audit may take on disk; beyond it the oldest files go before their time.",
        unit="bytes",
        minimum=64 * KIB,
        maximum=1024 * TIB,
    )


@dataclass(frozen=True, slots=True)
class FenceSettings:
    """The fence: what the kernel keeps the children that run SQL from, whatever the SQL does."""

    mode: str = setting(
        "auto",
        "`auto` puts up every wall that the kernel has and says which it lacks; `strict` refuses to start without all of "
        "them, and with a DuckDB release that was not judged; `off` trusts DuckDB's own locks alone.",
        choices=("auto", "strict", "off"),
    )


@dataclass(frozen=True, slots=True)
class ReplicaSettings:
    """A replica (`pondkeeper replica`): what it follows, and how closely."""

    source: str = setting(
        "",
        "What a replica follows: the URL of a keeper, or an archive: the absolute path of a folder, or `s3://bucket/prefix`.",
    )
    key_file: str = setting(
        "",
        "File with the API key for that keeper, of the role admin on the databases to follow; for an encrypted archive, the file of its key.",
    )
    ca_file: str = setting("", "File with the certificates (PEM) to trust for that keeper's HTTPS, instead of the system's.")
    databases: tuple[str, ...] = setting((), "The databases to follow; none named means all that the key may see.")
    interval_s: float = setting(
        0.1, "A replica asks for the next version at most this often.", unit="s", minimum=0, maximum=DAY_S
    )


@dataclass(frozen=True, slots=True)
class RunSettings:
    """The runs of jobs: how many at once, how they end, and how long they are remembered."""

    max_running: int = setting(2, "Runs that go on at the same time; more wait in the queue.", minimum=1, maximum=1000)
    kill_after_s: float = setting(
        10.0,
        "Time between asking a run to end (cancelled, or out of time) and killing its processes.",
        unit="s",
        minimum=0,
        maximum=3600,
    )
    when_keeper_dies: str = setting(
        "follow",
        "`follow`: runs go on while no keeper is there, and the next keeper follows them. `end`: they are ended with the keeper, "
        "and begin again with the next one.",
        choices=("follow", "end"),
    )
    keep: int = setting(1000, "Runs whose folder (log, status) is kept; older ones go.", minimum=1, maximum=1_000_000)
    keep_s: float = setting(
        30 * DAY_S, "How long runs are remembered (at most 10,000 of a job), and their folders kept.", unit="s", minimum=60, maximum=100 * 400 * DAY_S
    )
    max_log_bytes: int = setting(
        64 * MIB, "Largest log of a run; of what comes after it only the end is kept.", unit="bytes", minimum=64 * KIB, maximum=TIB
    )
    staging_limit_bytes: int = setting(
        64 * GIB,
        "Disk space that one run may take in its staging folder; a run that takes more is ended.",
        unit="bytes",
        minimum=MIB,
        maximum=1024 * TIB,
    )


@dataclass(frozen=True, slots=True)
class LogSettings:
    """The log on stderr."""

    level: str = setting(
        "info", "Least important message that is logged.", choices=("debug", "info", "warning", "error")
    )
    format: str = setting(
        "auto",
        "Form of the log: `console` for people, `json` for programs; `auto` is console on a terminal, else json.",
        choices=("auto", "console", "json"),
    )


def _no_origins() -> Mapping[str, str]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting of a keeper. A value of 0 where `automatic` is said is filled in by `resolve`."""

    server: ServerSettings = field(default_factory=ServerSettings)
    readers: ReaderSettings = field(default_factory=ReaderSettings)
    writer: WriterSettings = field(default_factory=WriterSettings)
    lease: LeaseSettings = field(default_factory=LeaseSettings)
    ingest: IngestSettings = field(default_factory=IngestSettings)
    spool: SpoolSettings = field(default_factory=SpoolSettings)
    snapshots: SnapshotSettings = field(default_factory=SnapshotSettings)
    archive: ArchiveSettings = field(default_factory=ArchiveSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    audit: AuditSettings = field(default_factory=AuditSettings)
    fence: FenceSettings = field(default_factory=FenceSettings)
    replica: ReplicaSettings = field(default_factory=ReplicaSettings)
    runs: RunSettings = field(default_factory=RunSettings)
    log: LogSettings = field(default_factory=LogSettings)
    origins: Mapping[str, str] = field(default_factory=_no_origins, compare=False, repr=False)
    file: Path | None = field(default=None, compare=False, repr=False)
    """Which settings file was looked for: the jobs stand in the same one."""

    @staticmethod
    def load(
        file: Path | None = None,
        *,
        must_exist: bool = False,
        environment: Mapping[str, str] | None = None,
        flags: Mapping[str, Any] | None = None,
    ) -> Settings:
        """The settings from defaults < TOML `file` < `environment` (os.environ when None) < `flags`.

        `flags` maps dotted names to typed values or to text as typed on a command line; None means "not given".
        Raises SettingInvalid. `must_exist`: a missing file is an error (--config), not an empty one.
        """
        from pondkeeper.settings.loading import load  # Why here: loading reads the tree that this module defines.

        return load(file, must_exist=must_exist, environment=environment, flags=flags or {})

    def origin(self, name: str) -> str:
        """Where the value of the setting `name` comes from, in words."""
        return self.origins.get(name, "default")

    def get(self, name: str) -> Any:
        """The value of the setting of this dotted name."""
        section, _, key = name.partition(".")
        return getattr(getattr(self, section), key)
