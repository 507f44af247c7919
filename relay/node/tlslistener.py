"""A listener that speaks TLS. It accepts by itself, so that whoever has not yet agreed on TLS is counted like everybody
else, and each connection is served by the certificate that counts when it comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Any

from relay.limits.brakes import network_of
from relay.node.certificates import Certificates
from relay.node.listeners import ACCEPTED_AT_ONCE, BACKLOG, Listener
from relay.tunnels.crowds import Crowd

AGREED_WITHIN = 10.0
"""Seconds for a handshake."""
ENDED_WITHIN = 30.0
"""Seconds from a close until the peer has what was written, and has sent its own close_notify."""
SWEPT_WITHIN = 3600.0
"""The same where the protocol ends what takes too long by itself, and lets a slow peer that reads take its time."""
# When nobody more is accepted, those who still agree on TLS have so many seconds.
ARRIVED_WITHIN = 1.0
# No descriptor is free, say.
AGAIN_AFTER = 0.1


class Arriving:
    """Those who have connected and still agree on TLS; whoever has done so is counted by the protocol. Bounded as
    `crowd` is, beside it.
    """

    def __init__(self, crowd: Crowd, trusts: Callable[[str], bool]) -> None:
        self._crowd = Crowd(crowd.most, crowd.most_of_one)
        self._trusts = trusts

    def enter(self, address: str) -> str | None:
        """Counts one in; what to count it out by, or None if it is one too many."""
        network = "" if self._trusts(address) else network_of(address)
        if not self._crowd.enter(network):
            return network
        self._crowd.leave(network)
        return None

    def leave(self, network: str) -> None:
        """Counts one out."""
        self._crowd.leave(network)


class TlsListener(Listener):
    """See `Listener`."""

    def __init__(
        self,
        sock: socket.socket,
        app: Any,  # noqa: ANN401 - an ASGI application
        http: Callable[..., asyncio.BaseProtocol],
        certificates: Certificates,
        arriving: Arriving,
        *,
        ended_within: float,
    ) -> None:
        super().__init__(sock, app, http)
        self._ended_within = ended_within
        self._http = http
        self._certificates = certificates
        self._arriving = arriving
        self._accepting: socket.socket | None = None
        self._again: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def _copies(self) -> list[socket.socket]:
        return []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See `uvicorn.Server`."""
        await super().startup([])
        self._accept_again()

    def pause(self) -> None:
        """See `Listener`."""
        if self._again is not None:
            self._again.cancel()
            self._again = None
        accepting, self._accepting = self._accepting, None
        if accepting is not None:
            asyncio.get_running_loop().remove_reader(accepting)
            accepting.close()

    async def resume(self) -> None:
        """See `Listener`."""
        if self._accepting is None and self.sock.fileno() >= 0:
            self._accept_again()

    async def arrived(self) -> None:
        """See `PublicListener`."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=ARRIVED_WITHIN)

    async def aclose(self) -> None:
        """See `PublicListener`: whoever still agrees on TLS is cut."""
        await super().aclose()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept_again(self) -> None:
        self._again = None
        if self._accepting is None:
            self._accepting = self.sock.dup()
            self._accepting.setblocking(False)
            self._accepting.listen(BACKLOG)
        asyncio.get_running_loop().add_reader(self._accepting, self._accept)

    def _accept(self) -> None:
        if self._accepting is None:
            return
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                sock, peer = self._accepting.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                loop = asyncio.get_running_loop()
                loop.remove_reader(self._accepting)
                self._again = loop.call_later(AGAIN_AFTER, self._accept_again)
                return
            self._arrive(sock, str(peer[0]))

    def _arrive(self, sock: socket.socket, address: str) -> None:
        network = self._arriving.enter(address)
        if network is None:
            sock.close()
            return
        sock.setblocking(False)
        task = asyncio.ensure_future(self._agree(sock, network))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _agree(self, sock: socket.socket, network: str) -> None:
        """Until TLS is agreed upon. What a peer does wrong, or that it takes too long, is its own affair."""
        try:
            with contextlib.suppress(OSError):
                await asyncio.get_running_loop().connect_accepted_socket(
                    self._protocol,
                    sock,
                    ssl=self._certificates.context,
                    ssl_handshake_timeout=AGREED_WITHIN,
                    ssl_shutdown_timeout=self._ended_within,
                )
        finally:
            self._arriving.leave(network)

    def _protocol(self) -> asyncio.BaseProtocol:
        return self._http(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)
