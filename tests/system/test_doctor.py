"""`relay doctor` against set-ups that are whole, and against broken ones: what it finds, and that it goes on."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from relay.agent.targets import parse_target
from relay.cli.doctoring import agentside, operatorside, ways
from relay.cli.doctoring.errors import Trouble
from relay.cli.doctoring.findings import Examination, Finding
from tests.support.child import ROOT, clean_environment
from tests.support.connectproxy import ConnectProxy, refusal
from tests.support.local import LocalService
from tests.support.localws import websockets_echo
from tests.support.processes import DOMAIN, RELAY, AgentProcess, RelayProcess
from tests.support.rawhttp import RawServer, Request
from tests.support.tlsfront import TlsFront, certificate

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("doctor")]

Found = dict[str, Finding]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def relay() -> AsyncIterator[RelayProcess]:
    """One for all."""
    async with RelayProcess() as relay:
        yield relay


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def local() -> AsyncIterator[LocalService]:
    async with LocalService() as local:
        yield local


@pytest.fixture
def plan(relay: RelayProcess, local: LocalService, monkeypatch: pytest.MonkeyPatch) -> agentside.Plan:
    """A set-up in which all is well."""
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    url = f"ws://127.0.0.1:{relay.agents_port}"
    return agentside.Plan(url, {}, parse_target(str(local.port)), key_file=relay.data / "operator.key")


async def findings(plan: agentside.Plan) -> Found:
    examination = Examination(lambda finding: None)
    await examination.all_of(agentside.examine(examination, plan))
    return {one.check: one for one in examination.findings}


async def operators(environment: Mapping[str, str]) -> Found:
    examination = Examination(lambda finding: None)
    await examination.all_of(operatorside.examine(examination, None, environment))
    return {one.check: one for one in examination.findings}


def levels(found: Found) -> dict[str, str]:
    """Of what is neither well nor left out."""
    return {check: one.level for check, one in found.items() if one.level in ("warn", "fail")}


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


# ---------------------------------------------------------------------------------------------- the agent's side


async def test_all_is_well(relay: RelayProcess, plan: agentside.Plan) -> None:
    """A visit through the public address with its times, and nothing left behind: neither tunnel nor name."""
    found = await findings(plan)
    assert levels(found) == {}
    assert found["tunnel"].details["first_byte_seconds"] <= found["tunnel"].details["first_event_seconds"]  # type: ignore[operator]
    assert found["relay.api"].details["version"]
    assert "operator key" in found["key"].message
    name = str(found["tunnel"].details["url"]).split("//")[1].split(".")[0]
    reserved = (await relay.api.do("GET", "/subdomains"))["items"]
    assert name not in [one["name"] for one in reserved if one["released_at"] is None]


async def test_a_live_name_is_called_as_it_is(relay: RelayProcess, local: LocalService, plan: agentside.Plan) -> None:
    """Its own agent goes on."""
    async with AgentProcess(local.port, relay_port=relay.agents_port, key_file=relay.key_file) as agent:
        await agent.established()
        found = await findings(replace(plan, name="t"))
        assert "is live: it answered 200" in found["tunnel"].message
        assert "disconnected" not in [one["event"] for one in agent.events]


async def test_the_local_service_is_down(plan: agentside.Plan) -> None:
    """Said so, and the rest is looked at all the same."""
    found = await findings(replace(plan, target=parse_target(str(free_port()))))
    assert levels(found) == {"local.reach": "fail"}
    assert "connection refused" in found["local.reach"].message
    assert found["local.speaks"].level == "skipped"
    assert found["tunnel"].level == "ok"


async def test_the_relay_is_away(plan: agentside.Plan) -> None:
    """What needs it is left out; the key is found all the same."""
    found = await findings(replace(plan, relay=f"ws://127.0.0.1:{free_port()}"))
    assert levels(found) == {"relay.tcp": "fail"}
    assert [one for one in found if found[one].level == "skipped"] == [
        "relay.dns", "relay.tls", "relay.api", "clock", "tunnel",
    ]  # fmt: skip
    unknown = await findings(replace(plan, relay="wss://nowhere.invalid"))
    assert levels(unknown) == {"relay.dns": "fail"}
    assert "getent hosts nowhere.invalid" in unknown["relay.dns"].next_step


async def test_a_certificate_that_is_not_trusted(relay: RelayProcess, plan: agentside.Plan, tmp_path: Path) -> None:
    """Whose it is, for what and until when; another name than its own is told apart from an unknown authority."""
    async with TlsFront(relay.agents_port, certificate(tmp_path, "localhost")) as front:
        found = await findings(replace(plan, relay=f"wss://localhost:{front.port}"))
        assert levels(found) == {"relay.tls": "fail"}
        assert "it is for localhost, issued by localhost, until" in found["relay.tls"].message
        assert "SSL_CERT_FILE" in found["relay.tls"].next_step
        other = await findings(replace(plan, relay=f"wss://127.0.0.1:{front.port}"))
        assert "Get a certificate for 127.0.0.1" in other["relay.tls"].next_step


async def test_a_proxy_on_the_way(
    relay: RelayProcess, plan: agentside.Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it leads through the one that the environment names, whose user and password are not shown."""
    file = certificate(tmp_path, "relay.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    async with (
        TlsFront(relay.agents_port, file) as front,
        ConnectProxy({"relay.example:443": front.port}, user="me", password="opensesame") as proxy,
    ):
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:opensesame@127.0.0.1:{proxy.port}")
        proxied = replace(plan, relay="wss://relay.example", key_file=relay.key_file)
        found = await findings(proxied)
        proxy.answer = refusal(403)
        refused = await findings(proxied)
    # It is the certificate of a moment.
    assert levels(found) == {"relay.tls": "warn"}
    assert f"leads through 127.0.0.1:{proxy.port}" in found["relay.proxy"].message
    assert found["tunnel"].level == "ok"
    assert levels(refused) == {"relay.tcp": "fail"}
    assert "does not allow connections to relay.example:443 (HTTP 403)" in refused["relay.tcp"].message
    assert "opensesame" not in repr((found, refused))


