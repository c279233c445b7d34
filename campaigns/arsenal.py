"""The bombs: statements and requests that take as much as they are given, each with the limits at which it must end.

An end is the code of the error, or `cut:LIMIT` for an answer that says itself that it was cut, or `broken off` for one in
a format that cannot say so. Where two are named, the first is the one meant, and the other is met on a machine that is
slower or faster than the limit fits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

TIME, MEMORY, DISK = "query_timed_out", "out_of_memory", "disk_full"
ROWS, BYTES = "cut:max_rows", "cut:max_bytes"
REFUSED, BROKEN = "sql_invalid", "broken off"
TABLE_ROWS: Final = 200_000
SETUP: Final = [
    f"CREATE TABLE pebbles AS SELECT range AS n, range % 100 AS g, md5(range::VARCHAR) AS s FROM range({TABLE_ROWS})",
    "CREATE TABLE sink (n BIGINT)",
    "CREATE MACRO d0(x) AS x + x",
    *(f"CREATE MACRO d{level}(x) AS d{level - 1}(d{level - 1}(x))" for level in range(1, 6)),
]


@dataclass(frozen=True)
class Bomb:
    """One request, as it is sent: a statement made when it is needed, since some are large; or raw bytes of a body."""

    name: str
    make: Callable[[], str]
    ends: tuple[str, ...]
    door: str = "query"
    format: str = "json"
    parameters: list[Any] | None = None
    body: Callable[[], bytes] | None = None
    reads_bytes_per_s: float | None = None
    timeout_s: float | None = None


def _sql(name: str, sql: str, *ends: str, **more: Any) -> Bomb:
    return Bomb(name, lambda: sql, ends, **more)


def _made(name: str, make: Callable[[], str], *ends: str, **more: Any) -> Bomb:
    return Bomb(name, make, ends, **more)


def _of_time() -> list[Bomb]:
    """What computes for ever."""
    return [
        _sql("three-way cross join", "SELECT sum(a.range * b.range + c.range) FROM range(3000000) a, range(3000000) b, range(3000000) c", TIME),
        _sql("inequality join", "SELECT count(*) FROM range(30000000) a, range(30000000) b WHERE a.range < b.range AND a.range + b.range > 7", TIME, MEMORY),
        _sql("endless recursive CTE", "WITH RECURSIVE e(n) AS (SELECT 1 UNION ALL SELECT n % 1000 + 1 FROM e) SELECT count(*) FROM e", TIME, MEMORY),
        _sql("recursive CTE that doubles", "WITH RECURSIVE e(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM e, range(2)) SELECT count(*) FROM e", TIME, MEMORY, DISK),
        _sql("levenshtein, which is deaf", "SELECT levenshtein(repeat(chr(97 + (n % 20)::INTEGER), 60000), repeat('zy', 30000)) FROM range(3, 4) AS r(n)", TIME),
        _sql("quadratic window frames", "SELECT max(m) FROM (SELECT median(n % 977) OVER (ORDER BY n % 1009 ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW EXCLUDE TIES) AS m FROM range(100000000) AS r(n))", TIME, MEMORY, DISK),
        _sql("string_agg over every frame", "SELECT max(length(x)) FROM (SELECT string_agg(s, '') OVER (ORDER BY n ROWS BETWEEN 100000 PRECEDING AND CURRENT ROW) AS x FROM pebbles)", MEMORY, TIME),
        _sql("correlated subqueries", "SELECT count(*) FROM pebbles a WHERE (SELECT count(*) FROM pebbles b WHERE b.n < a.n AND b.s > a.s) > (SELECT count(*) FROM pebbles c WHERE c.n > a.n AND c.s < a.s)", TIME, MEMORY, DISK),
        _sql("positional join of endless ranges", "SELECT sum(hash(a.range, b.range)) FROM range(100000000000) a POSITIONAL JOIN range(100000000000) b", TIME),
        _sql("as-of join", "SELECT count(*) FROM range(100000000) a ASOF JOIN range(100000000) b ON a.range >= b.range", TIME, MEMORY, DISK),
        _sql("ranges of microseconds", "SELECT count(*) FROM generate_series(TIMESTAMP '0001-01-01', TIMESTAMP '9999-12-31', INTERVAL 1 MICROSECOND)", TIME),
        _sql("EXPLAIN ANALYZE of a bomb", "EXPLAIN ANALYZE SELECT count(*) FROM range(3000000) a, range(3000000) b, range(1000) c WHERE a.range + b.range = c.range", TIME),
        _sql("SUMMARIZE of a bomb", "SUMMARIZE SELECT a.range AS x, md5(b.range::VARCHAR) AS y FROM range(100000) a, range(100000) b", TIME, MEMORY, DISK),
        _sql("a sample of everything", "SELECT count(*) FROM (FROM range(100000000000) USING SAMPLE 1000 ROWS)", TIME),
        _sql("LIKE that looks everywhere", "SELECT count(*) FROM range(1000000) AS r(n) WHERE repeat('a', 30000 + (n % 7)::INTEGER) LIKE '%a%a%a%a%a%a%a%a%a%a%b'", TIME),
        _sql("a regular expression over megabytes", "SELECT sum(length(regexp_replace(repeat('ab', 200000 + n::INTEGER), '(a|b)*?(b|a)(a.*b)?', 'x', 'g'))) FROM range(1000) AS r(n)", TIME, MEMORY),
        _made("sixty tables joined", lambda: "SELECT count(*) FROM " + ", ".join(f"pebbles p{i}" for i in range(60)) + " WHERE " + " AND ".join(f"p{i}.g + p{i + 1}.g = p{(i * 7) % 60}.g" for i in range(59)), TIME, MEMORY),
        _sql("very many small chunks", "SELECT n FROM range(1000000000000) AS r(n) WHERE hash(n) % 100003 = 0", TIME, format="ndjson"),
    ]


def _of_memory() -> list[Bomb]:
    """What takes memory, past DuckDB's own limit or up to it."""
    return [
        _sql("repeat per row", "SELECT max(length(repeat('abc', 300000000 + i::INTEGER))) FROM range(8) AS r(i)", MEMORY, TIME),
        _sql("one huge repeat", "SELECT length(repeat(repeat('x', 1000), 3000000 + (i % 2)::INTEGER)) FROM range(4) AS r(i)", MEMORY, TIME),
        _sql("padding", "SELECT length(lpad('x', 2000000000 + n::INTEGER, 'yz')) FROM range(4) AS r(n)", MEMORY, TIME, "statement_failed"),
        _sql("bits", "SELECT bit_count(bitstring('1', 2000000000 + n::INTEGER)) FROM range(4) AS r(n)", MEMORY, TIME, "statement_failed"),
        _sql("range of 1e9", "SELECT len(range(n)) FROM range(1000000000, 1000000001) AS r(n)", MEMORY, TIME),
        _sql("generate_series lists", "SELECT sum(len(generate_series(1, 100000000 + n))) FROM range(100) AS r(n)", MEMORY, TIME),
        _sql("a list of everything", "SELECT len(list(i)) FROM range(1000000000) AS r(i)", MEMORY, TIME),
        _sql("one string of everything", "SELECT length(string_agg(repeat('y', 1000), ',')) FROM range(5000000)", MEMORY, TIME),
        _sql("nested lists", "SELECT len(flatten(list_transform(range(n), lambda x: range(20000)))) FROM range(40000, 40001) AS r(n)", MEMORY, TIME),
        _sql("a lambda over 200 M elements", "SELECT len(list_transform(range(n), lambda x: x * 2 + 1)) FROM range(200000000, 200000001) AS r(n)", MEMORY, TIME),
        _sql("list sort and distinct", "SELECT len(list_distinct(list_sort(range(n)))) FROM range(300000000, 300000001) AS r(n)", MEMORY, TIME),
        _sql("structs in lists in maps", "SELECT cardinality(map_from_entries(list({'key': i, 'value': {'a': i, 'b': [i, i]}}))) FROM range(500000000) AS r(i)", MEMORY, TIME),
        _sql("a histogram of everything", "SELECT cardinality(histogram(i)) FROM range(1000000000) AS r(i)", MEMORY, TIME),
        _sql("exact quantiles", "SELECT quantile_cont(hash(i)::DOUBLE, [0.1, 0.5, 0.9]) FROM range(2000000000) AS r(i)", MEMORY, TIME),
        _sql("huge replacement", "SELECT length(regexp_replace(repeat('a', n::INTEGER), 'a', repeat('b', 400), 'g')) FROM range(30000000, 30000001) AS r(n)", MEMORY, TIME),
        _sql("split into everything", "SELECT len(regexp_extract_all(repeat('ab ', n::INTEGER), '[a-z]+')) FROM range(200000000, 200000001) AS r(n)", MEMORY, TIME),
        _sql("JSON of everything", "SELECT length(json_group_array({'n': n, 's': repeat('x', 100)})::VARCHAR) FROM range(100000000) AS r(n)", MEMORY, TIME),
        _sql("JSON nested a million deep", "SELECT json_structure(repeat('[', 1000000) || repeat(']', 1000000))", "statement_failed", REFUSED, MEMORY, TIME, "worker_died"),
        _sql("JSON of a hundred thousand keys", "SELECT length(json_structure('{' || (SELECT string_agg('\"k' || i || '\":{\"a\":[1]}', ',') FROM range(3000000) AS r(i)) || '}')::VARCHAR)", MEMORY, TIME),
        _sql("a hash table of lists", "SELECT count(*) FROM (SELECT i, list(i) FROM range(200000000) AS r(i) GROUP BY i)", MEMORY, TIME, DISK),
        _sql("an array of a huge type", "SELECT [1]::INTEGER[100000] FROM range(100000)", REFUSED, MEMORY, TIME, "statement_failed"),
        _sql("counted apart", "SELECT count(DISTINCT md5(i::VARCHAR)), count(DISTINCT sha256(i::VARCHAR)) FROM range(1000000000) AS r(i)", MEMORY, TIME, DISK),
    ]


