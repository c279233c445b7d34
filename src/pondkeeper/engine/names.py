"""How people name a table. No DuckDB here: whoever checks a request needs it too."""

from __future__ import annotations

import re
from typing import Final

from pondkeeper.errors import InvalidRequest

KEEPERS_SCHEMA: Final = "_pondkeeper"
MAX_NAME_CHARS: Final = 1000
# A name as it is, or in double quotes, where a doubled one stands for itself.
_NAME: Final = re.compile(r'"(?P<quoted>(?:[^"]|"")+)"|(?P<plain>[^".]+)')


def table_name(text: str) -> tuple[str, str]:
    """`table` or `schema.table`; a name with a dot in it in double quotes. Raises InvalidRequest."""
    names, position = [], 0
    while position <= len(text):
        found = _NAME.match(text, position)
        if found is None or (found.end() < len(text) and text[found.end()] != "."):
            break
        names.append(found["plain"] or found["quoted"].replace('""', '"'))
        position = found.end() + 1
    if position != len(text) + 1 or len(names) > 2 or any(len(name) > MAX_NAME_CHARS or "\0" in name for name in names):
        raise InvalidRequest(
            f"{text[:100]!r} names no table.", remedy='Write table or schema.table; a name with a dot in it as "na.me".'
        )
    schema, table = names if len(names) == 2 else ("main", names[0])
    if schema.lower() == KEEPERS_SCHEMA:
        raise InvalidRequest(f"The schema {schema!r} belongs to the keeper.", remedy="Load into another schema.")
    return schema, table
