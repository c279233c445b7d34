"""Jobs: configured pieces of work, when they are due, and the processes that carry them out."""