def _of_disk() -> list[Bomb]:
    """What spills to the temp disk until that is full."""
    return [
        _sql("giant sort", "SELECT max(f) FROM (SELECT md5(i::VARCHAR) || repeat('x', 300) AS f FROM range(100000000) AS r(i) ORDER BY f LIMIT 90000000)", DISK, TIME, MEMORY),
        _sql("hash join of everything", "SELECT count(*) FROM range(100000000) a JOIN (SELECT range AS r, md5(range::VARCHAR) AS s FROM range(100000000)) b ON a.range = b.r AND length(b.s) > 3", DISK, TIME, MEMORY),
        _sql("a materialized CTE", "WITH t AS MATERIALIZED (SELECT i, md5(i::VARCHAR) AS s FROM range(100000000) AS r(i)) SELECT count(*) FROM t a, t b WHERE a.i = b.i + 1", DISK, TIME, MEMORY),
        _sql("a window over everything", "SELECT max(x) FROM (SELECT row_number() OVER (PARTITION BY i % 7 ORDER BY hash(i)) AS x, repeat('y', 200) AS p FROM range(100000000) AS r(i)) WHERE p > ''", DISK, TIME, MEMORY),
        _sql("the cube of ten columns", "SELECT count(*) FROM (SELECT " + ", ".join(f"n % {p} AS c{p}" for p in range(90, 100)) + ", count(*) FROM range(3000000) AS r(n) GROUP BY CUBE (" + ", ".join(f"c{p}" for p in range(90, 100)) + "))", DISK, TIME, MEMORY),
    ]


