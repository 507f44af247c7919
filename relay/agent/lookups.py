"""What blocks, done beside the event loop: any call in a thread of its own, and names that are looked up.

The threads are daemons, because an agent that stops waits for nobody. Lookups of one name are shared while they run, so
that a resolver that is away costs a few threads and not one for each request; one that answers again is asked anew
instead of being waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from ipaddress import ip_address
from typing import Protocol, TypeVar

from relay.agent.sharing import outcome

# A lookup that takes longer than this, in seconds, is joined by another one when somebody asks again.
SLOW_AFTER = 2.0
MOST_AT_ONCE = 4
"""Threads that look up the same name."""
LOCALHOST = ("127.0.0.1", "::1")
_FAMILIES = (socket.AF_INET, socket.AF_INET6)

T = TypeVar("T")
Ask = Callable[[str, int], list[str]]


class Offload(Protocol):
    """Runs a blocking call beside the event loop."""

    def __call__(self, call: Callable[[], T], /) -> Awaitable[T]: ...


def in_thread(call: Callable[[], T], /) -> asyncio.Future[T]:
    """What the call gives or raises, from a daemon thread; a result that nobody waits for any more is dropped."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def tell(settle: Callable[[], None]) -> None:
        if not done.done():
            settle()

    def work() -> None:
        settle: Callable[[], None]
        try:
            settle = partial(done.set_result, call())
        except BaseException as error:
            settle = partial(done.set_exception, error)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(tell, settle)

    threading.Thread(target=work, name="beside the loop", daemon=True).start()
    return done


class _Asked:
    """A name that is being looked up: the answer that all wait for, and the threads that may bring it."""

    __slots__ = ("answer", "newest", "threads")

    def __init__(self, answer: asyncio.Future[list[str]]) -> None:
        self.answer = answer
        self.threads = 0
        self.newest = 0.0


class Lookups:
    """Of one event loop. `ask` blocks and raises `OSError`."""

    def __init__(self, ask: Ask | None = None) -> None:
        self._ask = ask or addresses_of
        self._loop = asyncio.get_running_loop()
        self._asked: dict[tuple[str, int], _Asked] = {}

    async def addresses(self, host: str, port: int) -> list[str]:
        """IP addresses, in the resolver's order; waits for as long as it takes. Raises `OSError`, `UnicodeError`."""
        if host == "localhost" or host.endswith(".localhost"):  # few resolvers know the latter (RFC 6761 §6.3)
            return list(LOCALHOST)
        with contextlib.suppress(ValueError):
            return [str(ip_address(host))]
        key, now = (host, port), self._loop.time()
        asked = self._asked.get(key)
        if asked is None:
            asked = self._asked[key] = _Asked(self._loop.create_future())
        if not asked.threads or (now - asked.newest >= SLOW_AFTER and asked.threads < MOST_AT_ONCE):
            asked.threads += 1
            asked.newest = now
            in_thread(partial(self._ask, host, port)).add_done_callback(partial(self._on_answer, key, asked))
        found = await outcome(asked.answer)
        return list(found)

    def _on_answer(self, key: tuple[str, int], asked: _Asked, brought: asyncio.Future[list[str]]) -> None:
        """The first answer, whichever it is, is everybody's."""
        error = None if brought.cancelled() else brought.exception()
        if asked.answer.done() or brought.cancelled():
            return
        del self._asked[key]
        if error is None:
            asked.answer.set_result(brought.result())
        else:
            asked.answer.set_exception(error)
            asked.answer.exception()  # perhaps nobody waits any more


def addresses_of(host: str, port: int) -> list[str]:
    """Asks the system's resolver; blocks. Raises `OSError`, `UnicodeError` for what can be no name."""
    infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in infos if info[0] in _FAMILIES))
