"""`relay keys scan`: what is found, what is said of it, and that no key is ever shown."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import pytest

from relay.cli import scanning
from relay.keys.forms import Kind
from tests.cli.conftest import Command
from tests.cli.fakerelay import FakeRelay, problem
from tests.cli.keytexts import id_of, mistyped, private, record, signed


@pytest.fixture
def keys(tmp_path: Path) -> dict[Kind, str]:
    """One key of each kind, in a file each below `tree`, the second in .git, the third on line 3."""
    texts = {kind: private(kind) if kind.private else signed(kind) for kind in Kind}
    tree = tmp_path / "tree"
    (tree / ".git").mkdir(parents=True)
    (tree / "a.env").write_text(f'KEY="{texts[Kind.OPERATOR]}"\n')
    (tree / ".git" / "config").write_text(f"[x]\n\tkey = {texts[Kind.MASTER]}\n")
    (tree / "log").write_bytes(b"\xff\x00\n\n... " + texts[Kind.CHILD].encode() + b" ...\n")
    (tree / "windows.txt").write_text(texts[Kind.VISITOR] + "\r\n", encoding="utf-16")
    (tree / "nothing").write_text(mistyped(texts[Kind.MASTER]) + f" {id_of(texts[Kind.MASTER])}\n")
    return texts


def test_what_is_found(command: Command, relay: FakeRelay, tmp_path: Path, keys: dict[Kind, str]) -> None:
    """File, line, kind, id and state of each; a living one ends with 1; the keys themselves are nowhere."""
    states = {Kind.OPERATOR: "revoked", Kind.MASTER: "valid", Kind.CHILD: "expired"}
    for kind, state in states.items():
        relay.on(f"GET /keys/{id_of(keys[kind])}", record(id_of(keys[kind]), state=state))
    result = command("keys", "scan", str(tmp_path / "tree"))
    assert result.code == 1
    rows = [row.split() for row in result.out.splitlines()[1:5]]
    assert rows == [
        [f"{tmp_path}/tree/a.env:1", "operator", id_of(keys[Kind.OPERATOR]), "revoked"],
        [f"{tmp_path}/tree/log:3", "child", id_of(keys[Kind.CHILD]), "expired"],
        [f"{tmp_path}/tree/windows.txt:1", "visitor", id_of(keys[Kind.VISITOR]), "unknown"],
        [f"{tmp_path}/tree/.git/config:2", "master", id_of(keys[Kind.MASTER]), "valid"],
    ]
    assert "1 living key. Revoke with: relay keys revoke KEY --cascade" in result.out
    for text in keys.values():
        assert text not in result.out + result.err
        assert text[30:] not in json.dumps([one.headers | {"path": one.path} for one in relay.asked])


def test_nothing_alive(command: Command, relay: FakeRelay, tmp_path: Path) -> None:
    """Keys that are dead, or that this relay does not know, are no alarm; the same key is asked for once."""
    text, other = private(), private()
    (tmp_path / "a").write_text(f"{text}\n{text}\n{other}\n")
    relay.on(f"GET /keys/{id_of(text)}", record(id_of(text), state="revoked"))
    result = command("keys", "scan", str(tmp_path / "a"), "--json")
    assert result.code == 0
    assert [(one["line"], one["state"]) for one in json.loads(result.out)] == [
        (1, "revoked"), (2, "revoked"), (3, "unknown"),
    ]  # fmt: skip
    assert len(relay.asked) == 2


def test_no_key_at_all(command: Command, relay: FakeRelay, tmp_path: Path) -> None:
    """Nobody is asked about nothing."""
    (tmp_path / "a").write_text("mtk_master_ mtk_child_eyJ.eyJ\n")
    result = command("keys", "scan", str(tmp_path))
    assert (result.code, result.out, relay.asked) == (0, "No key found.\n", [])


def test_offline(command: Command, relay: FakeRelay, tmp_path: Path, keys: dict[Kind, str]) -> None:
    """Nobody is asked, no key is needed, and each may live."""
    result = command("keys", "scan", "--offline", str(tmp_path / "tree"))
    assert (result.code, relay.asked) == (1, [])
    assert result.out.count("not asked") == 4
    assert "4 living keys (perhaps: nobody was asked)" in result.out


def test_a_relay_that_cannot_say(command: Command, relay: FakeRelay, tmp_path: Path, keys: dict[Kind, str]) -> None:
    """Nothing is guessed when the relay is away."""
    relay.on(f"GET /keys/{id_of(keys[Kind.OPERATOR])}", problem(503, "Away."))
    assert command("keys", "scan", str(tmp_path / "tree")).code == 8


def test_without_a_key_to_ask_with(command: Command, tmp_path: Path, keys: dict[Kind, str]) -> None:
    """The next step is --offline."""
    result = command("keys", "scan", str(tmp_path / "tree"))
    assert result.code == 2
    assert "--offline" in result.err


def test_what_is_not_read(command: Command, relay: FakeRelay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large files are skipped with a line; pipes and links are passed by, and nothing hangs."""
    monkeypatch.setattr(scanning, "MOST", 1024)
    text = private()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "large").write_text(text + " " * 1024)
    (tmp_path / "tree" / "small").write_text(text)
    (tmp_path / "outside").write_text(text)
    (tmp_path / "tree" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "tree" / "loop").symlink_to(tmp_path / "tree")
    os.mkfifo(tmp_path / "tree" / "pipe")
    result = command("keys", "scan", "--offline", str(tmp_path / "tree"))
    assert result.out.count("mtk_master_") == 1
    assert result.err.count("\n") == 1
    assert "Skipped" in result.err
    assert "tree/large: larger than" in result.err


def test_a_path_that_is_not_there(command: Command, relay: FakeRelay) -> None:
    """A mistyped path is no clean result."""
    assert command("keys", "scan", "/nonexistent/path").code == 2


def test_standard_input(command: Command, relay: FakeRelay, monkeypatch: pytest.MonkeyPatch) -> None:
    """A history that was piped in, with its lines, also across what is read at once."""
    monkeypatch.setattr(scanning, "MOST", 4096)
    text = private()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"x" * 10_000 + b"\n\n+ " + text.encode() + b"\n")))
    [found] = json.loads(command("keys", "scan", "-", "--offline", "--json").out)
    assert found == {
        "place": "standard input", "line": 3, "kind": "master", "id": id_of(text), "state": "not asked",
    }  # fmt: skip
