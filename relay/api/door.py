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

from relay.mux.carriers.websocket import WebSocketCarrier
from relay.tunnels.doorway import Doorway
from relay.wire.frames import MAX_MESSAGE
from relay.wire.hello import SUBPROTOCOL

MOST_HEAD = 16 * 1024
HEAD_WITHIN = 10.0
_AGENT = re.compile(rb"GET /agent/v1(?:\?[^ ]*)? HTTP/1\.1\r\n")
_UPGRADE = re.compile(rb"\r\nupgrade:[ \t]*websocket[ \t]*\r\n", re.IGNORECASE)
_LOGGER = logging.getLogger("relay.agents")

Protocol = asyncio.BaseProtocol


class Door(asyncio.Protocol):
    """Holds a connection until its first request head is complete, then hands it over."""

    def __init__(self, doorway: Doorway, rest: Callable[[], HttpToolsProtocol]) -> None:
        self._doorway = doorway
        self._rest = rest
        self._buffer = b""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast(asyncio.Transport, transport)
        self._timer = asyncio.get_running_loop().call_later(HEAD_WITHIN, self._transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._stop_timer()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > MOST_HEAD:
                self._transport.abort()
            return
        self._stop_timer()
        if _AGENT.match(self._buffer) and _UPGRADE.search(self._buffer, 0, end + 2):
            self._to_websocket()
        else:
            protocol = self._rest()
            self._transport.set_protocol(protocol)
            protocol.connection_made(self._transport)
            protocol.data_received(self._buffer)

    def _to_websocket(self) -> None:
        peer = self._transport.get_extra_info("peername")
        address = str(peer[0]) if isinstance(peer, tuple) else "unknown"

        def listener(request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
            offered = request.headers.get("Sec-WebSocket-Protocol", "")
            chosen = [("Sec-WebSocket-Protocol", SUBPROTOCOL)] if SUBPROTOCOL in offered else []
            carrier = WebSocketCarrier(lambda carrier: self._doorway.welcome_carrier(carrier, address))
            return WSUpgradeResponseWithListener(WSUpgradeResponse.create_101_response(extra_headers=chosen), carrier)

        protocol = _websocket_protocol(listener)
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        data, self._buffer = self._buffer, b""
        while data:
            room = protocol.get_buffer(len(data))
            size = min(len(room), len(data))
            room[:size] = data[:size]
            data = data[size:]
            protocol.buffer_updated(size)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


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


def door_factory(doorway: Doorway) -> Callable[..., Protocol]:
    """What uvicorn calls for every connection to the agent listener."""

    def make(
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> Protocol:
        return Door(doorway, lambda: HttpToolsProtocol(config, server_state, app_state, _loop))

    return make
