"""Both databases for every test that wants them: with the schema and no row, or empty.

    from tests.support.databases import ...  # fixtures; for a conftest.py, all that this room has

A PostgreSQL database takes long to make, so the next test gets the one before with its rows taken out; who changes more
than rows takes `fresh_postgres_url`. A SQLite file is a copy of one that was migrated once.

`RELAY_TEST_POSTGRES_URL` names an installed PostgreSQL to be used instead of the private one; its user must be allowed
to make databases. All that is made there is dropped again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from relay.registry import migrate
from tests.support import postgres as private

T = TypeVar("T")
Kind = Literal["sqlite", "postgresql"]
KINDS: tuple[Kind, ...] = ("sqlite", "postgresql")
TEMPLATE = "relay_template"
EMPTY = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid();
ALTER TABLE audit DISABLE TRIGGER USER;
TRUNCATE projects, keys, subdomains, audit, signers, usage;
ALTER TABLE audit ENABLE TRIGGER USER;
UPDATE ledger SET audit_seq = 0, audit_hash = repeat('0', 64), revocation_seq = 0, keys_seq = 0, names_seq = 0;
"""


def apart(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Runs a coroutine to its end in a thread: the caller's own event loop, if any, is left alone."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(asyncio.run(work()))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


class Postgres:
    """A server that makes databases for tests."""

    def __init__(self, url: str, prefix: str) -> None:
        self._url = url
        self._prefix = prefix
        self._stack = contextlib.ExitStack()
        self._used: list[str] = []

    def url_of(self, database: str) -> str:
        parts = urlsplit(self._url)
        # Without a host there is nothing between the slashes, which urlunsplit would leave out.
        return urlunsplit(parts._replace(path=f"/{database}")).replace(
            "postgresql:/" + database, "postgresql:///" + database
        )

    def run(self, *statements: str, database: str = "") -> list[Any]:
        """The rows of the last statement; each is a transaction of its own."""

        async def work() -> list[Any]:
            connection = await asyncpg.connect(self.url_of(database) if database else self._url, timeout=10)
            try:
                rows: list[Any] = []
                for statement in statements:
                    if ";" in statement:
                        await connection.execute(statement)
                    else:
                        rows = await connection.fetch(statement)
                return rows
            finally:
                await connection.close()

        return apart(work)

    @contextlib.contextmanager
    def database(self, template: str = "template0") -> Iterator[str]:
        """The address of a fresh database, dropped at the end whoever is still connected."""
        name = f"{self._prefix}_{secrets.token_hex(6)}"
        self.run(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield self.url_of(name)
        finally:
            self.run(f"DROP DATABASE {name} WITH (FORCE)")

    @contextlib.contextmanager
    def emptied(self, template: str) -> Iterator[str]:
        """The address of a database with the template's schema and without rows, which others had before."""
        if self._used:
            url = self._used.pop()
            self.run(EMPTY, database=urlsplit(url).path[1:])
        else:
            url = self._stack.enter_context(self.database(template))
        yield url
        self._used.append(url)

    def close(self) -> None:
        """Drops what `emptied` made."""
        self._stack.close()

    def away(self, url: str) -> None:
        """From now on this database refuses connections, and those that there were are cut."""
        name = urlsplit(url).path[1:]
        self.run(
            f"ALTER DATABASE {name} ALLOW_CONNECTIONS false",
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",
        )

    def back(self, url: str) -> None:
        """Takes `away` back."""
        self.run(f"ALTER DATABASE {urlsplit(url).path[1:]} ALLOW_CONNECTIONS true")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """The PostgreSQL of this run of pytest."""
    with contextlib.ExitStack() as stack:
        if installed := os.environ.get("RELAY_TEST_POSTGRES_URL"):
            server = Postgres(installed, f"relay_test_{secrets.token_hex(4)}")
        else:
            server = Postgres(stack.enter_context(private.shared()), "test")
        stack.callback(server.close)
        yield server


@pytest.fixture(scope="session")
def postgres_template(postgres: Postgres) -> Iterator[str]:
    """The name of a migrated database to copy."""
    with contextlib.ExitStack() as stack:
        if os.environ.get("RELAY_TEST_POSTGRES_URL"):
            url = stack.enter_context(postgres.database())
            migrate.upgrade(url)
            yield urlsplit(url).path[1:]
            return
        with private.exclusive():
            if not postgres.run(f"SELECT 1 FROM pg_database WHERE datname = '{TEMPLATE}'"):
                postgres.run(f"CREATE DATABASE {TEMPLATE}_new")
                migrate.upgrade(postgres.url_of(f"{TEMPLATE}_new"))
                postgres.run(f"ALTER DATABASE {TEMPLATE}_new RENAME TO {TEMPLATE}")
        yield TEMPLATE


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated file to copy."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    migrate.upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
def sqlite_url(tmp_path: Path, sqlite_template: Path) -> str:
    """A migrated SQLite database."""
    path = tmp_path / "relay.db"
    shutil.copyfile(sqlite_template, path)
    return f"sqlite:///{path}"


@pytest.fixture
def postgres_url(postgres: Postgres, postgres_template: str) -> Iterator[str]:
    """A migrated PostgreSQL database, of which only the rows may be changed."""
    with postgres.emptied(postgres_template) as url:
        yield url


@pytest.fixture
def fresh_postgres_url(postgres: Postgres, postgres_template: str) -> Iterator[str]:
    """A migrated PostgreSQL database of the test's own."""
    with postgres.database(postgres_template) as url:
        yield url


@pytest.fixture(params=KINDS)
def database_url(request: pytest.FixtureRequest) -> str:
    """A migrated database, of one kind and of the other."""
    return str(request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url"))


@pytest.fixture(params=KINDS)
def fresh_url(request: pytest.FixtureRequest) -> str:
    """As `database_url`, and all of it may be changed."""
    return str(request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "fresh_postgres_url"))


@pytest.fixture(params=KINDS)
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without any table, of one kind and of the other; the SQLite file does not exist yet."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/relay.db"
        return
    server: Postgres = request.getfixturevalue("postgres")
    with server.database() as url:
        yield url
