"""Positions in PostgreSQL's log: 64-bit numbers, written as two hexadecimal halves."""

from __future__ import annotations


def parse_lsn(text: str) -> int:
    """The number of `16/B374D848`."""
    high, _, low = text.partition("/")
    return int(high, 16) << 32 | int(low, 16)


def format_lsn(position: int) -> str:
    """The number as PostgreSQL writes it."""
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"
