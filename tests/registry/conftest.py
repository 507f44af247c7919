"""Every test that takes `here` runs on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.registry.world import World, world
from tests.support.databases import (
    database_url,
    empty_url,
    fresh_postgres_url,
    fresh_url,
    postgres,
    postgres_template,
    postgres_url,
    sqlite_template,
    sqlite_url,
)

__all__ = [
    "database_url",
    "empty_url",
    "fresh_postgres_url",
    "fresh_url",
    "postgres",
    "postgres_template",
    "postgres_url",
    "sqlite_template",
    "sqlite_url",
]


@pytest.fixture
async def here(database_url: str) -> AsyncIterator[World]:
    """A registry with an operator, on one database and on the other."""
    async with world(database_url) as made:
        yield made


class Writer:
    """tests.registry.writer, as a process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    async def order(self, line: str, url: str) -> int:
        """The id of the process that carries it out."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line} {url}\n")
        self._process.stdin.flush()
        return int((await self.answer()).removeprefix("pid "))

    async def answer(self) -> str:
        assert self._process.stdout is not None
        async with asyncio.timeout(60):
            line = await asyncio.to_thread(self._process.stdout.readline)
        assert line, "the writer ended"
        return line.strip()


@pytest.fixture(scope="session")
def program() -> Iterator[Writer]:
    """A second program, for all databases."""
    arguments = [sys.executable, "-m", "tests.registry.writer"]
    root = Path(__file__).parents[2]
    with subprocess.Popen(arguments, cwd=root, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield Writer(process)
            assert process.stdin is not None
            process.stdin.close()
            process.wait(10)
        finally:
            if process.poll() is None:
                process.kill()