def _nested(before: str, middle: str, after: str, depth: int) -> str:
    return before * depth + middle + after * depth


def _of_text() -> list[Bomb]:
    """What is a bomb to the parser, the binder or the optimizer, or to whoever receives it."""
    clean = (REFUSED, TIME, MEMORY, "statement_failed", "statement_not_allowed", "worker_died")
    fine = (*clean, "answered", ROWS, BYTES)
    return [
        _made("parentheses, 100,000 deep", lambda: _nested("SELECT (", "1", ")", 1)[:7] + _nested("(", "1", ")", 100_000), *clean),
        _made("subqueries, 3,000 deep", lambda: _nested("SELECT * FROM (", "SELECT 1", ")", 3_000), *clean),
        _made("NOT, 200,000 times", lambda: "SELECT " + "NOT " * 200_000 + "true", *clean),
        _made("minus, 200,000 times", lambda: "SELECT " + "- " * 200_000 + "1", *clean),
        _made("AND, 300,000 times", lambda: "SELECT " + " AND ".join(["true"] * 300_000), *fine),
        _made("functions, 20,000 deep", lambda: "SELECT " + _nested("abs(", "1", ")", 20_000), *clean),
        _made("CASE, 5,000 deep", lambda: "SELECT " + _nested("CASE WHEN true THEN ", "1", " END", 5_000), *clean),
        _made("lists, 10,000 deep", lambda: "SELECT " + _nested("[", "1", "]", 10_000), *clean),
        _made("a type, 10,000 deep", lambda: "SELECT NULL::" + _nested("STRUCT(a ", "INTEGER", ")", 10_000), *clean),
        _made("100,000 columns", lambda: "SELECT " + ", ".join(map(str, range(100_000))), *fine),
        _made("10,000 CTEs", lambda: "WITH " + ", ".join(f"c{i} AS (SELECT * FROM {f'c{i - 1}' if i else 'pebbles'})" for i in range(10_000)) + " SELECT count(*) FROM c9999", *fine),
        _made("a union of 20,000", lambda: " UNION ALL ".join(["SELECT 1"] * 20_000), *fine),
        _made("300,000 in a list", lambda: "SELECT count(*) FROM pebbles WHERE n IN (" + ",".join(map(str, range(300_000))) + ")", *fine),
        _made("300,000 rows of VALUES", lambda: "SELECT count(*) FROM (VALUES " + ",".join(f"({i},'x')" for i in range(300_000)) + ")", *fine),
        _made("a literal of 10 MB", lambda: "SELECT length('" + "x" * 10_000_000 + "')", *fine),
        _made("a statement of 100 MB", lambda: "SELECT '" + "x" * 100_000_000 + "'", "body_too_large"),
        _made("a statement longer than it may be", lambda: "SELECT '" + "\u00e9" * 6_500_000 + "'", "body_too_large"),
        _sql("a PIVOT into 100,000 columns", "PIVOT pebbles ON s USING count(*)", *clean),
        _sql("grouping sets without end", "SELECT count(*) FROM pebbles GROUP BY CUBE (" + ", ".join(["n", "g", "s"] * 8) + ")", *clean),
        _sql("macros that double, 2^32 times", "SELECT d5(n) FROM pebbles LIMIT 1", *clean),
        _sql("a regular expression that explodes", "SELECT regexp_matches(s, '((((a{1,100}){1,100}){1,100}){1,100})x') FROM pebbles", *clean),
        _made("200,000 parameters", lambda: "SELECT 1", "parameter_invalid", parameters=[0] * 200_000),
        _made("50,000 parameters", lambda: "SELECT " + " + ".join(["?"] * 50_000), *fine, parameters=[1] * 50_000),
        Bomb("a body nested a million deep", str, ("invalid_request",), body=lambda: b'{"sql":"SELECT ?","parameters":' + b"[" * 1_000_000),
    ]


