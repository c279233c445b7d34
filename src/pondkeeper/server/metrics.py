"""The metrics: what the server counts itself, and what it asks of the databases when somebody scrapes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from pondkeeper import __version__

disable_created_metrics()  # type: ignore[no-untyped-call]  # Why: a second line for each counter that says nothing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prometheus_client import Metric

    from pondkeeper.databases.registry import Registry
    from pondkeeper.databases.running import RunningQueries
    from pondkeeper.writer.timings import Timings

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
REQUEST_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Meters:
    """What the server counts. One per app, with a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "pondkeeper_http_requests", "Requests answered.", ["route", "method", "status"], registry=self.registry
        )
        self._request_s = Histogram(
            "pondkeeper_http_request_seconds",
            "From the head of a request to the end of its answer.",
            ["route"],
            buckets=REQUEST_BUCKETS_S,
            registry=self.registry,
        )
        self._queries = Counter(
            "pondkeeper_queries",
            "Queries by outcome: ok, cut, gone or an error's code.",
            ["outcome"],
            registry=self.registry,
        )
        self._writes = Counter(
            "pondkeeper_writes", "Writes by outcome: committed or an error's code.", ["outcome"], registry=self.registry
        )
        self._ingests = Counter(
            "pondkeeper_ingests", "Ingests by outcome: committed or an error's code.", ["outcome"], registry=self.registry
        )
        self._ingest_rows = Counter("pondkeeper_ingest_rows", "Rows taken by ingests.", registry=self.registry)
        self._ingest_s = Counter(
            "pondkeeper_ingest_seconds",
            "Time of committed ingests: staging needs no file, loading holds it.",
            ["phase"],
            registry=self.registry,
        )
        self._answer_bytes = Counter(
            "pondkeeper_answer_bytes", "Bytes of answers to queries.", ["format"], registry=self.registry
        )
        self.connections = Gauge("pondkeeper_http_connections", "Open connections of clients.", registry=self.registry)
        self.pipelines = Gauge("pondkeeper_pipelines", "Open pipelines of local clients.", registry=self.registry)
        info = Gauge("pondkeeper_info", "The version of Pondkeeper.", ["version"], registry=self.registry)
        info.labels(__version__).set(1)

    def request(self, route: str, method: str, status: int, elapsed_s: float) -> None:
        """A request was answered."""
        self._requests.labels(route, method if method in _METHODS else "other", status).inc()
        self._request_s.labels(route).observe(elapsed_s)

    def query(self, outcome: str) -> None:
        """A query has ended."""
        self._queries.labels(outcome).inc()

    def write(self, outcome: str, count: int = 1) -> None:
        """So many writes have ended in this way."""
        self._writes.labels(outcome).inc(count)

    def ingest(self, outcome: str, rows: int = 0, staging_s: float = 0.0, loading_s: float = 0.0) -> None:
        """An ingest has ended."""
        self._ingests.labels(outcome).inc()
        self._ingest_rows.inc(rows)
        self._ingest_s.labels("staging").inc(staging_s)
        self._ingest_s.labels("loading").inc(loading_s)

    def answer(self, format_: str, size_bytes: int) -> None:
        """An answer was sent."""
        self._answer_bytes.labels(format_).inc(size_bytes)

    def scrape(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self.registry)


_METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class DatabaseCollector:
    """The state of databases, readers and queries, read from memory at each scrape."""

    def __init__(self, registry: Registry, running: RunningQueries) -> None:
        self._registry = registry
        self._running = running

    def collect(self) -> Iterator[Metric]:
        """The metrics of this moment."""
        yield from _by_label("pondkeeper_readers", "Readers by state.", "state", self._registry.pool.states())
        yield GaugeMetricFamily(
            "pondkeeper_readers_waited_for", "Queries that wait for a reader.", self._registry.pool.waiting
        )
        yield CounterMetricFamily(
            "pondkeeper_readers_ended",
            "Readers that ended or were killed, and were replaced.",
            self._registry.pool.kills,
        )
        yield GaugeMetricFamily("pondkeeper_running", "Queries and writes that run now.", len(self._running.list()))
        databases = self._registry.all()
        yield from self._of_databases([database.status() for database in databases])
        timings = {database.name: database.timings() for database in databases}
        yield _histograms("pondkeeper_queue_wait_seconds", "From the asking for a turn to the turn.", timings, "waits")
        yield _histograms("pondkeeper_lease_hold_seconds", "From the taking of the lease to its end.", timings, "holds")

    def _of_databases(self, states: list[dict[str, Any]]) -> Iterator[Metric]:
        for name, help_, kind, path in _OF_DATABASE:
            values = {state["name"]: value for state in states if (value := _at(state, path)) is not None}
            yield from _by_label(name, help_, "database", values, kind)
        depth = GaugeMetricFamily("pondkeeper_queue_depth", "Writes that wait or run.", labels=["database", "priority"])
        for state in states:
            for priority, count in state["queue"].get("by_priority", {}).items():
                depth.add_metric([state["name"], priority], count)
        yield depth


