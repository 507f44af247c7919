"""The schema: filled, upgraded, taken back, compared, refused; rows are never lost on the way."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sqlite3
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import CheckConstraint, Connection, inspect, text

from relay.keys.scopes import Scope
from relay.registry import Database, Limits, RegistryError, SchemaError, Unavailable, migrate
from relay.registry.dialects import Place, engine
from relay.registry.schema import METADATA, tables
from tests.registry.test_audit import execute
from tests.registry.world import world
from tests.support.databases import Postgres, apart

NEWEST = migrate.known()[-1]
SHORT = Limits(connect=1, statement=1, lock=0.3)

# A step as a later version would have it: a table altered, which SQLite does by making another one.
NEXT_STEP = """
import sqlalchemy as sa
from alembic import op
revision, down_revision = "9001", "{before}"

def upgrade():
    with op.batch_alter_table("keys") as table:
        table.add_column(sa.Column("note", sa.Text, nullable=False, server_default="none"))
        table.alter_column("label", new_column_name="title")
    op.create_table("extra", sa.Column("id", sa.Integer, primary_key=True))

def downgrade():
    op.drop_table("extra")
    with op.batch_alter_table("keys") as table:
        table.alter_column("title", new_column_name="label")
        table.drop_column("note")
"""
BAD_STEP = """
import sqlalchemy as sa
from alembic import op
revision, down_revision = "9001", "{before}"

def upgrade():
    op.create_table("extra", sa.Column("id", sa.Integer, primary_key=True))
    op.execute("UPDATE keys SET label = 'changed'")
    op.execute("SELECT nonsense FROM nowhere")
"""


def steps(tmp_path: Path, another: str) -> Path:
    """The product's migrations and one more."""
    made = tmp_path / "steps"
    shutil.copytree(migrate.steps_directory(), made, ignore=shutil.ignore_patterns("__pycache__"))
    (made / "versions" / "9001_next.py").write_text(another.format(before=NEWEST), encoding="utf-8")
    return made


def inside(url: str, work: Any) -> Any:
    """What a synchronous function finds on a connection."""

    async def run() -> Any:
        pool = engine(Place.of(url), Limits(), "builder")
        try:
            async with pool.connect() as connection:
                return await connection.run_sync(work)
        finally:
            await pool.dispose()

    return apart(run)


