"""The agents' door: `GET /agent/v1` with an upgrade goes to picows, everything else to the API, with the bytes read.

The only room that knows picows' server protocol and uvicorn's HTTP protocol, neither of which is exported for this use;
their versions are bounded in pyproject.toml.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from typing import Any, cast

from picows import WSAutoPingStrategy, WSUpgradeRequest, WSUpgradeResponse, WSUpgradeResponseWithListener
from picows.picows import WSProtocol  # type: ignore[attr-defined]  # not exported: this room's one liberty
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from relay.exchange.headers import address_of
from relay.mux.carriers.websocket import WebSocketCarrier
from relay.mux.session import Session
from relay.tunnels.doorway import Doorway
from relay.wire.frames import MAX_HELLO, MAX_MESSAGE
from relay.wire.hello import PATH, SUBPROTOCOL

MOST_HEAD = 16 * 1024
HEAD_WITHIN = 10.0
# Bytes of one request to the API, whatever it is made of.
MOST_REQUEST = 64 * 1024
# The upgrade's head, a hello, and what WebSocket and our frames put around them.
MOST_BEFORE_HELLO = MOST_HEAD + MAX_HELLO + 1024
_AGENT = re.compile(rb"GET %b(?:\?[^ ]*)? HTTP/1\.1\r\n" % re.escape(PATH.encode()))
_UPGRADE = re.compile(rb"\r\nupgrade:[ \t]*websocket[ \t]*\r\n", re.IGNORECASE)
_LOGGER = logging.getLogger("relay.agents")


class Door(asyncio.Protocol):
    """Holds a connection until its first request head is complete, then hands it over.

    To an agent it stays in front until the hello is admitted: a stranger can make nobody hold more than a hello.
    """

    def __init__(self, doorway: Doorway, trusts: Callable[[str], bool], rest: Callable[[], HttpToolsProtocol]) -> None:
        self._doorway = doorway
        self._trusts = trusts
        self._forwarded_for = ""
        self._rest = rest
        self._buffer = b""
        self._websocket: Any = None
        self._session: Session | None = None
        self._before_hello = 0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast(asyncio.Transport, transport)
        self._timer = asyncio.get_running_loop().call_later(HEAD_WITHIN, self._transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._stop_timer()
        if self._websocket is not None:
            self._websocket.connection_lost(exc)

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
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > MOST_HEAD:
                self._transport.abort()
            return
        self._stop_timer()
        data, self._buffer = self._buffer, b""
        if _AGENT.match(data) and _UPGRADE.search(data, 0, end + 2):
            self._websocket = _websocket_protocol(self._listener)
            self._websocket.connection_made(self._transport)
            self._feed(data)
        else:
            protocol = self._rest()
            self._transport.set_protocol(protocol)
            protocol.connection_made(self._transport)
            protocol.data_received(data)

    def _listener(self, request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        offered = [one.strip() for one in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
        if SUBPROTOCOL not in offered:
            text = f"The subprotocol {SUBPROTOCOL} is spoken here.\n".encode()
            return WSUpgradeResponseWithListener(WSUpgradeResponse.create_error_response(400, text), None)
        self._forwarded_for = ",".join(request.headers.getall("X-Forwarded-For", ()))
        chosen = [("Sec-WebSocket-Protocol", SUBPROTOCOL)]
        response = WSUpgradeResponse.create_101_response(extra_headers=chosen)
        return WSUpgradeResponseWithListener(response, WebSocketCarrier(self._connected))

    def _connected(self, carrier: WebSocketCarrier) -> Session:
        peer = self._transport.get_extra_info("peername")
        # Not the peer's: or all agents behind a proxy would share the bound of one address.
        address = address_of(str(peer[0]) if isinstance(peer, tuple) else "unknown", self._forwarded_for, self._trusts)
        self._session = self._doorway.welcome_carrier(carrier, address)
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


def _websocket_protocol(listener: Callable[[WSUpgradeRequest], WSUpgradeResponseWithListener]) -> Any:  # noqa: ANN401
    return WSProtocol(
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
