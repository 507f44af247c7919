"""What is measured: the references and the relay itself, each by how it is started. Rivals are in `rivals`.

A system offers two doors: `static`, to the origin with small answers and large files, and `live`, to the one for
uploads, event streams and WebSocket.
"""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench import nginxconf
from bench.place import Door, Place, Unavailable, answers, free_ports, program, version_of
from tests.support.child import Child
from tests.support.processes import DOMAIN

ROOT = Path(__file__).resolve().parents[1]
HELLO = "/"
READY = 15.0


class Together:
    """Several processes that do one part of a system's work, measured as one."""

    def __init__(self, *children: Child) -> None:
        self._children = children

    def rss(self) -> int:
        """See `Child.rss`."""
        return sum(child.rss() for child in self._children)

    def peak_rss(self) -> int:
        """See `Child.peak_rss`; as if all peaks came at once."""
        return sum(child.peak_rss() for child in self._children)

    def reset_peak(self) -> None:
        """See `Child.reset_peak`."""
        for child in self._children:
            child.reset_peak()

    def cpu_seconds(self) -> float:
        """See `Child.cpu_seconds`."""
        return sum(child.cpu_seconds() for child in self._children)


@dataclass(slots=True)
class Running:
    """A system in service: its doors, its processes on the visitors' side and beside the local service."""

    name: str
    static: Door
    live: Door | None = None
    relay: Child | None = None
    agent: Child | Together | None = None
    origins: tuple[Child, ...] = ()
    relay_idle: int = 0
    """Resident bytes before any load."""
    agent_idle: int = 0
    key_file: str = ""
    agents_port: int = 0

    def note_idle(self) -> None:
        """Remember what the processes hold before any load."""
        self.relay_idle = self.relay.rss() if self.relay else 0
        self.agent_idle = self.agent.rss() if self.agent else 0


@dataclass(frozen=True, slots=True)
class System:
    """A name, a line about it, and its start."""

    name: str
    about: str
    start: Callable[[Place], Awaitable[Running]]
    version: tuple[str, str] = ("", "")
    """A program and the option that makes it tell its version."""
    rival: bool = False
    """Another tunnel, or build: it is asked for less where the time does not suffice for all."""
    delayable: bool = True
    """Whether its agent can be led over the path with a delay."""
    spares: str = ""
    """What it does not do that the relay does, for a reader of a row in which it is ahead."""

    def describe(self) -> str:
        """The line about it, with its version."""
        version = version_of(*self.version) if self.version[0] else ""
        return f"{version}, {self.about}" if version else self.about


async def _direct(place: Place) -> Running:
    static, live = await place.reach(place.static), await place.reach(place.live)
    return Running("direct", Door(static), Door(live))


async def _nginx(place: Place) -> Running:
    static, live = free_ports(2)
    doors = {"static": (static, place.static), "live": (live, place.live)}
    text = nginxconf.proxy(place.directory, doors)
    child = await place.run(nginxconf.argv(program("nginx"), place.directory, "proxy", text), "nginx")
    return await _in_service(Running("nginx", Door(static), Door(live), relay=child))


async def _asgi(place: Place) -> Running:
    [port] = free_ports(1)
    child = await place.run([sys.executable, "-m", "bench.hello", str(port)], "asgi")
    return await _in_service(Running("asgi", Door(port), relay=child), HELLO)


async def _relay(place: Place) -> Running:
    return await _pair(place, "relay", {})


async def _compiled(place: Place) -> Running:
    # Without the working directory in front, where the interpreted rooms are.
    return await _pair(place, "compiled", {"PYTHONPATH": str(compiled_tree()), "PYTHONSAFEPATH": "1"})


def compiled_tree() -> Path:
    """Where scripts/compiled left it. Raises Unavailable unless it is there, of this code and for this Python."""
    tree = ROOT / ".venvs" / "compiled" / "tree"
    if not (tree / f"relay/wire/frames{sysconfig.get_config_var('EXT_SUFFIX')}").exists():
        raise Unavailable("scripts/compiled has not made it for this Python")
    for path in (ROOT / "relay").rglob("*.py"):
        made = tree / path.relative_to(ROOT)
        if not made.exists() or made.read_bytes() != path.read_bytes():
            raise Unavailable("it is of other code; scripts/compiled makes it again")
    return tree


async def _pair(place: Place, name: str, env: Mapping[str, str]) -> Running:
    serve = [sys.executable, "-m", "relay", "serve", "--json", "--domain", DOMAIN, "--grace", "1"]
    serve += ["--access-log", "off"]  # as nginx has it here
    serve += ["--public", "127.0.0.1:0", "--agents", "127.0.0.1:0", "--data", str(place.directory)]
    relay = await place.run(serve, "relay", env)
    serving = await relay.wait_event("serving", READY)
    public, agents = (int(serving[what].rpartition(":")[2]) for what in ("public", "agents"))
    running = Running(name, Door(public, f"s.{DOMAIN}"), Door(public, f"l.{DOMAIN}"), relay=relay)
    running.key_file, running.agents_port = str(place.directory / "child.key"), agents
    mint = [sys.executable, "-m", "relay", "keys", "mint", "--relay", f"ws://127.0.0.1:{agents}"]
    mint += ["--key-file", str(serving["key_file"]), "--key-out", running.key_file, "--json"]
    await (await place.run(mint, "mint")).wait(READY)
    doors = [f"s={place.static}", f"l={place.live}"]
    running.agent = await place.run(agent_argv(await place.reach(agents), running.key_file, *doors), "agent", env)
    return await _in_service(running)


def agent_argv(port: int, key_file: str, *names: str) -> list[str]:
    """The command line of an agent with these tunnels (`NAME=TARGET`)."""
    argv = [sys.executable, "-m", "relay", "http", "--json", "--quiet", "--key-file", key_file]
    argv += ["--relay", f"ws://127.0.0.1:{port}"]
    for name in names:
        argv += ["--subdomain", name]
    return argv


async def _in_service(running: Running, path: str = nginxconf.SMALL) -> Running:
    await answers(running.static, path)
    return running


REFERENCES = (
    System("direct", "the origin itself, nothing in between", _direct),
    System(
        "nginx", "a reverse proxy of one process, keep-alive to the origin", _nginx, ("nginx", "-v"), delayable=False
    ),
    System("asgi", "uvicorn with uvloop and httptools and the smallest ASGI application", _asgi, delayable=False),
)
RELAY = System("relay", "this project: relay serve and relay http, with their defaults but no line a request", _relay)
COMPILED = System(
    "compiled", "the same with its optional build, RELAY_COMPILED=1", _compiled, rival=True, delayable=False
)
