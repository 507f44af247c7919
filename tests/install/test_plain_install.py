"""The plain package, as a wheel in an empty environment, is a working agent and holds nothing of the server."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
import os
import socket
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.cli.keytexts import signed
from tests.support.child import Child, clean_environment, eventually
from tests.support.local import LocalService
from tests.support.processes import RelayProcess

ROOT = Path(__file__).resolve().parents[2]
# One worker makes the environment once; the package index may be slow the first time.
pytestmark = [pytest.mark.xdist_group("plain_install"), pytest.mark.timeout(600)]
NOT_THIS_CHECKOUT = {"PYTHONPATH": ""}

IMPORT_ALL_ROOMS = """
import importlib, importlib.util, pkgutil
import relay.agent, relay.cli, relay.exchange, relay.mux, relay.wire
for door in (relay.agent, relay.exchange, relay.mux, relay.wire):
    for room in pkgutil.walk_packages(door.__path__, door.__name__ + "."):
        importlib.import_module(room.name)
for name in ("starlette", "uvicorn", "sqlalchemy"):
    assert importlib.util.find_spec(name) is None, name
print("agent", relay.__file__)
"""


def run(*command: str | Path, cwd: Path, seconds: float = 60) -> subprocess.CompletedProcess[str]:
    argv = [str(part) for part in command]
    environment = clean_environment(NOT_THIS_CHECKOUT)
    return subprocess.run(argv, cwd=cwd, env=environment, text=True, capture_output=True, timeout=seconds, check=False)


def pip(*arguments: str | Path, cwd: Path) -> None:
    # In this process's own environment: the package index may be reached by a proxy that it names.
    argv = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "-q", *map(str, arguments)]
    done = subprocess.run(argv, cwd=cwd, text=True, capture_output=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of commands of an environment that holds this checkout's wheel and its plain dependencies."""
    place = tmp_path_factory.mktemp("plain")
    pip("wheel", "--no-deps", "--no-build-isolation", "-w", place, ROOT, cwd=place)
    (wheel,) = place.glob("tunnel_relay-*.whl")
    venv.create(place / "env", with_pip=False)
    commands = place / "env" / ("Scripts" if os.name == "nt" else "bin")
    pip("--python", commands / "python", "install", "--no-compile", wheel, cwd=place)
    return commands


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """A file that holds a child key, of which no relay was told."""
    file = tmp_path / "child.key"
    file.touch(mode=0o600)
    file.write_text(signed() + "\n")
    return file


def agent(plain: Path, port: int, relay: str, key_file: Path, output: tuple[str, ...] = ("--json",)) -> Child:
    argv = [str(plain / "relay"), "http", str(port), "--subdomain", "plain", "--relay", f"ws://{relay}"]
    return Child([*argv, "--key-file", str(key_file), *output], name="plain agent", env=NOT_THIS_CHECKOUT)


def test_every_room_of_the_agent_loads_without_the_server(plain: Path, tmp_path: Path) -> None:
    """Neither Starlette, uvicorn nor SQLAlchemy is there, and every room an agent may use imports without them."""
    done = run(plain / "python", "-I", "-c", IMPORT_ALL_ROOMS, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert str(plain.parent) in done.stdout


def test_both_commands_are_installed(plain: Path, tmp_path: Path) -> None:
    """`relay` and its alias `mytunnel` give their help, which names the commands."""
    for name in ("relay", "mytunnel"):
        done = run(plain / name, "--help", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert f"{name} [OPTIONS]" in done.stdout
        assert "serve" in done.stdout
        assert "http" in done.stdout


def test_the_types_travel_with_the_package(plain: Path) -> None:
    """The installed package carries its mark for type checkers."""
    assert list(plain.parent.rglob("site-packages/relay/py.typed"))


def test_serve_names_the_extra_that_is_missing(plain: Path, tmp_path: Path) -> None:
    """`relay serve` there is one sentence with the next step and exit code 2, and leaves nothing behind."""
    done = run(plain / "relay", "serve", "--data", tmp_path / "data", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "pip install 'tunnel-relay[server]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "data").exists()


def test_the_doctor_looks_at_the_agents_side(plain: Path, tmp_path: Path) -> None:
    """What is the relay's own needs the extra, and says so."""
    done = run(plain / "relay", "doctor", "--json", "--relay", "ws://127.0.0.1:1", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert [one["check"] for one in json.loads(done.stdout) if one["level"] == "fail"] == ["relay.tcp", "key"]
    operators = run(plain / "relay", "doctor", "--operator", cwd=tmp_path)
    assert (operators.returncode, operators.stdout) == (2, "")
    assert "pip install 'tunnel-relay[server]'" in operators.stderr


def test_a_file_of_tunnels_is_read(plain: Path, key_file: Path, tmp_path: Path) -> None:
    """`relay start` has all that it needs."""
    (tmp_path / "relay.yaml").write_text("key_file: child.key\ntunnels:\n  mcp-me: 3000\n")
    done = run(plain / "relay", "start", "--check", "--file", tmp_path / "relay.yaml", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "mcp-me  http://127.0.0.1:3000" in done.stdout


async def test_agent_keeps_trying_while_no_relay_listens(plain: Path, key_file: Path) -> None:
    """With nothing at the relay's address the agent says so with that address, tries again, and stops when asked."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: refused, and nobody else gets it
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        async with agent(plain, 3000, address, key_file) as child:
            first = await child.wait_event("disconnected", 20)
            assert first["reason"]
            assert first["retry_in"] >= 0
            again = await child.wait_event("connecting", 20, after=child.events.index(first))
            assert address in again["relay"]
            await child.wait_event("disconnected", 20, after=child.events.index(again))
            assert child.returncode is None
        assert child.stderr == ""


async def test_agent_tells_people_that_no_relay_listens(plain: Path, key_file: Path) -> None:
    """Without --json that is one line: the relay's address, what is wrong, and that it goes on trying."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        async with agent(plain, 3000, address, key_file, output=()) as child:
            await eventually(lambda: any("refused" in line for line in child.lines), 20)
            (line,) = [line for line in child.lines if "refused" in line]
            assert address in line
            assert "again" in line
            assert child.returncode is None
        assert child.stderr == ""


async def test_agent_carries_requests(plain: Path) -> None:
    """Requests through a relay reach the local service by an agent that has only the plain package."""
    async with RelayProcess() as relay, LocalService() as local:
        relay_address = f"127.0.0.1:{relay.agents_port}"
        async with agent(plain, local.port, relay_address, relay.key_file) as child:
            established = await child.wait_event("established", 20)
            assert established["url"] == f"http://plain.tunnels.localhost:{relay.public_port}"
            body = os.urandom(300_000)
            answer = await asyncio.to_thread(visit, relay.public_port, "POST", "/echo//b?c=%2F", body)
            assert (answer["method"], answer["target"]) == ("POST", "/echo//b?c=%2F")
            assert answer["sha256"] == hashlib.sha256(body).hexdigest()
            seen = await child.wait_event("request")
            assert (seen["method"], seen["status"]) == ("POST", 200)


def visit(port: int, method: str, target: str, body: bytes) -> dict[str, object]:
    visitor = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        visitor.request(method, target, body=body, headers={"Host": f"plain.tunnels.localhost:{port}"})
        found: dict[str, object] = json.loads(visitor.getresponse().read())
        return found
    finally:
        visitor.close()
