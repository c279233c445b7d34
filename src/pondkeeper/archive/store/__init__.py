"""Where the objects of an archive lie: a folder or an S3-compatible bucket, behind one protocol."""
