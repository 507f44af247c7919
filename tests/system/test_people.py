"""What people read: the printed lines and exit codes of `relay http` and `relay serve`, as they leave the process."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

from relay.wire import frames
from relay.wire.hello import SUBPROTOCOL, Hello, Refused, Welcome, encode_refused, encode_welcome
from tests.support.child import Child, ChildError, eventually
from tests.support.faults import FaultProxy
from tests.support.keys import forged
from tests.support.processes import DOMAIN, RELAY, RelayProcess
from tests.support.rawhttp import RawServer, Request, exchange, ok
from tests.system.handagent import HandAgent

pytestmark = pytest.mark.asyncio(loop_scope="module")

CLOCK = r"\d\d:\d\d:\d\d"


class Command(Child):
    """`relay …` as a person runs it: lines of text on stdout (`lines`) and stderr."""

    def __init__(self, *words: str, env: dict[str, str] | None = None, home: Path | None = None) -> None:
        # A home of its own: no key and no state of whoever runs the tests.
        own = {"HOME": str(home or "/nonexistent"), "XDG_STATE_HOME": "", "NO_COLOR": "1"}
        super().__init__([*RELAY, *words], name="relay " + " ".join(words[:1]), env=own | (env or {}))

    async def line(self, pattern: str, timeout: float = 15.0) -> str:
        """The first line on stdout that matches; raises AssertionError."""
        found = re.compile(pattern)

        def there() -> bool:
            return any(found.search(line) for line in self.lines)

        try:
            await eventually(lambda: there() or self.returncode is not None, timeout)
            await eventually(there, 1.0)
        except AssertionError:
            raise ChildError(f"no line {pattern!r} in {self.lines}\n{self.report()}") from None
        return next(line for line in self.lines if found.search(line))

    async def ended(self) -> tuple[int, list[str], list[str]]:
        """Exit code, lines of stdout, lines of stderr, once it has ended by itself."""
        code = await self.wait(20.0)
        return code, self.lines, self.stderr.splitlines()


async def run(*words: str, env: dict[str, str] | None = None) -> tuple[int, list[str], list[str]]:
    """A command that ends by itself."""
    async with Command(*words, env=env) as command:
        return await command.ended()


def one_sentence(lines: Sequence[str], *said: str) -> None:
    """A mistake is told in one line, whole, with these words and without a traceback."""
    assert len(lines) == 1, lines
    assert lines[0].endswith((".", "!", "?")), lines
    for words in said:
        assert words in lines[0], lines


def closed_port() -> int:
    """A port of 127.0.0.1 on which nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def answer(request: Request) -> bytes:
    """A local service: the path names a status."""
    status = {b"/401": "401 Unauthorized", b"/421": "421 Misdirected Request", b"/404": "404 Not Found"}
    return ok(b"four", status=status.get(request.target.partition(b"?")[0], "200 OK"))


@dataclass(frozen=True, slots=True)
class House:
    """A relay and a local service; agents are started by the tests."""

    relay: RelayProcess
    local: RawServer

    def http(self, *words: str, relay_port: int = 0, target: int = 0, key_file: Path | None = None) -> Command:
        """`relay http` for the local service, with these words besides."""
        address = f"ws://127.0.0.1:{relay_port or self.relay.agents_port}"
        key = str(key_file or self.relay.key_file)
        return Command("http", str(target or self.local.port), "--relay", address, "--key-file", key, *words)

    async def visit(self, name: str, target: str) -> int:
        request = f"GET {target} HTTP/1.1\r\nHost: {name}.{DOMAIN}\r\n\r\n"
        return (await exchange(self.relay.public_port, request.encode())).status


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house() -> AsyncIterator[House]:
    """Both, for all tests here."""
    async with RawServer(answer) as local, RelayProcess() as relay:
        yield House(relay, local)


# ------------------------------------------------------------------------------------------------------- relay http


async def test_a_tunnel_is_established_and_used(house: House) -> None:
    """The two lines that everybody waits for, then one a request, without its query; Ctrl-C ends it with 0."""
    local = f"127.0.0.1:{house.local.port}"
    async with house.http("--subdomain", "x") as agent:
        await agent.line("Tunnel established")
        url = f"http://x.{DOMAIN}:{house.relay.public_port}"
        await agent.line("^  ")
        assert agent.lines[-2:] == ["Tunnel established:", f"  {url} → http://{local}"]
        assert re.fullmatch(rf"{CLOCK}  Connecting to ws://127\.0\.0\.1:\d+", agent.lines[0])
        assert await house.visit("x", "/a/b?token=secret") == 200
        line = await agent.line("GET")
        assert re.fullmatch(rf"{CLOCK}  GET      /a/b  200  (\d+|\d\.\d) ms  4 B", line)
        assert await house.visit("x", "/404") == 404
        await agent.line("GET +/404  404  ")
        agent.signal(signal.SIGINT)
        code, lines, errors = await agent.ended()
    assert (code, lines[-1], errors) == (0, "Stopped.", [])
    assert not [line for line in lines if "secret" in line]


