"""What differs between SQLite and PostgreSQL: how to connect, counters that add up, and what an error means.

The only room that knows the drivers. Nothing of an address but its dialect leaves it: it may hold a password.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from sqlalchemy import URL, Engine, Table, create_engine, event
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlalchemy.sql.dml import Insert

from relay.registry.connections import Pool, Waiting
from relay.registry.errors import Conflict, NotAllowed, RegistryError, SchemaError, Unavailable

Dialect = Literal["sqlite", "postgresql"]
Role = Literal["reader", "writer", "builder"]
ERRORS = (SQLAlchemyError, sqlite3.Error, OSError, UnicodeEncodeError)

AWAY = "The database cannot be reached; try again in a moment."
LATE = "The database did not answer in time; try again in a moment."
LOCKED = "The database was locked by another writer for too long; try again in a moment."
FULL = "The disk of the database is full; make room there and try again."
STRANGE = "A text that was sent holds a character that the database cannot store."
FORM = "The database address must be sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME."


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds, and how many connections may read at once."""

    connect: float = 3.0
    statement: float = 5.0
    lock: float = 10.0
    readers: int = 4


LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a database is."""

    dialect: Dialect
    path: Path = field(default_factory=Path)
    """Of an SQLite database."""
    dsn: str = field(default="", repr=False)
    """Of a PostgreSQL database, as libpq understands it."""

    @classmethod
    def of(cls, url: str) -> Place:
        """Raises RegistryError for an address of another form, without repeating it."""
        scheme, found, rest = url.strip().partition("://")
        if not found or "\0" in rest:
            raise RegistryError(FORM)
        if scheme in {"sqlite", "sqlite+aiosqlite"} and len(rest) > 1 and rest[0] == "/" and rest[1] not in ":?":
            return cls("sqlite", path=Path(rest[1:]))
        if scheme in {"postgres", "postgresql", "postgresql+asyncpg"} and rest:
            return cls("postgresql", dsn=f"postgresql://{rest}")
        raise RegistryError(FORM)


# ------------------------------------------------------------------------------------------------- connecting


def engine(place: Place, limits: Limits, role: Role, size: int = 1) -> Pool:
    """A small pool. A reader cannot write; a writer begins as one; a builder changes the schema, and may take long."""
    pool: dict[str, Any] = {
        "poolclass": AsyncAdaptedQueuePool,
        "pool_size": size,
        "max_overflow": 0,
        "pool_timeout": limits.connect,
        "hide_parameters": True,
    }
    if place.dialect == "sqlite":
        return _sqlite(place, limits, role, pool)
    # Readers see one moment in all queries of a transaction; a writer sees what the one before it committed.
    level = "REPEATABLE READ" if role == "reader" else "READ COMMITTED"
    made = _postgresql(place, limits, role, pool)
    return Pool(made.execution_options(isolation_level=level, postgresql_readonly=role == "reader"))


def _sqlite(place: Place, limits: Limits, role: Role, pool: Mapping[str, Any]) -> Pool:
    file, _, mode = _uri(place).partition("?mode=")
    url = URL.create("sqlite+aiosqlite", database=file, query={"mode": mode, "uri": "true"})
    made = create_engine(url, connect_args={"timeout": limits.lock, "isolation_level": None}, **pool)

    def connected(connection: Any, record: object) -> None:  # noqa: ANN401
        cursor = connection.cursor()
        for pragma in (*SQLITE_PRAGMAS, *SQLITE_PRAGMAS_OF[role]):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    def begun(connection: Any) -> None:  # noqa: ANN401
        # A deferred transaction that turns into a writer fails at once when another one writes, whatever the timeout.
        how = "BEGIN" if role == "reader" else "BEGIN IMMEDIATE"
        connection.connection.dbapi_connection.run_async(lambda driver: driver.execute(how))

    event.listen(made, "connect", connected)
    event.listen(made, "begin", begun)
    return Pool(made)


SQLITE_PRAGMAS = ("synchronous=FULL", "temp_store=MEMORY", f"journal_size_limit={64 * 2**20}")
SQLITE_PRAGMAS_OF: Mapping[Role, tuple[str, ...]] = {
    "reader": ("query_only=ON",),
    "writer": ("foreign_keys=ON",),
    "builder": ("foreign_keys=OFF",),  # a table is altered by making another one in its place
}


def _postgresql(place: Place, limits: Limits, role: Role, pool: Mapping[str, Any]) -> Engine:
    import asyncpg  # here: most relays have SQLite, and start faster without

    server_settings = {
        "application_name": "relay",
        "lock_timeout": _milliseconds(limits.lock),
        # A node that froze with the ledger in its hand must not stop the others for ever.
        "idle_in_transaction_session_timeout": _milliseconds(limits.lock),
        "statement_timeout": "0" if role == "builder" else _milliseconds(limits.lock + limits.statement),
    }

    async def connect() -> asyncpg.Connection[Any]:
        try:
            return await asyncpg.connect(place.dsn, timeout=limits.connect, server_settings=server_settings)
        except (ValueError, asyncpg.ClientConfigurationError):  # in words that repeat parts of the address
            raise RegistryError(FORM) from None

    def creator() -> Any:  # noqa: ANN401
        return made.dialect.loaded_dbapi.connect(async_creator_fn=connect)

    made = create_engine("postgresql+asyncpg://", creator=creator, pool_pre_ping=True, pool_recycle=1800, **pool)
    return made


def probe(place: Place) -> None:
    """Raises Unavailable when an SQLite file cannot be opened: aiosqlite would complain of it from a thread as well."""
    if place.dialect == "sqlite":
        with border():
            connection = sqlite3.connect(_uri(place), uri=True)
            try:
                connection.execute("PRAGMA schema_version").fetchone()
            finally:
                connection.close()


def _uri(place: Place) -> str:
    # mode=rw: a file that is missing is an error here, not a new and empty database.
    return f"file:{quote(str(place.path))}?mode=rw"


def _milliseconds(seconds: float) -> str:
    return str(int(seconds * 1000))


async def stop(connection: Waiting, task: asyncio.Task[Any]) -> None:
    """Has what a task does on a connection come to its end soon; it may still take a while."""
    if connection.dialect.name != "sqlite":
        task.cancel()
        return
    # A task that is cancelled leaves its statement to a thread, whose cursor nobody closes then: the database would
    # stay locked until the garbage is collected. So the statement is interrupted, and the task goes on to hear of it.
    held = connection.sync_connection
    driver: Any = None if held is None or task.done() else held.connection.driver_connection
    if driver is not None:
        await driver.interrupt()


def insert_or_add(dialect: str, table: Table, counters: tuple[str, ...]) -> Insert:
    """An INSERT that adds the counters to those of a row that is there already."""
    key = [column.name for column in table.primary_key]
    if dialect == "sqlite":
        new = sqlite_insert(table)
        return new.on_conflict_do_update(key, set_={one: table.c[one] + new.excluded[one] for one in counters})
    from sqlalchemy.dialects.postgresql import insert as postgresql_insert

    other = postgresql_insert(table)
    return other.on_conflict_do_update(
        index_elements=key, set_={one: table.c[one] + other.excluded[one] for one in counters}
    )


# ----------------------------------------------------------------------------------------------------- errors


@contextmanager
def border() -> Iterator[None]:
    """Foreign exceptions come out as this package's own, without the query, its parameters, or the address."""
    try:
        yield
    except _foreign() as error:
        raise explain(error) from None