async def test_it_is_the_visitors_listener(relay: RelayProcess, plan: agentside.Plan) -> None:
    """A common mistake gets its own next step."""
    found = await findings(replace(plan, relay=f"ws://127.0.0.1:{relay.public_port}"))
    assert "is not a relay's agent listener (HTTP 404, unknown_host)" in found["relay.api"].message
    assert "--relay" in found["relay.api"].next_step


async def test_keys_that_are_no_good(relay: RelayProcess, plan: agentside.Plan, tmp_path: Path) -> None:
    """None, a revoked one, and one for other names; none of them is shown."""
    file = tmp_path / "child.key"
    missing = await findings(replace(plan, key_file=file))
    assert levels(missing) == {"key": "fail"}
    key = await relay.api.mint(project="default", scope={"names": ["only-*"]})
    file.touch(mode=0o600)
    file.write_text(key)
    narrow = await findings(replace(plan, key_file=file, name="other"))
    assert levels(narrow) == {"key.names": "fail"}
    assert "only-*, and not other" in narrow["key.names"].message
    await relay.api.do("POST", f"/keys/{narrow['key'].details['id']}/revoke", {})
    revoked = await findings(replace(plan, key_file=file))
    assert levels(revoked) == {"key": "fail"}
    assert "was revoked" in revoked["key"].message
    assert key not in repr((narrow, revoked))


SAID = '{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-06-18","serverInfo":{"name":"mine"}}}'
HALF = "\\ud800"  # a half of a pair, which no encoding has
NO = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


def answer(body: str, kind: str, *fields: str) -> bytes:
    head = ["HTTP/1.1 200 OK", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *fields, "", ""]
    return ("\r\n".join(head) + body).encode()


@pytest.mark.parametrize(
    ("answers", "spoken"),
    [
        (
            {
                "POST /mcp": answer(SAID, "application/json", "Mcp-Session-Id: abc"),
                "DELETE /mcp": answer("", "text/plain"),
            },
            "MCP 2025-06-18 at /mcp (streamable HTTP, answered as JSON, with a session; mine)",
        ),
        (
            {"POST /": answer(f"id: 1\r\ndata:\r\n\r\ndata: {SAID}\r\n\r\n", "text/event-stream")},
            "MCP 2025-06-18 at / (streamable HTTP, answered as SSE, without a session; mine)",
        ),
        (
            {"GET /sse": answer("event: endpoint\ndata: /messages?id=1\n\n", "text/event-stream")},
            "MCP at /sse by the old transport, HTTP+SSE of 2024-11-05",
        ),
        ({}, "plain HTTP, and neither MCP nor WebSocket where they usually are"),
        (
            {"POST /mcp": answer(SAID.replace("2025-06-18", 100 * HALF), "application/json", "Mcp-Session-Id: abc")},
            f"MCP {(100 * HALF)[:80]} at /mcp (streamable HTTP, answered as JSON, with a session; mine)",
        ),
    ],
)
async def test_what_the_local_service_speaks(plan: agentside.Plan, answers: dict[str, bytes], spoken: str) -> None:
    """And a session that was opened for it is deleted."""
    asked: list[str] = []

    async def serve(request: Request) -> bytes:
        line = f"{request.method.decode()} {request.target.decode()}"
        asked.append(line)
        return answers.get(line, NO)

    async with RawServer(serve) as server:
        dead = replace(plan, relay=f"ws://127.0.0.1:{free_port()}", target=parse_target(str(server.port)))
        found = await findings(dead)
    assert f"speaks {spoken}; GET / is answered 404" in found["local.speaks"].message
    assert ("DELETE /mcp" in asked) == ("DELETE /mcp" in answers)


