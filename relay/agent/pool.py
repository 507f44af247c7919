"""The connections to one local service: which is used again, when a new one is made, what is sent a second time.

A request that reached the local service is never sent twice, except on a connection that had idled and closed before
any byte of an answer, for a method that may be repeated (RFC 9110 §9.2.2) and without a body. No framing here.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from relay.agent.addresses import AddressNotAllowed, AddressPolicy, SocketAddress, resolve
from relay.agent.answers import AnswerReader
from relay.agent.failures import in_words
from relay.agent.local import LocalConnection
from relay.agent.lookups import Lookups
from relay.agent.parsers import HttptoolsParser, ResponseHeadParser
from relay.agent.phase import CLOSED, IDLE
from relay.agent.requests import FailureKind, LocalCall, LocalEvents, LocalRequest
from relay.agent.targets import Target
from relay.exchange.heads import Fields

STOPPING: Final = "was left, as the agent stops"
CLOSED_WITHIN: Final = 1.0  # seconds that transports may take to tell of their end when all is closed


class WaitingCall:
    """A call while a connection is made for it: keeps what is said until then. See `LocalCall`."""

    __slots__ = ("_end", "_events", "_held", "over", "request", "task")

    def __init__(self, request: LocalRequest, events: LocalEvents) -> None:
        self.request = request
        self.task: asyncio.Task[None] | None = None
        """The attempt to connect, while it runs."""
        self.over = False
        """Whether nobody waits for it any more."""
        self._events = events
        self._held: list[bytes] = []
        self._end: Fields | None = None

    def write(self, data: bytes | memoryview) -> bool:
        """Held, so that it is always to be waited for `on_taken`."""
        if self.over:
            return True
        self._held.append(bytes(data))
        return False

    def end(self, trailers: Fields) -> None:
        """See `LocalCall.end`."""
        self._end = trailers

    def pause(self) -> None:
        """Nothing is read yet."""

    def resume(self) -> None:
        """Nothing was paused."""

    def abort(self) -> None:
        """See `LocalCall.abort`."""
        self.over = True
        self._held.clear()
        if self.task is not None:
            self.task.cancel()

    def run_on(self, connection: LocalConnection) -> None:
        """Start, with what was held until now; not on a call that is over."""
        self.task = None
        connection.begin(self.request, self._events)
        self._events.on_connected(connection)
        if self._held:
            go_on = True
            for data in self._held:
                go_on = connection.write(data)
            if go_on and connection.state != CLOSED:
                self._events.on_taken()
        if self._end is not None:
            connection.end(self._end)

    def fail(self, kind: FailureKind, detail: str) -> None:
        """There will be no connection."""
        if not self.over:
            self.over = True
            self._held.clear()
            self._events.on_failed(kind, detail, False)


@dataclass(frozen=True, slots=True)
class Keep:
    """How long connections are waited for and kept, in seconds, and how many of them."""

    connecting: float = 10.0
    """An attempt with all its addresses and TLS."""
    idle: float = 4.0
    """An idle connection; common servers close theirs after 5."""
    fresh: float = 1.0
    """One that a request may take which may not be repeated."""
    most: int = 512
    """Idle connections."""


class LocalPool:
    """Connections to `target`; made and used on the running event loop."""

    def __init__(
        self,
        target: Target,
        policy: AddressPolicy,
        parser: Callable[[], ResponseHeadParser] = HttptoolsParser,
        *,
        keep: Keep = Keep(),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.closed = False
        self._kept = True
        """Whether a connection that is free is kept."""
        self._target = target
        self._policy = policy
        self._reader = AnswerReader(parser().parse)
        self._keep = keep
        self._tls = tls
        self._names = Lookups()
        self._idle: list[LocalConnection] = []  # oldest first
        self._all: set[LocalConnection] = set()
        self._connecting: dict[asyncio.Task[None], WaitingCall] = {}
        self._sweep: asyncio.TimerHandle | None = None
        self._gone: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()

    def start(self, request: LocalRequest, events: LocalEvents, now: float) -> LocalCall:
        """Begin an exchange: at once on an idle connection, else when one is made. Events come after the return.

        `now` is the loop's time.
        """
        idle = self._idle
        while idle:
            connection = idle.pop()
            if connection.state == IDLE:
                keep = self._keep
                if connection.idle_since > now - (keep.idle if request.repeatable else keep.fresh):
                    connection.begin(request, events)
                    return connection
                idle.append(connection)
                break
        call = WaitingCall(request, events)
        if self.closed:
            self._loop.call_soon(call.fail, "local_reset", f"{self._target.url} {STOPPING}")
        else:
            self._connect(call)
        return call

    @property
    def empty(self) -> bool:
        """Whether no connection is left or being made."""
        return not self._all and not self._connecting

    @property
    def counts(self) -> tuple[int, int]:
        """Connections in all, and those that idle."""
        return len(self._all), len(self._idle)

    def retire(self) -> None:
        """No exchange will begin here any more: what idles is closed, what runs may finish."""
        self._kept = False
        self.drop_idle()

    async def aclose(self) -> None:
        """End everything: exchanges that run are told that they failed."""
        self.closed, self._kept = True, False
        if self._sweep is not None:
            self._sweep.cancel()
        connecting = dict(self._connecting)
        for task, call in connecting.items():
            task.cancel()
            call.fail("local_reset", f"{self._target.url} {STOPPING}")
        for connection in list(self._all):
            connection.stop(STOPPING)
        await asyncio.gather(*connecting, return_exceptions=True)
        if self._all:  # a transport tells of its end in a later turn of the loop
            self._gone = self._loop.create_future()
            await asyncio.wait((self._gone,), timeout=CLOSED_WITHIN)

    # ---- ConnectionOwner -------------------------------------------------------------------------------------------

    def on_free(self, connection: LocalConnection) -> None:
        """See `ConnectionOwner`."""
        if not self._kept:
            connection.abort()
            return
        connection.idle_since = self._loop.time()
        idle = self._idle
        idle.append(connection)
        if len(idle) > self._keep.most:
            idle.pop(0).abort()
        if self._sweep is None:
            self._sweep = self._loop.call_later(self._keep.idle, self._drop_old)

    def on_unanswered(self, connection: LocalConnection, request: LocalRequest, events: LocalEvents) -> bool:
        """See `ConnectionOwner`."""
        if connection.idle_since < 0 or not request.repeatable or self.closed:
            return False
        call = WaitingCall(request, events)
        if connection.half_closed:
            call.end([])
        self._connect(call)
        events.on_connected(call)
        return True

    def on_closed(self, connection: LocalConnection) -> None:
        """See `ConnectionOwner`."""
        self._all.discard(connection)
        if not self._all and self._gone is not None and not self._gone.done():
            self._gone.set_result(None)

    # ---- idle connections ------------------------------------------------------------------------------------------

    def drop_idle(self) -> None:
        """Close what is idle: the network may have changed, and nobody would say so on such a connection."""
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.abort()

    def _drop_old(self) -> None:
        self._sweep = None
        oldest = self._loop.time() - self._keep.idle
        young: list[LocalConnection] = []
        for connection in self._idle:
            if connection.state == IDLE:
                if connection.idle_since > oldest:
                    young.append(connection)
                else:
                    connection.abort()
        self._idle = young
        if young:
            self._sweep = self._loop.call_at(young[0].idle_since + self._keep.idle, self._drop_old)

    # ---- new connections -------------------------------------------------------------------------------------------

    def _connect(self, call: WaitingCall) -> None:
        """Make a connection for `call`, in a task of the pool's."""
        task = self._loop.create_task(self._try_to_connect(call))
        call.task = task
        self._connecting[task] = call
        task.add_done_callback(self._connecting.pop)

    async def _try_to_connect(self, call: WaitingCall) -> None:
        seconds = self._keep.connecting
        addresses: list[SocketAddress] = []
        try:
            async with asyncio.timeout(seconds):
                addresses += await resolve(self._target.host, self._target.port, self._policy, self._names)
                await self._connect_first(addresses, call, seconds / len(addresses))
            return
        except TimeoutError:
            reason = f"no connection within {seconds:g} s"
        except AddressNotAllowed as no:
            reason = str(no)
        except (OSError, UnicodeError) as error:
            reason = in_words(error)
        if call.task is not None:  # else it got its connection and speaks for itself
            call.task = None
            call.fail("local_refused", f"{self._target.url}: {reason}{self._tried(addresses)}")

    async def _connect_first(self, addresses: list[SocketAddress], call: WaitingCall, seconds: float) -> None:
        """The first address that takes a connection, each for at most `seconds`. Raises the last one's error."""
        failure: OSError | None = None
        for ip, port in addresses:
            try:
                async with asyncio.timeout(seconds):
                    await self._open(ip, port, call)
                return
            except OSError as error:  # TimeoutError is one
                failure = error
                if call.task is None:
                    break
        assert failure is not None
        raise failure

    async def _open(self, ip: str, port: int, call: WaitingCall) -> None:
        tried = self._target.url + self._tried([(ip, port)])

        def made(connection: LocalConnection) -> None:
            if call.over:
                # The attempt was cancelled in this very turn of the loop: uvloop closes its transport and tells nobody.
                connection.abort()
                return
            self._all.add(connection)
            call.run_on(connection)

        tls = self._target.scheme == "https"
        if tls and self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        await self._loop.create_connection(
            lambda: LocalConnection(self._reader, tried, self, made),
            ip,
            port,
            ssl=self._tls if tls else None,
            server_hostname=self._target.host if tls else None,
            flags=socket.AI_NUMERICHOST,
        )

    def _tried(self, addresses: list[SocketAddress]) -> str:
        """The addresses behind a name, for a message."""
        ips = [ip for ip, _ in addresses if ip != self._target.host]
        return f" ({', '.join(ips)})" if ips else ""