def _foreign() -> tuple[type[BaseException], ...]:
    """What may be raised behind the border; of a driver that nobody loaded, nothing can be."""
    asyncpg = sys.modules.get("asyncpg")
    return ERRORS if asyncpg is None else (*ERRORS, asyncpg.PostgresError, asyncpg.InterfaceError)


def explain(error: BaseException) -> RegistryError:
    """What a driver's exception means to whoever asked."""
    cause: BaseException = error
    if isinstance(error, DBAPIError) and error.orig is not None:
        cause = error.orig
    code = getattr(cause, "sqlite_errorcode", None)
    if isinstance(code, int):
        return _explain_sqlite(code)
    state = getattr(cause, "sqlstate", None)
    if isinstance(state, str):
        return _explain_postgresql(state)
    if isinstance(cause, UnicodeEncodeError) or isinstance(error, DataError):
        return NotAllowed("text", STRANGE)
    if isinstance(error, IntegrityError):
        return Conflict("conflict", "That is in conflict with what the registry has.")
    if isinstance(cause, OSError) and cause.errno in {28, 122}:  # ENOSPC, EDQUOT
        return Unavailable(FULL)
    return Unavailable(LATE if isinstance(cause, TimeoutError | PoolTimeout) else AWAY)


def _explain_sqlite(code: int) -> RegistryError:
    base = code & 0xFF
    if base in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return Unavailable(LOCKED)
    if base == sqlite3.SQLITE_FULL:
        return Unavailable(FULL)
    if base == sqlite3.SQLITE_IOERR:
        return Unavailable("The database's file cannot be read or written; check its disk, and try again.")
    if base in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_AUTH}:
        return Unavailable("The database's file cannot be opened for writing; check that it exists and whose it is.")
    if base in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return Unavailable("The database's file is damaged or no database; restore it from a backup.")
    if base == sqlite3.SQLITE_CONSTRAINT:
        return Conflict("conflict", "That is in conflict with what the registry has.")
    if code == sqlite3.SQLITE_ERROR:  # above all: no such table or column
        return SchemaError("The database's schema does not fit this relay; run `relay db upgrade`.")
    return Unavailable(f"SQLite failed with the error {code}; try again in a moment.")


def _explain_postgresql(state: str) -> RegistryError:
    if state.startswith("22"):
        return NotAllowed("text", STRANGE)
    if state.startswith("23"):
        return Conflict("conflict", "That is in conflict with what the registry has.")
    if state in {"42P01", "42703", "3F000"}:
        return SchemaError("The database's schema does not fit this relay; run `relay db upgrade`.")
    if state == "3D000":
        return Unavailable("The server has no database of that name; create it, and try again.")
    if state.startswith("28") or state == "42501":
        return Unavailable("The database refused this relay's user; check the user, the password and its rights.")
    if state == "53100":
        return Unavailable(FULL)
    if state in {"55P03", "40P01", "40001"}:
        return Unavailable(LOCKED)
    if state == "57014":
        return Unavailable(LATE)
    if state[:2] in {"08", "53", "57"}:
        return Unavailable(AWAY)
    return Unavailable(f"The database failed with the error {state}; look into its log, and try again.")
