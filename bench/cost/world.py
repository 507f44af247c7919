"""A relay and an agent in one process, joined by a carrier in memory: the real parts of both, assembled as they are.

Only the outermost layer is fake: the loop's connections to the local service, the visitor's transport, the carrier, and
who judges keys. There is no database: whatever would ask it for a request fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from bench.cost.count import context_of
from bench.cost.ends import FakeCarrier, FakeTransport, Respond
from relay.agent.addresses import AddressPolicy
from relay.agent.forwarder import Forwarder, Route
from relay.agent.parsers import PARSERS
from relay.agent.pool import Keep, LocalPool
from relay.agent.targets import parse_target
from relay.keys.tokens import SigningKey
from relay.mux.session import Session, SessionOptions
from relay.mux.stream import Stream
from relay.mux.streamevents import StreamEvents
from relay.node.assemble import assemble, visitor_factory
from relay.node.bookkeeper import HeadsFile
from relay.node.ground import Ground
from relay.registry import Database, Registry
from relay.registry.dialects import LIMITS, Place
from relay.settings import ServeSettings
from relay.tunnels.admission import Principal
from relay.wire import frames
from relay.wire.hello import Hello, Refused, encode_hello
from tests.support.clock import VirtualLoop

NAME = "cost"
HOST = f"{NAME}.tunnels.localhost"
TURNS = 20_000  # of the loop, after which something is stuck
NEVER = 3600.0


class CostLoop(VirtualLoop):
    """A virtual loop whose connections all lead to one fake local service."""

    respond: Respond

    async def create_connection(self, factory: Callable[[], Any], *_: Any, **__: Any) -> Any:  # type: ignore[override]  # noqa: ANN401
        """A connection that is there at once."""
        transport = FakeTransport(context_of("agent"), lambda one: self.respond(one))
        protocol = factory()
        transport.attach(protocol)
        return transport, protocol


class AgentSide:
    """The agent's end of the session: what `relay.agent.link` is around a WebSocket."""

    def __init__(self, carrier: FakeCarrier, forwarder: Forwarder) -> None:
        self._forwarder = forwarder
        self.session = Session(carrier, self, SessionOptions(opener=False, ping_interval=NEVER))
        hello = Hello("cost", 0, 1, "none", (NAME,), agent="cost")
        self.session.send(frames.encode(frames.HELLO, 0, encode_hello(hello)))

    def on_handshake(self, kind: int, payload: bytes) -> None:
        """See `SessionEvents`."""
        assert kind == frames.WELCOME, payload
        self.session.establish()

    def on_open(self, stream: Stream, payload: bytes, ended: bool) -> StreamEvents | None:
        """See `SessionEvents`."""
        return self._forwarder.accept(stream, payload, ended)

    def on_going_away(self, code: int, detail: str) -> None:
        """See `SessionEvents`."""

    def on_lost(self, reason: str) -> None:
        """See `SessionEvents`."""


class Anybody:
    """Admission without keys: a request costs the same whoever opened the tunnel."""

    async def admit(self, hello: Hello, address: str) -> Principal:
        """See `Admission`."""
        return Principal("cost", "nobody")

    async def renew(self, principal: Principal, key: str, names: tuple[str, ...], address: str) -> Principal:
        """See `Admission`."""
        return principal

    def last_word(self, principal: Principal, names: tuple[str, ...]) -> None:
        """See `Admission`."""

    def refused(self, principal: Principal, names: tuple[str, ...], address: str, refused: Refused) -> None:
        """See `Admission`."""


def unused_ground() -> Ground:
    """A node's ground whose registry is never asked: nothing on the path of a request does."""
    settings, signer = ServeSettings(data=Path("unused"), ping_interval=NEVER), SigningKey.generate()
    registry = Registry(Database(Place.of(settings.database), LIMITS), lambda: 0.0)
    return Ground(settings, 80, registry, signer, HeadsFile(Path("unused")))


class World:
    """Everything between a visitor's bytes and the local service's."""

    def __init__(self) -> None:
        self.loop = cast(CostLoop, asyncio.get_running_loop())
        self._relay_context, agent_context = context_of("relay"), context_of("agent")
        self._node = self._relay_context.run(assemble, unused_ground(), lambda event: None)
        self._node.doorway.admission = Anybody()
        self._factory = visitor_factory(self._node.services)
        relay_end, agent_end = FakeCarrier(self._relay_context), FakeCarrier(agent_context)
        relay_end.far, agent_end.far = agent_end, relay_end
        relay_end.owner = self._relay_context.run(self._node.doorway.welcome_carrier, relay_end, "127.0.0.1")
        self._agent = agent_context.run(self._make_agent, agent_end)
        agent_end.owner = self._agent.session

    def _make_agent(self, carrier: FakeCarrier) -> AgentSide:
        target = parse_target("127.0.0.1:3000")
        pool = LocalPool(target, AddressPolicy(()), PARSERS["httptools"], keep=Keep(idle=NEVER, fresh=NEVER))
        forwarder = Forwarder({NAME: Route(NAME, target, pool)}, lambda event: None, self.loop.time)
        return AgentSide(carrier, forwarder)

    async def until(self, condition: Callable[[], object]) -> None:
        """Turns of the loop until it holds. Raises RuntimeError when something is stuck."""
        for _ in range(TURNS):
            if condition():
                return
            await asyncio.sleep(0)
        raise RuntimeError("the scripted exchange is stuck")

    async def established(self) -> None:
        """Until the tunnel is alive."""
        await self.until(lambda: self._node.hub.known(NAME) and self._agent.session.established)

    def visitor(self) -> FakeTransport:
        """A new visitor's connection: `feed` it requests, read answers from `written`."""
        transport = FakeTransport(context_of("relay"))
        transport.attach(self._relay_context.run(self._factory, None, None, None))
        return transport

    async def aclose(self) -> None:
        """Ends both sides."""
        await self._node.doorway.aclose("over")
        await self._agent_pool_closed()

    async def _agent_pool_closed(self) -> None:
        for task in [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]:
            task.cancel()
        await asyncio.sleep(0)
