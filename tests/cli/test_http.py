"""`relay http`: what was typed becomes the agent's settings, and what the agent reports becomes lines."""

from __future__ import annotations

import json
import os
import re
import socket
from ipaddress import ip_network

import pytest

from relay.cli.http import random_name
from relay.wire.hello import LABEL
from relay.wire.limits import TunnelLimits
from tests.cli.conftest import Command, Event, StandIn

UP: list[Event] = [
    {"event": "connecting", "slot": 0, "relay": "ws://127.0.0.1:8081"},
    {"event": "connected", "slot": 0},
    {
        "event": "established",
        "subdomain": "x",
        "url": "http://x.tunnels.localhost:8080",
        "target": "http://127.0.0.1:3000",
    },
]


def request(status: int, **more: object) -> Event:
    return {
        "event": "request", "subdomain": "x", "method": "POST", "path": "/mcp", "status": status,
        "duration": 0.0123, "bytes": 1400, **more,
    }  # fmt: skip


def test_the_plain_call(command: Command, agent: StandIn) -> None:
    """A port and a name are enough; everything else has its default."""
    assert command("http", "3000", "--subdomain", "Mcp-Me").code == 0
    settings = agent.settings
    assert [(name, target.url) for name, target in settings.tunnels] == [("mcp-me", "http://127.0.0.1:3000")]
    assert (settings.relay_url, settings.keys.fresh().text) == ("ws://127.0.0.1:8081", os.environ["RELAY_KEY"])
    assert (settings.links, settings.preserve_host) == (2, frozenset())
    assert (settings.allow_upstream, settings.http_parser) == ((), "httptools")
    assert os.environ["RELAY_KEY"] not in repr(settings)


def test_every_option_arrives(command: Command, agent: StandIn) -> None:
    """Each option changes its own setting."""
    command(
        "http", "-s", "api=3000", "--subdomain", "web=http://192.168.1.20:8000", "--relay", "ws://relay.example",
        "--insecure", "--links", "4", "--preserve-host", "--allow-upstream", "203.0.113.0/24", "--allow-upstream",
        "2001:db8::/32", "--http-parser", "h11", "--rate", "20", "--rate-per-address", "5",
    )  # fmt: skip
    settings = agent.settings
    assert [(name, target.url) for name, target in settings.tunnels] == [
        ("api", "http://127.0.0.1:3000"),
        ("web", "http://192.168.1.20:8000"),
    ]
    assert (settings.relay_url, settings.links) == ("ws://relay.example", 4)
    assert (settings.preserve_host, settings.http_parser) == (frozenset({"api", "web"}), "h11")
    assert settings.allow_upstream == (ip_network("203.0.113.0/24"), ip_network("2001:db8::/32"))
    assert settings.limits == dict.fromkeys(("api", "web"), TunnelLimits(20, 5))


def test_a_tunnel_is_not_limited_unless_somebody_says_so(command: Command, agent: StandIn) -> None:
    """One of the two rates is enough, and the other stays open."""
    command("http", "3000", "-s", "x")
    assert agent.settings.limits == {}
    command("http", "3000", "-s", "x", "--rate-per-address", "1")
    assert agent.settings.limits == {"x": TunnelLimits(None, 1)}


