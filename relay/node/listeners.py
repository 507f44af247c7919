"""The uvicorn servers on listening sockets. One room knows that uvicorn must leave signals alone, and how to stop
accepting so that nobody who came in time is turned away.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import uvicorn

BACKLOG = 4096
# libuv accepts one connection a turn of the loop from each descriptor: by one alone whoever comes waits for seconds
# behind a flood of others, when turns are long.
ACCEPTED_AT_ONCE = 8
# Who is half-way through the three steps of TCP when no more are let in gets so long for the last one.
HANDSHAKES_WITHIN = 0.05
# Once nobody new comes, what waits in the kernel's queue is accepted within so many turns, even by a loop that is busy.
EMPTIED_IN = 1000
_SO_ATTACH_FILTER = 26
_TCP_INFO_WAITING = struct.Struct("24xI")
# Classic BPF over a TCP header: a SYN without ACK is dropped, so that whoever sent it tries again a second later, where
# the next process may answer. What belongs to a handshake that has begun passes.
_NO_SYN = b"".join(
    struct.pack("HBBI", *step)
    for step in ((0x30, 0, 0, 13), (0x54, 0, 0, 0x12), (0x15, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))
)


class PublicListener(Protocol):
    """What a node does with a listener."""

    async def listen(self) -> None:
        """Accepts from here on."""

    async def stop_accepting(self) -> None:
        """Accepts whoever has come so far, and then nobody; what is open goes on."""

    def let_go(self) -> None:
        """Accepts nobody more: another process does, on the same socket. What is open goes on."""

    async def arrived(self) -> None:
        """Until whoever was accepted has been heard of by the protocol, or for a moment."""

    async def aclose(self) -> None:
        """Ends."""


class Listener(uvicorn.Server):
    """A uvicorn server that leaves signals to the node: it would re-raise them at its end (exit 143).

    It accepts on copies of the socket: closing one of them ends nothing, and who waits in the kernel's queue waits on.
    """

    def __init__(self, sock: socket.socket, app: Any, http: Callable[..., asyncio.BaseProtocol] | str) -> None:  # noqa: ANN401
        super().__init__(
            uvicorn.Config(
                app,
                http=http,  # type: ignore[arg-type]  # a factory serves as well as a class
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,  # who is a trusted proxy is our own setting
                backlog=BACKLOG,
                timeout_graceful_shutdown=1,
            )
        )
        self.sock = sock
        self.servers = []
        self._task: asyncio.Task[None] | None = None
        self._up = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """See `uvicorn.Server`."""
        yield

    async def listen(self) -> None:
        """See `PublicListener`."""
        self._task = asyncio.ensure_future(self.serve(sockets=self._copies()))
        up = asyncio.ensure_future(self._up.wait())
        await asyncio.wait((self._task, up), return_when=asyncio.FIRST_COMPLETED)
        up.cancel()
        if self._task.done():
            self._task.result()

    def _copies(self) -> list[socket.socket]:
        """Descriptors to accept on."""
        return [self.sock.dup() for _ in range(ACCEPTED_AT_ONCE)]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See `uvicorn.Server`."""
        await super().startup(sockets)
        self._up.set()

    def pause(self) -> None:
        """Accepts nobody for now: who comes waits in the kernel's queue."""
        for server in self.servers:
            server.close()
        self.servers = []

    async def resume(self) -> None:
        """Accepts again."""
        if not self.servers:
            await super().startup(self._copies())
        if self.sock.fileno() < 0:  # let go of meanwhile
            self.pause()

    async def stop_accepting(self) -> None:
        """See `PublicListener`."""
        await self.resume()
        refuse_newcomers(self.sock)
        await asyncio.sleep(HANDSHAKES_WITHIN)
        for _ in range(EMPTIED_IN):
            if not waiting(self.sock):
                break
            await asyncio.sleep(0.001)
        self.let_go()

    def let_go(self) -> None:
        """See `PublicListener`."""
        self.pause()
        self.sock.close()

    async def arrived(self) -> None:
        """See `PublicListener`: it is told at once."""

    async def aclose(self) -> None:
        """See `PublicListener`."""
        self.should_exit = True
        self.let_go()
        if self._task is not None:
            await self._task


def refuse_newcomers(sock: socket.socket) -> None:
    """From here on nobody joins the queue of a listening socket, in whatever process it is open (Linux; else nothing).

    Without it whoever comes between the last look into the queue and the end of the socket would be reset.
    """
    if sys.platform != "linux":
        return
    program = ctypes.create_string_buffer(_NO_SYN)
    described = struct.pack("HL", len(_NO_SYN) // 8, ctypes.addressof(program))
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, described)


def waiting(sock: socket.socket) -> int:
    """Connections that wait to be accepted (Linux tells; elsewhere 0)."""
    if sys.platform != "linux":
        return 0
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_WAITING.size)
    return int(_TCP_INFO_WAITING.unpack(info)[0])
