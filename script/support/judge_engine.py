"""Make the lists of what has been judged of DuckDB: `script/judge-engine [--check]`, run with the engine to be judged.

Computing functions are judged in bulk, since they see nothing but their arguments. A function that yields tables, and one
whose name sounds of files, settings or other people's doings, must be named here by somebody who has looked at it; else this
stops and says so.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import duckdb

from pondkeeper.engine import judged
from pondkeeper.engine.functions import SHOWS_PATHS, is_forbidden
from pondkeeper.engine.statements import WRITING_KINDS

FOLDER = Path(judged.__file__).parent
ODD = re.compile(
    r"read|write|file|path|env|http|load|attach|setting|log|exec|query|secret|scan|blob|glob|copy|export|import|url|socket"
    r"|checkpoint|extension|token|auth|session|user|resource|sleep|internal|python|arrow|pandas|network|system|shell|run"
)
# Looked at one by one: they compute from their arguments, or tell of the asking connection alone.
HARMLESS = frozenset(
    """
    current_catalog datetrunc formatreadabledecimalsize formatreadablesize in_search_path __internal_barrier
    __internal_compress_geometry_point __internal_compressed_materialization_cast __internal_decompress_geometry_point
    current_query current_query_id current_user session_user user json_extract_path json_extract_path_text log log10 log2
    parse_dirname parse_dirpath parse_duckdb_log_message parse_filename parse_path path_join pg_conf_load_time pg_sleep
    sleep_ms url_decode url_encode truncate trunc date_trunc json_copy_strftime_if_date json_copy_strftime_if_timestamp
    __internal_compress_integral_ubigint __internal_compress_integral_uinteger __internal_compress_integral_usmallint
    __internal_compress_integral_utinyint __internal_compress_string_hugeint __internal_compress_string_ubigint
    __internal_compress_string_uhugeint __internal_compress_string_uinteger __internal_compress_string_usmallint
    __internal_compress_string_utinyint __internal_decompress_integral_bigint __internal_decompress_integral_hugeint
    __internal_decompress_integral_integer __internal_decompress_integral_smallint __internal_decompress_integral_ubigint
    __internal_decompress_integral_uhugeint __internal_decompress_integral_uinteger
    __internal_decompress_integral_usmallint __internal_decompress_string __internal_json_copy_to_geojson
    __internal_json_copy_to_json __internal_tablefilter_bloom_filter __internal_tablefilter_dynamic
    __internal_tablefilter_optional __internal_tablefilter_prefix_range __internal_tablefilter_selectivity_optional
    """.split()  # noqa: SIM905  # Why: a list of sixty literals is read by nobody
)
# The same for functions that yield tables: contents and shapes of this database, the engine's own lists, the asker's own.
TABLES = frozenset(
    """
    collations copy_database database_size duckdb_approx_database_count duckdb_available_metrics duckdb_columns
    duckdb_connection_count duckdb_constraints duckdb_coordinate_systems duckdb_dependencies duckdb_dialects
    duckdb_eviction_queues duckdb_external_resource_types duckdb_functions duckdb_grammar_extensions duckdb_indexes
    duckdb_extension_repositories duckdb_keywords duckdb_memory duckdb_optimizers duckdb_prepared_statements
    duckdb_profiling_settings duckdb_schemas duckdb_secret_type_parameters duckdb_secret_types duckdb_sequences
    duckdb_table_sample duckdb_tables duckdb_triggers duckdb_types duckdb_variables duckdb_views extension_versions
    functions generate_series histogram histogram_values icu_calendar_names json_each json_tree metadata_info
    pg_timezone_names platform pragma_collations pragma_database_size pragma_metadata_info pragma_platform pragma_show
    pragma_storage_info pragma_table_info pragma_user_agent pragma_version range repeat repeat_row show show_databases
    show_tables show_tables_expanded storage_info summary table_info test_all_types test_vector_types unnest user_agent
    version
    """.split()  # noqa: SIM905  # Why: a list of sixty literals is read by nobody
)
# Reached by PRAGMA alone, a kind of statement that nobody outside may send.
PRAGMAS = "SELECT lower(function_name) FROM duckdb_functions() GROUP BY 1 HAVING bool_and(function_type = 'pragma')"
TABLE_LIKE = (
    "SELECT DISTINCT lower(function_name) FROM duckdb_functions() WHERE function_type IN ('table', 'table_macro')"
)
READ = frozenset({"SELECT", "EXPLAIN", "MULTI"})


def main(arguments: list[str]) -> int:
    found = judged.catalogue()
    with duckdb.connect(":memory:") as connection:
        pragmas = {name for (name,) in connection.execute(PRAGMAS).fetchall()}
        tables = {name for (name,) in connection.execute(TABLE_LIKE).fetchall()}
    verdicts = {name: _verdict(name, pragmas, tables) for name in sorted(found["functions"])}
    if strange := [name for name, verdict in verdicts.items() if verdict is None]:
        sys.stderr.write(f"judged by nobody: {' '.join(strange)}\n")
        return 1
    lists = {
        "functions": verdicts,
        "settings": dict.fromkeys(sorted(found["settings"]), "locked"),
        "statements": {name: _statement(name) for name in sorted(found["statements"])},
    }
    text = json.dumps(lists, indent=0, sort_keys=True) + "\n"
    file = FOLDER / f"{judged.line()}.json"
    if "--check" in arguments:
        return 0 if file.read_text() == text else 1
    file.write_text(text)
    return 0


def _verdict(name: str, pragmas: set[str], tables: set[str]) -> str | None:
    if is_forbidden(name):
        return "refused"
    if name in SHOWS_PATHS:
        return "refused, shows paths"
    if name == "current_setting":
        return "for some settings"
    if name in pragmas:
        return "by PRAGMA only"
    if name in tables:
        return "tells" if name in TABLES else None
    return "computes" if name in HARMLESS or not ODD.search(name) else None


def _statement(name: str) -> str:
    return "reads" if name in READ else "writes" if name in WRITING_KINDS else "refused"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