@pytest.mark.parametrize("text", ["ftp://me:s3cret@proxy", "http://me:s3cret@proxy:port"])
def test_a_proxy_that_can_be_none_is_a_mistake(
    text: str, command: Command, agent: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said before anything is sent, without what stands in it; for a relay on this machine it does not count."""
    monkeypatch.setenv("HTTPS_PROXY", text)
    result = command("http", "3000", "-s", "x", "--relay", "wss://relay.example")
    assert result.code == 2
    assert "HTTPS_PROXY in the environment" in result.err
    assert "s3cret" not in result.err
    assert agent.settings is None
    assert command("http", "3000", "-s", "x").code == 0


def test_several_names_for_one_local_service(command: Command, agent: StandIn) -> None:
    """With TARGET, --subdomain may be repeated too."""
    command("http", "3000", "-s", "a", "-s", "b")
    assert [name for name, _ in agent.settings.tunnels] == ["a", "b"]


def test_a_random_name(command: Command, agent: StandIn) -> None:
    """Without --subdomain the name is two words and a number, a valid label, and not the same again."""
    command("http", "3000")
    [(name, _)] = agent.settings.tunnels
    assert re.fullmatch(r"[a-z]+-[a-z]+-[0-9]{4}", name)
    names = {random_name() for _ in range(50)}
    assert len(names) > 40
    assert all(LABEL.fullmatch(one) for one in names)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "relay http 3000"),
        (("--subdomain", "x"), "relay http 3000 --subdomain x"),
        (("3000", "--subdomain", "x=4000"), "not both"),
        (("3000", "--subdomain", "-x"), "1 to 63 of a-z"),
        (("3000", "--subdomain", "x.y"), "1 to 63 of a-z"),
        (("3000", "--subdomain", ""), "1 to 63 of a-z"),
        (("--subdomain", "x=1", "--subdomain", "X=2"), "stands twice"),
        (("3000", *(f"-sn{number}" for number in range(65))), "at most 64 tunnels"),
        (("ftp://x",), "http://127.0.0.1:3000"),
        (("99999",), "1 to 65535"),
        (("3000", "--links", "5"), "--links must be"),
        (("3000", "--links", "0"), "--links must be"),
        (("3000", "--http-parser", "regex"), "httptools or h11"),
        (("3000", "--allow-upstream", "here"), "--allow-upstream must be"),
        (("3000", "--rate", "0"), "--rate must be"),
        (("3000", "--rate-per-address", "1000001"), "--rate-per-address must be"),
        (("3000", "--relay", "ws://10.0.0.1"), "--insecure"),
        (("3000", "--key-file", "/nonexistent/key"), "No such file"),
    ],
)
def test_a_mistake_is_one_sentence_and_nothing_is_sent(
    words: tuple[str, ...], said: str, command: Command, agent: StandIn
) -> None:
    """Exit code 2, one line on stderr with the next step, and the agent never ran."""
    result = command("http", *words)
    assert (result.code, result.out) == (2, "")
    assert said in result.err
    assert result.err.count("\n") == 1
    assert agent.settings is None


def test_a_terminal_is_not_steered(command: Command, agent: StandIn) -> None:
    """What is not printable is shown escaped, in mistakes and in lines."""
    assert "\x1b" not in command("http", "3000", "--subdomain", "\x1b[2J").err
    agent.events = [*UP, request(200, path="/\x1b[2J\n?")]
    result = command("http", "3000", "-s", "x")
    assert "\x1b" not in result.out
    assert r"/\x1b[2J\n" in result.out


def test_the_tunnel_is_announced_exactly(command: Command, agent: StandIn) -> None:
    """The two lines that people and scripts look for, once even if an agent said it again."""
    agent.events = [*UP, UP[2]]
    out = command("http", "3000", "-s", "x").out
    assert "Tunnel established:\n  http://x.tunnels.localhost:8080 → http://127.0.0.1:3000\n" in out
    assert out.count("Tunnel established:") == 1
    assert out.count("→") == 1


def test_several_tunnels_under_one_heading(command: Command, agent: StandIn) -> None:
    """A line for each tunnel, and its name in the lines of requests."""
    agent.events = [
        {"event": "established", "subdomain": "a", "url": "https://a.t.example", "target": "http://127.0.0.1:1"},
        {"event": "established", "subdomain": "b", "url": "https://b.t.example", "target": "http://127.0.0.1:2"},
        request(200, subdomain="b"),
    ]
    out = command("http", "-s", "a=1", "-s", "b=2").out
    assert (
        "Tunnel established:\n  https://a.t.example → http://127.0.0.1:1\n  https://b.t.example → http://127.0.0.1:2\n"
    ) in out
    assert re.search(r"b  POST +/mcp  200", out)


def test_a_request_is_a_line(command: Command, agent: StandIn) -> None:
    """Method, path without its query, status, time and bytes; an error in its place; nothing with --quiet."""
    agent.events = [*UP, request(200, path="/mcp?token=s3cret"), request(0, error="local_reset", detail="x: closed")]
    out = command("http", "3000", "-s", "x").out
    assert re.search(r"^\d\d:\d\d:\d\d  POST     /mcp  200  12 ms  1\.4 kB$", out, re.MULTILINE)
    assert re.search(r"POST     /mcp  local_reset  12 ms  1\.4 kB$", out, re.MULTILINE)
    assert "s3cret" not in out
    assert not agent.quiet
    out = command("http", "3000", "-s", "x", "--quiet").out
    assert agent.quiet
    assert "/mcp" not in out
    assert "Hint: The local service at http://127.0.0.1:3000 broke the connection off" in out


def test_a_key_in_a_path_is_not_told(command: Command, agent: StandIn) -> None:
    """Its kind is, for people and for programs."""
    agent.events = [*UP, request(200, path="/a/mtk_master_3fGh8KqLm2Np_s3cret/b")]
    for words in ((), ("--json",)):
        out = command("http", "3000", "-s", "x", *words).out
        assert "/a/mtk_master_" in out
        assert "s3cret" not in out


def test_json_is_one_event_a_line(command: Command, agent: StandIn) -> None:
    """Every event arrives as it was reported, except the query of a path; hints are events too."""
    agent.events = [*UP, request(401, path="/a?b"), {"event": "stopped", "exit_code": 0}]
    lines = [json.loads(line) for line in command("http", "3000", "-s", "x", "--json").out.splitlines()]
    silent = [line for line in lines if line["event"] != "hint"]
    assert silent == [*UP, request(401, path="/a"), {"event": "stopped", "exit_code": 0}]
    assert [line for line in lines if "401" in line.get("message", "")] != []
    quiet = command("http", "3000", "-s", "x", "--json", "--quiet").out
    assert '"request"' not in quiet
    assert '"established"' in quiet


def test_a_401_says_whose_it_is_once(command: Command, agent: StandIn) -> None:
    """It came from the local service, named by its address; the second one needs no hint."""
    agent.events = [*UP, request(401), request(401)]
    out = command("http", "3000", "-s", "x").out
    assert out.count("The 401 came from the local service at http://127.0.0.1:3000, not from the relay") == 1


def test_nothing_listens(command: Command, agent: StandIn) -> None:
    """Said at the start and not again for each request, but again after the service had been there."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = str(unused.getsockname()[1])
        refused = request(0, error="local_refused", detail=f"http://127.0.0.1:{port}: connection refused")
        agent.events = [*UP, refused, refused]
        said = f"Nothing listens on http://127.0.0.1:{port}: start the local service"
        assert command("http", port, "-s", "x").out.count(said) == 1
        agent.events = [*UP, refused, request(200), refused, refused]
        assert command("http", port, "-s", "x").out.count(said) == 2


def test_something_listens(command: Command, agent: StandIn) -> None:
    """No hint where the local service is there."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert "Hint" not in command("http", str(server.getsockname()[1]), "-s", "x").out


def test_an_address_that_is_not_allowed(command: Command, agent: StandIn) -> None:
    """A refusal for another reason than a closed port says that reason."""
    agent.events = [*UP, request(0, error="local_refused", detail="http://x: 8.8.8.8 is neither; use --allow-upstream")]
    out = command("http", "3000", "-s", "x").out
    assert "Hint: The local service cannot be reached: http://x: 8.8.8.8 is neither; use --allow-upstream." in out


REFUSALS = [
    ("bad_key", 3, ["RELAY_KEY", "--key-file"]),
    ("expired", 3, ["RELAY_KEY", "--project"]),
    ("name_taken", 4, ["--subdomain"]),
    ("name_reserved", 4, ["--subdomain"]),
    ("version", 5, ["pip install --upgrade tunnel-relay"]),
]


@pytest.mark.parametrize(("code", "end", "steps"), REFUSALS)
def test_a_refusal_is_said_once_with_the_next_step(
    code: str, end: int, steps: list[str], command: Command, agent: StandIn
) -> None:
    """The relay's sentence and what to do, on stderr, once for all links; the agent's exit code is passed on."""
    refused: Event = {"event": "refused", "code": code, "message": "No, thank you", "retry_after": None}
    agent.events = [{"event": "connecting", "slot": 0}, refused, refused, {"event": "stopped", "exit_code": end}]
    agent.code = end
    result = command("http", "3000", "-s", "x")
    assert result.code == end
    assert result.err.count("The relay refused: No, thank you.") == 1
    for step in steps:
        assert step in result.err


def test_a_relay_that_does_not_answer_is_said_once(command: Command, agent: StandIn) -> None:
    """A line for the first failure, none for its repetitions, one when it is back."""
    away: Event = {"event": "disconnected", "slot": 0, "reason": "connection refused", "retry_in": 0.1}
    agent.events = [UP[0], away, UP[0], away, UP[0], away, *UP[1:], away, UP[0], away, UP[1]]
    out = command("http", "3000", "-s", "x").out
    assert out.count("The relay at ws://127.0.0.1:8081 cannot be reached (connection refused). Is it running") == 1
    assert out.count("Connecting to ws://127.0.0.1:8081") == 1
    assert out.count("The relay is lost (connection refused).") == 1
    assert out.count("Connected to the relay again.") == 1


def test_one_link_of_two(command: Command, agent: StandIn) -> None:
    """The loss of one link is told apart from the loss of the relay."""
    agent.events = [*UP, {"event": "connected", "slot": 1}, {"event": "disconnected", "slot": 1, "reason": "reset"}]
    out = command("http", "3000", "-s", "x").out
    assert "One of the links to the relay is lost (reset), another carries on." in out
    assert "The relay is lost" not in out


def test_a_relay_that_asks_for_patience(command: Command, agent: StandIn) -> None:
    """A refusal that is not final says so, once."""
    refused: Event = {"event": "refused", "code": "overloaded", "message": "Busy.", "retry_after": 1.0}
    away: Event = {"event": "disconnected", "slot": 0, "reason": "Busy.", "retry_in": 1.0}
    agent.events = [UP[0], refused, away, refused, away]
    result = command("http", "3000", "-s", "x")
    assert result.err.count("The relay refused: Busy.") == 1
    assert result.out.count("Trying again until the relay agrees.") == 1
    assert "cannot be reached" not in result.out


def test_a_relay_that_is_restarted_is_no_complaint(command: Command, agent: StandIn) -> None:
    """The one that ends takes no links, and says so each time; for people it is one line until another one does."""
    refused: Event = {"event": "refused", "code": "draining", "message": "This relay ends.", "retry_after": 0.25}
    away: Event = {"event": "disconnected", "slot": 0, "reason": "This relay ends.", "retry_in": 0.25}
    gone: Event = {"event": "disconnected", "slot": 0, "reason": "the relay is going away", "retry_in": 0.0}
    agent.events = [*UP, gone, UP[0], refused, away, UP[0], refused, away, UP[1]]
    result = command("http", "3000", "-s", "x")
    assert result.err == ""
    assert result.out.count("The relay is being restarted.") == 1
    assert "until the relay agrees" not in result.out
    assert result.out.count("Connected to the relay again.") == 1


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ({"event": "woke", "asleep": 12.4}, "This machine slept for 12 s. Looking after the tunnel."),
        ({"event": "woke", "asleep": 3 * 3600.0}, "This machine slept for 3 h."),
        ({"event": "network_changed", "address": "10.0.0.5"}, "The network has changed, to 10.0.0.5. Looking after"),
        ({"event": "clock_changed", "by": -600.0}, "This machine's clock was set back by 10 min."),
        ({"event": "clock_changed", "by": 30.0}, "This machine's clock was set forward by 30 s."),
    ],
)
def test_what_befalls_the_machine_is_said_each_time(event: Event, said: str, command: Command, agent: StandIn) -> None:
    """A state that is not shown looks like a fault of the tunnel."""
    agent.events = [*UP, event, event]
    assert command("http", "3000", "-s", "x").out.count(said) == 2


def test_the_life_of_the_agents_own_key(command: Command, agent: StandIn) -> None:
    """Which key was minted, by its id; that none can be had, once, whatever is tried."""
    failed: Event = {"event": "mint_failed", "message": "The relay cannot do it now", "retry_in": 0.5}
    agent.events = [failed, failed, {"event": "minted", "key": "mtk_child_000000000001", "expires_at": None}, *UP]
    result = command("http", "3000", "-s", "x")
    assert result.out.count("The relay cannot do it now. Trying again") == 1
    assert "Minted the key mtk_child_000000000001 for this agent." in result.out
    agent.events = [{"event": "mint_failed", "message": "The key was revoked", "retry_in": None}]
    assert command("http", "3000", "-s", "x").err.count("The key was revoked.") == 1


def test_a_name_that_moved(command: Command, agent: StandIn) -> None:
    """That another project's agent has just lost its name is said."""
    agent.events = [{"event": "claimed", "subdomains": ["x"]}, *UP]
    assert "Moved x to this project" in command("http", "3000", "-s", "x").out


@pytest.mark.parametrize(
    ("event", "code", "said"),
    [
        ("revoked", 6, "revoked by mtk_master_000000000001. Start it anew with another key."),
        ("tunnel_closed", 7, "The tunnel was closed: revoked by mtk_master_000000000001."),
    ],
)
def test_an_end_that_somebody_wanted(event: str, code: int, said: str, command: Command, agent: StandIn) -> None:
    """By whom, on stderr, with the exit code of its own."""
    agent.events = [*UP, {"event": event, "message": "revoked by mtk_master_000000000001"}]
    agent.code = code
    result = command("http", "3000", "-s", "x")
    assert result.code == code
    assert said in result.err
