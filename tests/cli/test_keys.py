"""`relay keys mint|list|show|rotate` and `relay token`: what is sent of a new key, and who gets to see it."""

from __future__ import annotations

import base64
import json
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest

from relay.cli.options import bytes_of, seconds
from relay.keys.forms import Kind
from relay.keys.private import PrivateKey
from relay.keys.requests import verify_request
from relay.keys.scopes import Scope
from tests.cli.conftest import Command
from tests.cli.fakerelay import Answer, FakeRelay, Request, problem
from tests.cli.keytexts import id_of, private, record, signed

DAY = 86_400


def minted(relay: FakeRelay, text: str | None, **changed: Any) -> None:
    key = record("mtk_child_000000000001" if text is None else id_of(text), **changed)
    relay.on("POST /keys", Answer(201, {"key": key, "text": text}))


def public_of(text: str) -> str:
    return base64.urlsafe_b64encode(PrivateKey.parse(text).public).rstrip(b"=").decode()


# ---------------------------------------------------------------------------------------------------- mint


def test_a_child_key(command: Command, relay: FakeRelay) -> None:
    """Only what was said is asked for; the key is shown once, with what it is for and how long."""
    text = signed()
    minted(relay, text, expires_at="2027-01-16T08:00:00.000000Z")
    lines = command("keys", "mint").out.splitlines()
    assert relay.asked[0].body == {"kind": "child"}
    assert lines[0] == f"Child key: {text}"
    assert "shown this once" in lines[1]
    assert lines[2].startswith(f"{id_of(text)} (child key of the project a), subdomains: any, valid until 2027-01-1")


def test_every_option_of_mint_arrives(command: Command, relay: FakeRelay) -> None:
    """Each option changes its own member."""
    minted(relay, signed())
    command(
        "keys", "mint", "--project", "mcp", "-s", "mcp-*", "--subdomain", "web", "--tunnels", "2", "--rate", "10",
        "--bandwidth", "10 Mbit/s", "--streams", "50", "--body", "1MiB", "--requests", "20000", "--bytes", "5GiB",
        "--life", "7d", "--label", "laptop",
    )  # fmt: skip
    assert relay.asked[0].body == {
        "kind": "child",
        "project": "mcp",
        "scope": {
            "names": ["mcp-*", "web"],
            "tunnels": 2,
            "rate": 10,
            "bandwidth": 1_250_000,
            "streams": 50,
            "body": 2**20,
            "monthly_requests": 20_000,
            "monthly_bytes": 5 * 2**30,
        },
        "life": 7 * DAY,
        "label": "laptop",
    }


def test_a_visitor_key(command: Command, relay: FakeRelay) -> None:
    """For one tunnel, which is said."""
    text = signed(Kind.VISITOR)
    minted(relay, text, tunnel="mcp-me")
    out = command("keys", "mint", "--visitor", "mcp-me", "--life", "1h").out
    assert relay.asked[0].body == {"kind": "visitor", "tunnel": "mcp-me", "life": 3600}
    assert out.startswith(f"Visitor key: {text}\n")
    assert "tunnel mcp-me" in out


def test_a_second_master_key(command: Command, relay: FakeRelay) -> None:
    """It is made here, and its public half is what is sent."""
    minted(relay, None)
    text = command("keys", "mint", "--master", "--project", "mcp", "--quiet").out.strip()
    assert relay.asked[0].body == {"kind": "master", "project": "mcp", "public_key": public_of(text)}


@pytest.mark.parametrize("master", [True, False])
def test_a_minted_key_into_a_file(master: bool, command: Command, relay: FakeRelay, tmp_path: Path) -> None:
    """In the file and in no output; after a refusal there is no file."""
    text, file = signed(), tmp_path / "key"
    words = ("keys", "mint", "--key-out", str(file), *(["--master"] if master else []))
    relay.on("POST /keys", problem(403, "No."))
    assert command(*words).code == 3
    assert os.listdir(tmp_path) == []
    minted(relay, None if master else text)
    result = command(*words)
    held = file.read_text().strip()
    assert relay.asked[-1].body["public_key"] == public_of(held) if master else held == text
    assert held not in result.out + result.err
    assert file.stat().st_mode & 0o777 == 0o600
    found = json.loads(command(*words, "--key-out", f"{file}2", "--json").out)
    assert (found["text"], found["file"]) == (None, f"{file}2")


