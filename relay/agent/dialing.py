"""A connected socket to a host by whichever of its addresses answers first (RFC 8305, happy eyeballs).

An address that is on no path any more must not use up the time of the whole attempt: a machine that has changed its
network often has an IPv6 address that leads nowhere. Tries once; no TLS, no bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Sequence
from itertools import chain, zip_longest

from relay.agent.lookups import Lookups

# The next address is tried this many seconds after the one before, or as soon as that has failed.
NEXT_AFTER = 0.25
# Reads of a connection that is ended; a relay that sends more in front of its answer is none.
_MOST_UNREAD = 16


class NoWay(Exception):
    """A host was not reached: its name did not resolve, or none of its addresses took a connection."""

    def __init__(self, cause: OSError | UnicodeError) -> None:
        super().__init__(str(cause))
        self.cause = cause


async def find(host: str, port: int, names: Lookups) -> list[str]:
    """The addresses of a host, in the order to try them; never empty. Raises `NoWay`."""
    try:
        found = await names.addresses(host, port)
    except (OSError, UnicodeError) as error:
        raise NoWay(error) from error
    if not found:
        raise NoWay(OSError("the name has no address"))
    return in_turn(found)


async def reach(ips: Sequence[str], port: int) -> socket.socket:
    """A connected socket that does not block, to one of the addresses. Raises `NoWay`."""
    try:
        return await _first(ips, port)
    except OSError as error:
        raise NoWay(error) from error


def hang_up(wire: socket.socket) -> None:
    """Ends a connection for whoever reads from it, also of what has come already; nothing where that has closed it."""
    with contextlib.suppress(OSError):
        wire.shutdown(socket.SHUT_RDWR)
        for _ in range(_MOST_UNREAD):
            if not wire.recv(65536):
                break


def in_turn(ips: Sequence[str]) -> list[str]:
    """The addresses with the two families in turns, beginning with the resolver's favourite."""
    families: dict[bool, list[str]] = {}
    for ip in ips:
        families.setdefault(":" in ip, []).append(ip)
    return [ip for ip in chain.from_iterable(zip_longest(*families.values())) if ip is not None]


async def _first(ips: Sequence[str], port: int) -> socket.socket:
    """Raises the error of the address that failed last."""
    left = deque(ips)
    trying: set[asyncio.Task[socket.socket]] = set()
    failure: BaseException = OSError("no address")
    try:
        while left or trying:
            if left:
                trying.add(asyncio.ensure_future(_connect(left.popleft(), port)))
            done, _ = await asyncio.wait(
                trying, timeout=NEXT_AFTER if left else None, return_when=asyncio.FIRST_COMPLETED
            )
            for attempt in done:
                if (error := attempt.exception()) is None:
                    trying.discard(attempt)
                    return attempt.result()
                trying.discard(attempt)
                failure = error
    finally:
        for attempt in trying:
            attempt.cancel()
        for outcome in await asyncio.gather(*trying, return_exceptions=True):
            if isinstance(outcome, socket.socket):
                outcome.close()
    raise failure


async def _connect(ip: str, port: int) -> socket.socket:
    wire = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_STREAM)
    try:
        wire.setblocking(False)
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(wire, (ip, port))
    except BaseException:
        wire.close()
        raise
    return wire
