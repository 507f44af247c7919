"""Where an agent's keys come from, and how a name follows its login to another project."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from relay.agent.config import Claimant, Exit, FixedKey, KeyRefused
from relay.cli.errors import Mistake
from relay.cli.keyring import Key
from relay.cli.minting import Minter, key_source
from relay.cli.secretfiles import Login, write_login
from relay.keys.forms import Kind
from relay.keys.requests import read_kid
from tests.cli.conftest import Command, StandIn
from tests.cli.fakerelay import Answer, FakeRelay, problem
from tests.cli.keytexts import id_of, private, record, signed


def source(relay: FakeRelay, key: Key, project: str | None = None, names: tuple[str, ...] = ("mcp-me",)) -> Minter:
    found = key_source(relay.url, key, project, names, os.environ)
    assert isinstance(found, Minter)
    return found


def operator(text: str) -> Key:
    return Key(text, "RELAY_MASTER_KEY", Kind.OPERATOR)


def minted(text: str, **changed: Any) -> Answer:
    times = {"created_at": "2027-01-15T08:00:00.000000Z", "expires_at": "2027-01-16T08:00:00.000000Z"}
    return Answer(201, {"key": record(id_of(text), **times, **changed), "text": text})


# ---------------------------------------------------------------------------------------------------- keys


def test_a_child_key_is_used_as_it_is(relay: FakeRelay) -> None:
    """Nobody is asked for it."""
    text = signed()
    found = key_source(relay.url, Key(text, "RELAY_KEY", Kind.CHILD), None, ("x",), {})
    assert isinstance(found, FixedKey)
    assert found.fresh().text == text
    assert relay.asked == []


@pytest.mark.parametrize("project", [None, "mcp-server"])
def test_what_a_minted_key_may_do(relay: FakeRelay, project: str | None) -> None:
    """The names that this agent claims and no more, for the project that was named; the machine is its label."""
    text = signed()
    relay.on("POST /keys", minted(text))
    held = source(relay, operator(private(Kind.OPERATOR)), project, ("mcp-me", "web")).fresh()
    body = relay.asked[0].body
    assert body.pop("label")
    assert body == {
        "kind": "child", "scope": {"names": ["mcp-me", "web"]}, **({"project": project} if project else {}),
    }  # fmt: skip
    assert (held.text, held.expires_at - held.issued_at, held.renewable) == (text, 86_400, True)
    assert text not in repr(held)


def test_more_names_than_a_scope_holds(relay: FakeRelay) -> None:
    """Then the key is as wide as its parent, instead of none."""
    relay.on("POST /keys", minted(signed()))
    source(relay, operator(private(Kind.OPERATOR)), None, tuple(f"n{number}" for number in range(17))).fresh()
    assert "scope" not in relay.asked[0].body


@pytest.mark.parametrize(
    ("answer", "final", "code"),
    [
        (problem(401, "Revoked."), True, Exit.KEY_REFUSED),
        (problem(403, "No."), True, Exit.KEY_REFUSED),
        (problem(404, "No project."), True, Exit.KEY_REFUSED),
        (problem(503, "Away."), False, Exit.UNEXPECTED),
        (problem(429, "Later."), False, Exit.UNEXPECTED),
        (Answer(502, b"<html>"), False, Exit.UNEXPECTED),
        (Answer(201, {"key": {}, "text": None}), True, Exit.KEY_REFUSED),
        (Answer(201, {"key": record("mtk_child_000000000001"), "text": "x"}), True, Exit.KEY_REFUSED),
    ],
)
def test_no_key(relay: FakeRelay, answer: Answer, final: bool, code: Exit) -> None:
    """What the relay refuses is final; what it cannot do now is tried again by whoever asked."""
    relay.on("POST /keys", answer)
    with pytest.raises(KeyRefused) as refused:
        source(relay, operator(private(Kind.OPERATOR))).fresh()
    assert (refused.value.final, refused.value.code) == (final, code)


# ---------------------------------------------------------------------------------------------------- names


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A user without a login, on a machine without a relay."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("RELAY_DATA", str(tmp_path / "data"))
    return tmp_path


def askers(relay: FakeRelay) -> list[str]:
    return [read_kid(one.bearer) for one in relay.asked if one.path.endswith("/move")]


def test_the_login_moves_its_own_name(relay: FakeRelay, places: Path) -> None:
    """The master key mints, the login moves: it is another key than the one in use."""
    login, master = private(Kind.OPERATOR), private()
    write_login(Login(relay.url, login), os.environ)
    relay.on("POST /subdomains/mcp-me/move", {})
    found = source(relay, Key(master, "MTK_MASTER", Kind.MASTER), "mcp-server")
    assert isinstance(found, Claimant)
    assert found.claim_for_login(("mcp-me",)) is True
    assert askers(relay) == [id_of(login)]
    assert relay.asked[-1].body == {"project": "mcp-server"}


def test_the_operator_key_of_this_machine_moves_it_too(relay: FakeRelay, places: Path) -> None:
    """On the relay's own machine nobody logs in. Without --project it is the master key's own project."""
    own, master = private(Kind.OPERATOR), private()
    (places / "data").mkdir()
    (places / "data" / "operator.key").write_text(own)
    (places / "data" / "operator.key").chmod(0o600)
    relay.on("GET /whoami", record(id_of(master), project="proj_a_000001"))
    relay.on("POST /subdomains/mcp-me/move", {})
    assert source(relay, Key(master, "MTK_MASTER", Kind.MASTER)).claim_for_login(("mcp-me",)) is True
    assert askers(relay) == [id_of(own)]
    assert relay.asked[-1].body == {"project": "proj_a_000001"}


def test_an_operator_key_in_use_moves_by_itself(relay: FakeRelay, places: Path) -> None:
    """The same key is not asked twice."""
    own = private(Kind.OPERATOR)
    write_login(Login(relay.url, own), os.environ)
    relay.on("POST /subdomains/a/move", problem(403, "Reserved by another login."))
    relay.on("POST /subdomains/b/move", {})
    assert source(relay, operator(own), "p").claim_for_login(("a", "b")) is True
    assert askers(relay) == [id_of(own)] * 2


def test_a_name_of_somebody_else(relay: FakeRelay, places: Path) -> None:
    """Every key of this user is tried, and the relay's no is the end of it."""
    login, own = private(Kind.OPERATOR), private(Kind.OPERATOR)
    write_login(Login(relay.url, login), os.environ)
    (places / "data").mkdir()
    (places / "data" / "operator.key").write_text(own)
    relay.on("POST /subdomains/mcp-me/move", problem(403, "Reserved by another login."))
    assert source(relay, Key(private(), "MTK_MASTER", Kind.MASTER), "p").claim_for_login(("mcp-me",)) is False
    assert askers(relay) == [id_of(login), id_of(own)]