# Each: name, help, kind, where in `Database.status()`.
_OF_DATABASE: Final = (
    ("pondkeeper_database_ready", "1 when the database can be queried.", GaugeMetricFamily, ("state",)),
    ("pondkeeper_snapshot_version", "The newest version.", GaugeMetricFamily, ("snapshot", "version")),
    ("pondkeeper_snapshot_age_seconds", "Since it was published.", GaugeMetricFamily, ("snapshot", "age_s")),
    ("pondkeeper_snapshot_size_bytes", "Its size.", GaugeMetricFamily, ("snapshot", "size_bytes")),
    ("pondkeeper_publish_last_bytes", "Bytes that the last publish copied.", GaugeMetricFamily, ("snapshot", "bytes_copied")),
    ("pondkeeper_publish_last_ms", "How long the copier took for it.", GaugeMetricFamily, ("snapshot", "elapsed_ms")),
    ("pondkeeper_replica_lag_seconds", "Of a replica: what was published there until so long ago is here.", GaugeMetricFamily, ("replica", "lag_s")),
    ("pondkeeper_publishes", "Versions published.", CounterMetricFamily, ("counters", "publishes")),
    ("pondkeeper_publish_bytes", "Bytes copied by publishes.", CounterMetricFamily, ("counters", "publish_bytes")),
    ("pondkeeper_publish_seconds", "Time that publishes took.", CounterMetricFamily, ("counters", "publish_s")),
    ("pondkeeper_repairs", "Torn files that were made whole.", CounterMetricFamily, ("counters", "repairs")),
    ("pondkeeper_restores", "Restores in place that were carried out, and undone.", CounterMetricFamily, ("counters", "restores")),
    ("pondkeeper_restore_seconds", "Time that they took, from the request to the new version.", CounterMetricFamily, ("counters", "restore_s")),
    ("pondkeeper_commits", "Transactions committed by the writer.", CounterMetricFamily, ("counters", "commits")),
    ("pondkeeper_queue_oldest_seconds", "Age of the oldest write in the queue.", GaugeMetricFamily, ("queue", "oldest_s")),
    ("pondkeeper_writer_open", "1 while the writer has the file open.", GaugeMetricFamily, ("writer", "is_open")),
    ("pondkeeper_lease_waiting", "Programs that wait for the lease.", GaugeMetricFamily, ("lease", "waiting")),
    ("pondkeeper_foreign", "Programs that have the file open without the lease.", GaugeMetricFamily, ("foreign",)),
    ("pondkeeper_spool_waiting", "Accepted ingests that are not applied yet.", GaugeMetricFamily, ("spool", "waiting")),
    ("pondkeeper_spool_bytes", "What the spool takes on disk.", GaugeMetricFamily, ("spool", "size_bytes")),
    ("pondkeeper_spool_oldest_seconds", "How long the first of them has waited.", GaugeMetricFamily, ("spool", "oldest_s")),
    ("pondkeeper_spool_accepted", "Ingests accepted.", CounterMetricFamily, ("spool", "accepted")),
    ("pondkeeper_spool_committed", "Accepted ingests that were committed.", CounterMetricFamily, ("spool", "committed")),
    ("pondkeeper_spool_refused", "Accepted ingests that were refused.", CounterMetricFamily, ("spool", "refused")),
    ("pondkeeper_spool_cancelled", "Accepted ingests that were taken back.", CounterMetricFamily, ("spool", "cancelled")),
    ("pondkeeper_spool_damaged", "Segments of the spool that are damaged.", GaugeMetricFamily, ("spool", "damaged")),
    ("pondkeeper_archive_version", "The newest version in the archive.", GaugeMetricFamily, ("archive", "version")),
    ("pondkeeper_archive_lag_seconds", "How long the oldest version that is not archived has waited.", GaugeMetricFamily, ("archive", "lag_s")),
    ("pondkeeper_archive_behind", "1 while that is more than `archive.max_lag_s`.", GaugeMetricFamily, ("archive", "is_behind")),
    ("pondkeeper_archive_versions", "Versions archived.", CounterMetricFamily, ("archive", "counters", "versions")),
    ("pondkeeper_archive_failures", "Attempts that failed.", CounterMetricFamily, ("archive", "counters", "failures")),
    ("pondkeeper_archive_bytes", "Bytes put into the archive.", CounterMetricFamily, ("archive", "counters", "bytes_put")),
    ("pondkeeper_archive_seconds", "Time that archiving took.", CounterMetricFamily, ("archive", "counters", "archiving_s")),
    ("pondkeeper_archive_verified_timestamp_seconds", "When an archived version was last restored and found good.", GaugeMetricFamily, ("archive", "verified", "good_at")),
    ("pondkeeper_archive_verified", "1 when the last verification went well.", GaugeMetricFamily, ("archive", "verified", "is_good")),
    ("pondkeeper_file_bytes", "Size of the database file.", GaugeMetricFamily, ("file", "size_bytes")),
    ("pondkeeper_wal_bytes", "Size of its WAL.", GaugeMetricFamily, ("file", "wal_bytes")),
)  # fmt: skip


def _histograms(
    name: str, help_: str, timings: dict[str, dict[str, dict[str, Timings]]], what: str
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, help_, labels=["database", "kind"])
    for database, found in timings.items():
        for kind, times in found[what].items():
            family.add_metric([database, kind], times.buckets(), times.sum_s)
    return family


def _at(state: dict[str, Any], path: Iterable[str]) -> float | None:
    """The number at that place of a status; None where there is none."""
    found: Any = state
    for step in path:
        found = found.get(step) if isinstance(found, dict) else None
    if isinstance(found, str):
        return float(found == "ready")
    if isinstance(found, list):
        return float(len(found))
    return None if found is None or isinstance(found, dict) else float(found)


def _by_label(
    name: str, help_: str, label: str, values: dict[str, Any], kind: Any = GaugeMetricFamily
) -> Iterator[Metric]:
    family = kind(name, help_, labels=[label])
    for value, number in values.items():
        family.add_metric([value], number)
    yield family
