"""What an answer tells about a set-up that will not work for visitors: said once each, and only where it is so."""

from __future__ import annotations

import pytest

from relay.agent.hints import Hints
from relay.agent.targets import Target, parse_target
from relay.exchange.heads import Fields, RequestHead, ResponseHead

TARGET = parse_target("3000")


class Listening:
    """Hints, and what they said."""

    def __init__(self) -> None:
        self.said: list[dict[str, object]] = []
        self.hints = Hints(self.said.append)

    def answer(self, status: int, fields: Fields | None = None, target: Target = TARGET) -> None:
        self.hints.on_answer(target, ResponseHead(status, b"", fields or []))

    @property
    def messages(self) -> list[str]:
        assert all(event["event"] == "hint" for event in self.said)
        return [str(event["message"]) for event in self.said]


def test_a_refused_host_is_explained() -> None:
    """421: the service does not accept the name; said once, with the address and the next step."""
    listening = Listening()
    listening.answer(421)
    listening.answer(421)
    (message,) = listening.messages
    assert message.startswith("http://127.0.0.1:3000 answered 421")
    assert "--preserve-host" in message


CHALLENGE = b'Bearer resource_metadata="http://127.0.0.1:3000/.well-known/oauth-protected-resource"'


def test_a_challenge_that_names_the_local_address_is_explained() -> None:
    """A visitor's client would ask its own machine for the metadata."""
    listening = Listening()
    listening.answer(401, [(b"WWW-Authenticate", CHALLENGE)])
    (message,) = listening.messages
    assert "WWW-Authenticate" in message
    assert "X-Forwarded-Host" in message


def test_usual_answers_say_nothing() -> None:
    """A challenge with a public address, one without any, other statuses with the local address."""
    listening = Listening()
    listening.answer(401, [(b"WWW-Authenticate", b'Bearer resource_metadata="https://mcp.example.com/x"')])
    listening.answer(401)
    listening.answer(200, [(b"WWW-Authenticate", CHALLENGE)])
    listening.answer(302, [(b"Location", b"http://127.0.0.1:3000/")])
    listening.answer(500)
    assert listening.messages == []


def test_metadata_is_watched_and_nothing_else() -> None:
    """Only below /.well-known/ are bodies looked at."""
    hints = Hints(lambda event: None)
    for path, watched in (
        (b"/.well-known/oauth-authorization-server", True),
        (b"/mcp", False),
        (b"/x/.well-known/", False),
    ):
        assert hints.watches(RequestHead(b"GET", path, [], "demo")) is watched


@pytest.mark.parametrize(
    ("target", "address", "named"),
    [
        ("3000", b"http://127.0.0.1:3000", True),
        ("3000", b"http://localhost:3000/mcp", True),
        ("3000", b"https://[::1]:3000", True),
        ("3000", b"ws://0.0.0.0:3000", True),
        ("3000", b"http://127.0.0.1:30001", False),
        ("3000", b"http://127.0.0.1:300", False),
        ("3000", b"http://127.0.0.1", False),
        ("3000", b"http://10.127.0.0.1:3000.example.com", False),
        ("80", b"http://127.0.0.1/mcp", True),
        ("80", b"http://127.0.0.1:80/mcp", True),
        ("80", b"http://127.0.0.1:8080/mcp", False),
        ("http://box.internal:9000", b"http://box.internal:9000", True),
        ("http://box.internal:9000", b"http://localhost:9000", True),
        ("http://box.internal:9000", b"http://box.internal:9001", False),
        ("http://box.internal", b"http://box.internal.example.com/", False),
    ],
)
def test_when_metadata_names_the_local_address(target: str, address: bytes, named: bool) -> None:
    """By any of its usual names and its own port; an address that only begins like it is another."""
    listening = Listening()
    listening.hints.on_body(parse_target(target), b'{"issuer":"' + address + b'"}')
    assert bool(listening.messages) is named


def test_each_thing_is_said_once_for_each_service() -> None:
    """However often and wherever it is seen."""
    listening = Listening()
    other = parse_target("4000")
    for _ in range(3):
        listening.hints.on_body(TARGET, b'"http://127.0.0.1:3000"')
        listening.answer(401, [(b"WWW-Authenticate", CHALLENGE)])
        listening.answer(421)
        listening.answer(421, target=other)
    assert len(listening.messages) == 3


INITIALIZE = b'{"jsonrpc":"2.0","id":0,"method":"initialize","params":{}}'
JSON = (b"Content-Type", b"application/json")


@pytest.mark.parametrize(
    ("method", "fields", "suspect"),
    [
        (b"POST", [JSON], True),
        (b"POST", [(b"content-type", b"Application/JSON; charset=utf-8")], True),
        (b"POST", [JSON, (b"authorization", b"Bearer x")], False),
        (b"POST", [], False),
        (b"POST", [(b"Content-Type", b"text/plain")], False),
        (b"GET", [JSON], False),
    ],
)
def test_which_requests_may_open_a_session_without_a_credential(method: bytes, fields: Fields, suspect: bool) -> None:
    """A POST of JSON that shows nothing; all others cost no look at their body."""
    assert Hints(lambda event: None).suspects(RequestHead(method, b"/mcp", fields, "demo")) is suspect


@pytest.mark.parametrize(
    ("body", "opens"),
    [
        (INITIALIZE, True),
        (INITIALIZE.replace(b'":"', b'" : \r\n "'), True),
        (b"[" + INITIALIZE + b"]", True),
        (INITIALIZE.replace(b"initialize", b"notifications/initialized"), False),
        (INITIALIZE.replace(b"jsonrpc", b"other"), False),
        (INITIALIZE + b" " * 9000, False),
        (b"", False),
    ],
)
def test_what_opens_a_session(body: bytes, opens: bool) -> None:
    """A short JSON-RPC request called initialize."""
    assert Hints(lambda event: None).opens_mcp("demo", body) is opens


def test_an_open_server_is_warned_of_once_for_each_tunnel() -> None:
    """With the name and both cures; what was said already is not even looked for."""
    said: list[dict[str, object]] = []
    hints = Hints(said.append)
    for name in ("demo", "demo", "other"):
        hints.on_open_mcp(name)
    assert [event["event"] for event in said] == ["warning"] * 2
    assert "behind demo let in" in str(said[0]["message"])
    assert "--private" in str(said[0]["message"])
    assert "--basic-auth-file" in str(said[0]["message"])
    assert not hints.opens_mcp("demo", INITIALIZE)
    assert hints.opens_mcp("third", INITIALIZE)
