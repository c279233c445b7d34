"""Jobs of the kind `dbt`: a dbt project through dbt-duckdb, read beside everything else and built under a lease."""