@pytest.mark.parametrize("text", ["mtk_child_\x1b[2J", "x", "mtk_child_000000000001"])
def test_what_is_no_child_key_is_neither_shown_nor_kept(
    command: Command, relay: FakeRelay, tmp_path: Path, text: str
) -> None:
    """Whatever answers at the relay's address: nothing of it reaches the terminal or a file as it is."""
    relay.on("POST /keys", Answer(201, {"key": record("mtk_child_000000000001"), "text": text}))
    file = tmp_path / "child.key"
    for words in ((), ("--json",), ("--key-out", str(file))):
        answer = command("keys", "mint", *words)
        assert answer.code == 8
        assert text not in answer.out + answer.err
    assert not file.exists()


def test_mint_for_programs(command: Command, relay: FakeRelay) -> None:
    """The record and the text."""
    text = signed()
    minted(relay, text)
    found = json.loads(command("keys", "mint", "--json").out)
    assert (found["text"], found["key"]["id"], found["file"]) == (text, id_of(text), None)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--master", "--visitor", "x"), "--master and --visitor"),
        (("--visitor", "x", "--rate", "5"), "leave --subdomain and the limits out"),
        (("--life", "soon"), "--life must be a whole number with s, m, h, d or w"),
        (("--bandwidth", "fast"), "--bandwidth must be an amount a second, for example --bandwidth '10 Mbit/s'"),
        (("--body", "large"), "--body must be a number of bytes"),
        (("--bytes", "1 Mbit"), "--bytes must be a number of bytes"),
        (("--requests", "0"), "The limit monthly_requests (requests a month)"),
        (("--visitor", "x", "--bytes", "1GiB"), "leave --subdomain and the limits out"),
        (("--subdomain", "a.b"), "The pattern 'a.b' is no subdomain"),
        (("--tunnels", "0"), "The limit tunnels"),
        (("--visitor", "-"), "--visitor must be 1 to 63 of a-z"),
    ],
)
def test_what_cannot_be_minted(words: tuple[str, ...], said: str, command: Command, relay: FakeRelay) -> None:
    """A mistake in the words is found before the relay is asked."""
    result = command("keys", "mint", *words)
    assert (result.code, relay.asked) == (2, [])
    assert said in result.err


def test_amounts() -> None:
    """Times and sizes as people write them."""
    assert [seconds(text, "--x") for text in ("90", "90s", "15m", "24h", "7D", " 2w ")] == [
        90, 90, 900, DAY, 7 * DAY, 14 * DAY,
    ]  # fmt: skip
    assert [bytes_of(text, "--x") for text in ("1", "10KiB", "1MiB")] == [1, 10240, 1048576]


# ---------------------------------------------------------------------------------------------------- look at


def test_list(command: Command, relay: FakeRelay) -> None:
    """What is asked for is passed on; each key is a row with its last use."""
    used = record(
        "mtk_child_000000000001", label="laptop", last_used_at="2027-01-15T08:00:00Z", last_used_from="192.0.2.1"
    )
    relay.on("GET /keys", {"items": [used], "next_cursor": None})
    out = command("keys", "list", "--project", "a", "--kind", "child", "--state", "valid").out
    assert relay.asked[0].query == {"project": "a", "kind": "child", "state": "valid", "limit": "500"}
    for text in ("mtk_child_000000000001", "laptop", "valid", "never", "from 192.0.2.1"):
        assert text in out.splitlines()[1]
    assert json.loads(command("keys", "list", "--json").out) == [used]


