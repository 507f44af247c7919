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

from relay.agent.addresses import AddressNotAllowed, AddressPolicy, SocketAddress, resolve
from relay.agent.failures import in_words
from relay.agent.local import LocalConnection, State
from relay.agent.lookups import Lookups
from relay.agent.parsers import HttptoolsParser, RememberingParser, ResponseHeadParser
from relay.agent.requests import FailureKind, LocalEvents, LocalRequest
from relay.agent.targets import Target
from relay.exchange.heads import Fields

IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))
STOPPING = "was left, as the agent stops"
CLOSED_WITHIN = 1.0  # seconds that transports may take to tell of their end when all is closed


class LocalCall:
    """One exchange: the handle of whoever asked, before, while and after there is a connection for it."""

    __slots__ = ("_connection", "_end", "_events", "_held", "_over", "_paused", "_pool", "_reused", "request", "task")

    def __init__(self, pool: LocalPool, request: LocalRequest, events: LocalEvents) -> None:
        self.request = request
        self.task: asyncio.Task[None] | None = None
        """The attempt to connect, while it runs."""
        self._pool = pool
        self._events = events
        self._connection: LocalConnection | None = None
        self._held: list[bytes] = []
        self._end: Fields | None = None
        self._over = False
        self._paused = False
        self._reused = False

    @property
    def repeatable(self) -> bool:
        """Whether the request may be sent a second time."""
        return self.request.body == "none" and self.request.method in IDEMPOTENT

    def write(self, data: bytes | memoryview) -> bool:
        """Body bytes; False: wait for `on_writable`, which held bytes do too. See `LocalConnection.write`."""
        if self._connection is not None:
            return self._connection.write(data)
        if self._over:
            return True
        self._held.append(bytes(data))
        return False

    def end(self, trailers: Fields) -> None:
        """The body is complete. See `LocalConnection.end`."""
        self._end = trailers
        if self._connection is not None:
            self._connection.end(trailers)

    def pause(self) -> None:
        """Read no more of the answer."""
        self._paused = True
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        """Read on."""
        self._paused = False
        if self._connection is not None:
            self._connection.resume()

    def abort(self) -> None:
        """Give up: the local service sees its connection close at once, and no event comes any more."""
        self._over = True
        self._held.clear()
        if self.task is not None:
            self.task.cancel()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()

    # ---- what the pool and the connection call ---------------------------------------------------------------------

    @property
    def over(self) -> bool:
        """Whether nobody waits for it any more."""
        return self._over

    def run_on(self, connection: LocalConnection, reused: bool) -> None:
        """Start, with what was held until now; not on a call that is over."""
        self.task = None
        self._connection = connection
        self._reused = reused
        connection.begin(self.request, self._events, self)
        if self._paused:  # in the next turn of the loop: uvloop begins to read right after a connection was made
            asyncio.get_running_loop().call_soon(self._pause_now)
        if self._held:
            held, self._held = self._held, []
            go_on = True
            for data in held:
                go_on = connection.write(data)
            if go_on and connection.state != State.CLOSED:
                self._events.on_writable()
        if self._end is not None:
            connection.end(self._end)

    def _pause_now(self) -> None:
        if self._paused and self._connection is not None:
            self._connection.pause()

    def fail(self, kind: FailureKind, detail: str) -> None:
        """There will be no connection."""
        if not self._over:
            self._over = True
            self._held.clear()
            self._events.on_failed(kind, detail, False)

    def on_free(self, connection: LocalConnection) -> None:
        """See `ConnectionOwner`."""
        self._over = True
        self._connection = None
        self._pool.give_back(connection)

    def on_unanswered(self, connection: LocalConnection) -> bool:
        """See `ConnectionOwner`."""
        if not self._reused or not self.repeatable or self._pool.closed:
            return False
        self._connection = None
        self._pool.connect(self)
        return True


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
        self._retired = False
        self._target = target
        self._policy = policy
        self._parser = RememberingParser(parser())
        self._keep = keep
        self._tls = tls
        self._names = Lookups()
        self._idle: list[LocalConnection] = []  # oldest first
        self._all: set[LocalConnection] = set()
        self._connecting: dict[asyncio.Task[None], LocalCall] = {}
        self._sweep: asyncio.TimerHandle | None = None
        self._gone: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()

    def start(self, request: LocalRequest, events: LocalEvents) -> LocalCall:
        """Begin an exchange: at once on an idle connection, else when one is made. Events come after the return."""
        call = LocalCall(self, request, events)
        connection = self._take(call.repeatable)
        if connection is not None:
            call.run_on(connection, reused=True)
        elif self.closed:
            self._loop.call_soon(call.fail, "local_reset", f"{self._target.url} {STOPPING}")
        else:
            self.connect(call)
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
        self._retired = True
        self.drop_idle()

    async def aclose(self) -> None:
        """End everything: exchanges that run are told that they failed."""
        self.closed = True
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

    def _on_closed(self, connection: LocalConnection) -> None:
        self._all.discard(connection)
        if not self._all and self._gone is not None and not self._gone.done():
            self._gone.set_result(None)

    # ---- idle connections ------------------------------------------------------------------------------------------

    def _take(self, repeatable: bool) -> LocalConnection | None:
        idle = self._idle
        oldest = self._loop.time() - (self._keep.idle if repeatable else self._keep.fresh)
        while idle:
            connection = idle[-1]
            if connection.state == State.IDLE:
                return idle.pop() if connection.idle_since > oldest else None
            idle.pop()
        return None

    def give_back(self, connection: LocalConnection) -> None:
        """A connection that may serve another exchange."""
        if self.closed or self._retired:
            connection.abort()
            return
        connection.idle_since = self._loop.time()
        self._idle.append(connection)
        if len(self._idle) > self._keep.most:
            self._idle.pop(0).abort()
        if self._sweep is None:
            self._sweep = self._loop.call_later(self._keep.idle, self._drop_old)

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
            if connection.state == State.IDLE:
                if connection.idle_since > oldest:
                    young.append(connection)
                else:
                    connection.abort()
        self._idle = young
        if young:
            self._sweep = self._loop.call_at(young[0].idle_since + self._keep.idle, self._drop_old)

    # ---- new connections -------------------------------------------------------------------------------------------

    def connect(self, call: LocalCall) -> None:
        """Make a connection for `call`, in a task of the pool's."""
        task = self._loop.create_task(self._connect(call))
        call.task = task
        self._connecting[task] = call
        task.add_done_callback(self._connecting.pop)

    async def _connect(self, call: LocalCall) -> None:
        seconds = self._keep.connecting
        addresses: list[SocketAddress] = []
        try:
            async with asyncio.timeout(seconds):
                addresses += await resolve(self._target.host, self._target.port, self._policy, self._names)
                await self._connect_first(addresses, call, seconds / len(addresses))
            return
        except TimeoutError:
            reason = f"no connection within {seconds:g} s"
        except AddressNotAllowed as error:
            reason = str(error)
        except (OSError, UnicodeError) as error:
            reason = in_words(error)
        if call.task is not None:  # else it got its connection and speaks for itself
            call.task = None
            call.fail("local_refused", f"{self._target.url}: {reason}{self._tried(addresses)}")

    async def _connect_first(self, addresses: list[SocketAddress], call: LocalCall, seconds: float) -> None:
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

    async def _open(self, ip: str, port: int, call: LocalCall) -> None:
        tried = self._target.url + self._tried([(ip, port)])

        def made(connection: LocalConnection) -> None:
            if call.over:
                # The attempt was cancelled in this very turn of the loop: uvloop closes its transport and tells nobody.
                connection.abort()
                return
            self._all.add(connection)
            call.run_on(connection, reused=False)

        tls = self._target.scheme == "https"
        if tls and self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        await self._loop.create_connection(
            lambda: LocalConnection(self._parser, tried, made, self._on_closed),
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