async def test_quiet_says_no_line_for_a_request(house: House) -> None:
    """With --quiet the state is told and requests are not."""
    async with house.http("--subdomain", "q", "--quiet") as agent:
        await agent.line("^  http")
        before = list(agent.lines)
        assert await house.visit("q", "/") == 200
        agent.signal(signal.SIGTERM)
        code, lines, _ = await agent.ended()
    assert (code, lines) == (0, [*before, "Stopped."])


async def test_the_address_is_the_one_that_visitors_use(house: House, tmp_path: Path) -> None:
    """Behind a proxy with TLS, https and no port; several tunnels of one agent stand one below the other."""
    async with RelayProcess(tmp_path, args=["--public-url", f"https://{DOMAIN}"]) as relay:
        names = [f"--subdomain={name}={house.local.port}" for name in ("a", "b")]
        words = ["http", *names, "--relay", f"ws://127.0.0.1:{relay.agents_port}", "--key-file", str(relay.key_file)]
        async with Command(*words) as agent:
            await agent.line(r"^  https://b\.")
            target = f"http://127.0.0.1:{house.local.port}"
            assert agent.lines[-3:] == [
                "Tunnel established:",
                f"  https://a.{DOMAIN} → {target}",
                f"  https://b.{DOMAIN} → {target}",
            ]


async def test_json_prints_events_as_lines(house: House) -> None:
    """Every line of stdout is one object; the one to wait for says where the tunnel is, requests what they were."""
    async with house.http("--subdomain", "j", "--json") as agent:
        told = await agent.wait_event("established")
        target = f"http://127.0.0.1:{house.local.port}"
        assert told["url"] == f"http://j.{DOMAIN}:{house.relay.public_port}"
        assert (told["target"], told["subdomain"]) == (target, "j")
        assert await house.visit("j", "/path?token=secret") == 200
        asked = await agent.wait_event("request")
        assert (asked["method"], asked["path"], asked["status"], asked["bytes"]) == ("GET", "/path", 200, 4)
        assert 0 <= asked["duration"] < 5
        agent.signal(signal.SIGTERM)
        code, lines, errors = await agent.ended()
    assert (code, lines, errors) == (0, [], [])
    assert agent.events[-1] == {"event": "stopped", "exit_code": 0}
    assert "secret" not in json.dumps(agent.events)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["99999"], ["99999", "1 to 65535", "3000"]),
        (["3000", "--subdomain", "no_name"], ["--subdomain", "no_name", "for example"]),
        (["3000"], ["no key", "--key-file FILE", "RELAY_KEY"]),
    ],
    ids=lambda value: " ".join(value),
)
async def test_a_mistake_is_one_sentence(words: list[str], said: list[str]) -> None:
    """What was typed wrong is told with the next step, on stderr, with exit code 2 and nothing else."""
    code, lines, errors = await run("http", *words)
    assert (code, lines) == (2, [])
    one_sentence(errors, "relay: ", *said)


@pytest.mark.parametrize("host", ["192.0.2.1:8081", "relay.example.com"])
async def test_a_key_does_not_travel_in_the_clear(house: House, host: str) -> None:
    """ws:// to another machine is refused before anything is sent, with both ways on."""
    code, lines, errors = await run("http", "3000", "--relay", f"ws://{host}", "--key-file", str(house.relay.key_file))
    assert (code, lines) == (2, [])
    one_sentence(errors, "in the clear", "not sent", "wss://", "--insecure")


async def test_nothing_listens(house: House) -> None:
    """A local port without a service: a hint before the first visitor comes, said once, and the tunnel is there."""
    port = closed_port()
    async with house.http("--subdomain", "n", target=port) as agent:
        hint = await agent.line("^Hint")
        assert hint == (
            f"Hint: Nothing listens on http://127.0.0.1:{port}: start the local service, "
            "or give the address where it listens."
        )
        await agent.line("Tunnel established")
        for _ in range(2):
            assert await house.visit("n", "/") == 502
        await eventually(lambda: len([line for line in agent.lines if "local_refused" in line]) == 2)
        assert len([line for line in agent.lines if line.startswith("Hint")]) == 1