def test_nobody_to_ask(relay: FakeRelay, places: Path) -> None:
    """A master key alone moves nothing, and a login at another relay is not shown to this one."""
    write_login(Login("wss://tunnels.example.com", private(Kind.OPERATOR)), os.environ)
    assert source(relay, Key(private(), "MTK_MASTER", Kind.MASTER), "p").claim_for_login(("mcp-me",)) is False
    assert relay.asked == []


def test_a_relay_that_is_away_while_a_name_moves(relay: FakeRelay, places: Path) -> None:
    """Told as what it is, and not final."""
    relay.on("POST /subdomains/mcp-me/move", problem(503, "Away."))
    with pytest.raises(KeyRefused) as refused:
        source(relay, operator(private(Kind.OPERATOR)), "p").claim_for_login(("mcp-me",))
    assert not refused.value.final


# ---------------------------------------------------------------------------------------------------- relay http


def test_which_source_an_agent_gets(
    command: Command, agent: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A child key as it is, a master key as a mint, a visitor key not at all, and no project for a child key."""
    assert command("http", "3000").code == 0
    assert isinstance(agent.settings.keys, FixedKey)
    result = command("http", "3000", "--project", "p")
    assert result.code == 2
    assert "RELAY_KEY holds is a child key" in result.err
    monkeypatch.setenv("RELAY_KEY", signed(Kind.VISITOR))
    result = command("http", "3000")
    assert result.code == 2
    assert "visitor key" in result.err
    monkeypatch.delenv("RELAY_KEY")
    monkeypatch.setenv("MTK_MASTER", private())
    assert command("http", "3000", "--project", "p").code == 0
    assert isinstance(agent.settings.keys, Minter)


def test_a_key_put_together_from_two(command: Command, relay: FakeRelay, monkeypatch: pytest.MonkeyPatch) -> None:
    """The id of one and the secret of another, with a checksum that fits, is found before anything is sent."""
    from relay.keys.forms import with_checksum

    one, two = private(), private()
    monkeypatch.setenv("RELAY_MASTER_KEY", with_checksum(one[:24] + two[24:-6]))
    result = command("keys", "list")
    assert (result.code, relay.asked) == (2, [])
    assert "RELAY_MASTER_KEY" in result.err
    with pytest.raises(Mistake):
        key_source(relay.url, Key(with_checksum(one[:24] + two[24:-6]), "x", Kind.MASTER), None, ("x",), {})
