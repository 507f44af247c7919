"""`relay projects`, `subdomains`, `tunnels`: what is asked of the relay, and what of its answer is read by whom."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from relay.keys.private import PrivateKey
from relay.keys.scopes import Scope
from tests.cli.conftest import Command
from tests.cli.fakerelay import Answer, FakeRelay, problem
from tests.cli.keytexts import record

PROJECT: dict[str, Any] = {
    "id": "proj_mcp_server_0a1B2c", "name": "mcp-server", "plan": "hobby", "created_at": "2027-01-15T08:00:00.000000Z",
    "limits": Scope(tunnels=3, bandwidth=1_250_000, monthly_requests=20_000).limits(),
    "created_by": "mtk_operator_000000000001", "deleted_at": None,
}  # fmt: skip
NAME: dict[str, Any] = {
    "name": "mcp-me", "url": "http://mcp-me.tunnels.localhost:8080", "project": PROJECT["id"],
    "project_name": "mcp-server", "reserved_at": "2027-01-15T08:00:00.000000Z", "released_at": None,
    "login": "mtk_operator_000000000001",
}  # fmt: skip
TUNNEL: dict[str, Any] = {
    "name": "mcp-me", "url": "http://mcp-me.tunnels.localhost:8080", "project": PROJECT["id"],
    "project_name": "mcp-server", "key_id": "mtk_child_000000000001", "links": 2,
    "since": "2027-01-15T08:00:00.000000Z", "streams": 3, "private": True,
}  # fmt: skip


def created(relay: FakeRelay) -> None:
    relay.on("POST /projects", Answer(201, {"project": PROJECT, "master": record("mtk_master_000000000001")}))


def published(relay: FakeRelay) -> str:
    """The public half that was sent."""
    return str(relay.asked[-1].body["master"]["public_key"])


def public_of(text: str) -> str:
    import base64

    return base64.urlsafe_b64encode(PrivateKey.parse(text).public).rstrip(b"=").decode()


def terminal(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    stdin = io.StringIO(answer)
    monkeypatch.setattr(stdin, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", stdin)


# ---------------------------------------------------------------------------------------------------- create


def test_create_as_the_tutorial_has_it(command: Command, relay: FakeRelay) -> None:
    """Project and master key on one line, then the sentence; only the public half of the key has left."""
    created(relay)
    result = command("projects", "create", "mcp-server", "--label", "first", "--plan", "hobby")
    assert result.code == 0
    line, sentence = result.out.splitlines()
    lead, _, text = line.rpartition(" ")
    assert lead == f"Project created: {PROJECT['id']}   Master key:"
    assert "shown this once" in sentence
    assert (relay.asked[0].body["name"], relay.asked[0].body["plan"]) == ("mcp-server", "hobby")
    assert relay.asked[0].body["master"]["label"] == "first"
    assert published(relay) == public_of(text)
    assert text[25:] not in json.dumps(relay.asked[0].body)


def test_create_for_programs(command: Command, relay: FakeRelay) -> None:
    """One JSON object; --quiet prints the key and nothing else."""
    created(relay)
    found = json.loads(command("projects", "create", "mcp-server", "--json").out)
    assert (found["project"], found["key"]["id"]) == (PROJECT, "mtk_master_000000000001")
    assert published(relay) == public_of(found["master_key"])
    text = command("projects", "create", "mcp-server", "--quiet").out.strip()
    assert published(relay) == public_of(text)


@pytest.mark.parametrize("words", [(), ("--quiet",), ("--json",)])
def test_create_into_a_file(words: tuple[str, ...], command: Command, relay: FakeRelay, tmp_path: Path) -> None:
    """The key is in the file, 0600, and in no output."""
    created(relay)
    file = tmp_path / "master.key"
    result = command("projects", "create", "mcp-server", "--key-out", str(file), *words)
    text = file.read_text().strip()
    assert published(relay) == public_of(text)
    assert file.stat().st_mode & 0o777 == 0o600
    assert text not in result.out + result.err
    assert (str(file) in result.out) == (words != ("--quiet",))
    assert os.listdir(tmp_path) == ["master.key"]


def test_no_project_whose_key_cannot_be_kept(command: Command, relay: FakeRelay, tmp_path: Path) -> None:
    """A file that exists, or cannot be made, ends it before the relay is asked; a refusal leaves no file."""
    created(relay)
    file = tmp_path / "master.key"
    file.write_text("another")
    assert command("projects", "create", "mcp-server", "--key-out", str(file)).code == 2
    assert command("projects", "create", "mcp-server", "--key-out", str(tmp_path / "a" / "b")).code == 2
    assert (relay.asked, file.read_text()) == ([], "another")
    relay.on("POST /projects", problem(409, "The name is taken."))
    assert command("projects", "create", "mcp-server", "--key-out", str(tmp_path / "new")).code == 4
    assert not (tmp_path / "new").exists()


# ---------------------------------------------------------------------------------------------------- the rest


def test_projects_list_and_show(command: Command, relay: FakeRelay) -> None:
    """A table for people, the API's objects for programs."""
    relay.on("GET /projects", {"items": [PROJECT], "next_cursor": None})
    relay.on("GET /projects/mcp-server", PROJECT)
    relay.on("GET /subdomains", {"items": [NAME], "next_cursor": None})
    relay.on("GET /keys", {"items": [record("mtk_master_000000000001")], "next_cursor": None})
    header, row = command("projects", "list").out.splitlines()
    assert header.split() == ["NAME", "ID", "PLAN", "CREATED", "BY"]
    assert row.split()[:3] == ["mcp-server", PROJECT["id"], "hobby"]
    assert json.loads(command("projects", "list", "--json").out) == [PROJECT]
    assert json.loads(command("projects", "show", "mcp-server", "--json").out) == PROJECT
    out = command("projects", "show", "mcp-server").out
    for text in ("mcp-me", "mtk_master_000000000001", "mtk_operator_000000000001", "hobby", "10 Mbit/s", "20000"):
        assert text in out
    relay.on("GET /projects", {"items": [], "next_cursor": None})
    assert "relay projects create NAME" in command("projects", "list").out