def _of_answers() -> list[Bomb]:
    """What is a bomb to whoever relays or renders the answer."""
    return [
        _sql("an endless answer", "SELECT i, repeat('x', 500) AS f FROM range(1000000000) AS r(i)", BYTES, TIME),
        _sql("an endless CSV", "SELECT i, repeat('x', 500) AS f FROM range(1000000000) AS r(i)", BROKEN, TIME, format="csv"),
        _sql("an endless NDJSON of small rows", "SELECT i FROM range(100000000000) AS r(i)", BROKEN, TIME, format="ndjson"),
        _sql("endless Arrow", "SELECT i FROM range(100000000000) AS r(i)", ROWS, BYTES, TIME, BROKEN, format="arrow"),
        _sql("Arrow of wide rows", "SELECT i, repeat(md5(i::VARCHAR), 1000) AS f FROM range(1000000000) AS r(i)", BYTES, TIME, MEMORY, BROKEN, format="arrow"),
        _sql("Parquet that compresses badly", "SELECT random() AS a, random() AS b, uuid()::VARCHAR AS c FROM range(1000000000)", BYTES, ROWS, TIME, BROKEN, format="parquet"),
        _sql("one row too large", "SELECT repeat('x', 60000000) AS f", BYTES, MEMORY, TIME),
        _sql("rows of 10 MB", "SELECT repeat('x', 10000000 + i::INTEGER) AS f FROM range(1000000) AS r(i)", BYTES, MEMORY, TIME),
        _sql("wide rows of a thousand columns", "SELECT " + ", ".join(f"n + {i} AS c{i}" for i in range(1_000)) + " FROM range(1000000000) AS r(n)", BYTES, TIME, MEMORY),
        _sql("unnested without end", "SELECT unnest(range(1000000)), i FROM range(1000000000) AS r(i)", ROWS, BYTES, TIME, MEMORY),
        _sql("a client that reads nothing", "SELECT i, repeat('x', 5000) AS f FROM range(2800) AS r(i)", BROKEN, TIME, reads_bytes_per_s=0.0),
        _sql("a client that reads slowly", "SELECT i, repeat('x', 5000) AS f FROM range(2800) AS r(i)", BROKEN, TIME, format="csv", reads_bytes_per_s=1048576.0),
    ]


