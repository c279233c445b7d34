"""Jobs of the kind `download`: the rows of a query name URLs, each becomes a file, and the database is told in batches."""
