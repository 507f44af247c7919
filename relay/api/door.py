"""The agents' door: `GET /agent/v1` with an upgrade goes to picows, everything else to the API, with the bytes read.

Whoever is one too many, or came in vain too often of late, is turned away before a handshake has cost anything. The
only room that knows uvicorn's HTTP protocol, which is not exported for this use; its version is bounded in
pyproject.toml.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, cast

from picows import WSUpgradeRequest, WSUpgradeResponse, WSUpgradeResponseWithListener
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from relay.api.agentsocket import AgentCarrier, websocket_protocol
from relay.api.line import Line
from relay.api.problems import turned_away
from relay.exchange.headers import address_of
from relay.limits.brakes import network_of
from relay.mux.carriers.websocket import WebSocketCarrier
from relay.mux.session import Session
from relay.mux.tcp import reset_on_close
from relay.tunnels.doorway import Doorway
from relay.wire.frames import MAX_HELLO
from relay.wire.hello import PATH, SUBPROTOCOL

MOST_HEAD = 16 * 1024
# Hellos that are judged at once, before the next handshakes begin.
MOST_JUDGED = 64
HEAD_WITHIN = 10.0
# Bytes of one request to the API, whatever it is made of.
MOST_REQUEST = 64 * 1024
# The upgrade's head, a hello, and what WebSocket and our frames put around them.
MOST_BEFORE_HELLO = MOST_HEAD + MAX_HELLO + 1024
_AGENT = re.compile(rb"GET %b(?:\?[^ ]*)? HTTP/1\.1\r\n" % re.escape(PATH.encode()))
_UPGRADE = re.compile(rb"\r\nupgrade:[ \t]*websocket[ \t]*\r\n", re.IGNORECASE)
_FORWARDED_FOR = re.compile(rb"\r\nx-forwarded-for:([^\r\n]*)", re.IGNORECASE)


class Door(asyncio.Protocol):
    """Holds a connection until its first request head is complete, then hands it over.

    To an agent it stays in front until the hello is admitted: a stranger can make nobody hold more than a hello.
    """

    def __init__(
        self, doorway: Doorway, line: Line, trusts: Callable[[str], bool], rest: Callable[[], BoundedHttp]
    ) -> None:
        self._doorway = doorway
        self._line = line
        self._trusts = trusts
        self._address = "unknown"
        """The peer's, and from the upgrade on the agent's."""
        self._network: str | None = None
        """Counted in as; None: not counted in, or counted out."""
        self._excess = 0
        self._turned_away = False
        self._waits = False
        self._rest = rest
        self._buffer = b""
        self._websocket: Any = None
        self._session: Session | None = None
        self._before_hello = 0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):
            self._address = str(peer[0])
        self._network = "" if self._trusts(self._address) else network_of(self._address)
        self._excess = self._doorway.connections.enter(self._network)
        if self._excess > 1:
            self._reset()
        else:
            self._timer = asyncio.get_running_loop().call_later(HEAD_WITHIN, self._transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._stop_timer()
        self.left()
        if self._waits:
            self._line.leave(self)
        elif self._websocket is not None:
            self._websocket.connection_lost(exc)

    def left(self) -> None:
        """Counts the connection out, once: whoever it was handed over to says when it has ended."""
        network, self._network = self._network, None
        if network is not None:
            self._doorway.connections.leave(network)

    def eof_received(self) -> bool:
        """See `asyncio.Protocol`."""
        return False

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        if self._websocket is not None:
            self._websocket.pause_writing()

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        if self._websocket is not None:
            self._websocket.resume_writing()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._websocket is not None:
            self._feed(data)
            return
        if self._turned_away:
            return
        self._buffer += data
        if self._waits:
            if len(self._buffer) > MOST_BEFORE_HELLO:
                self._transport.abort()
            return
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > MOST_HEAD:
                self._transport.abort()
            return
        self._stop_timer()
        data, self._buffer = self._buffer, b""
        if self._excess:
            self._turn_away(HTTPStatus.SERVICE_UNAVAILABLE, "overloaded", "Too many connections are open here.", 1)
        elif _AGENT.match(data) and _UPGRADE.search(data, 0, end + 2):
            self._upgrade(data, data[:end])
        else:
            protocol = self._rest()
            protocol.on_left = self.left
            self._transport.set_protocol(protocol)
            protocol.connection_made(self._transport)
            protocol.data_received(data)

    def _upgrade(self, data: bytes, head: bytes) -> None:
        # Not the peer's: or all agents behind a proxy would share the bounds of one address.
        forwarded_for = b",".join(_FORWARDED_FOR.findall(head)).decode("latin-1")
        self._address = address_of(self._address, forwarded_for, self._trusts)
        now = asyncio.get_running_loop().time()
        # A proxy that does not say for whom it speaks stands for many.
        network = "" if self._trusts(self._address) else network_of(self._address)
        wait = self._doorway.failures.wait(network, now) if network else 0
        if wait:
            said = "Too many agents from this address were refused of late."
            self._turn_away(HTTPStatus.TOO_MANY_REQUESTS, "too_many", said, math.ceil(wait))
            return
        self._buffer, self._waits = data, True
        self._line.join(self, network)

    def on_turn(self) -> None:
        """See `InLine.on_turn`."""
        data, self._buffer, self._waits = self._buffer, b"", False
        self._websocket = websocket_protocol(self._listener, HEAD_WITHIN)
        self._websocket.connection_made(self._transport)
        self._feed(data)

    def on_too_long(self) -> None:
        """See `InLine.on_too_long`."""
        self._buffer, self._waits = b"", False
        self._turn_away(HTTPStatus.SERVICE_UNAVAILABLE, "overloaded", "Too many agents come at once.", 1)

    def _turn_away(self, status: HTTPStatus, code: str, said: str, seconds: int) -> None:
        """Answers without reading on."""
        self._turned_away = True
        self._transport.write(turned_away(status, code, said, seconds))
        self._transport.close()

    def _reset(self) -> None:
        """Ends at once, without an answer."""
        self._turned_away = True
        reset_on_close(self._transport)
        self._transport.abort()

    def _listener(self, request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        offered = [one.strip() for one in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
        if SUBPROTOCOL not in offered:
            text = f"The subprotocol {SUBPROTOCOL} is spoken here.\n".encode()
            return WSUpgradeResponseWithListener(WSUpgradeResponse.create_error_response(400, text), None)
        chosen = [("Sec-WebSocket-Protocol", SUBPROTOCOL)]
        response = WSUpgradeResponse.create_101_response(extra_headers=chosen)
        return WSUpgradeResponseWithListener(response, AgentCarrier(self._connected, self.left))

    def _connected(self, carrier: WebSocketCarrier) -> Session:
        self._session = self._doorway.welcome_carrier(carrier, self._address)
        return self._session

    def _feed(self, data: bytes) -> None:
        """Bytes to picows, through us while the agent is a stranger, past us from then on."""
        session = self._session
        if session is not None and session.established:
            self._transport.set_protocol(self._websocket)
        else:
            self._before_hello += len(data)
            if self._before_hello > MOST_BEFORE_HELLO:
                self._transport.abort()
                return
        while data:
            room = self._websocket.get_buffer(len(data))
            size = min(len(room), len(data))
            room[:size] = data[:size]
            data = data[size:]
            self._websocket.buffer_updated(size)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's HTTP with the bounds that it lacks: a request is whole within a time and a size, an answer is read."""

    on_left: Callable[[], None] | None = None
    _deadline: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    _size = 0

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._deadline is None:
            self._size = 0
            self._deadline = self.loop.call_later(HEAD_WITHIN, self.transport.abort)
        self._size += len(data)
        if self._size > MOST_REQUEST:
            self.transport.abort()
            return
        super().data_received(data)

    def on_message_complete(self) -> None:
        """A request is whole."""
        self._stop_deadline()
        super().on_message_complete()

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`: the client reads nothing."""
        super().pause_writing()
        self._unread = self._unread or self.loop.call_later(HEAD_WITHIN, self.transport.abort)

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._stop_unread()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        if self.on_left is not None:
            self.on_left()
        self._stop_deadline()
        self._stop_unread()
        super().connection_lost(exc)

    def _stop_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def door_factory(doorway: Doorway, trusts: Callable[[str], bool]) -> Callable[..., asyncio.BaseProtocol]:
    """What uvicorn calls for every connection to the agent listener."""
    loop = asyncio.get_running_loop()
    line = Line(loop.time, loop.call_later, lambda: doorway.judging >= MOST_JUDGED)

    def make(
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> asyncio.BaseProtocol:
        return Door(doorway, line, trusts, lambda: BoundedHttp(config, server_state, app_state, _loop))

    return make
