"""Imported by a template under test: no wall can be put up here."""

import __main__

__main__.try_walls = lambda: {"files": "not in this kernel", "calls": ""}
