"""The schema of a database: which one it has, and the steps of `migrations/` up and down, each time all or nothing.

All steps are one transaction of the database under its own lock, so two relays that start at once do not meet, and one
that is killed leaves the schema as it was. At a start an empty database gets the newest schema without steps: Alembic,
imported only where there is one to take, would stay in memory. The functions wait for the database: beside a running
event loop they belong into a thread.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, inspect, text

import relay
from relay.registry import schema
from relay.registry.connections import Waiting
from relay.registry.dialects import LIMITS, Limits, Place, border, engine, probe
from relay.registry.errors import RegistryError, SchemaError

ADVISORY_LOCK = 0x72656C6179  # "relay"
VERSIONS = "alembic_version"

# What is done inside a transaction, with the steps that are in a directory.
Change = Callable[[Connection, Path], None]


def steps_directory() -> Path:
    """Where `migrations/` is: inside an installed package, or beside it in a checkout."""
    package = Path(relay.__file__).parent
    inside = package / "migrations"
    return inside if inside.is_dir() else package.parent / "migrations"


def known(directory: Path | None = None) -> list[str]:
    """Revisions that this relay knows, oldest first; the last is the one that it works with. Raises SchemaError."""
    versions = (directory or steps_directory()) / "versions"
    found = sorted(file.name.partition("_")[0] for file in versions.glob("[0-9]*_*.py"))
    if not found:
        raise SchemaError("This installation lacks its migrations; install the relay again.")
    return found


@dataclass(frozen=True, slots=True)
class Found:
    """What a database holds."""

    revision: str
    """Empty when it has no schema of a relay."""
    empty: bool
    """Whether it has no table at all."""


def current(url: str, limits: Limits = LIMITS) -> str:
    """The revision of the database's schema, empty when it has none. Raises RegistryError."""
    place = Place.of(url)
    if place.dialect == "sqlite" and not place.path.exists():
        return ""
    probe(place)
    return asyncio.run(_look(place, limits)).revision


def ensure(url: str, limits: Limits = LIMITS) -> None:
    """At a relay's start: fills an empty database, upgrades SQLite. Raises SchemaError when the schema does not fit."""
    place = Place.of(url)
    _make_file(place, limits)
    found = asyncio.run(_look(place, limits))
    revisions = known()
    if found.revision == revisions[-1]:
        return
    _check(found, revisions)
    if place.dialect == "postgresql" and not found.empty:
        raise SchemaError(
            f"The database has the older schema {found.revision}, this relay works with {revisions[-1]}; "
            "stop every relay that uses it and run `relay db upgrade`."
        )
    asyncio.run(_change(place, limits, None, _make_newest))


def upgrade(url: str, revision: str = "head", *, limits: Limits = LIMITS, steps: Path | None = None) -> str:
    """Takes the steps up to `revision`; the revision it has then. Raises RegistryError, and then nothing changed."""
    place = Place.of(url)
    _make_file(place, limits)
    return asyncio.run(_change(place, limits, steps, _steps(lambda command, config: command.upgrade(config, revision))))


def downgrade(url: str, revision: str, *, limits: Limits = LIMITS, steps: Path | None = None) -> str:
    """Takes the steps down. Raises SchemaError, and changes nothing, when that would lose what the database holds."""
    place = Place.of(url)
    return asyncio.run(
        _change(place, limits, steps, _steps(lambda command, config: command.downgrade(config, revision)))
    )


def _check(found: Found, revisions: list[str]) -> None:
    if found.revision and found.revision not in revisions:
        raise SchemaError(
            f"The database has the schema {found.revision}, made by a newer relay; this one knows up to "
            f"{revisions[-1]}: install the newer relay, or restore a backup."
        )
    if not found.revision and not found.empty:
        raise SchemaError("The database holds tables that are not a relay's; give the relay a database of its own.")


# ------------------------------------------------------------------------------------------------ inside a database


async def _look(place: Place, limits: Limits) -> Found:
    """Raises Unavailable."""
    pool = engine(place, limits, "reader")
    try:
        with border():
            async with asyncio.timeout(limits.connect + limits.statement), pool.connect() as connection:
                return await connection.run_sync(_found)
    finally:
        await pool.dispose()


