"""The sockets that a node listens on, and where they come from: bound here, or handed over with somebody listening on
them already. What is handed over must be where the settings say, since the settings were judged by that.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from relay.node.errors import StartError
from relay.settings import Address, ServeSettings

LISTENERS = ("public", "agents", "internal")


@dataclass(frozen=True, slots=True)
class Given:
    """Listening sockets that were made elsewhere, by what they are for."""

    sockets: Mapping[str, socket.socket]
    lent: bool
    """Whoever started this process holds them as well: they outlive it, and with them whoever waits there."""


NOTHING = Given({}, False)


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
    return str(Address(host, port))


@dataclass(frozen=True, slots=True)
class Sockets:
    """A node's listening sockets."""

    public: socket.socket
    agents: socket.socket
    internal: socket.socket | None
    lent: bool = False
    """See `Given.lent`."""

    @classmethod
    def open(cls, settings: ServeSettings, given: Given, closing: contextlib.ExitStack) -> Sockets:
        """All of them; `closing` ends them, and what was given in vain. Raises `StartError`."""
        for sock in given.sockets.values():
            closing.enter_context(sock)

        def one(what: str, address: Address) -> socket.socket:
            sock = given.sockets.get(what)
            if sock is None:
                return closing.enter_context(bind(address, what))
            if not _is_at(sock, address):
                raise StartError(
                    f"The socket for {what} that was handed over listens on {name_of(sock)}, but the setting says "
                    f"{address}: start with --{what} {name_of(sock)}, or stop the relay first and start it anew."
                )
            sock.setblocking(False)
            return sock

        internal = None if settings.internal is None else one("internal", settings.internal)
        return cls(one("public", settings.public), one("agents", settings.agents), internal, given.lent)

    def by_name(self) -> dict[str, socket.socket]:
        """Those that there are, by what they are for."""
        found = {"public": self.public, "agents": self.agents}
        return found if self.internal is None else {**found, "internal": self.internal}

    def names(self) -> list[str | None]:
        """`host:port` of public, agents and internal."""
        return [None if one is None else name_of(one) for one in (self.public, self.agents, self.internal)]


def _is_at(sock: socket.socket, address: Address) -> bool:
    """Whether a socket is bound to this address; port 0 is any port."""
    host, port = sock.getsockname()[:2]
    if address.port not in (0, port):
        return False
    try:
        infos = socket.getaddrinfo(address.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        return False
    return host in {info[4][0] for info in infos}