def rows_of(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table but Alembic's own."""

    def read(connection: Connection) -> dict[str, list[tuple[Any, ...]]]:
        return {
            table: sorted(tuple(row) for row in connection.execute(text(f"SELECT * FROM {table}")))
            for table in inspect(connection).get_table_names()
            if table != "alembic_version"
        }

    found: dict[str, list[tuple[Any, ...]]] = inside(url, read)
    return found


async def use(url: str) -> None:
    """Some of everything in a database."""
    async with world(url) as here:
        _, master = await here.project()
        child = await here.child(master)
        await here.registry.subdomains.claim(here.by, ["a"], child)
        await here.registry.signers.add("node_x", b"x" * 32, "host")
        await here.registry.keys.rotate(here.by, master.id, b"n" * 32, "mtk_master_" + "0" * 12, 10.0)


def test_an_empty_database_is_filled(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a relay's start, for which Alembic is not even imported; the second time there is nothing to do."""
    assert migrate.current(empty_url) == ""
    monkeypatch.setitem(sys.modules, "alembic", None)  # to import it would fail
    migrate.ensure(empty_url)
    assert migrate.current(empty_url) == NEWEST
    asyncio.run(use(empty_url))
    before = rows_of(empty_url)
    migrate.ensure(empty_url)
    monkeypatch.undo()
    assert rows_of(empty_url) == before
    assert migrate.upgrade(empty_url) == NEWEST


def test_models_and_migrations_agree(database_url: str) -> None:
    """What the migrations make is what the code works with: Alembic sees no difference, constraints included."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    def compare(connection: Connection) -> tuple[list[Any], dict[str, set[str]], dict[str, set[str]]]:
        options = {"compare_type": True, "compare_server_default": True}
        differences = compare_metadata(
            MigrationContext.configure(connection, opts=options), tables(connection.dialect.name)
        )
        checks = {
            name: {str(check["name"]) for check in inspect(connection).get_check_constraints(name)}
            for name in METADATA.tables
        }
        written = {
            name: {str(one.name) for one in table.constraints if isinstance(one, CheckConstraint)}
            for name, table in METADATA.tables.items()
        }
        return list(differences), checks, written

    differences, checks, written = inside(database_url, compare)
    assert differences == []
    assert checks == written
    assert any(written.values())


def described(connection: Connection) -> dict[str, Any]:
    """Everything of a schema that its database tells."""
    seen = inspect(connection)
    found: dict[str, Any] = {
        name: (
            [{**column, "type": str(column["type"])} for column in seen.get_columns(name)],
            seen.get_pk_constraint(name),
            sorted(seen.get_foreign_keys(name), key=str),
            sorted(seen.get_check_constraints(name), key=str),
            [tuple(row) for row in connection.execute(text(f"SELECT * FROM {name}"))],
        )
        for name in seen.get_table_names()
    }
    for what in TOLD[connection.dialect.name]:
        found[what] = sorted(tuple(row) for row in connection.execute(text(what)))
    return found


TOLD = {
    "sqlite": (
        "SELECT name, tbl_name, type, CASE type WHEN 'table' THEN '' ELSE sql END FROM sqlite_master",
        'SELECT m.name, f."table", f."from", f."to" FROM sqlite_master m, pragma_foreign_key_list(m.name) f',
    ),
    "postgresql": (
        "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'public'::regnamespace",
        "SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal",
        "SELECT proname, pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace",
    ),
}


def test_an_empty_database_gets_what_the_steps_make(empty_url: str) -> None:
    """The same tables, columns in order, constraints, indexes, triggers and first rows, made without a step."""
    migrate.upgrade(empty_url)
    by_steps = inside(empty_url, described)
    migrate.downgrade(empty_url, "base")
    assert inside(empty_url, described) != by_steps
    migrate.ensure(empty_url)
    assert inside(empty_url, described) == by_steps
    assert {"ledger", "keys", "audit", "alembic_version"} <= set(by_steps)


def test_up_and_down_and_up_keeps_every_row(fresh_url: str, tmp_path: Path) -> None:
    """Over a step that alters a table; and what was made before works after."""
    another = steps(tmp_path, NEXT_STEP)
    asyncio.run(use(fresh_url))
    before = rows_of(fresh_url)
    for _ in range(2):
        assert migrate.upgrade(fresh_url, steps=another) == "9001"
        after = rows_of(fresh_url)
        assert [row[:-1] for row in after["keys"]] == before["keys"]
        assert {name: rows for name, rows in after.items() if name not in {"keys", "extra"}} == {
            name: rows for name, rows in before.items() if name != "keys"
        }
        assert migrate.downgrade(fresh_url, NEWEST, steps=another) == NEWEST
        assert rows_of(fresh_url) == before
    with pytest.raises(Exception, match="append-only"):
        asyncio.run(execute(fresh_url, "DELETE FROM audit"))


def test_the_first_schema_becomes_this_one_with_every_row(fresh_url: str) -> None:
    """And back: nothing of the first is lost, and which key replaced which is known as if it had been written down."""
    asyncio.run(use(fresh_url))
    new = rows_of(fresh_url)
    assert migrate.downgrade(fresh_url, "0001") == "0001"
    old = rows_of(fresh_url)
    assert old.keys() == new.keys()
    assert [row[:-2] for row in new["keys"]] == old["keys"]
    assert [row[:-1] for row in new["ledger"]] == old["ledger"]
    assert {name: rows for name, rows in new.items() if name not in {"keys", "ledger"}} == {
        name: rows for name, rows in old.items() if name not in {"keys", "ledger"}
    }
    assert migrate.upgrade(fresh_url) == NEWEST
    again = rows_of(fresh_url)
    assert again.pop("ledger") == [(*old["ledger"][0], 0)]
    del new["ledger"]
    assert again == new
    [(successor, line)] = [(row[0], row[-2]) for row in new["keys"] if row[-2] is not None]
    assert successor == "mtk_master_" + "0" * 12
    assert [row[0] for row in new["keys"] if successor in row[1:]] == [line]


def test_limits_that_the_first_schema_does_not_know_are_not_taken_back(fresh_url: str) -> None:
    """An older relay would refuse to read the key; so the schema stays, and all that is in it."""

    async def limited() -> None:
        async with world(fresh_url) as here:
            _, master = await here.project(scope=Scope(rate=5, bandwidth=9))
            await here.child(master, scope=Scope(rate=5, bandwidth=9, streams=3))

    asyncio.run(limited())
    before = rows_of(fresh_url)
    with pytest.raises(SchemaError, match="limits"):
        migrate.downgrade(fresh_url, "0001")
    assert (rows_of(fresh_url), migrate.current(fresh_url)) == (before, NEWEST)


def test_a_step_that_fails_leaves_everything_as_it_was(fresh_url: str, tmp_path: Path) -> None:
    """Also what it had done already."""
    asyncio.run(use(fresh_url))
    before = rows_of(fresh_url)
    with pytest.raises(RegistryError):
        migrate.upgrade(fresh_url, steps=steps(tmp_path, BAD_STEP))
    assert rows_of(fresh_url) == before
    assert migrate.current(fresh_url) == NEWEST


def test_a_newer_schema_is_refused(fresh_url: str, tmp_path: Path) -> None:
    """By every way in, with what to do; nothing is changed."""
    migrate.upgrade(fresh_url, steps=steps(tmp_path, NEXT_STEP))
    before = rows_of(fresh_url)
    for call in (migrate.ensure, migrate.upgrade, lambda url: migrate.downgrade(url, NEWEST)):
        with pytest.raises(SchemaError) as refused:
            call(fresh_url)
        assert "9001" in str(refused.value)
        assert "newer relay" in str(refused.value)
    assert migrate.current(fresh_url) == "9001"
    assert rows_of(fresh_url) == before


def test_an_older_schema(fresh_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite is upgraded at the start; PostgreSQL, which others may be using, only by the command."""
    another = steps(tmp_path, NEXT_STEP)
    monkeypatch.setattr(migrate, "steps_directory", lambda: another)
    if fresh_url.startswith("sqlite"):
        migrate.ensure(fresh_url)
    else:
        with pytest.raises(SchemaError) as refused:
            migrate.ensure(fresh_url)
        assert "relay db upgrade" in str(refused.value)
        assert migrate.current(fresh_url) == NEWEST
        migrate.upgrade(fresh_url)
    assert migrate.current(fresh_url) == "9001"


def test_the_first_schema_is_not_taken_back_from_under_rows(fresh_url: str) -> None:
    """That would lose all; a database without any may be emptied, and filled again."""
    assert migrate.downgrade(fresh_url, "base") == ""
    migrate.ensure(fresh_url)
    assert migrate.current(fresh_url) == NEWEST
    asyncio.run(use(fresh_url))
    before = rows_of(fresh_url)
    with pytest.raises(SchemaError):
        migrate.downgrade(fresh_url, "base")
    assert rows_of(fresh_url) == before


def test_somebody_elses_database_is_left_alone(empty_url: str) -> None:
    """One with tables that are not a relay's."""
    if empty_url.startswith("sqlite"):
        Path(empty_url.removeprefix("sqlite:///")).touch()
    asyncio.run(execute(empty_url, "CREATE TABLE recipes (id integer)"))
    for call in (migrate.ensure, migrate.upgrade):
        with pytest.raises(SchemaError) as refused:
            call(empty_url)
        assert "database of its own" in str(refused.value)
    assert rows_of(empty_url) == {"recipes": []}


def test_a_revision_that_does_not_exist(database_url: str) -> None:
    """Is a mistake in one sentence."""
    for call in (migrate.upgrade, migrate.downgrade):
        with pytest.raises(SchemaError) as refused:
            call(database_url, "nonsense")
        assert "nonsense" in str(refused.value)


async def test_many_start_at_once(empty_url: str) -> None:
    """Each finds the schema there in the end, whoever made it."""
    await asyncio.gather(*(asyncio.to_thread(migrate.ensure, empty_url) for _ in range(4)))
    assert await asyncio.to_thread(migrate.current, empty_url) == NEWEST
    async with world(empty_url) as here:
        assert await here.actions() == []


async def test_a_database_without_schema_does_not_open_for_work(empty_url: str) -> None:
    """Without `ensure` before, the first question says what is missing."""
    if empty_url.startswith("sqlite"):
        Path(empty_url.removeprefix("sqlite:///")).touch()
    database = await Database.open(empty_url)
    try:
        with pytest.raises(SchemaError):
            async with database.writing():
                pass
    finally:
        await database.close()


def test_a_file_is_for_its_owner_only(tmp_path: Path) -> None:
    """Made with its directory, whatever the umask; in the mode in which readers go on beside a writer."""
    path = tmp_path / "new" / "relay.db"
    before = os.umask(0)
    try:
        migrate.ensure(f"sqlite:///{path}")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


@pytest.mark.parametrize(
    "content", [b"not a database, but long enough to be taken for one" * 100, b"SQLite format 3\0" + b"x" * 500]
)
def test_a_file_that_is_no_database(content: bytes, tmp_path: Path) -> None:
    """Is refused in a sentence and stays as it was."""
    path = tmp_path / "relay.db"
    path.write_bytes(content)
    for call in (migrate.ensure, migrate.current, migrate.upgrade):
        with pytest.raises(Unavailable) as refused:
            call(f"sqlite:///{path}")
        assert str(refused.value).endswith(".")
    assert path.read_bytes() == content


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    """A file where a directory should be."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(Unavailable):
        migrate.ensure(f"sqlite:///{tmp_path}/file/relay.db")


async def test_a_backup_of_a_living_database(sqlite_url: str, tmp_path: Path) -> None:
    """Holds what was committed, is for its owner only, and works as a database; nothing is overwritten."""
    copy = tmp_path / "copy.db"
    async with world(sqlite_url) as here:
        _, master = await here.project()
        async with here.database.writing() as write:
            await write.run(text("UPDATE keys SET label = 'not yet'"))
            await asyncio.to_thread(migrate.backup, sqlite_url, copy)
        await here.child(master)
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert sorted(one.name for one in tmp_path.iterdir() if "copy" in one.name) == ["copy.db"]
    with pytest.raises(RegistryError, match="exists already"):
        migrate.backup(sqlite_url, copy)
    await asyncio.to_thread(migrate.ensure, f"sqlite:///{copy}")
    database = await Database.open(f"sqlite:///{copy}")
    async with database.reading() as read:
        rows = await read.rows(text("SELECT kind, label FROM keys ORDER BY kind"))
    await database.close()
    assert [tuple(row) for row in rows] == [("master", ""), ("operator", "")]


def test_backups_that_cannot_be_made(sqlite_url: str, tmp_path: Path) -> None:
    """Each says why; none leaves half a file."""
    with pytest.raises(RegistryError, match="pg_dump"):
        migrate.backup("postgresql://relay@db/relay", tmp_path / "copy")
    with pytest.raises(RegistryError, match="no database"):
        migrate.backup(f"sqlite:///{tmp_path}/nothing.db", tmp_path / "copy")
    with pytest.raises(RegistryError):
        migrate.backup(sqlite_url, tmp_path / "nowhere" / "copy")
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes(b"x" * 5000)
    with pytest.raises(RegistryError):
        migrate.backup(f"sqlite:///{damaged}", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_locked_database_is_not_migrated(sqlite_url: str, tmp_path: Path) -> None:
    """While somebody writes; told after the deadline."""
    other = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(Unavailable):
            migrate.upgrade(sqlite_url, limits=SHORT, steps=steps(tmp_path, NEXT_STEP))
    finally:
        other.close()
    assert migrate.current(sqlite_url) == NEWEST


def test_a_server_that_is_not_there(postgres: Postgres) -> None:
    """Or has no such database, or does not let this user in."""
    for url in (
        "postgresql://relay@127.0.0.1:1/relay",
        postgres.url_of("nonexistent"),
        re.sub("//[^@/]*@", "//nobody_of_that_name@", postgres.url_of("postgres")),
    ):
        for call in (migrate.ensure, migrate.current, migrate.upgrade):
            with pytest.raises(Unavailable) as refused:
                call(url, limits=SHORT)
            assert str(refused.value).endswith(".")