def _found(connection: Connection) -> Found:
    tables = set(inspect(connection).get_table_names())
    if VERSIONS not in tables:
        return Found("", not tables)
    revision = connection.execute(text(f"SELECT version_num FROM {VERSIONS}")).scalar()
    return Found(str(revision or ""), tables == {VERSIONS})


async def _change(place: Place, limits: Limits, steps: Path | None, what: Change) -> str:
    directory = steps or steps_directory()

    def work(connection: Connection) -> str:
        _check(_found(connection), known(directory))
        what(connection, directory)
        return _found(connection).revision

    pool = engine(place, limits, "builder")
    try:
        with border():
            async with pool.begin() as connection:
                await _lock(connection, place)
                revision = await connection.run_sync(work)
                await _check_references(connection, place)
                return revision
    finally:
        await pool.dispose()


async def _lock(connection: Waiting, place: Place) -> None:
    """SQLite's transaction began with its lock; on PostgreSQL it is an advisory one, gone with the transaction."""
    if place.dialect == "postgresql":
        await connection.execute(text(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})"))


async def _check_references(connection: Waiting, place: Place) -> None:
    if place.dialect == "sqlite" and (await connection.execute(text("PRAGMA foreign_key_check"))).first() is not None:
        raise SchemaError("The new schema would leave rows without what they refer to, so nothing was changed.")


def _make_newest(connection: Connection, directory: Path) -> None:
    found = _found(connection)
    if found.revision or not found.empty:
        _steps(lambda command, config: command.upgrade(config, "head"))(connection, directory)
        return
    if inspect(connection).has_table(VERSIONS):  # and no other table: somebody took all steps back
        connection.execute(text(f"DROP TABLE {VERSIONS}"))
    schema.create(connection)
    # As Alembic has it.
    connection.execute(
        text(
            f"CREATE TABLE {VERSIONS} "
            f"(version_num VARCHAR(32) NOT NULL, CONSTRAINT {VERSIONS}_pkc PRIMARY KEY (version_num))"
        )
    )
    connection.execute(text(f"INSERT INTO {VERSIONS} VALUES (:newest)"), {"newest": known(directory)[-1]})


def _steps(what: Callable[[Any, Any], None]) -> Change:
    """What Alembic does by its commands and a configuration."""

    def take(connection: Connection, directory: Path) -> None:
        from alembic import command
        from alembic.config import Config
        from alembic.util import CommandError

        attributes: Mapping[str, Any] = {"connection": connection}
        config = Config(attributes=dict(attributes))
        config.set_main_option("script_location", str(directory).replace("%", "%%"))
        try:
            what(command, config)
        except CommandError as error:
            raise SchemaError(f"The schema cannot be changed so: {error}.") from None

    return take


# ------------------------------------------------------------------------------------------------ files of SQLite


def _make_file(place: Place, limits: Limits) -> None:
    if place.dialect == "sqlite":
        with border():
            _make(place.path, limits.lock)


def _make(path: Path, patience: float) -> None:
    """A file that only its owner can read, in the mode in which readers and a writer do not stop each other."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    connection = sqlite3.connect(path, timeout=patience, isolation_level=None)
    deadline = time.monotonic() + patience
    try:
        while True:
            try:
                connection.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                # To this change SQLite's own patience does not apply.
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
    finally:
        connection.close()


def backup(url: str, path: Path) -> None:
    """Copies a living SQLite database to a new file. Raises RegistryError; for PostgreSQL it says what to use."""
    place = Place.of(url)
    if place.dialect == "postgresql":
        raise RegistryError("PostgreSQL brings its own backup; use pg_dump --format=custom.")
    if not place.path.exists():
        raise RegistryError(f"There is no database {place.path} to copy.")
    with border():
        copied = _copy(place.path, path)
    if not copied:
        raise RegistryError(f"The file {path} exists already; choose another name.")


def _copy(source: Path, target: Path) -> bool:
    """False when there is a target already."""
    try:
        os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return False
    try:
        old = sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)
        new = sqlite3.connect(target)
        try:
            old.backup(new)
            new.execute("PRAGMA journal_mode=DELETE")
        finally:
            new.close()
            old.close()
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return True