async def test_a_websocket_is_recognised(plan: agentside.Plan) -> None:
    """At the root."""
    async with websockets_echo() as port:
        dead = replace(plan, relay=f"ws://127.0.0.1:{free_port()}", target=parse_target(str(port)))
        assert "WebSocket at /" in (await findings(dead))["local.speaks"].message


# ---------------------------------------------------------------------------------------------- the operator's side


def settings_of(relay: RelayProcess) -> dict[str, str]:
    where = {"PUBLIC": relay.public_port, "AGENTS": relay.agents_port, "INTERNAL": relay.internal_port}
    listeners = {f"RELAY_{name}": f"127.0.0.1:{port}" for name, port in where.items()}
    return {"RELAY_DOMAIN": DOMAIN, "RELAY_DATA": str(relay.data), **listeners}


async def test_a_relay_that_is_well(relay: RelayProcess) -> None:
    """Every check has its finding."""
    found = await operators(settings_of(relay))
    assert levels(found) == {}
    assert set(found) == set(operatorside.CHECKS)


async def test_a_relay_that_is_not(relay: RelayProcess, tmp_path: Path) -> None:
    """Nobody listens; the names do not resolve; the files are open; the settings are wrong: each is said by itself."""
    data = tmp_path / "data"
    data.mkdir(mode=0o755)
    data.chmod(0o755)
    broken = settings_of(relay) | {"RELAY_DATA": str(data), "RELAY_PUBLIC": f"127.0.0.1:{free_port()}"}
    found = await operators(broken | {"RELAY_DOMAIN": "tunnels.invalid"})
    assert levels(found) == {
        "data": "warn", "keys": "warn", "database": "warn", "dns.domain": "fail", "port.public": "fail",
        "port.agents": "fail",
    }  # fmt: skip
    assert "a relay for tunnels.localhost" in found["port.agents"].message
    assert found["ready"].level == "ok"
    wrong = await operators(broken | {"RELAY_PUBLIC": "nonsense"})
    assert levels(wrong) == {"settings": "fail"}
    assert all(one.level == "skipped" for check, one in wrong.items() if check != "settings")


async def test_the_wildcard_is_missing(relay: RelayProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said of it, and not of the name that was tried; names that lead elsewhere are worth a warning."""
    zone = {"tunnels.example.com": ["127.0.0.1"]}

    async def answers(host: str, port: int) -> list[str]:
        if host in zone:
            return zone[host]
        raise Trouble(f"{host}: the name does not resolve", "")

    monkeypatch.setattr(operatorside, "addresses", answers)  # no name server here would take a zone of ours
    environment = settings_of(relay) | {"RELAY_DOMAIN": "tunnels.example.com"}
    found = await operators(environment)
    assert found["dns.domain"].level == "ok"
    assert found["dns.names"].level == "fail"
    assert "a wildcard record: *.tunnels.example.com" in found["dns.names"].next_step
    monkeypatch.setattr(operatorside, "_random", lambda: "any")
    zone["any.tunnels.example.com"] = ["127.0.0.9"]
    assert (await operators(environment))["dns.names"].level == "warn"


async def test_a_relay_without_the_certificate_of_its_settings(
    relay: RelayProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listener that speaks no TLS is told from one that is away."""
    monkeypatch.setattr(ways, "AGREED_WITHIN", 0.3)
    pem = str(certificate(tmp_path, DOMAIN))
    found = await operators(settings_of(relay) | {"RELAY_TLS_CERT": pem, "RELAY_TLS_KEY": pem})
    assert "does not agree on TLS" in found["port.public"].message
    assert "can be read by others" in found["tls.files"].message


# ---------------------------------------------------------------------------------------------- the command


async def test_the_command(relay: RelayProcess) -> None:
    """A list of findings for programs, lines without colour for people; 1 once something failed, 2 for a mistake."""
    url = f"ws://127.0.0.1:{relay.agents_port}"

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [*RELAY, "doctor", "--relay", url, "--key-file", str(relay.data / "operator.key"), *arguments]
        environment = clean_environment({"HOME": str(relay.data)})
        return subprocess.run(argv, capture_output=True, text=True, timeout=40, check=False, cwd=ROOT, env=environment)

    down, mistaken = await asyncio.gather(
        asyncio.to_thread(run, str(free_port()), "--json"), asyncio.to_thread(run, "--operator")
    )
    found = json.loads(down.stdout)
    assert down.returncode == 1
    assert [one["check"] for one in found if one["level"] == "fail"] == ["local.reach"]
    assert set(found[0]) == {"check", "level", "message", "next_step", "details"}
    assert (mistaken.returncode, mistaken.stdout) == (2, "")
    well = await asyncio.to_thread(run)
    assert well.returncode == 0
    assert "\x1b" not in well.stdout
    assert [line.split()[0] for line in well.stdout.splitlines()].count("ok") >= 7
    assert os.linesep + "ok       tunnel.events" in well.stdout
