"""Pondkeeper keeps DuckDB files in production."""

__version__ = "0.1.0"
