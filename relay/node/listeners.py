"""Listening sockets and the uvicorn servers on them. One room knows that uvicorn must leave signals alone."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import uvicorn

from relay.node.errors import StartError
from relay.settings import Address, ServeSettings

BACKLOG = 4096


def bind(address: Address, what: str) -> socket.socket:
    """A bound TCP socket. Raises `StartError`."""
    try:
        infos = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, where = infos[0]
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(where)
        except OSError:
            sock.close()
            raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise StartError(
            f"Cannot listen on {address} for {what}: {reason}. "
            f"Choose another address with --{what}, or stop what uses it."
        ) from None
    sock.setblocking(False)
    return sock


def name_of(sock: socket.socket) -> str:
    """`host:port` of a bound socket."""
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True, slots=True)
class Sockets:
    """A node's listening sockets."""

    public: socket.socket
    agents: socket.socket
    internal: socket.socket | None

    @classmethod
    def bind(cls, settings: ServeSettings, closing: contextlib.ExitStack) -> Sockets:
        """All of them; `closing` ends them. Raises `StartError`."""
        return cls(
            closing.enter_context(bind(settings.public, "public")),
            closing.enter_context(bind(settings.agents, "agents")),
            None if settings.internal is None else closing.enter_context(bind(settings.internal, "internal")),
        )

    def names(self) -> list[str | None]:
        """`host:port` of public, agents and internal."""
        return [None if one is None else name_of(one) for one in (self.public, self.agents, self.internal)]


class Listener(uvicorn.Server):
    """A uvicorn server that leaves signals to the node: it would re-raise them at its end (exit 143)."""

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
        self._task: asyncio.Task[None] | None = None
        self._up = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """See `uvicorn.Server`."""
        yield

    async def listen(self) -> None:
        """Accepts from here on."""
        self._task = asyncio.ensure_future(self.serve(sockets=[self.sock]))
        await asyncio.wait((self._task, asyncio.ensure_future(self._up.wait())), return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            self._task.result()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See `uvicorn.Server`."""
        await super().startup(sockets)
        self._up.set()

    def stop_accepting(self) -> None:
        """No new connections; those that are open go on."""
        for server in getattr(self, "servers", ()):
            server.close()

    async def aclose(self) -> None:
        """Ends the server."""
        self.should_exit = True
        if self._task is not None:
            await self._task
