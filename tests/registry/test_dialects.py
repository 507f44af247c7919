"""What a driver's error means, and which addresses are taken."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from relay.registry.dialects import FULL, LOCKED, Place, explain
from relay.registry.errors import Conflict, NotAllowed, RegistryError, SchemaError, Unavailable


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:////var/lib/relay/relay.db", "/var/lib/relay/relay.db"),
        ("sqlite+aiosqlite:////a b/ü%41?.db", "/a b/ü%41?.db"),
        ("sqlite:///relay.db", "relay.db"),
        (" sqlite:////x.db\n", "/x.db"),
    ],
)
def test_files(url: str, path: str) -> None:
    """The path is what follows the third slash, to the letter."""
    assert (Place.of(url).dialect, Place.of(url).path) == ("sqlite", Path(path))


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+asyncpg"])
def test_servers(scheme: str) -> None:
    """Under each of the names that people know; the password is not shown."""
    place = Place.of(f"{scheme}://relay:canary@db:5433/relay?sslmode=require")
    assert place.dialect == "postgresql"
    assert place.dsn == "postgresql://relay:canary@db:5433/relay?sslmode=require"
    assert "canary" not in repr(place)


@pytest.mark.parametrize(
    "url", ["", "x", "mysql://canary", "sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite://canary/x", "postgresql://",
            "sqlite:////a\0b"]
)  # fmt: skip
def test_no_address(url: str) -> None:
    """Another form is refused, and not repeated."""
    with pytest.raises(RegistryError) as refused:
        Place.of(url)
    assert "canary" not in str(refused.value)


class State(Exception):
    """An error of a PostgreSQL driver."""

    def __init__(self, state: str) -> None:
        super().__init__("canary")
        self.sqlstate = state


def of_sqlite(code: int) -> sqlite3.Error:
    error = sqlite3.OperationalError("canary")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("error", "meaning", "words"),
    [
        (of_sqlite(sqlite3.SQLITE_BUSY), Unavailable, LOCKED),
        (of_sqlite(sqlite3.SQLITE_BUSY_SNAPSHOT), Unavailable, LOCKED),
        (of_sqlite(sqlite3.SQLITE_FULL), Unavailable, FULL),
        (of_sqlite(sqlite3.SQLITE_IOERR_WRITE), Unavailable, "disk"),
        (of_sqlite(sqlite3.SQLITE_CANTOPEN), Unavailable, "opened"),
        (of_sqlite(sqlite3.SQLITE_READONLY), Unavailable, "opened"),
        (of_sqlite(sqlite3.SQLITE_CORRUPT), Unavailable, "backup"),
        (of_sqlite(sqlite3.SQLITE_NOTADB), Unavailable, "backup"),
        (of_sqlite(sqlite3.SQLITE_CONSTRAINT_UNIQUE), Conflict, "conflict"),
        (of_sqlite(sqlite3.SQLITE_ERROR), SchemaError, "relay db upgrade"),
        (of_sqlite(sqlite3.SQLITE_NOMEM), Unavailable, "again"),
        (State("23505"), Conflict, "conflict"),
        (State("22021"), NotAllowed, "character"),
        (State("42P01"), SchemaError, "relay db upgrade"),
        (State("42703"), SchemaError, "relay db upgrade"),
        (State("3D000"), Unavailable, "no database"),
        (State("28P01"), Unavailable, "user"),
        (State("42501"), Unavailable, "user"),
        (State("53100"), Unavailable, FULL),
        (State("55P03"), Unavailable, LOCKED),
        (State("40P01"), Unavailable, LOCKED),
        (State("57014"), Unavailable, "in time"),
        (State("57P01"), Unavailable, "reached"),
        (State("53300"), Unavailable, "reached"),
        (State("08006"), Unavailable, "reached"),
        (State("XX000"), Unavailable, "XX000"),
        (OSError(28, "canary"), Unavailable, FULL),
        (ConnectionRefusedError(111, "canary"), Unavailable, "reached"),
        (TimeoutError("canary"), Unavailable, "in time"),
        (UnicodeEncodeError("utf-8", "canary", 0, 1, "canary"), NotAllowed, "character"),
    ],
    ids=str,
)
def test_what_an_error_means(error: BaseException, meaning: type[RegistryError], words: str) -> None:
    """A sentence with the cause, and nothing of the driver's own."""
    told = explain(error)
    assert type(told) is meaning
    assert words in str(told)
    assert "canary" not in str(told)
    assert str(told).endswith(".")
