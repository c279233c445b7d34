"""Jobs of the kind `postgres`: tables of a PostgreSQL server."""
