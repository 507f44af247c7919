"""Relays for tests of the agent: the real doorway on a real WebSocket server, and servers that do as a test says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import picows

from relay.agent.config import AgentSettings, FixedKey, KeySource
from relay.agent.targets import parse_target
from relay.mux.carriers.websocket import WebSocketCarrier
from relay.mux.session import Session
from relay.tunnels.admission import Principal
from relay.tunnels.hub import Link
from relay.wire import frames
from relay.wire.errors import AwayCode
from relay.wire.frames import MAX_MESSAGE, encode
from relay.wire.hello import SUBPROTOCOL, Hello, Refused
from tests.agent.localside import within
from tests.tunnels.agents import House, Keys

Say = Callable[[picows.WSTransport], None]


class Answers(Keys):
    """Admission of any key, that refuses as often as it is told to, and remembers every hello and every new key."""

    def __init__(self) -> None:
        super().__init__()
        self.refusals: list[Refused] = []
        self.hellos: list[Hello] = []
        self.renewal_refusals: list[Refused] = []
        self.renewals: list[str] = []

    async def admit(self, hello: Hello, address: str) -> Principal | Refused:
        self.hellos.append(hello)
        self.projects[hello.key] = "default"
        return self.refusals.pop(0) if self.refusals else await super().admit(hello, address)

    async def renew(self, principal: Principal, key: str, names: tuple[str, ...], address: str) -> Principal | Refused:
        self.renewals.append(key)
        self.projects[key] = "default"
        if self.renewal_refusals:
            return self.renewal_refusals.pop(0)
        return await super().renew(principal, key, names, address)

    @property
    def keys(self) -> list[str]:
        """The keys of all hellos, in order."""
        return [hello.key for hello in self.hellos]


class Relay:
    """A doorway that listens."""

    def __init__(self) -> None:
        self.answers = Answers()
        self.house = House(self.answers)
        self.port = 0
        self.sessions: list[Session] = []
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @property
    def links(self) -> list[Link]:
        """Links in service, by slot."""
        return sorted(self.house.hub.links.values(), key=lambda link: link.slot)

    async def start(self) -> None:
        """Listens, on the same port as before if there was one."""
        self._server = await picows.ws_create_server(
            self._accept,
            "127.0.0.1",
            self.port,
            enable_auto_pong=False,
            max_frame_size=MAX_MESSAGE,
            use_aiofastnet=False,
        )
        assert self._server is not None
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Listens no more, and cuts every connection."""
        assert self._server is not None
        self._server.close()
        for session in self.sessions:
            session.abort("the test's relay stops")
        await self.house.doorway.aclose("the test's relay stops")

    def _accept(self, request: picows.WSUpgradeRequest) -> picows.WSUpgradeResponseWithListener:
        return picows.WSUpgradeResponseWithListener(
            picows.WSUpgradeResponse.create_101_response(extra_headers=[("Sec-WebSocket-Protocol", SUBPROTOCOL)]),
            WebSocketCarrier(self._welcome),
        )

    def _welcome(self, carrier: WebSocketCarrier) -> Session:
        session = self.house.doorway.welcome_carrier(carrier, carrier.peer)
        self.sessions.append(session)
        return session


def send_away(session: Session) -> None:
    """As a relay does with a session whose numbers are used up: it finishes beside a newer one."""
    session.leaving = True
    session.go_away(AwayCode.SHUTDOWN, "all stream numbers are used up")


@contextlib.asynccontextmanager
async def a_relay() -> AsyncIterator[Relay]:
    """A relay that listens on a free port."""
    relay = Relay()
    await relay.start()
    try:
        yield relay
    finally:
        await relay.stop()


@contextlib.asynccontextmanager
async def a_websocket(say: Say, *, subprotocol: str | None = SUBPROTOCOL) -> AsyncIterator[str]:
    """A server that answers the handshake and the first message with what `say` does; the result is its URL."""

    class Speaker(picows.WSListener):
        def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
            if frame.msg_type == picows.WSMsgType.BINARY and not getattr(self, "said", False):
                self.said = True
                say(transport)
            elif frame.msg_type == picows.WSMsgType.CLOSE:
                transport.disconnect()

    def accept(request: picows.WSUpgradeRequest) -> picows.WSUpgradeResponseWithListener:
        headers = [("Sec-WebSocket-Protocol", subprotocol)] if subprotocol else []
        return picows.WSUpgradeResponseWithListener(
            picows.WSUpgradeResponse.create_101_response(extra_headers=headers), Speaker()
        )

    server = await picows.ws_create_server(accept, "127.0.0.1", 0, use_aiofastnet=False)
    try:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@contextlib.asynccontextmanager
async def a_socket(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """A server of plain TCP; the result is its URL as if it were a relay."""
    writers: list[asyncio.StreamWriter] = []

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await serve(reader, writer)

    server = await asyncio.start_server(accepted, "127.0.0.1", 0)
    try:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()


def saying(kind: int, payload: bytes) -> Say:
    """Sends one frame."""
    return lambda transport: transport.send(picows.WSMsgType.BINARY, encode(kind, 0, payload))


def settings(
    url: str, *, links: int = 1, keys: KeySource | None = None, names: tuple[str, ...] = ("demo",), port: int = 1
) -> AgentSettings:
    """An agent whose local service is on `port`; without one it does not exist."""
    target = parse_target(str(port))
    tunnels = tuple((name, target) for name in names)
    return AgentSettings(relay_url=url, keys=keys or FixedKey("good"), tunnels=tunnels, links=links)


def hello(*, generation: int = 1, key: str = "good") -> Hello:
    return Hello("a", 0, generation, key, ("demo",))


async def until(holds: Callable[[], object]) -> None:
    """What another end brings about, looked at in every few turns of the loop, with a deadline."""

    async def wait() -> None:
        while not holds():
            await asyncio.sleep(0.002)

    await within(wait())


WELCOME = frames.WELCOME
REFUSED = frames.REFUSED
