"""What the settings of a job of the kind `postgres` refuse before anything runs."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pondkeeper.jobs.kinds_settings.postgres import PostgresSettings

GOOD = {"source": "postgresql://sync@db.example/shop", "tables": ["orders"]}


def problems(**settings: Any) -> list[str]:
    """The keys that are refused."""
    return [key for key, _ in msgspec.convert(GOOD | settings, PostgresSettings).problems()]


@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        ({}, []),
        ({"source": "postgresql://sync:hunter2@db.example/shop"}, ["source"]),
        ({"source": "host=db.example user=sync password=hunter2"}, ["source"]),
        ({"source": "postgresql://sync@db.example:5432/shop?sslmode=verify-full", "password": "env:SHOP"}, []),
        ({"mode": "incremental"}, ["mode"]),
        ({"mode": "incremental", "cursor": "updated_at"}, []),
        ({"mode": "incremental", "table": [{"name": "public.orders", "cursor": "updated_at"}]}, []),
        ({"deletes": "tombstone"}, ["deletes"]),
        ({"deletes": "tombstone", "tombstone": "gone"}, []),
        ({"table": [{"name": "orders", "deletes": "tombstone"}]}, ["table"]),
        ({"table": [{"name": "orders", "mode": "incremental"}]}, ["table"]),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], refused: list[str]) -> None:
    """A password in the source, a mode or a way to find deletes without the column that it needs."""
    assert problems(**settings) == refused


def test_no_problem_says_the_password() -> None:
    """The message about a password in the source does not repeat it."""
    settings = msgspec.convert(GOOD | {"source": "postgresql://sync:hunter2@db.example/shop"}, PostgresSettings)
    assert "hunter2" not in " ".join(text for _, text in settings.problems())
