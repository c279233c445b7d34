"""Content-addressed history of snapshots: backups, points in time, what replicas fetch."""
