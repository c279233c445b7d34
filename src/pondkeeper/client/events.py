"""Server-sent events as a client reads them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import msgspec

from pondkeeper.client.transport import lost


def events_of(response: httpx.Response) -> Iterator[tuple[str | None, dict[str, Any]]]:
    """The id and the data of each event; raises AnswerIncomplete when the connection is lost."""
    event_id: str | None = None
    data: list[str] = []
    try:
        for line in response.iter_lines():
            if line.startswith("id:"):
                event_id = line[3:].strip()
            elif line.startswith("data:"):
                data.append(line[5:].strip())
            elif not line and data:
                yield event_id, msgspec.json.decode("\n".join(data))
                data = []
    except httpx.HTTPError as error:
        raise lost(error) from error
    finally:
        response.close()