async def test_a_port_that_speaks_no_http(house: House) -> None:
    """A wrong port, something else listens there: the hint says so with the address."""
    async with (
        RawServer(lambda _: b"SSH-2.0-OpenSSH_9.6\r\n\r\n") as other,
        house.http("--subdomain", "w", target=other.port) as agent,
    ):
        await agent.line("^  http")
        assert await house.visit("w", "/") == 502
        hint = await agent.line("^Hint")
    assert hint.startswith(f"Hint: What http://127.0.0.1:{other.port} answered is not HTTP: is it the right port")


async def test_a_refusal_of_the_local_service_is_told_apart(house: House) -> None:
    """401 and 421 reach the visitor as they are; the developer is told once whose they are and what to do."""
    async with house.http("--subdomain", "r") as agent:
        await agent.line("^  http")
        for _ in range(3):
            assert [await house.visit("r", target) for target in ("/401", "/421")] == [401, 421]
        await eventually(lambda: len([line for line in agent.lines if "  421  " in line]) == 3)
        hints = [line for line in agent.lines if line.startswith("Hint")]
    local = f"http://127.0.0.1:{house.local.port}"
    one_sentence(hints[:1], f"came from the local service at {local}", "not from the relay", "Authorization")
    one_sentence(hints[1:], f"{local} answered 421", "Host", "--preserve-host")


async def test_the_relay_cannot_be_reached(house: House) -> None:
    """Nothing answers at --relay: said once with what to look at, tried for ever, ended by Ctrl-C with 0."""
    port = closed_port()
    async with house.http("--subdomain", "u", relay_port=port) as agent:
        line = await agent.line("cannot be reached")
        assert re.fullmatch(
            rf"{CLOCK}  The relay at ws://127\.0\.0\.1:{port} cannot be reached \(connection refused\)\. "
            r"Is it running, and is --relay right\? Trying again until it answers\.",
            line,
        )
        agent.signal(signal.SIGINT)
        code, lines, errors = await agent.ended()
    assert (code, errors, lines[-1]) == (0, [], "Stopped.")
    assert len(lines) == 3


async def test_what_answers_is_no_relay(house: House) -> None:
    """An HTTP service at --relay: said as it is."""
    async with house.http("--subdomain", "u", relay_port=house.local.port) as agent:
        line = await agent.line("cannot be reached")
    assert "answered HTTP 200 instead of a WebSocket" in line


async def test_a_lost_relay_and_its_return(house: House) -> None:
    """A line when the last link is lost and one when it is back; the tunnel is not announced anew."""
    async with (
        FaultProxy(house.relay.agents_port) as proxy,
        house.http("--subdomain", "l", relay_port=proxy.port) as agent,
    ):
        await agent.line("^  http")
        await eventually(lambda: len(proxy.open_pairs) == 2)
        await proxy.refuse()
        await proxy.cut()
        lost = await agent.line("The relay is lost")
        await proxy.accept()
        again = await agent.line("Connected to the relay again")
        assert await house.visit("l", "/") == 200
    assert lost.endswith("Trying again until it answers.")
    assert re.fullmatch(rf"{CLOCK}  Connected to the relay again\.", again)
    assert len([line for line in agent.lines if line == "Tunnel established:"]) == 1


async def test_a_wrong_key(house: House, tmp_path: Path) -> None:
    """A forged key ends the agent with 3, a mistyped one with 2 before anything is sent; neither is ever shown."""
    wrong = tmp_path / "wrong.key"
    good = house.relay.key_file.read_text().strip()
    wrong.touch(mode=0o600)
    for text, expected in ((forged(good), 3), (good[:-1] + ("x" if good[-1] != "x" else "y"), 2)):
        wrong.write_text(text)
        async with house.http("--subdomain", "k", key_file=wrong) as agent:
            code, lines, errors = await agent.ended()
        assert code == expected
        if code == 3:
            one_sentence_of_refusal(errors, "forged", str(wrong), "--key-file or RELAY_KEY")
        else:
            assert re.fullmatch(rf"relay: .*{wrong} holds was not sent\. .*mistyped.*\.", errors[0]), errors
        assert text[20:40] not in "\n".join(lines + errors)


