"""In which line a key stands: for every way in which TOML lets one write it."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pondkeeper.settings.toml_lines import lines_of_keys

TEXT = '''# a comment with [brackets] and a = 1
[readers]
count = 1
"max_rows" = 5  # and = more

[jobs.sync]
sql = """
select 1 as x   # no comment
where = 'not a key'
[not.a.table]
"""
raw = \'\'\'
[neither.this]
it's = 1\'\'\'
list = [
  "a", # one
  "b]", 'c',
]
notify = { url = "https://x/#y", on = ["failure"] }
environment.HOME = "/x"

[[jobs.sync.tables]]
name = "orders"

[[jobs.sync.tables]]
name = "lines"
[jobs.sync.tables.types]
price = "DOUBLE"

[ jobs . "other" ]
kind = "command"
'''


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("readers", 2), ("readers.count", 3), ("readers.max_rows", 4), ("jobs.sync", 6), ("jobs.sync.sql", 7),
        ("jobs.sync.raw", 12), ("jobs.sync.list", 15), ("jobs.sync.list.1", 17), ("jobs.sync.notify", 19),
        ("jobs.sync.notify.on", 19), ("jobs.sync.environment.HOME", 20), ("jobs.sync.tables.0.name", 23),
        ("jobs.sync.tables.1", 25), ("jobs.sync.tables.1.name", 26), ("jobs.sync.tables.1.types.price", 28),
        ("jobs.other", 30), ("jobs.other.kind", 31),
    ],
)  # fmt: skip
def test_each_way_of_writing_a_key_has_its_line(key: str, line: int) -> None:
    """Strings of several lines, comments, arrays, inline tables and arrays of tables do not lead astray."""
    tomllib.loads(TEXT)

    assert lines_of_keys(TEXT)[key] == line


def test_what_stands_in_strings_is_no_key() -> None:
    """SQL in a string of several lines has `where = …` in it, and that is none of ours."""
    assert not [key for key in lines_of_keys(TEXT) if "where" in key or "not" in key.split(".") or "neither" in key]


def keys_of(value: Any, prefix: str = "") -> set[str]:
    """Every dotted key of what tomllib read."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return {prefix + str(key) for key, _ in items} | {
        found for key, below in items for found in keys_of(below, f"{prefix}{key}.")
    }


names = st.text("abcxyz_-", min_size=1, max_size=5)
scalars = st.sampled_from(["1", "true", '"a = [1]"', "'# no'", '"""\nx = 1\n"""', "'''a\n''b''''", "1979-05-27 07:32:00", '"\\""', '""'])
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3).map(lambda parts: "[" + ",\n# c ]\n".join(parts) + "]")
    | st.dictionaries(names, scalars.filter(lambda text: "\n" not in text), max_size=3).map(
        lambda table: "{ " + ", ".join(f"{key} = {value}" for key, value in table.items()) + " }"
    ),
    max_leaves=6,
)
tables = st.dictionaries(names, values, max_size=4)


@given(st.dictionaries(names, tables, max_size=4), st.sampled_from(["\n", "\r\n"]))
def test_all_keys_of_any_document_are_found(document: dict[str, dict[str, str]], newline: str) -> None:
    """What tomllib finds has a line, and the line that is said has the key in it."""
    text = "".join(
        f"[{name}] # [x]\n" + "".join(f"  {key} = {value} # y = 2\n" for key, value in table.items()) for name, table in document.items()
    ).replace("\n", newline)
    found = lines_of_keys(text)
    lines = text.split("\n")

    assert keys_of(tomllib.loads(text)) <= set(found)
    assert all(key.rpartition(".")[2] in lines[line - 1] for key, line in found.items() if not key.rpartition(".")[2].isdecimal())


@given(st.text("[]{}=\"'#\n a.,\\", max_size=60))
def test_what_is_no_toml_is_survived(text: str) -> None:
    """It ends, whatever it is given."""
    lines_of_keys(text)
