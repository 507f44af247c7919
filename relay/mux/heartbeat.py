"""The pings of a session, on the clock: sends what `keepalive` decides, tells when the peer is dead, answers probes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from relay.mux.keepalive import Keepalive
from relay.wire.frames import PING, U64, encode


class Heartbeat:
    """Owns the one timer of a session."""

    __slots__ = ("_keepalive", "_loop", "_on_dead", "_probe", "_send", "_stopped", "_timer")

    def __init__(self, keepalive: Keepalive, send: Callable[[bytes], None], on_dead: Callable[[], None]) -> None:
        self._keepalive = keepalive
        self._send = send
        self._on_dead = on_dead
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._probe: asyncio.Future[None] | None = None
        self._stopped = False

    def start(self) -> None:
        """Pings at once, and from then on."""
        now = self._loop.time()
        if self._keepalive.dead(now):
            self._on_dead()
            return
        self.ping()
        if self._stopped:
            return  # the ping was one frame too many for a peer that reads nothing
        self._timer = self._loop.call_later(self._keepalive.next_check(now), self.start)

    def stop(self) -> None:
        """The session has ended."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._answer_probe()

    def ping(self) -> None:
        """Pings now, unless an answer is outstanding."""
        nonce = self._keepalive.ping(self._loop.time())
        if nonce is not None:
            self._send(encode(PING, 0, U64.pack(nonce)))

    def on_pong(self, nonce: int) -> None:
        """A PONG came in."""
        if self._keepalive.on_pong(nonce, self._loop.time()):
            self._answer_probe()
            if self._keepalive.in_burst:
                self.ping()

    async def probe(self, within: float) -> bool:
        """Pings now; whether an answer came (or the session ended) within so many seconds."""
        self.ping()
        if self._probe is None:
            self._probe = self._loop.create_future()
        done, _ = await asyncio.wait([self._probe], timeout=within)
        return bool(done)

    def _answer_probe(self) -> None:
        probe, self._probe = self._probe, None
        if probe is not None and not probe.done():
            probe.set_result(None)
