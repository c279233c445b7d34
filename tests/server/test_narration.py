"""The log has no secrets, waits for nobody, and is for people or for programs."""

from __future__ import annotations

import io
import json
import logging
import os
import threading
import time
from collections.abc import Iterator

import pytest
import structlog

from pondkeeper.server.narration import narrate
from pondkeeper.settings import LogSettings

TOKEN = "pk_abcdefghijkl_" + "S3cret" * 7 + "x"


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    before, level = root.handlers, root.level
    yield
    root.handlers, root.level = before, level
    structlog.reset_defaults()


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_token_is_ever_written(form: str) -> None:
    """Wherever a token gets into a line, only its public id comes out; also in a traceback."""
    stream = io.StringIO()
    writer = narrate(LogSettings(format=form), stream)
    log = structlog.get_logger("test")
    log.info("made", key=TOKEN, nested={"of": [TOKEN]}, authorization="Bearer x", token="y")
    log.info(f"path /v1/keys/{TOKEN}")
    logging.getLogger("somebody.else").warning("they say %s", TOKEN)
    try:
        raise ValueError(TOKEN)
    except ValueError:
        log.exception("failed")
    writer.close()
    text = stream.getvalue()
    assert "S3cret" not in text
    assert "Bearer x" not in text
    assert text.count("pk_abcdefghijkl_") == 5
    assert "Traceback" in text


def test_lines_for_programs_are_json_with_level_and_time() -> None:
    """Every line is one JSON object, from us and from libraries; below the level nothing is said."""
    stream = io.StringIO()
    writer = narrate(LogSettings(format="auto", level="warning"), stream)
    structlog.get_logger().info("too little")
    structlog.get_logger().warning("enough", count=3)
    logging.getLogger("library").error("theirs")
    writer.close()
    ours, theirs = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert (ours["event"], ours["level"], ours["count"]) == ("enough", "warning", 3)
    assert theirs["event"] == "theirs"
    assert ours["timestamp"].endswith("Z")


def test_log_that_nobody_reads_stops_nobody() -> None:
    """A full pipe does not hold up who writes to the log; when it is read again, it says how much was dropped."""
    reading, writing = os.pipe()
    with os.fdopen(reading) as pipe, os.fdopen(writing, "w") as stream:
        writer = narrate(LogSettings(format="json"), stream)
        log = structlog.get_logger()
        began = time.monotonic()
        for number in range(15_000):
            log.info("a line that is long enough to fill a pipe soon", number=number)
        assert time.monotonic() - began < 30
        events = [json.loads(pipe.readline())["event"] for _ in range(5000)]
        reader = threading.Thread(target=lambda: events.extend(json.loads(line)["event"] for line in pipe))
        reader.start()
        writer.close()
        stream.close()
        reader.join(10)
    assert "log lines were dropped" in events
    assert 10_000 <= len(events) < 15_000
