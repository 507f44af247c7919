"""`relay login`, `logout`, `whoami`: what is kept, how it is kept, and when nothing is."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import pytest

from relay.cli import secretfiles
from relay.cli.errors import Mistake
from relay.keys.forms import Kind
from tests.cli.conftest import Command
from tests.cli.fakerelay import FakeRelay, problem
from tests.cli.keytexts import id_of, mistyped, private, record, signed


def typed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def kept(tmp_path: Path) -> Path:
    return tmp_path / "home" / "relay" / "login.json"


def test_a_key_from_a_pipe(command: Command, relay: FakeRelay, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Tried with the key itself, then kept for its owner alone, and used by the next command without a word."""
    text = private()
    typed(monkeypatch, text + "\n")
    relay.on("GET /whoami", record(id_of(text)))
    result = command("login")
    assert result.code == 0
    assert f"Logged in to {relay.url} with {id_of(text)} (master key of the project a)" in result.out
    assert text not in result.out
    path = kept(tmp_path)
    assert json.loads(path.read_text()) == {"relay": relay.url, "key": text}
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert os.listdir(path.parent) == ["login.json"]
    for name in ("RELAY_URL", "RELAY_MASTER_KEY"):
        monkeypatch.delenv(name)
    out = command("whoami").out
    assert id_of(text) in out
    assert "the login in" in out
    assert relay.url in out


def test_a_key_typed_on_a_terminal(command: Command, relay: FakeRelay, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked for without an echo, and the question names the relay."""
    text = private()
    asked: list[str] = []

    def ask(question: str) -> str:
        asked.append(question)
        return text

    typed(monkeypatch, "")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("getpass.getpass", ask)
    relay.on("GET /whoami", record(id_of(text)))
    assert command("login").code == 0
    assert asked == [f"Key for {relay.url}: "]


def test_a_key_from_a_file_and_json(command: Command, relay: FakeRelay, tmp_path: Path) -> None:
    """--key-file, and one JSON object without the key."""
    text = signed()
    file = tmp_path / "child.key"
    file.write_text(text)
    file.chmod(0o600)
    relay.on("GET /whoami", record(id_of(text)))
    result = command("login", "--key-file", str(file), "--json")
    assert json.loads(result.out)["key"]["id"] == id_of(text)
    assert text not in result.out
    assert relay.asked[0].bearer == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (mistyped(private()), "standard input holds was not sent"),
        (signed(Kind.VISITOR), "A visitor key lets a visitor in"),
        ("", "standard input holds was not sent"),
    ],
    ids=["mistyped", "visitor", "empty"],
)
def test_what_is_no_key_for_a_login(
    text: str, said: str, command: Command, relay: FakeRelay, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nothing is asked, nothing is kept."""
    typed(monkeypatch, text)
    result = command("login")
    assert result.code == 2
    assert said in result.err
    assert relay.asked == []
    assert not kept(tmp_path).exists()


def test_a_key_that_the_relay_refuses(
    command: Command, relay: FakeRelay, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The login that was there stays what it was."""
    first = private()
    for text, answer, code in ((first, record(id_of(first)), 0), (private(), problem(401, "Revoked."), 3)):
        typed(monkeypatch, text)
        relay.on("GET /whoami", answer)
        assert command("login").code == code
    assert json.loads(kept(tmp_path).read_text())["key"] == first
    assert os.listdir(kept(tmp_path).parent) == ["login.json"]


def test_logout(command: Command, relay: FakeRelay, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The file goes; a second time there is none, which is no mistake."""
    text = private()
    typed(monkeypatch, text)
    relay.on("GET /whoami", record(id_of(text)))
    command("login")
    assert command("logout").out == "Logged out. The key stays valid.\n"
    assert not kept(tmp_path).exists()
    result = command("logout")
    assert (result.code, result.out) == (0, "There was no login.\n")
    assert json.loads(command("logout", "--json").out) == {"logged_out": False}


def test_whoami_json(command: Command, relay: FakeRelay) -> None:
    """Which key, where it came from, what the relay knows of it."""
    relay.on("GET /whoami", record("mtk_operator_000000000001", project=None, project_name=None))
    found = json.loads(command("whoami", "--json").out)
    assert found["origin"] == "RELAY_MASTER_KEY"
    assert found["key"]["id"] == "mtk_operator_000000000001"


# ---------------------------------------------------------------------------------------------------- the file


def test_a_file_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails leaves what was there and nothing beside it."""
    path = tmp_path / "key"
    path.write_text("old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Mistake, match="No space left"), secretfiles.SecretFile(path, replace=True) as file:
        file.write("new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["key"]


def test_a_key_is_not_written_over_another(tmp_path: Path) -> None:
    """Without `replace` a file that exists is left alone, a symbolic link to nowhere too."""
    path = tmp_path / "key"
    path.write_text("old")
    with pytest.raises(Mistake, match="exists"), secretfiles.SecretFile(path):
        pass
    assert path.read_text() == "old"
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nowhere")
    with pytest.raises(Mistake, match="exists"), secretfiles.SecretFile(link):
        pass
    assert not (tmp_path / "nowhere").exists()


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    """The sentence says why it cannot be written."""
    with pytest.raises(Mistake, match="No such file or directory"), secretfiles.SecretFile(tmp_path / "a" / "b"):
        pass
