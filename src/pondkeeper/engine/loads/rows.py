"""The staged files of a step: their columns, and passes over their rows in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import duckdb
import pyarrow as pa

from pondkeeper.engine.bulk import ROW_GROUP_ROWS
from pondkeeper.engine.intake.inferring import value_types
from pondkeeper.engine.intake.passes import Pass
from pondkeeper.engine.intake.sources.rows import PLACE, check_names
from pondkeeper.engine.loads.files import faults, opened
from pondkeeper.engine.rowgroups import in_row_groups
from pondkeeper.errors import BodyInvalid, InvalidRequest


class StagedRows:
    """The rows of staged files, one file after the other. All have the same columns, whatever their order.

    Columns whose types differ from file to file get the type that holds all of them.
    """

    def __init__(self, files: Sequence[str]) -> None:
        if not files:
            raise InvalidRequest("A step names no file.", remedy="Stage a file without rows where there are none.")
        self._files = list(files)
        described = [_described(file) for file in self._files]
        self.count = sum(count for _, count in described)
        self.schema = _joined([schema for schema, _ in described])
        check_names(self.schema.names)

    @property
    def names(self) -> list[str]:
        return list(self.schema.names)

    def types(self, cursor: duckdb.DuckDBPyConnection) -> dict[str, str]:
        """The columns' types as DuckDB spells them."""
        return value_types(cursor, self.schema, self.names)

    def on(self, cursor: duckdb.DuckDBPyConnection, names: Sequence[str], *, with_place: bool = False) -> Pass:
        """A pass over these columns as a view of the cursor; with the column `PLACE`, which counts the rows."""
        wanted = [self.schema.field(name) for name in names]
        # Trap: DuckDB takes a view without columns for a mistake.
        fields = [pa.field(PLACE, pa.int64()), *wanted] if with_place or not wanted else wanted
        schema = pa.schema(fields)
        return Pass(cursor, pa.RecordBatchReader.from_batches(schema, in_row_groups(self._batches(schema))))

    def _batches(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        place = 0
        with faults():
            for file in self._files:
                for batch in _read(file, [name for name in schema.names if name != PLACE]):
                    columns = [
                        pa.array(range(place, place + batch.num_rows), pa.int64())
                        if field.name == PLACE
                        else _cast(batch.column(field.name), field.type)
                        for field in schema
                    ]
                    place += batch.num_rows
                    yield pa.RecordBatch.from_arrays(columns, schema=schema)


def _cast(column: pa.Array, kind: pa.DataType) -> pa.Array:
    # Why not always: Arrow casts no list of UUIDs or JSON, not even to itself.
    return column if column.type == kind else column.cast(kind)


def _read(file: str, names: list[str]) -> Iterator[pa.RecordBatch]:
    with opened(file) as staged:
        given = {name.lower(): name for name in staged.schema.names}
        for batch in staged.batches([given[name.lower()] for name in names], ROW_GROUP_ROWS):
            yield batch.rename_columns(names) if names else batch


def _described(file: str) -> tuple[pa.Schema, int]:
    with opened(file) as staged:
        return staged.schema, staged.count


def _joined(schemas: list[pa.Schema]) -> pa.Schema:
    """One schema for all: the names of the first, each with a type that holds the values of all."""
    first = schemas[0]
    wanted = {name.lower() for name in first.names}
    for schema in schemas[1:]:
        if {name.lower() for name in schema.names} != wanted:
            differing = sorted(wanted ^ {name.lower() for name in schema.names})
            raise BodyInvalid(f"The staged files of one step differ in their columns: {', '.join(differing[:20])}.")
    spelled = [pa.schema([_spelled(field, first) for field in schema]) for schema in schemas]
    try:
        return pa.unify_schemas(spelled, promote_options="permissive")
    except (pa.ArrowTypeError, pa.ArrowInvalid) as error:
        raise BodyInvalid("The staged files of one step differ in the types of a column.", private=str(error)) from error


def _spelled(field: pa.Field, first: pa.Schema) -> pa.Field:
    [name] = [name for name in first.names if name.lower() == field.name.lower()]
    return field.with_name(name).with_nullable(True)