def test_show_says_who_used_which_key_of_a_rotated_one(command: Command, relay: FakeRelay) -> None:
    """The whole line, the oldest first, whichever of them was asked for."""
    first, second, third = (f"mtk_master_00000000000{n}" for n in (1, 2, 3))
    line = [
        record(first, successor=second, state="expired"),
        record(second, successor=third, last_used_at="2027-01-15T08:00:00Z", last_used_from="192.0.2.1"),
        record(third, token_version=3),
    ]
    relay.on("GET /keys", {"items": [*reversed(line), record("mtk_master_00000000000x")], "next_cursor": None})
    for one in line:
        relay.on(f"GET /keys/{one['id']}", one)
        found = json.loads(command("keys", "show", one["id"], "--json").out)
        assert [each["id"] for each in found["line"]] == [first, second, third]
    out = command("keys", "show", second).out
    assert "replaced by" in out
    rows = [row.split() for row in out.splitlines() if row.startswith("mtk_")]
    assert [row[0] for row in rows] == [first, second, third]
    assert rows[1][-2:] == ["from", "192.0.2.1"]


def test_show_of_a_child_key(command: Command, relay: FakeRelay) -> None:
    """Its scope in words, by whom it was revoked, and one request only."""
    key = record(
        "mtk_child_000000000001",
        scope=Scope(("mcp-*", "web"), tunnels=2, rate=5, bandwidth=1_000_000, body=2**20).to_json(),
        effective=Scope(tunnels=2, rate=3, bandwidth=1_000_000, body=2**20, streams=7).limits(),
        usage={
            "month": "2027-01", "ends_at": "2027-02-01T00:00:00Z", "requests": 1234, "bytes_in": 1400, "bytes_out": 5,
            "left": {"requests": 18766, "bytes": None},
        },
        state="revoked", revoked_at="2027-01-15T08:00:00Z", revoked_by="mtk_master_000000000001",
    )  # fmt: skip
    relay.on("GET /keys/mtk_child_000000000001", key)
    out = command("keys", "show", "mtk_child_000000000001").out
    assert len(relay.asked) == 1
    for text in ("mcp-*, web", "by mtk_master_000000000001", "never"):
        assert text in out
    said = dict(re.split(r"  +", line.strip(), maxsplit=1) for line in out.splitlines())
    assert (said["tunnels"], said["bandwidth each way"], said["bytes in a request"]) == ("2", "8 Mbit/s", "1 MiB")
    assert said["requests a second"] == "3 (of a key or plan above; its own: 5)"
    assert said["requests at once"] == "7 (of a key or plan above; its own: none)"
    assert said["used in 2027-01"] == "1234 requests, 1.4 kB in, 5 B out"
    assert said["left"].startswith("18766 requests, until 2027-0")
    assert "requests a month" not in said


def test_show_of_a_relay_that_counts_nothing(command: Command, relay: FakeRelay) -> None:
    """What it does not say is not shown."""
    relay.on("GET /keys/mtk_child_000000000001", record("mtk_child_000000000001", scope=Scope(rate=5).to_json()))
    out = command("keys", "show", "mtk_child_000000000001").out
    assert re.search(r"requests a second +5$", out, re.MULTILINE)
    assert "used in" not in out
    assert "left" not in out


@pytest.mark.parametrize("words", [("show", "x"), ("rotate", "mtk_master_short"), ("rotate", "mtk_child_000000000001")])
def test_what_is_no_id(words: tuple[str, ...], command: Command, relay: FakeRelay) -> None:
    """A mistyped id is found here."""
    assert command("keys", *words).code == 2
    assert relay.asked == []


# ---------------------------------------------------------------------------------------------------- rotate

OLD, NEW = "mtk_master_000000000001", "mtk_master_000000000002"


def rotated(relay: FakeRelay, done: bool, key_id: str = OLD) -> None:
    old = record(key_id, expires_at="2027-01-16T08:00:00Z", successor=NEW, last_used_at="2027-01-15T08:00:00Z")
    relay.on(f"POST /keys/{key_id}/rotate", {"key": record(NEW, token_version=4), "rotated": done, "old": old})