async def test_a_key_in_the_environment(house: House) -> None:
    """RELAY_URL and RELAY_KEY are enough; a wrong one is named by its variable."""
    words = ["http", str(house.local.port), "--subdomain", "e"]
    env = {"RELAY_URL": f"ws://127.0.0.1:{house.relay.agents_port}", "RELAY_KEY": house.relay.key_file.read_text()}
    async with Command(*words, env=env) as agent:
        await agent.line("^  http")
    code, _, errors = await run(*words, env=env | {"RELAY_KEY": forged(env["RELAY_KEY"].strip())})
    assert code == 3
    one_sentence_of_refusal(errors, "RELAY_KEY")


async def test_an_agent_beside_its_relay_needs_no_key(house: House) -> None:
    """With RELAY_DATA the agent finds the relay's own key."""
    env = {"RELAY_URL": f"ws://127.0.0.1:{house.relay.agents_port}", "RELAY_DATA": str(house.relay.data)}
    async with Command("http", str(house.local.port), "--subdomain", "d", env=env) as agent:
        await agent.line("^  http")


async def test_a_name_that_is_taken(house: House) -> None:
    """A second agent with a name that is alive ends with 4 and does not disturb the first."""
    async with house.http("--subdomain", "taken") as first:
        await first.line("^  http")
        async with house.http("--subdomain", "taken") as second:
            code, _, errors = await second.ended()
        assert code == 4
        one_sentence_of_refusal(errors, "taken", "choose another name with --subdomain")
        assert await house.visit("taken", "/") == 200
        assert not [line for line in first.lines if "lost" in line]


async def test_a_name_that_is_reserved(house: House) -> None:
    """A name that the relay keeps for itself ends the agent with 4."""
    async with house.http("--subdomain", "www") as agent:
        code, _, errors = await agent.ended()
    assert code == 4
    one_sentence_of_refusal(errors, "www", "hoose another")


def one_sentence_of_refusal(errors: Sequence[str], *said: str) -> None:
    """A refusal is one line with the time, the relay's own sentence and the next step."""
    assert len(errors) == 1, errors
    assert re.match(rf"{CLOCK}  The relay refused: ", errors[0]), errors
    for words in said:
        assert words in errors[0], errors


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (frames.REFUSED, encode_refused(Refused("version", "This relay speaks version 2 of the protocol only."))),
        (frames.WELCOME, encode_welcome(Welcome("s", (("v", "http://v.example"),), 5.0, 10, version=2))),
    ],
    ids=["refused", "welcomed"],
)
async def test_a_newer_relay(house: House, kind: int, payload: bytes) -> None:
    """A relay that speaks a later version only: the agent ends, and says what to upgrade."""

    async def newer(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.send(frames.encode(kind, 0, payload))
        await connection.wait_closed()

    async with (
        serve(newer, "127.0.0.1", 0, subprotocols=[Subprotocol(SUBPROTOCOL)], compression=None) as relay,
        house.http("--subdomain", "v", relay_port=relay.sockets[0].getsockname()[1]) as agent,
    ):
        code, lines, errors = await agent.ended()
    assert code == 5
    one_sentence_of_refusal(errors, "version 2", "pip install --upgrade tunnel-relay")
    assert "Tunnel established:" not in lines


async def test_a_newer_agent(house: House) -> None:
    """An agent that speaks only later versions is told which one this relay speaks; one that knows ours too is in."""
    key = house.relay.key_file.read_text().strip()
    async with HandAgent(house.relay.agents_port, Hello("new", 0, 1, key, ("new",), versions=(2, 3))) as agent:
        assert isinstance(agent.answer, Refused)
        assert (agent.answer.code, agent.answer.retry_after) == ("version", None)
        assert "version 1" in agent.answer.message
    async with HandAgent(house.relay.agents_port, Hello("new", 0, 2, key, ("new",), versions=(2, 1))) as agent:
        assert isinstance(agent.answer, Welcome)
        assert agent.answer.version == 1


# ------------------------------------------------------------------------------------------------------ relay serve


async def test_serve_says_what_an_operator_needs(tmp_path: Path, house: House) -> None:
    """Where visitors and agents connect, where the key is, what to type; then tunnels that come and go."""
    words = ["--public", "127.0.0.1:0", "--agents", "127.0.0.1:0", "--domain", DOMAIN, "--data", str(tmp_path)]
    async with Command("serve", *words, home=tmp_path) as relay:
        await relay.line("Ctrl-C stops")
        text = "\n".join(relay.lines)
        assert relay.lines[0] == f"Relay for {DOMAIN}"
        visitors = re.search(rf"visitors +http://NAME\.{DOMAIN}:(\d+)   \(listening on 127\.0\.0\.1:(\d+)\)", text)
        agents = re.search(r"agents +ws://127\.0\.0\.1:(\d+)", text)
        assert visitors is not None
        assert visitors[1] == visitors[2]
        assert agents is not None
        key_file = tmp_path / "operator.key"
        assert f"operator key   {key_file}" in text
        assert key_file.stat().st_mode & 0o777 == 0o600
        assert key_file.read_text().strip() not in text
        typed = next(line.strip() for line in relay.lines if "--relay ws://" in line).split()
        assert typed[:2] == ["relay", "http"]
        typed[2:5] = [str(house.local.port), "--subdomain", "typed"]
        async with Command(*typed[1:]) as agent:
            await agent.line("^  http")
            await relay.line(rf"^{CLOCK}  typed has its agent$")
        await relay.line(rf"^{CLOCK}  typed lost its agent$")
        relay.signal(signal.SIGTERM)
        code, lines, errors = await relay.ended()
    assert (code, errors) == (0, [])
    assert lines[-1].endswith("Stopped.")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--public", "0.0.0.0:0"], ["0.0.0.0", "TLS", "--trusted-proxies", "loopback"]),
        (["--head-timeout", "soon"], ["head_timeout", "--head-timeout", "soon"]),
        (["--config", "/nonexistent.toml"], ["/nonexistent.toml", "TOML"]),
    ],
    ids=lambda value: " ".join(value),
)
async def test_a_wrong_setting_is_one_sentence(words: list[str], said: list[str], tmp_path: Path) -> None:
    """A setting that cannot be is named with where it came from and an example; exit code 2."""
    code, lines, errors = await run("serve", "--data", str(tmp_path), *words)
    assert (code, lines) == (2, [])
    one_sentence(errors, *said)


