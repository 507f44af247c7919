"""`relay db`: the registry's schema and a copy of it, from the settings of the relay, without a relay."""

from __future__ import annotations

import json
import sqlite3
import sys
from pathlib import Path

import pytest

from relay.registry import migrate
from tests.cli.conftest import Command
from tests.support.databases import empty_url, postgres  # noqa: F401 - fixtures

NEWEST = migrate.known()[-1]


def test_the_life_of_a_database(
    command: Command,
    empty_url: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Empty, filled, filled already, emptied: each command says what it found and did."""
    monkeypatch.setenv("RELAY_DATABASE_URL", empty_url)
    assert "The database is empty" in command("db", "current").out
    assert command("db", "current", "--json").out == f'{{"schema": null, "newest": "{NEWEST}"}}\n'
    assert command("db", "upgrade").out == f"The database has the schema {NEWEST} now.\n"
    assert command("db", "upgrade").out == f"The database has the schema {NEWEST} already.\n"
    assert command("db", "current").out == f"The database has the schema {NEWEST}, which is this relay's.\n"
    assert json.loads(command("db", "upgrade", "--json").out) == {"before": NEWEST, "schema": NEWEST}
    assert command("db", "downgrade", "base").out == f"The database had the schema {NEWEST}; now it has none.\n"
    assert command("db", "downgrade", "base").out == "The database has no schema.\n"


def test_which_database(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one in the relay's directory, or what the options, the settings' file and the variable name."""
    assert command("db", "upgrade").code == 0
    assert (tmp_path / "home" / "relay" / "relay.db").exists()
    command("db", "upgrade", "--data", str(tmp_path / "data"))
    assert (tmp_path / "data" / "relay.db").exists()
    (tmp_path / "url").write_text(f"sqlite:///{tmp_path}/by-file.db\n")
    command("db", "upgrade", "--database-url-file", str(tmp_path / "url"))
    assert (tmp_path / "by-file.db").exists()
    (tmp_path / "relay.toml").write_text(f'database_url = "sqlite:///{tmp_path}/by-settings.db"\n')
    command("db", "upgrade", "--config", str(tmp_path / "relay.toml"))
    assert (tmp_path / "by-settings.db").exists()
    monkeypatch.setenv("RELAY_DATABASE_URL", f"sqlite:///{tmp_path}/by-variable.db")
    command("db", "upgrade")
    assert (tmp_path / "by-variable.db").exists()


def test_a_copy(command: Command, tmp_path: Path) -> None:
    """Is a database like the first; a second one under the same name is refused."""
    command("db", "upgrade")
    copy = tmp_path / "copy.db"
    assert command("db", "backup", str(copy)).out == f"Copied the database to {copy}.\n"
    connection = sqlite3.connect(copy)
    assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(NEWEST,)]
    connection.close()
    again = command("db", "backup", str(copy))
    assert (again.code, again.out) == (1, "")
    assert again.err == f"relay: The file {copy} exists already; choose another name.\n"
    assert json.loads(command("db", "backup", str(tmp_path / "2"), "--json").out) == {"file": str(tmp_path / "2")}


def test_a_newer_schema(command: Command, tmp_path: Path) -> None:
    """Is told and refused, with what to do."""
    command("db", "upgrade", "--data", str(tmp_path))
    connection = sqlite3.connect(tmp_path / "relay.db")
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    assert "9999, which is newer than this relay's" in command("db", "current", "--data", str(tmp_path)).out
    result = command("db", "upgrade", "--data", str(tmp_path))
    assert (result.code, result.out) == (1, "")
    assert "install the newer relay" in result.err
    assert result.err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("upgrade", "--data", "/dev/null/x"), 8, "cannot"),
        (("upgrade", "nonsense"), 1, "nonsense"),
        (("backup", "copy.db"), 1, "There is no database"),
        (("downgrade",), 2, "REVISION"),
        (("upgrade", "--config", "/nonexistent.toml"), 2, "No such file"),
        (("upgrade", "--database-url", "x"), 2, "No such option"),
    ],
)
def test_a_mistake_is_one_sentence(words: tuple[str, ...], code: int, said: str, command: Command) -> None:
    """On one line of stderr, with the exit code that tells what to do: 8 may go better later."""
    result = command("db", *words)
    assert (result.code, result.out) == (code, "")
    assert said in result.err
    assert result.err.count("\n") == 1


def test_a_server_away_is_told_without_its_password(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address is a secret: it may hold one."""
    monkeypatch.setenv("RELAY_DATABASE_URL", "postgresql://relay:canary@127.0.0.1:1/relay")
    for words in (("upgrade",), ("current",), ("downgrade", "base")):
        result = command("db", *words)
        assert (result.code, result.out) == (8, "")
        assert "cannot be reached" in result.err
        assert "canary" not in result.err
    result = command("db", "backup", "copy.db")
    assert (result.code, "pg_dump" in result.err) == (1, True)


def test_an_installation_without_the_server(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent's own installation says what to install."""

    class Absent:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name.partition(".")[0] == "sqlalchemy":
                raise ModuleNotFoundError("No module named 'sqlalchemy'", name="sqlalchemy")

    for name in [one for one in sys.modules if one.startswith(("relay.registry", "sqlalchemy"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    result = command("db", "upgrade")
    assert (result.code, result.out) == (2, "")
    assert "pip install 'tunnel-relay[server]'" in result.err


def test_help_names_what_there_is(command: Command) -> None:
    """Alone it shows its commands."""
    result = command("db")
    assert result.code == 0
    assert all(word in result.out for word in ("upgrade", "downgrade", "current", "backup"))
