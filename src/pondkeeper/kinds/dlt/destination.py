"""Our destination of dlt: its own client for DuckDB, whose connection writes down what is to be done.

So everything that dlt can do to DuckDB (append, replace, merge in all its strategies, nested tables, new columns, its state)
is done here by dlt's own SQL, and none of it while the database is held.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Final, cast

from dlt.common.destination import DestinationCapabilitiesContext
from dlt.common.destination.client import FollowupJobRequest, LoadJob
from dlt.common.destination.dataset import DBApiCursor
from dlt.common.destination.typing import PreparedTableSchema
from dlt.common.schema import Schema
from dlt.common.schema.typing import TSchemaTables, TTableSchemaColumns
from dlt.common.storages.load_package import ParsedLoadJobFileName
from dlt.destinations import duckdb as DuckDbDestination  # noqa: N812 - dlt names the class in lower case
from dlt.destinations.impl.duckdb.configuration import DuckDbClientConfiguration
from dlt.destinations.impl.duckdb.duck import DuckDbClient, DuckDbCopyJob
from dlt.destinations.impl.duckdb.sql_client import DuckDbSqlClient
from dlt.destinations.sql_client import SqlClientBase, raise_database_error
from dlt.destinations.sql_jobs import SqlMergeFollowupJob
from dlt.destinations.typing import DBTransaction

from pondkeeper.kinds.dlt.drift import Drift
from pondkeeper.kinds.dlt.recording import Recorder

PARQUET: Final = "parquet"
QUOTE: Final = '"'
Storage = Iterable[tuple[str, TTableSchemaColumns]]


class RecordingSqlClient(DuckDbSqlClient):
    """dlt's SQL client on a recorder. Transactions are none of its business: all it does becomes one."""

    def __init__(
        self, dataset: str, staging: str, config: DuckDbClientConfiguration, caps: Any, recorder: Recorder
    ) -> None:
        super().__init__(dataset, staging, config.credentials, caps)
        self.recorder = recorder

    def open_connection(self) -> Any:
        self._conn = cast(Any, self.recorder)
        return self._conn

    def close_connection(self) -> None:
        self._conn = cast(Any, None)

    @contextmanager
    def begin_transaction(self) -> Iterator[DBTransaction]:
        yield self

    def commit_transaction(self) -> None:
        pass

    def rollback_transaction(self) -> None:
        pass

    @contextmanager
    @raise_database_error
    def execute_query(self, query: Any, *args: Any, **_: Any) -> Iterator[DBApiCursor]:
        text = query.replace("%s", "?") if args else query
        yield self.cursor_impl(self.recorder.execute(text, args or None))  # type: ignore[arg-type]

    def warn_if_catalog_equals_dataset_name(self) -> None:
        pass


class RecordingCopyJob(DuckDbCopyJob):
    """A staged file for a table."""

    def run(self) -> None:
        client = cast(RecordingSqlClient, self._job_client.sql_client)
        if client.is_staging_dataset_active:
            client.recorder.scratch(client.make_qualified_table_name(self.load_table_name))
        client.recorder.append(client.dataset_name, self.load_table_name, self._file_path)


class MergeJob(SqlMergeFollowupJob):
    """A merge whose helping tables lie in the staging schema and stay there, without rows.

    Why: temporary tables would live on in the writer's session, and a table that is made, filled and dropped in one
    transaction DuckDB refuses to commit.
    """

    @classmethod
    def _new_temp_table_name(cls, table_name: str, op: str, sql_client: SqlClientBase[Any]) -> str:
        with sql_client.with_staging_dataset():
            return sql_client.make_qualified_table_name(f"{table_name.rpartition('.')[2].strip(QUOTE)}__{op}")

    @classmethod
    def _to_temp_table(
        cls, select_sql: str, temp_table_name: str, unique_column: str, sql_client: SqlClientBase[Any]  # noqa: ARG003 - dlt's
    ) -> str:
        cast(RecordingSqlClient, sql_client).recorder.scratch(temp_table_name)
        make = f"CREATE TABLE IF NOT EXISTS {temp_table_name} AS SELECT * FROM ({select_sql}) LIMIT 0"
        return f"{make}; DELETE FROM {temp_table_name}; INSERT INTO {temp_table_name} {select_sql}"


class RecordingClient(DuckDbClient):
    """dlt's client for DuckDB, on a recorder that a subclass names (`destination_for`)."""

    recorder: ClassVar[Recorder]
    drift: ClassVar[Drift]

    def __init__(self, schema: Schema, config: DuckDbClientConfiguration, capabilities: DestinationCapabilitiesContext) -> None:
        super().__init__(schema, config, capabilities)
        dataset, staging = self.create_dataset_names(schema, config)
        self.sql_client = RecordingSqlClient(dataset, staging, config, capabilities, self.recorder)

    def create_load_job(
        self, table: PreparedTableSchema, file_path: str, load_id: str, restore: bool = False
    ) -> LoadJob:
        if ParsedLoadJobFileName.parse(file_path).file_format == PARQUET:
            return RecordingCopyJob(file_path)
        return super().create_load_job(table, file_path, load_id, restore)

    def _create_merge_followup_jobs(self, table_chain: Sequence[PreparedTableSchema]) -> list[FollowupJobRequest]:
        return [MergeJob.from_table_chain(table_chain, self.sql_client)]

    def _build_schema_update_sql(self, storage_tables: Storage) -> tuple[list[str], TSchemaTables]:
        found = list(storage_tables)
        statements, changes = super()._build_schema_update_sql(found)
        if not self.sql_client.is_staging_dataset_active:
            known = {name for name, columns in found if columns}
            is_first = self.schema.version_table_name not in known
            if not is_first:
                own = set(self.schema.dlt_table_names())
                self.drift.judge({name: table for name, table in changes.items() if name not in own}, known)
        return statements, changes

    def complete_load(self, load_id: str) -> None:
        super().complete_load(load_id)
        self.recorder.commit(load_id)


class RecordingDestination(DuckDbDestination):
    """The destination that a pipeline of a job loads into: rows come as Parquet."""

    client_type: ClassVar[type[RecordingClient]]

    @property
    def client_class(self) -> type[RecordingClient]:
        return self.client_type

    def _raw_capabilities(self) -> DestinationCapabilitiesContext:
        caps = super()._raw_capabilities()
        caps.preferred_loader_file_format = PARQUET
        caps.supported_loader_file_formats = [PARQUET, "model"]
        return caps


def destination_for(recorder: Recorder, drift: Drift, database: str) -> RecordingDestination:
    """A destination whose clients write down what they would do. `database` is only what dlt calls the place."""
    client = type("RecordingClientOfRun", (RecordingClient,), {"recorder": recorder, "drift": drift})
    kind = type("pondkeeper", (RecordingDestination,), {"client_type": client})
    return cast(RecordingDestination, kind(credentials=database, destination_name="pondkeeper"))