def test_a_plan_is_given_and_taken(command: Command, relay: FakeRelay) -> None:
    """With the limits that hold from then on; `none` is no name of a plan."""
    relay.on("PATCH /projects/mcp-server", PROJECT, {**PROJECT, "plan": None, "limits": Scope().limits()})
    assert command("projects", "plan", "mcp-server", "hobby").out == (
        "Plan of mcp-server: hobby (tunnels: 3, bandwidth each way: 10 Mbit/s, requests a month: 20000)\n"
    )
    assert command("projects", "plan", "mcp-server", "none").out == "Plan of mcp-server: none (no limits)\n"
    assert [one.body for one in relay.asked] == [{"plan": "hobby"}, {"plan": None}]
    assert json.loads(command("projects", "plan", "mcp-server", "none", "--json").out)["plan"] is None
    relay.on("PATCH /projects/mcp-server", problem(422, "There is no plan 'big'; there are: hobby."))
    result = command("projects", "plan", "mcp-server", "big")
    assert result.code == 4
    assert "there are: hobby" in result.err


REVOKED = {"operator": 0, "master": 1, "child": 3, "visitor": 0, "remaining": 0}


@pytest.mark.parametrize(
    ("words", "call", "answer"),
    [
        (("projects", "delete", "mcp-server"), "DELETE /projects/mcp-server", REVOKED),
        (("subdomains", "release", "MCP-Me"), "DELETE /subdomains/mcp-me", Answer(204, b"")),
    ],
)
def test_what_cannot_be_undone_is_asked(
    words: tuple[str, ...],
    call: str,
    answer: object,
    command: Command,
    relay: FakeRelay,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a terminal; without one --yes is demanded, and without a yes nothing is done."""
    relay.on(call, answer)
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    result = command(*words)
    assert (result.code, relay.asked) == (2, [])
    assert "--yes" in result.err
    terminal(monkeypatch, "n\n")
    result = command(*words)
    assert (result.code, result.out, relay.asked) == (1, "", [])
    assert "Nothing was done" in result.err
    terminal(monkeypatch, "y\n")
    assert command(*words).code == 0
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert command(*words, "--yes").code == 0
    assert len(relay.asked) == 2


def test_a_deleted_project_says_what_it_took_along(command: Command, relay: FakeRelay) -> None:
    """The counts of keys, in the words of a revocation."""
    relay.on("DELETE /projects/mcp-server", REVOKED)
    assert command("projects", "delete", "mcp-server", "--yes").out.splitlines() == [
        "Project deleted: mcp-server",
        "Revoked 1 master key.",
        "Revoked 3 child keys.",
    ]
    assert json.loads(command("projects", "delete", "mcp-server", "-y", "--json").out)["child"] == 3


def test_subdomains(command: Command, relay: FakeRelay) -> None:
    """Reserve for a project or the caller's own; list; a name is written small."""
    relay.on("PUT /subdomains/mcp-me", NAME)
    relay.on("GET /subdomains", {"items": [NAME], "next_cursor": None})
    assert command("subdomains", "reserve", "MCP-me").out == f"Reserved for mcp-server: {NAME['url']}\n"
    command("subdomains", "reserve", "mcp-me", "--project", "mcp-server")
    assert [one.body for one in relay.asked] == [{}, {"project": "mcp-server"}]
    out = command("subdomains", "list", "--project", "mcp-server").out
    assert relay.asked[-1].query["project"] == "mcp-server"
    assert NAME["url"] in out
    assert json.loads(command("subdomains", "list", "--json").out) == [NAME]


def test_tunnels(command: Command, relay: FakeRelay) -> None:
    """What is alive; and the end of one, which does not ask."""
    relay.on("GET /tunnels", {"items": [TUNNEL], "next_cursor": None})
    relay.on("DELETE /tunnels/mcp-me", Answer(204, b""))
    row = command("tunnels", "list").out.splitlines()[1].split()
    assert row[:5] == ["mcp-me", "mcp-server", TUNNEL["url"], "2", "3"]
    assert row[-2:] == ["yes", "mtk_child_000000000001"]
    assert json.loads(command("tunnels", "list", "--json").out) == [TUNNEL]
    assert command("tunnels", "close", "mcp-me").out == "Closed: mcp-me\n"
    relay.on("GET /tunnels", {"items": [], "next_cursor": None})
    assert "No tunnel is open" in command("tunnels", "list").out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("projects", "create", "My Project"), "The name of a project must be 1 to 63 of a-z"),
        (("subdomains", "reserve", "a.b"), "NAME must be 1 to 63 of a-z"),
        (("subdomains", "release", "a-"), "NAME must be"),
        (("tunnels", "close", ""), "NAME must be"),
        (("keys", "list", "--kind", "slave"), "--kind must be one of operator, master, child, visitor"),
        (("keys", "list", "--state", "dead"), "--state must be one of valid, expired, revoked, retired"),
        (("usage", "--month", "2026-13"), "--month must be a year and a month, for example --month 2026-11"),
    ],
)
def test_words_that_make_no_sense(words: tuple[str, ...], said: str, command: Command, relay: FakeRelay) -> None:
    """Found here, with an example, before the relay is asked."""
    result = command(*words)
    assert (result.code, relay.asked) == (2, [])
    assert said in result.err


def test_a_table_cannot_steer_a_terminal(command: Command, relay: FakeRelay) -> None:
    """Escapes, line ends and Rich's own markup in what others named are shown as they are."""
    hostile = {**TUNNEL, "name": "\x1b[2J\n[red]:smile:[/red]", "since": "\x1b]0;x\x07"}
    relay.on("GET /tunnels", {"items": [hostile], "next_cursor": None})
    out = command("tunnels", "list").out
    assert "\x1b" not in out
    assert r"\x1b[2J\n[red]:smile:[/red]" in out
    assert len(out.splitlines()) == 2


@pytest.mark.parametrize("group", ["projects", "keys", "subdomains", "tunnels", "audit"])
def test_a_group_alone_shows_what_there_is(group: str, command: Command) -> None:
    """Without a command the help is shown, and a wrong one says where help is."""
    result = command(group)
    assert result.code == 0
    assert "Commands" in result.out
    assert f"See: relay {group} --help" in command(group, "nope").err
