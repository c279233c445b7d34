"""The bodies of requests by which replicas fetch."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, Struct

from pondkeeper.archive.replica.feed import MAX_BLOCKS_ASKED

MAX_PAGES_ASKED: Final = 256
_Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
_Replica = Annotated[str, Meta(min_length=1, max_length=100)]


class PagesBody(Struct, forbid_unknown_fields=True, frozen=True):
    """Pages of a tree by their digests; `replica`: the name by which the replica calls itself."""

    replica: _Replica
    digests: Annotated[list[_Digest], Meta(min_length=1, max_length=MAX_PAGES_ASKED)]


class BlocksBody(Struct, forbid_unknown_fields=True, frozen=True):
    """Blocks by their digests."""

    replica: _Replica
    digests: Annotated[list[_Digest], Meta(min_length=1, max_length=MAX_BLOCKS_ASKED)]
