"""What happens inside the process of a run: its supervisor, what a kind of job is given, and the kinds."""
