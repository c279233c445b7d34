"""Jobs of the kind `dlt`: any source of dlt, extracted beside everything else and loaded in one transaction."""
