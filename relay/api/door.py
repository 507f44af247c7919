"""The agents' door: `GET /agent/v1` with an upgrade goes to picows, everything else to the API, with the bytes read.

Whoever is one too many, or came in vain too often of late, is turned away before a handshake has cost anything. The
only room that knows picows' server protocol and uvicorn's HTTP protocol, neither of which is exported for this use;
their versions are bounded in pyproject.toml.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import re
import socket
import struct
from collections.abc import Callable
from functools import lru_cache
from http import HTTPStatus
from typing import Any, cast

from picows import WSAutoPingStrategy, WSTransport, WSUpgradeRequest, WSUpgradeResponse, WSUpgradeResponseWithListener
from picows.picows import WSProtocol  # type: ignore[attr-defined]  # not exported: this room's one liberty
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from relay.exchange.headers import address_of
from relay.limits.brakes import network_of
from relay.mux.carriers.websocket import WebSocketCarrier
from relay.mux.session import Session
from relay.tunnels.doorway import Doorway
from relay.wire.frames import MAX_HELLO, MAX_MESSAGE
from relay.wire.hello import PATH, SUBPROTOCOL

MOST_HEAD = 16 * 1024
READ_MOST = 256 * 1024
HEAD_WITHIN = 10.0
# Bytes of one request to the API, whatever it is made of.
MOST_REQUEST = 64 * 1024
# The upgrade's head, a hello, and what WebSocket and our frames put around them.
MOST_BEFORE_HELLO = MOST_HEAD + MAX_HELLO + 1024
_AGENT = re.compile(rb"GET %b(?:\?[^ ]*)? HTTP/1\.1\r\n" % re.escape(PATH.encode()))
_UPGRADE = re.compile(rb"\r\nupgrade:[ \t]*websocket[ \t]*\r\n", re.IGNORECASE)
_FORWARDED_FOR = re.compile(rb"\r\nx-forwarded-for:([^\r\n]*)", re.IGNORECASE)
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_LOGGER = logging.getLogger("relay.agents")


class Door(asyncio.Protocol):
    """Holds a connection until its first request head is complete, then hands it over.

    To an agent it stays in front until the hello is admitted: a stranger can make nobody hold more than a hello.
    """

    def __init__(self, doorway: Doorway, trusts: Callable[[str], bool], rest: Callable[[], BoundedHttp]) -> None:
        self._doorway = doorway
        self._trusts = trusts
        self._address = "unknown"
        """The peer's, and from the upgrade on the agent's."""
        self._network: str | None = None
        """Counted in as; None: not counted in, or counted out."""
        self._excess = 0
        self._turned_away = False
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
        if self._websocket is not None:
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
        wait = 0 if self._trusts(self._address) else self._doorway.failures.wait(network_of(self._address), now)
        if wait:
            said = "Too many agents from this address were refused of late."
            self._turn_away(HTTPStatus.TOO_MANY_REQUESTS, "too_many", said, math.ceil(wait))
            return
        self._websocket = _websocket_protocol(self._listener)
        self._websocket.connection_made(self._transport)
        self._feed(data)

    def _turn_away(self, status: HTTPStatus, code: str, said: str, seconds: int) -> None:
        """Answers without reading on."""
        self._turned_away = True
        self._transport.write(_turned_away(status, code, said, seconds))
        self._transport.close()

    def _reset(self) -> None:
        """Ends at once, without an answer."""
        self._turned_away = True
        sock = self._transport.get_extra_info("socket")
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._transport.abort()

    def _listener(self, request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        offered = [one.strip() for one in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
        if SUBPROTOCOL not in offered:
            text = f"The subprotocol {SUBPROTOCOL} is spoken here.\n".encode()
            return WSUpgradeResponseWithListener(WSUpgradeResponse.create_error_response(400, text), None)
        chosen = [("Sec-WebSocket-Protocol", SUBPROTOCOL)]
        response = WSUpgradeResponse.create_101_response(extra_headers=chosen)
        return WSUpgradeResponseWithListener(response, _AgentCarrier(self._connected, self.left))

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


class _AgentCarrier(WebSocketCarrier):
    """A carrier that says when its connection has ended, which may be after its session."""

    def __init__(self, owner: Callable[[WebSocketCarrier], Session], on_left: Callable[[], None]) -> None:
        super().__init__(owner)
        self._on_left = on_left

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """See `WebSocketCarrier.on_ws_disconnected`."""
        on_left, self._on_left = self._on_left, _nobody  # the door is let go, and picows' buffer with it
        on_left()
        super().on_ws_disconnected(transport)


def _nobody() -> None:
    """Nobody has left any more."""


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


class _BoundedWebSocket(WSProtocol):  # type: ignore[misc]
    """picows' protocol, reading so much at once: its buffer would double for as long as an agent fills it."""

    def get_buffer(self, size_hint: int) -> memoryview:
        """See `asyncio.BufferedProtocol`."""
        room: memoryview = super().get_buffer(size_hint)
        return room[:READ_MOST]


def _websocket_protocol(listener: Callable[[WSUpgradeRequest], WSUpgradeResponseWithListener]) -> Any:  # noqa: ANN401
    return _BoundedWebSocket(
        None,
        None,
        False,
        listener,
        _LOGGER,
        True,
        HEAD_WITHIN,
        False,
        20,
        20,
        WSAutoPingStrategy.PING_WHEN_IDLE,
        False,
        MAX_MESSAGE,
        None,
        16 * 1024,
    )


@lru_cache(maxsize=64)
def _turned_away(status: HTTPStatus, code: str, said: str, seconds: int) -> bytes:
    """An answer as the API's problems look."""
    body = {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": said, "code": code}
    body["next_action"] = f"Try again in {seconds} s."
    text = json.dumps(body).encode()
    return (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/problem+json\r\n"
        f"Content-Length: {len(text)}\r\nRetry-After: {seconds}\r\nConnection: close\r\n\r\n"
    ).encode() + text


def door_factory(doorway: Doorway, trusts: Callable[[str], bool]) -> Callable[..., asyncio.BaseProtocol]:
    """What uvicorn calls for every connection to the agent listener."""

    def make(
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> asyncio.BaseProtocol:
        return Door(doorway, trusts, lambda: BoundedHttp(config, server_state, app_state, _loop))

    return make
