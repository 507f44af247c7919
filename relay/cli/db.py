"""`relay db`: the schema of the registry's database, and a copy of it. The only commands that do not ask a relay.

Which database is decided as `relay serve` decides it: the same settings, so the same variables and the same file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from relay.cli.errors import UNAVAILABLE, Mistake
from relay.cli.options import AsJson, group
from relay.cli.output import Lines, harmless, say_json
from relay.cli.serve import CONFIG
from relay.settings import SettingsError, load

if TYPE_CHECKING:
    from types import ModuleType

NOT_INSTALLED = "This installation has the agent only; the database needs more: pip install 'tunnel-relay[server]'"
DATABASE_PACKAGES = {"sqlalchemy", "alembic", "aiosqlite", "asyncpg"}

Config = Annotated[Path | None, CONFIG]
Data = Annotated[
    str | None,
    typer.Option("--data", help="The relay's directory. [RELAY_DATA]", metavar="DIRECTORY", show_default=False),
]
UrlFile = Annotated[
    str | None,
    typer.Option(
        "--database-url-file",
        help="A file that holds the database's URL. [RELAY_DATABASE_URL_FILE, or RELAY_DATABASE_URL itself]",
        metavar="FILE",
        show_default=False,
    ),
]

db = group("The registry's database: its schema, and a copy of it. Works without a running relay.")


@db.command()
def upgrade(
    revision: Annotated[str, typer.Argument(help="How far; head is all the way.", metavar="[REVISION]")] = "head",
    *,
    config: Config = None,
    data: Data = None,
    database_url_file: UrlFile = None,
    as_json: AsJson = False,
) -> None:
    """Bring the database to this relay's schema. All of it is done, or nothing.

    A relay with an SQLite file does this by itself when it starts. With PostgreSQL, stop every relay that uses the
    database first.

    Example:

      RELAY_DATABASE_URL=postgresql://relay@db/relay relay db upgrade
    """
    url = _database(config, data, database_url_file)
    with _registry() as migrate:
        before = migrate.current(url)
        after = migrate.upgrade(url, revision)
    _say_schema(before, after, as_json)


@db.command()
def downgrade(
    revision: Annotated[str, typer.Argument(help="How far, for example 0001.", metavar="REVISION")],
    *,
    config: Config = None,
    data: Data = None,
    database_url_file: UrlFile = None,
    as_json: AsJson = False,
) -> None:
    """Take the database back to an older relay's schema; refused where that would lose what it holds.

    Stop every relay that uses the database first, and make a backup.
    """
    url = _database(config, data, database_url_file)
    with _registry() as migrate:
        before = migrate.current(url)
        after = migrate.downgrade(url, revision)
    _say_schema(before, after, as_json)


@db.command()
def current(
    *, config: Config = None, data: Data = None, database_url_file: UrlFile = None, as_json: AsJson = False
) -> None:
    """Print which schema the database has, and which this relay works with."""
    url = _database(config, data, database_url_file)
    with _registry() as migrate:
        found, known = migrate.current(url), migrate.known()
    if as_json:
        say_json({"schema": found or None, "newest": known[-1]})
        return
    if not found:
        text = "The database is empty: relay serve, or relay db upgrade, fills it."
    elif found == known[-1]:
        text = f"The database has the schema {found}, which is this relay's."
    elif found in known:
        text = f"The database has the schema {found}; this relay works with {known[-1]}: run relay db upgrade."
    else:
        text = f"The database has the schema {harmless(found)}, which is newer than this relay's {known[-1]}."
    Lines().say(text)


@db.command()
def backup(
    file: Annotated[Path, typer.Argument(help="The file to write; it must not exist.", metavar="FILE")],
    *,
    config: Config = None,
    data: Data = None,
    database_url_file: UrlFile = None,
    as_json: AsJson = False,
) -> None:
    """Copy the SQLite database, also while a relay uses it. The copy is as secret as the database.

    It holds no key that lets anybody in. operator.key and signing.key, beside it in the relay's directory, do: copy
    them too, and keep them apart.

    Example:

      relay db backup /var/backups/relay.db
    """
    url = _database(config, data, database_url_file)
    with _registry() as migrate:
        migrate.backup(url, file)
    if as_json:
        say_json({"file": str(file)})
        return
    Lines().say(f"Copied the database to {harmless(file)}.")


def _database(config: Path | None, data: str | None, database_url_file: str | None) -> str:
    try:
        given = {"data": data, "database_url_file": database_url_file}
        return load(given, os.environ, config).database
    except SettingsError as error:
        raise Mistake(harmless(error)) from None


@contextmanager
def _registry() -> Iterator[ModuleType]:
    """What knows the database; its errors become this command's."""
    try:
        from relay.registry import migrate
        from relay.registry.errors import RegistryError, Unavailable
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in DATABASE_PACKAGES:
            raise Mistake(NOT_INSTALLED) from None
        raise
    try:
        yield migrate
    except Unavailable as error:
        raise Mistake(harmless(error), UNAVAILABLE) from None
    except RegistryError as error:
        raise Mistake(harmless(error), 1) from None


def _say_schema(before: str, after: str, as_json: bool) -> None:
    if as_json:
        say_json({"before": before or None, "schema": after or None})
    elif before == after:
        Lines().say(f"The database has the schema {after} already." if after else "The database has no schema.")
    elif not after:
        Lines().say(f"The database had the schema {before}; now it has none.")
    else:
        Lines().say(f"The database has the schema {after} now{f'; it had {before}' if before else ''}.")
