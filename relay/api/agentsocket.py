"""The WebSocket of an agent, as picows serves it: what one connection reads at once, and what is done at its end.

The only room that knows picows' server protocol, which is not exported for this use; its version is bounded in
pyproject.toml.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from picows import WSAutoPingStrategy, WSTransport, WSUpgradeRequest, WSUpgradeResponseWithListener
from picows.picows import WSProtocol  # type: ignore[attr-defined]  # not exported: this room's one liberty

from relay.mux.carriers.websocket import WebSocketCarrier
from relay.mux.session import Session
from relay.wire.frames import MAX_MESSAGE

READ_MOST = 256 * 1024
Listener = Callable[[WSUpgradeRequest], WSUpgradeResponseWithListener]
_LOGGER = logging.getLogger("relay.agents")


class AgentCarrier(WebSocketCarrier):
    """A carrier that says when its connection has ended, which may be after its session."""

    lingers = True

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


class _Bounded(WSProtocol):  # type: ignore[misc]
    """picows' protocol, reading so much at once: its buffer would double for as long as an agent fills it."""

    def get_buffer(self, size_hint: int) -> memoryview:
        """See `asyncio.BufferedProtocol`."""
        room: memoryview = super().get_buffer(size_hint)
        return room[:READ_MOST]


def websocket_protocol(listener: Listener, within: float) -> Any:  # noqa: ANN401
    """The protocol of one connection, whose handshake is done in `within` seconds."""
    return _Bounded(
        None,
        None,
        False,
        listener,
        _LOGGER,
        True,
        within,
        False,
        20,
        20,
        WSAutoPingStrategy.PING_WHEN_IDLE,
        False,
        MAX_MESSAGE,
        None,
        16 * 1024,
    )