@pytest.mark.parametrize("which", ["public", "agents"])
async def test_an_address_in_use_is_one_sentence(which: str, house: House, tmp_path: Path) -> None:
    """A listener that cannot be opened is named with what to do; exit code 1."""
    ports = {"public": 0, "agents": 0, which: house.local.port}
    listen = [word for name, port in ports.items() for word in (f"--{name}", f"127.0.0.1:{port}")]
    code, lines, errors = await run("serve", "--data", str(tmp_path), *listen)
    assert (code, lines) == (1, [])
    one_sentence(errors, f"127.0.0.1:{house.local.port}", "in use", f"--{which}")


async def test_a_data_directory_that_cannot_be(tmp_path: Path) -> None:
    """A place where no directory can be made is named; no traceback."""
    (tmp_path / "file").write_text("")
    listen = ["--public", "127.0.0.1:0", "--agents", "127.0.0.1:0"]
    code, lines, errors = await run("serve", *listen, "--data", str(tmp_path / "file" / "data"))
    assert code in (1, 2)
    assert lines == []
    one_sentence(errors, str(tmp_path / "file"), "--data")


# ------------------------------------------------------------------------------------------------------------- help


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--help"], ["relay serve", "relay http 3000 --subdomain", "http ", "serve ", "version "]),
        (["http", "--help"], ["TARGET", "--subdomain", "--relay", "--key-file", "RELAY_URL", "RELAY_KEY", "--json"]),
        (
            ["serve", "--help"],
            ["--domain", "--public", "--agents", "--data", "--internal", "--hold", "tunnels.localhost"],
        ),
    ],
    ids=["relay", "http", "serve"],
)
async def test_help_reads_well(words: list[str], said: list[str]) -> None:
    """Every command explains itself on stdout, within the width of a terminal, with examples and the defaults."""
    code, lines, errors = await run(*words, env={"COLUMNS": "80"})
    text = "\n".join(lines)
    assert (code, errors) == (0, [])
    for one in said:
        assert one in text
    assert max(len(line) for line in lines) <= 80
    assert lines.index(next(line for line in lines if "relay http" in line or "relay serve" in line)) < 16


async def test_the_alias_is_the_same_command() -> None:
    """`mytunnel` is `relay`."""
    alias = Path(sys.executable).with_name("mytunnel")
    if not alias.exists():
        pytest.skip("the package is not installed beside this Python")
    process = await asyncio.create_subprocess_exec(str(alias), "--version", stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert (process.returncode, out[:6]) == (0, b"relay ")