def _of_writes() -> list[Bomb]:
    """What is sent to the writer: it must end, and cost no other write."""
    late = "write_timed_out"
    return [
        _sql("a write that repeats", "INSERT INTO sink SELECT length(repeat('abc', 300000000 + i::INTEGER)) FROM range(8) AS r(i)", MEMORY, late, door="execute"),
        _sql("a write that joins for ever", "INSERT INTO sink SELECT count(*) FROM range(3000000) a, range(3000000) b, range(3000) c WHERE a.range + b.range = c.range", late, door="execute"),
        _sql("a deaf write", "INSERT INTO sink SELECT levenshtein(repeat('a', 60000), repeat('b', 60000 + n::INTEGER)) FROM range(2) AS r(n)", late, door="execute"),
        _sql("a table of lists", "CREATE TABLE bomb AS SELECT range(n) AS l FROM range(1000000000, 1000000001) AS r(n)", MEMORY, late, door="execute"),
        _sql("a write that spills", "INSERT INTO sink SELECT length(f) FROM (SELECT md5(i::VARCHAR) || repeat('x', 300) AS f FROM range(100000000) AS r(i) ORDER BY f)", DISK, late, MEMORY, door="execute"),
        _sql("a write that crashes the writer", "INSERT INTO sink SELECT length(json_structure(repeat('[', 1000000 + n::INTEGER) || repeat(']', 1000000))::VARCHAR) FROM range(2) AS r(n)", "worker_died", "statement_failed", REFUSED, MEMORY, late, door="execute"),
        _sql("a macro of itself", "CREATE OR REPLACE MACRO itself(x) AS itself(x + 1)", REFUSED, "statement_failed", door="execute"),
    ]


@cache
def arsenal() -> tuple[Bomb, ...]:
    """All of them."""
    return (*_of_time(), *_of_memory(), *_of_disk(), *_of_text(), *_of_answers(), *_of_writes())
