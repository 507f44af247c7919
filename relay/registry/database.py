"""Transactions: many readers, one writer after another, a deadline on everything, nothing leaked when cancelled.

A writer waits in line inside this process (first come, first served), then locks the ledger, which keeps out writers of
other processes. What it read after that cannot change under it, so no rule of the registry can be raced.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Row, select, text, update
from sqlalchemy.sql.base import Executable

from relay.registry.connections import Parameters, Pool, Waiting
from relay.registry.dialects import LATE, LIMITS, LOCKED, Limits, Place, border, engine, probe, stop
from relay.registry.errors import RegistryError, SchemaError, Unavailable
from relay.registry.schema import LEDGER
from relay.registry.timing import Timing

T = TypeVar("T")
SEQUENCES = (LEDGER.c.revocation_seq, LEDGER.c.keys_seq, LEDGER.c.names_seq)
LOCK = select(LEDGER.c.audit_seq, LEDGER.c.audit_hash, *SEQUENCES).with_for_update()
STORE = update(LEDGER)
MOVED = (
    "The database's file is not the one any more that the relay opened: put that one back, or restart the relay to "
    "work with what is there now."
)


@dataclass(slots=True)
class Ledger:
    """The registry's counters, and the end of the audit's chain."""

    audit_seq: int
    audit_hash: str
    revocation_seq: int
    keys_seq: int
    names_seq: int


class Held:
    """A connection in somebody's hands. Each use ends by its deadline, also where the driver does not hear of it."""

    def __init__(self, connection: Waiting) -> None:
        self.connection = connection
        self._left: set[asyncio.Task[Any]] = set()

    async def use(self, work: Coroutine[Any, Any, T], seconds: float) -> T:
        """The result of `work`; if it is late, or the caller is cancelled, it is given up. Raises RegistryError."""
        task = asyncio.create_task(work)
        self._left.add(task)
        try:
            done, _ = await asyncio.wait({task}, timeout=seconds)
            if not done:
                raise Unavailable(LATE)
        except (asyncio.CancelledError, Unavailable):
            self._left.add(asyncio.create_task(stop(self.connection, task)))
            raise
        self._left.discard(task)
        with border():
            return task.result()

    @property
    def given_up(self) -> bool:
        """Whether something may still be using it."""
        return bool(self._left)

    async def end(self) -> None:
        """Rolls back what was not committed, once nothing uses the connection any more; never raises."""
        if self._left:
            await asyncio.wait(self._left)
            for task in self._left:
                task.cancelled() or task.exception()
        try:
            with border():
                await self.connection.close()
        except RegistryError:  # it was dead already, which is what ended the transaction
            pass


class Reading:
    """Queries inside one transaction. Each raises the errors of this package only."""

    def __init__(self, held: Held, dialect: str, limits: Limits) -> None:
        self._held = held
        self.dialect = dialect
        self._limits = limits

    async def rows(self, statement: Executable, parameters: Parameters | None = None) -> Sequence[Row[Any]]:
        """All rows of the answer."""
        result = self._held.connection.execute(statement, parameters)
        return (await self._held.use(result, self._limits.statement)).all()

    async def row(self, statement: Executable, parameters: Parameters | None = None) -> Row[Any] | None:
        """The first row, None without any."""
        return next(iter(await self.rows(statement, parameters)), None)


class Writing(Reading):
    """As `Reading`, and changes; `ledger` may be changed and is stored at the end."""

    def __init__(self, held: Held, dialect: str, limits: Limits, ledger: Ledger) -> None:
        super().__init__(held, dialect, limits)
        self.ledger = ledger

    async def run(self, statement: Executable, parameters: Parameters | None = None) -> int:
        """How many rows were changed."""
        result = self._held.connection.execute(statement, parameters)
        return int(getattr(await self._held.use(result, self._limits.statement), "rowcount", 0))


class Database:
    """One database with its few connections."""

    def __init__(self, place: Place, limits: Limits) -> None:
        self.dialect = place.dialect
        self.reads, self.writes = Timing(), Timing()
        self._limits = limits
        self._writer = engine(place, limits, "writer")
        self._readers = engine(place, limits, "reader", limits.readers)
        self._turn = asyncio.Lock()
        self._file = place.path if place.dialect == "sqlite" else None
        self._identity = _identity(self._file)
        self._endings: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(cls, url: str, limits: Limits = LIMITS) -> Database:
        """Raises RegistryError for an address of no known form, and as `reading` when the database is away."""
        place = Place.of(url)
        await asyncio.to_thread(probe, place)
        database = cls(place, limits)
        try:
            async with database.reading() as read:
                await read.rows(text("SELECT 1"))
        except BaseException:
            await database.close()
            raise
        return database

    async def close(self) -> None:
        """Ends every connection; never raises."""
        if self._endings:
            await asyncio.wait(self._endings, timeout=self._limits.statement)
        for one in (self._readers, self._writer):
            try:
                with border():
                    async with asyncio.timeout(self._limits.statement):
                        await one.dispose()
            except Unavailable:
                pass

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Reading]:
        """A transaction that sees one moment and changes nothing. Raises Unavailable."""
        with self.reads.one():
            async with self._held(self._readers) as held:
                yield Reading(held, self.dialect, self._limits)

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[Writing]:
        """The only writer, until the end; all or nothing. Raises Unavailable."""
        with self.writes.one():
            try:
                async with asyncio.timeout(self._limits.lock):
                    await self._turn.acquire()
            except TimeoutError:
                raise Unavailable(LOCKED) from None
            try:
                async with self._held(self._writer) as held:
                    ledger = await self._lock(held)
                    before = asdict(ledger)
                    write = Writing(held, self.dialect, self._limits, ledger)
                    yield write
                    if asdict(ledger) != before:
                        await write.run(STORE, asdict(ledger))
                    await held.use(held.connection.commit(), self._limits.statement)
            finally:
                self._turn.release()

    async def _lock(self, held: Held) -> Ledger:
        locking = held.connection.execute(LOCK)
        # The database's own deadline for a lock comes first: it says more.
        row = (await held.use(locking, self._limits.lock + 2)).one_or_none()
        if row is None:
            raise SchemaError("The database has no ledger; restore it from a backup.")
        return Ledger(*row)

    @asynccontextmanager
    async def _held(self, pool: Pool) -> AsyncIterator[Held]:
        if self._file is not None and _identity(self._file) != self._identity:
            # Its connections would go on with the file that was taken away, and what they write be lost.
            raise Unavailable(MOVED)
        held = Held(pool.connect())
        try:
            await held.use(held.connection.start(), self._limits.connect)
            yield held
        finally:
            # Goes on by itself when the caller is cancelled or something was given up.
            ending = asyncio.create_task(held.end())
            self._endings.add(ending)
            ending.add_done_callback(self._endings.discard)
            if not held.given_up:
                await asyncio.wait({ending}, timeout=self._limits.statement)


def _identity(file: Path | None) -> tuple[int, int] | None:
    """By what a file is known, whatever its name."""
    if file is None:
        return None
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