def test_rotate(command: Command, relay: FakeRelay) -> None:
    """The new key once, how long the old one stays and how to see who uses it."""
    rotated(relay, True)
    lines = command("keys", "rotate", OLD, "--overlap", "2h").out.splitlines()
    text = lines[0].removeprefix("New master key: ")
    assert relay.asked[0].body == {"overlap": 7200, "public_key": public_of(text)}
    assert "shown this once" in lines[1]
    assert lines[2].startswith(f"The old key, {OLD}, stays valid until 2027-01-1")
    assert lines[3] == f"Who uses which: relay keys show {OLD}"
    assert len(lines) == 4


def test_rotate_of_the_key_in_use(command: Command, relay: FakeRelay, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever rotates the key they hold is told where the old one still is."""
    text = private()
    monkeypatch.setenv("RELAY_MASTER_KEY", text)
    rotated(relay, True, id_of(text))
    assert "is the one in RELAY_MASTER_KEY" in command("keys", "rotate", id_of(text)).out


def test_rotate_on_a_schedule(command: Command, relay: FakeRelay, tmp_path: Path) -> None:
    """While the version is unchanged the file keeps its key; when it rises the new one takes its place."""
    file = tmp_path / "master.key"
    file.write_text("the old one\n")
    words = ("keys", "rotate", OLD, "--token-version", "4", "--key-out", str(file))
    rotated(relay, False)
    result = command(*words)
    assert relay.asked[0].body["token_version"] == 4
    assert (result.code, file.read_text()) == (0, "the old one\n")
    assert "Nothing to do" in result.out
    assert command(*words, "--quiet").out == ""
    assert json.loads(command(*words, "--json").out)["text"] is None
    relay.on(f"POST /keys/{OLD}/rotate", problem(503, "The registry is away."))
    assert command(*words).code == 8
    assert (os.listdir(tmp_path), file.read_text()) == (["master.key"], "the old one\n")
    rotated(relay, True)
    assert command(*words).code == 0
    assert public_of(file.read_text().strip()) == relay.asked[-1].body["public_key"]
    assert file.stat().st_mode & 0o777 == 0o600


# ---------------------------------------------------------------------------------------------------- token


def test_token(command: Command, relay: FakeRelay, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bare request token for this relay, for as long as was asked; nothing is sent."""
    text = private()
    monkeypatch.setenv("RELAY_MASTER_KEY", text)
    token = command("token", "--ttl", "30m").out
    assert token.count("\n") == 1
    public, now = PrivateKey.parse(text).public, time.time()
    assert verify_request(token.strip(), public, {"127.0.0.1"}, now + 1700) == id_of(text)
    with pytest.raises(Exception, match="expired"):
        verify_request(token.strip(), public, {"127.0.0.1"}, now + 1900)
    assert json.loads(command("token", "--json").out)["expires_in"] == 600
    assert relay.asked == []


@pytest.mark.parametrize(("words", "said"), [(("--ttl", "2h"), "at most 1h"), (("--ttl", "0"), "at most 1h")])
def test_a_token_that_is_too_long(words: tuple[str, ...], said: str, command: Command, relay: FakeRelay) -> None:
    """An hour is the most that a relay takes."""
    result = command("token", *words)
    assert result.code == 2
    assert said in result.err


def test_a_child_key_signs_nothing(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is itself a token."""
    monkeypatch.setenv("RELAY_KEY", signed())
    result = command("token")
    assert (result.code, result.out) == (2, "")
    assert "RELAY_KEY holds is a child key" in result.err


def test_who_asks(command: Command, relay: FakeRelay) -> None:
    """Every command signs with the key that was found, and says with --json what the relay said."""

    def answer(request: Request) -> Answer:
        assert request.headers["Authorization"].startswith("Bearer ey")
        return Answer(body={"items": [], "next_cursor": None})

    for path in ("/projects", "/keys", "/subdomains", "/tunnels"):
        relay.on(f"GET {path}", answer)
        assert command(path[1:], "list", "--json").out == "[]\n"
