"""Programs on the keeper's own machine that open database files themselves, in their turn."""
