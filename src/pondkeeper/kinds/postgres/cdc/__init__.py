"""Change data capture: a PostgreSQL server's own log of changes (logical replication) as rows of the warehouse."""
