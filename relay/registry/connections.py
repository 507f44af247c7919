"""SQLAlchemy's connections for a program that waits: pools, connections, what runs on them. It knows no database.

SQLAlchemy has a package for this, which brings its object-relational mapper along: 7 MiB and a quarter of the time of a
start, for what is not used here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

from sqlalchemy import Connection, CursorResult, Engine
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.base import Executable
from sqlalchemy.util import greenlet_spawn

T = TypeVar("T")
Parameters = Mapping[str, Any] | Sequence[Mapping[str, Any]]


class Waiting:
    """A connection, once it is started. Each of its methods raises SQLAlchemy's errors and the driver's."""

    def __init__(self, engine: Engine) -> None:
        self.sync_connection: Connection | None = None
        self._engine = engine

    @property
    def dialect(self) -> Dialect:
        """Of the database."""
        return self._engine.dialect

    async def start(self) -> None:
        """Takes one from the pool, which waits for one that is free."""
        self.sync_connection = await greenlet_spawn(self._engine.connect)

    async def execute(
        self, statement: Executable, parameters: Parameters | None = None
    ) -> CursorResult[*tuple[Any, ...]]:
        """The whole answer; the first statement begins a transaction."""
        found: CursorResult[*tuple[Any, ...]] = await greenlet_spawn(self._started.execute, statement, parameters)
        return found

    async def run_sync(self, work: Callable[[Connection], T]) -> T:
        """What a function finds that does not know of waiting."""
        return await greenlet_spawn(work, self._started)

    async def commit(self) -> None:
        """Ends the transaction; what it changed stays."""
        await greenlet_spawn(self._started.commit)

    async def close(self) -> None:
        """Gives it back to the pool; what was not committed is undone."""
        if self.sync_connection is not None:
            await greenlet_spawn(self.sync_connection.close)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        closing = asyncio.ensure_future(self.close())
        try:
            await asyncio.shield(closing)
        finally:
            if not closing.done():  # cancelled: whoever does that may end the pool next
                await asyncio.wait({closing})

    @property
    def _started(self) -> Connection:
        assert self.sync_connection is not None, "not started"
        return self.sync_connection


class Pool:
    """A few connections to one database, made when they are needed."""

    def __init__(self, engine: Engine) -> None:
        self.sync_engine = engine

    def connect(self) -> Waiting:
        """One that is not started yet."""
        return Waiting(self.sync_engine)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Waiting]:
        """One in a transaction, which is committed at the end, and undone if there is an error."""
        async with self.connect() as connection:
            await connection.run_sync(Connection.begin)
            yield connection
            await connection.commit()

    async def dispose(self) -> None:
        """Ends all connections that nobody holds."""
        await greenlet_spawn(self.sync_engine.dispose)
