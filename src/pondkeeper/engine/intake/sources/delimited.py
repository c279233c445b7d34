"""CSV by RFC 4180: every cell a text, an empty one without quotes is NULL. Each row knows the line on which it begins."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from pondkeeper.engine.intake.sources.rows import MAX_ROW_BYTES, PLACE, BadRow, OnBad, check_names
from pondkeeper.errors import BodyInvalid

_BLOCK_BYTES: Final = 1024 * 1024
_SHOWN_CHARS: Final = 1000
_BOM: Final = b"\xef\xbb\xbf"


class CsvSource:
    """Rows of cells. Without a header the columns are `column0`, `column1` … and meant by their places."""

    word: Final = "line"
    form: Final = "text"
    deep: Final = frozenset[str]()

    def __init__(self, path: Path, *, delimiter: str = ",", has_header: bool = True) -> None:
        self._path = path
        self._delimiter = delimiter
        self.has_header = has_header
        self._names: list[str] | None = None
        self._header_lines = 0

    @property
    def names(self) -> list[str]:
        """The cells of the first row, or their numbers."""
        if self._names is None:
            first, lines = self._first_row()
            self._names = first if self.has_header else [f"column{place}" for place in range(len(first))]
            self._header_lines = lines if self.has_header else 0
            check_names(self._names)
        return self._names

    def survey(self) -> list[str]:
        return self.names

    def seen(self) -> tuple[list[str], dict[str, int]]:
        return self.names, {}

    def read(self, names: Sequence[str], on_bad: OnBad) -> pa.RecordBatchReader:
        schema = pa.schema([(PLACE, pa.int64()), *((name, pa.string()) for name in names)])
        return pa.RecordBatchReader.from_batches(schema, self._batches(schema, list(names), on_bad))

    def _first_row(self) -> tuple[list[str], int]:
        """The cells of the first row, and how many lines it takes."""
        with self._path.open("rb") as file:
            head = file.read(MAX_ROW_BYTES).removeprefix(_BOM)
        csv.field_size_limit(MAX_ROW_BYTES)
        try:
            reader = csv.reader(io.StringIO(head.decode(errors="surrogateescape"), newline=""), delimiter=self._delimiter)
            first = next(reader)
            if self.has_header:
                "".join(first).encode()
        except UnicodeEncodeError as error:
            raise BodyInvalid("The names in the first row of the CSV are not UTF-8.") from error
        except (StopIteration, csv.Error) as error:
            raise BodyInvalid("The body is no CSV: it has no first row.", private=str(error)) from error
        return first, reader.line_num

    def _batches(self, schema: pa.Schema, names: list[str], on_bad: OnBad) -> Iterator[pa.RecordBatch]:
        skipped = _Skipped(len(self.names))
        places = _Places(skipped, self._header_lines)
        blank = _BlankLines(self._path)
        self._check_quotes()
        try:
            with arrow_csv.open_csv(self._path, *self._options(skipped)) as reader:
                for batch in reader:
                    lines = places.of(batch)
                    batch, lines = blank.without(batch, lines)  # noqa: PLW2901
                    yield from self._taken(batch, lines, schema, names, on_bad)
                    skipped.tell(on_bad)
            skipped.tell(on_bad)
        except pa.ArrowInvalid as error:
            raise self._no_csv(error, places) from error

    def _options(self, skipped: _Skipped) -> tuple[Any, Any, Any]:
        reading = arrow_csv.ReadOptions(
            use_threads=False,  # Why: with threads Arrow does not know the numbers of the rows that it skips.
            block_size=MAX_ROW_BYTES,  # Why so large: no row is longer than a block.
            column_names=[f"c{place}" for place in range(len(self.names))],
            skip_rows_after_names=1 if self.has_header else 0,
        )
        parsing = arrow_csv.ParseOptions(
            delimiter=self._delimiter,
            newlines_in_values=True,
            ignore_empty_lines=False,  # Why: they count as lines; and of one column an empty line is a NULL.
            invalid_row_handler=skipped.note,
        )
        converting = arrow_csv.ConvertOptions(
            check_utf8=False,
            column_types={f"c{place}": pa.binary() for place in range(len(self.names))},
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        )
        return reading, parsing, converting

    def _check_quotes(self) -> None:
        """Arrow takes a quote that is never closed for closed by the end of the file: rows would be missing."""
        quotes, last = 0, b""
        with self._path.open("rb", buffering=0) as file:
            while piece := file.read(4 * _BLOCK_BYTES):
                quotes, last = quotes + piece.count(b'"'), piece[-1:]
        if quotes % 2 and last != b"\n":
            raise BodyInvalid("The body is no CSV: it ends inside of quotes.")

    def _taken(
        self, batch: pa.RecordBatch, lines: pa.Array, schema: pa.Schema, names: list[str], on_bad: OnBad
    ) -> Iterator[pa.RecordBatch]:
        """The batch with the columns asked for as texts, each row with its line; rows that are no UTF-8 are left out."""
        chosen = [batch.column(self.names.index(name)) for name in names]
        try:
            texts = [column.cast(pa.string()) for column in chosen]
        except pa.ArrowInvalid:
            keep = _utf8_rows(batch, lines, on_bad)
            lines, texts = lines.filter(keep), [column.filter(keep).cast(pa.string()) for column in chosen]
        if len(lines):
            yield pa.RecordBatch.from_arrays([lines, *texts], schema=schema)

    def _no_csv(self, error: pa.ArrowInvalid, places: _Places) -> BodyInvalid:
        if "straddl" in str(error):
            reason = f"a row after line {places.line} is longer than {MAX_ROW_BYTES:,} bytes, or a quote is never closed"
        else:
            reason = f"after line {places.line}: {error}"
        return BodyInvalid(f"The body is no CSV: {reason}.", line=places.line, private=str(error))


class _Skipped:
    """Rows that have more or fewer cells than there are columns; Arrow tells of them while it parses."""

    def __init__(self, columns: int) -> None:
        self.numbers: list[int] = []
        self.blank: set[int] = set()
        self.spans: dict[int, int] = {}
        self._columns = columns
        self._untold: list[BadRow] = []
        self.lines: dict[int, int] = {}

    def note(self, row: Any) -> Literal["skip"]:
        self.numbers.append(row.number)
        text = row.text
        self.spans[row.number] = text.count("\n") + 1
        if not text.strip():
            self.blank.add(row.number)
            return "skip"
        found = f"{row.actual_columns} cell{'' if row.actual_columns == 1 else 's'}"
        reason = f"{found} for {self._columns} column{'' if self._columns == 1 else 's'}"
        self._untold.append(BadRow.whole(row.number, reason, text[:_SHOWN_CHARS]))
        return "skip"

    def tell(self, on_bad: OnBad) -> None:
        """Report those whose lines are known by now."""
        for bad in self._untold:
            on_bad(BadRow(self.lines.get(bad.place, bad.place), bad.faults, bad.record))
        self._untold.clear()


class _Places:
    """On which line each row begins: rows before it, the lines that they take, and the rows that were skipped."""

    def __init__(self, skipped: _Skipped, header_lines: int) -> None:
        self._skipped = skipped
        self._taken_skips = 0
        self._number = 2 if header_lines else 1
        self.line = 1 + header_lines

    def of(self, batch: pa.RecordBatch) -> pa.Array:
        """The line of each row of the next batch."""
        extra = _line_ends(batch)
        if extra is None and self._taken_skips == len(self._skipped.numbers):
            first, self.line, self._number = self.line, self.line + batch.num_rows, self._number + batch.num_rows
            return pa.array(range(first, self.line), pa.int64())
        lines: list[int] = []
        for row in range(batch.num_rows):
            self._skip()
            lines.append(self.line)
            self.line += 1 + (extra[row] if extra else 0)
            self._number += 1
        return pa.array(lines, pa.int64())

    def _skip(self) -> None:
        skipped = self._skipped
        while self._taken_skips < len(skipped.numbers) and skipped.numbers[self._taken_skips] == self._number:
            skipped.lines[self._number] = self.line
            self.line += skipped.spans[self._number]
            self._number += 1
            self._taken_skips += 1


class _BlankLines:
    """Empty lines, which Arrow gives as rows of NULLs, just as it gives `,,`: only the file tells them apart."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: Iterator[tuple[int, bytes]] | None = None

    def without(self, batch: pa.RecordBatch, lines: pa.Array) -> tuple[pa.RecordBatch, pa.Array]:
        """The batch without them. Of a single column they are NULLs indeed, as our own answers write them."""
        if batch.num_columns < 2 or not batch.column(0).null_count:
            return batch, lines
        empty = pc.is_null(batch.column(0))
        for column in batch.columns[1:]:
            empty = pc.and_(empty, pc.is_null(column))
        suspects = set(lines.filter(empty).to_pylist())
        blank = {line for line in sorted(suspects) if self._is_blank(line)}
        if not blank:
            return batch, lines
        keep = pa.array([line not in blank for line in lines.to_pylist()])
        return batch.filter(keep), lines.filter(keep)

    def _is_blank(self, wanted: int) -> bool:
        if self._lines is None:
            self._lines = enumerate(self._read(), 1)
        for number, line in self._lines:
            if number == wanted:
                return not line.strip(b"\r\n")
        return False

    def _read(self) -> Iterator[bytes]:
        with self._path.open("rb") as file:
            yield from file


def _line_ends(batch: pa.RecordBatch) -> list[int] | None:
    """How many line ends stand inside the cells of each row; None when there are none at all."""
    total = None
    for column in batch.columns:
        if not pc.any(pc.match_substring(column, b"\n")).as_py():
            continue
        count = pc.fill_null(pc.count_substring(column, b"\n"), 0)
        total = count if total is None else pc.add(total, count)
    return None if total is None else list(total.to_pylist())


def _utf8_rows(batch: pa.RecordBatch, lines: pa.Array, on_bad: OnBad) -> pa.Array:
    """Which rows are UTF-8 in all of their cells; the others are reported."""
    keep = []
    for place, cells in zip(lines.to_pylist(), zip(*(column.to_pylist() for column in batch.columns), strict=True), strict=True):
        try:
            for cell in cells:
                if cell is not None:
                    cell.decode()
        except UnicodeDecodeError:
            shown = [None if cell is None else cell[:_SHOWN_CHARS].decode(errors="replace") for cell in cells]
            on_bad(BadRow.whole(place, "not valid UTF-8", shown))
            keep.append(False)
        else:
            keep.append(True)
    return pa.array(keep)
