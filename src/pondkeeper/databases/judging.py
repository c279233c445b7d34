"""Whether the engine that is installed is one that was judged; asked of a child, since the keeper never loads it."""

from __future__ import annotations

import asyncio

import structlog

from pondkeeper.errors import EngineUnjudged
from pondkeeper.workers.child import ChildGone
from pondkeeper.workers.spawning import ChildSpec, Template

ENTRY = "pondkeeper.readers.judging"
TIMEOUT_S = 60.0
NAMED = 20
_log = structlog.get_logger(__name__)


async def judge_engine(template: Template, mode: str) -> None:
    """Warn of what nobody has judged; in strict mode raise EngineUnjudged."""
    child = await template.spawn(ChildSpec("judge", ENTRY, {}))
    try:
        async with asyncio.timeout(TIMEOUT_S):
            frame = await child.next_frame()
    except (ChildGone, TimeoutError) as error:
        frame = {"line": "unknown", "unjudged": {"the engine as a whole": [repr(error)]}}
    finally:
        child.close()
        child.kill()
        await asyncio.shield(child.exited)
    if not isinstance(frame, dict) or not frame["unjudged"]:
        return
    beyond = {
        kind: [*names[:NAMED], *(["…"] if len(names) > NAMED else [])] for kind, names in frame["unjudged"].items()
    }
    if mode == "strict":
        named = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in beyond.items())
        raise EngineUnjudged(f"Nobody has judged what DuckDB {frame['line']} has here: {named}.")
    _log.warning(
        "DuckDB has what nobody has judged: guests may reach further than they should", **frame | {"unjudged": beyond}
    )
