"""A log that nobody may have to wait for: whoever reads it slowly loses lines, and they are counted."""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from relay.edge.account import Account
from relay.node.logs import AT_ONCE, MOST_RECORDS, MOST_TEXTS, AccessLog, Writer, logging_to


@dataclass
class Pipe:
    """A log's reader."""

    source: int
    sink: int

    def read_all(self) -> str:
        """What was written, once the writer's end is closed."""
        os.close(self.sink)
        self.sink = -1
        parts = []
        while part := os.read(self.source, 65536):
            parts.append(part)
        return b"".join(parts).decode()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    found = Pipe(*os.pipe())
    yield found
    for descriptor in (found.source, found.sink):
        if descriptor >= 0:
            os.close(descriptor)


def test_what_is_said_is_written_in_order(pipe: Pipe) -> None:
    """All of it, by the time that the writer is closed."""
    writer = Writer(pipe.sink)
    for number in range(50):
        assert writer.say(f"{number}\n")
    writer.close(5.0)
    assert pipe.read_all().split() == [str(number) for number in range(50)]


def test_a_reader_that_reads_nothing_halts_nobody(pipe: Pipe) -> None:
    """What does not fit is dropped and counted, and the end does not wait for it."""
    size = fcntl.fcntl(pipe.sink, fcntl.F_SETPIPE_SZ, 4096)
    writer = Writer(pipe.sink)
    said = sum(writer.say("x" * size) for _ in range(MOST_TEXTS + 10))
    assert MOST_TEXTS <= said <= MOST_TEXTS + 2
    assert writer.dropped == MOST_TEXTS + 10 - said
    writer.close(0.01)
    os.close(pipe.source)  # so that the thread ends
    pipe.source = -1
    writer.close(5.0)  # before the number of the descriptor is another's


def test_a_descriptor_that_others_made_non_blocking(pipe: Pipe) -> None:
    """Is waited for like any other: nothing of a long text is lost."""
    fcntl.fcntl(pipe.sink, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(pipe.sink, False)
    writer = Writer(pipe.sink)
    assert writer.say("x" * 100_000)
    found = b""
    while len(found) < 100_000:
        found += os.read(pipe.source, 65536)
    assert found == b"x" * 100_000
    writer.close(5.0)


@pytest.mark.parametrize("form", ["console", "json"])
def test_records_of_logging(pipe: Pipe, form: str) -> None:
    """One line each; as JSON a traceback is a member. Below the level nothing is said."""
    logger = logging.getLogger("relay.test")
    with logging_to(pipe.sink, "warning", form):
        logger.info("too little")
        try:
            raise ValueError("a\nb")
        except ValueError:
            logger.exception("it failed\nbadly")
    text = pipe.read_all()
    assert "too little" not in text
    if form == "json":
        line = json.loads(text)
        assert (line["level"], line["logger"], line["message"]) == ("error", "relay.test", "it failed\nbadly")
        assert line["exception"].endswith("ValueError: a\nb")
    else:
        assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ERROR relay\.test: it failed", text)


async def test_requests_are_written_a_few_at_a_time(pipe: Pipe) -> None:
    """All of them before the end; what waits is bounded, and what is above is counted."""
    writer = Writer(pipe.sink)
    log = AccessLog(writer, "json", False, lambda: 0.0)
    for number in range(MOST_RECORDS + 5):
        log(Account(None, str(number), 0.0))
    assert log.dropped == 5
    reader = asyncio.get_running_loop().run_in_executor(None, _read, pipe.source)
    log.finish()
    await log.run()
    writer.close(5.0)
    os.close(pipe.sink)
    pipe.sink = -1
    lines = (await reader).splitlines()
    told = [int(json.loads(line)["request_id"]) for line in lines]
    assert told == sorted(told)
    assert len(told) + log.dropped == MOST_RECORDS + 5
    assert writer.dropped * AT_ONCE == log.dropped - 5


def _read(descriptor: int) -> str:
    parts = []
    while part := os.read(descriptor, 65536):
        parts.append(part)
    return b"".join(parts).decode()
