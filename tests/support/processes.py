"""The product as processes: a relay, an agent, and both as one tunnel.

    async with tunnel(local_port, proxy=lambda port: FaultProcess(port, delay=0.05)) as t:
        connect to t.port with `Host: t.tunnels.localhost` (t.host)

This room knows the command lines and the events of the product and nothing of its code. It enters by the front door
only: `relay serve` and `relay http`, or for other ASGI servers a module of the tests that takes the same arguments.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tests.support.child import Child, Event
from tests.support.faultprocess import FaultProcess
from tests.support.faults import FaultProxy
from tests.support.keys import Api, operator_of

DOMAIN = "tunnels.localhost"
START_DEADLINE = 15.0

Edge = Literal["protocol", "asgi-uvicorn", "asgi-hypercorn"]
AnyProxy = FaultProxy | FaultProcess

RELAY = (sys.executable, "-m", "relay")
SERVE: dict[Edge, tuple[str, ...]] = {
    "protocol": (*RELAY, "serve"),
    "asgi-uvicorn": (sys.executable, "-m", "tests.support.asgi_relay", "--edge", "uvicorn"),
    "asgi-hypercorn": (sys.executable, "-m", "tests.support.asgi_relay", "--edge", "hypercorn"),
}


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports to listen on; 0 is any free one."""

    public: int = 0
    agents: int = 0
    internal: int = 0


class RelayProcess(Child):
    """`relay serve` on free ports of 127.0.0.1; `start` returns once it serves. `data` is made and removed if None.

    `api` asks as its operator; `key_file` holds a child key that may open every name.
    """

    def __init__(
        self,
        data: Path | None = None,
        *,
        args: Sequence[str] = (),
        edge: Edge = "protocol",
        ports: Ports = Ports(),
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._own_data = None if data is not None else tempfile.mkdtemp(prefix="relay-test-")
        self.data = data or Path(str(self._own_data))
        listen = ["--public", f"127.0.0.1:{ports.public}", "--agents", f"127.0.0.1:{ports.agents}"]
        listen += ["--internal", f"127.0.0.1:{ports.internal}"]
        argv = [*SERVE[edge], "--json", "--domain", DOMAIN, *listen, "--data", str(self.data), *args]
        # Lines for thousands of requests a second would cost the tests more than the relay.
        super().__init__(argv, name="relay", env={"RELAY_ACCESS_LOG": "off", **(env or {})})
        self.public_port = self.agents_port = self.internal_port = 0
        self.key_file = self.data / "child.key"

    async def start(self) -> None:
        """Start and wait for `serving`; raises ChildError with what it said otherwise."""
        fill(self.data)
        await super().start()
        serving = await self.wait_event("serving", START_DEADLINE)
        self.public_port = _port(serving["public"])
        self.agents_port = _port(serving["agents"])
        self.internal_port = _port(serving["internal"]) if serving.get("internal") else 0
        self.api = Api(self.agents_port, operator_of(self.data))
        if not self.key_file.exists():
            self.key_file.touch(mode=0o600)
            self.key_file.write_text(await self.api.mint() + "\n")

    @property
    def ports(self) -> Ports:
        """Where it listens, for a second relay in its place."""
        return Ports(self.public_port, self.agents_port, self.internal_port)

    async def wait(self, timeout: float = 10.0) -> int:
        code = await super().wait(timeout)
        if self._own_data is not None:
            shutil.rmtree(self._own_data, ignore_errors=True)
        return code


class AgentProcess(Child):
    """`relay http`: `target` a port, host:port or URL; or None with `subdomain=["a=3000", "b=3001"]`."""

    def __init__(
        self,
        target: int | str | None,
        *,
        relay_port: int,
        key_file: Path | None,
        subdomain: str | Sequence[str] = "t",
        args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        argv = [*RELAY, "http"] + ([] if target is None else [str(target)])
        for name in [subdomain] if isinstance(subdomain, str) else subdomain:
            argv += ["--subdomain", name]
        argv += ["--relay", f"ws://127.0.0.1:{relay_port}"]
        if key_file is not None:
            argv += ["--key-file", str(key_file)]
        super().__init__([*argv, "--json", *args], name="agent", env=env)

    async def established(self, timeout: float = START_DEADLINE, after: int = 0) -> Event:
        """The first `established` event (from index `after` of `events` on)."""
        return await self.wait_event("established", timeout, after)


def fill(data: Path) -> None:
    """Gives a data directory that has none a database, as `relay db upgrade` leaves it: a start is faster then."""
    if not (data / "relay.db").exists():
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copyfile(_template(), data / "relay.db")


@functools.cache
def _template() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="relay-template-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    environment = {**os.environ, "RELAY_DATA": str(folder)}
    done = subprocess.run([*RELAY, "db", "upgrade"], env=environment, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "relay.db"


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A live tunnel: connect to `port` with `Host: host`."""

    relay: RelayProcess
    agent: AgentProcess
    proxy: Any
    """The FaultProxy or FaultProcess between agent and relay, None without one."""
    subdomain: str

    @property
    def port(self) -> int:
        """The public port."""
        return self.relay.public_port

    @property
    def host(self) -> str:
        """What visitors send as Host, without the port."""
        return f"{self.subdomain}.{DOMAIN}"

    @property
    def url(self) -> str:
        """The public address (resolvers give loopback for names under .localhost; else connect to 127.0.0.1)."""
        return f"http://{self.host}:{self.port}"


@contextlib.asynccontextmanager
async def tunnel(
    local_port: int | str,
    subdomain: str = "t",
    serve_args: Sequence[str] = (),
    agent_args: Sequence[str] = (),
    proxy: Callable[[int], AnyProxy] | None = None,
    edge: Edge = "protocol",
) -> AsyncIterator[Tunnel]:
    """A relay and an established agent; `proxy` makes the fault proxy between them from the relay's agent port."""
    async with contextlib.AsyncExitStack() as stack:
        relay = await stack.enter_async_context(RelayProcess(args=serve_args, edge=edge))
        between = None if proxy is None else await stack.enter_async_context(proxy(relay.agents_port))
        agent = AgentProcess(
            local_port,
            relay_port=relay.agents_port if between is None else between.port,
            key_file=relay.key_file,
            subdomain=subdomain,
            args=agent_args,
        )
        await stack.enter_async_context(agent)
        await agent.established()
        yield Tunnel(relay, agent, between, subdomain)
