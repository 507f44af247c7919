"""A node's life: start order, signals, what follows, exit code. How it ends is in `draining`, who comes next in
`takeover`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from functools import partial

import uvloop

from relay import __version__
from relay.api import app as api
from relay.api.door import BoundedHttp, door_factory
from relay.mux.heap import keep_heap
from relay.node import systemd, takeover
from relay.node.assemble import Node, Report, adopt, assemble, visitor_factory
from relay.node.certificates import Certificates
from relay.node.draining import Departure
from relay.node.errors import StartError
from relay.node.ground import lay
from relay.node.keyfiles import make_directory
from relay.node.listeners import Listener, PublicListener
from relay.node.logs import AccessLog, Writer, logging_to
from relay.node.sockets import Sockets
from relay.node.tlslistener import ENDED_WITHIN, SWEPT_WITHIN, Arriving, TlsListener
from relay.registry import migrate
from relay.registry.audit import Action
from relay.registry.errors import RegistryError
from relay.registry.records import RELAY, Note
from relay.settings import ServeSettings
from relay.telemetry.histograms import Histogram

SWEEP_EVERY = 0.25
LAG_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Bounds of how late the sweeper was."""
STANDARD_ERROR = 2
# Ctrl-C is a person who waits.
INTERACTIVE_GRACE = 1.0

Edge = Callable[[Node, socket.socket], PublicListener]
Http = Callable[..., asyncio.BaseProtocol]


def run(settings: ServeSettings, report: Report, take_over: bool = False) -> int:
    """Serves until a signal, or until another process takes over. Blocks; the exit code."""

    async def serve() -> int:
        return await Serving(settings, report, take_over).run()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            return runner.run(serve())
        except StartError as error:
            report({"event": "error", "message": str(error)})
            return 1


class Serving:
    """One node, from its first socket to its last. `take_over`: in the place of the one that runs on its directory."""

    def __init__(self, settings: ServeSettings, report: Report, take_over: bool = False) -> None:
        self._settings = settings
        self._report = report
        self._take_over = take_over
        self._loop = asyncio.get_running_loop()
        self._stop: asyncio.Future[signal.Signals] = self._loop.create_future()
        self._at_signal: Callable[[], None] = lambda: None
        self._hurry = asyncio.Event()
        self._failed = False
        self._access_log: AccessLog | None = None
        self._lag = Histogram(LAG_SECONDS)
        self.certificates = Certificates(settings, report)

    async def run(self, edge: Edge | None = None) -> int:
        """Serves until its end. `edge` makes another public listener than ours, for another ASGI server."""
        settings = self._settings
        with logging_to(STANDARD_ERROR, settings.log_level, settings.log_format) as writer:
            return await self._run(writer, edge)

    async def _run(self, writer: Writer, edge: Edge | None) -> int:
        settings = self._settings
        raise_descriptor_limit()
        self.certificates.load()
        make_directory(settings.data)
        # Sockets also of a start that fails half-way. The seat is left last: until then the directory is this node's.
        with contextlib.ExitStack() as sockets:
            async with takeover.seated(settings.data, self._take_over, sockets) as seat:
                if seat.trouble:
                    self._report({"event": "warning", "message": seat.trouble})
                bound = Sockets.open(settings, seat.given or systemd.inherited(os.environ, sockets), sockets)
                await self._check_schema(seat)
                async with lay(settings, bound.public.getsockname()[1]) as ground:
                    node = assemble(ground, self._report)
                    if settings.access_log:
                        log = AccessLog(writer, settings.log_format, settings.access_log_query, time.time)
                        node.services.on_exchange = self._access_log = log
                    try:
                        await node.follower.load()
                    except RegistryError as error:
                        raise StartError(f"The registry cannot be read: {error}") from None
                    details = {"version": __version__}
                    node.journal.note(Note(RELAY, Action.RELAY_START, ground.signer.kid, details=details))
                    await self._serve(node, bound, seat, edge)
        self._report({"event": "stopped"})
        return int(self._failed)

    async def _check_schema(self, seat: takeover.Seat) -> None:
        """What is taken over from goes on for a while, with the schema that it knows. Raises `StartError`."""
        if seat.predecessor is None:
            return
        try:
            found = await asyncio.to_thread(migrate.current, self._settings.database)
        except RegistryError as error:
            raise StartError(f"The registry cannot be opened: {error}") from None
        if found != migrate.known()[-1]:
            raise StartError(
                "This version brings another schema of the database, which the relay that runs does not know: "
                f"stop that one first (kill {seat.predecessor.pid}), and start without --take-over."
            )

    async def _serve(self, node: Node, bound: Sockets, seat: takeover.Seat, edge: Edge | None) -> None:
        public, *others = listeners = self._listeners(node, bound, edge)
        self._listen_to_signals()
        node.hub.expect_all()
        node.pressure.listeners += [one for one in (*others[:1], public) if isinstance(one, Listener)]
        departure = Departure(node, listeners, self._hurry)
        async with self._background(node):
            # Agents first: who calls a name at once should find it.
            for listener in (*others, public):
                await listener.listen()
            if self._stop.done() and seat.predecessor is not None:
                # Told to stop before it took the place: the one before goes on, with the same sockets.
                await departure.hand_over(self._grace(self._stop.result()))
            else:
                await self._reign(node, bound, seat, departure)
            await asyncio.gather(*(listener.aclose() for listener in listeners))

    async def _reign(self, node: Node, bound: Sockets, seat: takeover.Seat, departure: Departure) -> None:
        """As the relay of its directory, until it is told to stop, or another process takes over."""
        await self._take_seat(node, bound, seat, departure)
        self._at_signal = departure.announce
        # What is there by now stays: looking through all of it again and again would halt everybody for 0.1 s.
        gc.freeze()
        keep_heap()
        self._report_serving(node, bound.names())
        if self._take_over:
            self._report({"event": "took_over", "pid": seat.predecessor.pid if seat.predecessor else None})
        systemd.tell(os.environ, systemd.READY)
        await asyncio.wait((self._stop, seat.successor), return_when=asyncio.FIRST_COMPLETED)
        systemd.tell(os.environ, systemd.STOPPING)
        if seat.successor.done():
            self._report({"event": "handed_over", "pid": seat.successor.result()})
            self._say_stopping(node, grace := self._settings.grace)
            self._stop.add_done_callback(lambda _: departure.let_idle_go())
            await departure.hand_over(grace)
        else:
            seat.close()
            self._say_stopping(node, grace := self._grace(self._stop.result()))
            await departure.stop(grace, bound.lent or seat.shared)

    async def _take_seat(self, node: Node, bound: Sockets, seat: takeover.Seat, departure: Departure) -> None:
        """From here on this is the relay of its directory; what the one before leaves is taken up."""
        live = partial(_owners, node)
        left = await seat.take(takeover.Handed(bound.by_name(), bound.lent, live, departure.give_away))
        for name, project in left.names.items():
            node.hub.reserved.setdefault(name, project)
        for sock, sent in left.held:
            with contextlib.suppress(OSError):  # the visitor has left meanwhile
                await adopt(node.services, sock, sent)

    def _listeners(self, node: Node, bound: Sockets, edge: Edge | None) -> list[PublicListener]:
        """The public one is the first."""
        services = node.services
        crowd, agents = services.crowd, node.doorway.connections
        public: PublicListener = (
            self._listener(
                bound.public, None, visitor_factory(services), Arriving(crowd, services.trusts), SWEPT_WITHIN
            )
            if edge is None
            else edge(node, bound.public)
        )
        door = door_factory(node.doorway, services.trusts)
        office = self._listener(
            bound.agents, api.build_app(node.office), door, Arriving(agents, services.trusts), ENDED_WITHIN
        )
        found = [public, office]
        if bound.internal is not None:
            found.append(self._internal(node, bound.internal))
        return found

    def _internal(self, node: Node, sock: socket.socket) -> PublicListener:
        from relay.api import internal  # here, as the next: few relays are scraped, and prometheus_client is large
        from relay.node.measuring import Measuring

        log = self._access_log
        unlogged = (lambda: 0) if log is None else (lambda: log.dropped)
        measuring = Measuring(node, self._lag, lambda: self.certificates.expires, unlogged)
        return Listener(sock, internal.build_app(measuring, measuring.unready, node.known_host), BoundedHttp)

    def _listener(
        self, sock: socket.socket, app: object, http: Http, arriving: Arriving, ended_within: float
    ) -> Listener:
        """By TLS, if there is a certificate."""
        if self.certificates.context is None:
            return Listener(sock, app, http)
        return TlsListener(sock, app, http, self.certificates, arriving, ended_within=ended_within)

    @contextlib.asynccontextmanager
    async def _background(self, node: Node) -> AsyncIterator[None]:
        """What goes on beside the listeners. The books are closed last: all before may leave something for them."""
        going = (self._sweep(node), node.follower.run(), self.certificates.watch())
        work = [asyncio.ensure_future(one) for one in going]
        books = [asyncio.ensure_future(one) for one in (node.bookkeeper.run(time.time), node.usage.run())]
        log = self._access_log
        if log is not None:
            books.append(asyncio.ensure_future(log.run()))
        for task in (*work, *books):
            task.add_done_callback(self._on_end_of)
        try:
            yield
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            node.bookkeeper.finish()
            node.usage.finish()
            if log is not None:
                log.finish()
            await asyncio.gather(*books, return_exceptions=True)

    def _on_end_of(self, task: asyncio.Future[None]) -> None:
        """A relay without deadlines, revocations or books is none: it stops, and whoever watches it starts another."""
        if task.cancelled() or (error := task.exception()) is None:
            return
        self._loop.call_exception_handler({"message": "a part of the relay failed", "exception": error})
        message = f"A part of the relay failed ({type(error).__name__}), so it stops. Its log has the traceback."
        self._report({"event": "error", "message": message})
        self._failed = True
        if not self._stop.done():
            self._stop.set_result(signal.SIGTERM)

    async def _sweep(self, node: Node) -> None:
        """Asks every visitor's connection for its deadlines, ends sessions whose key is over, counts what is over."""
        while True:
            asked = self._loop.time()
            await asyncio.sleep(SWEEP_EVERY)
            now = self._loop.time()
            self._lag.observe(max(now - asked - SWEEP_EVERY, 0.0))
            node.live.expire(time.time())
            await node.pressure.check(now)
            node.services.traffic.settle()
            for visitor in list(node.services.visitors):
                try:
                    visitor.check(now)
                except Exception as error:  # one connection's defect must not take the deadlines of all others away
                    self._loop.call_exception_handler({"message": "a deadline failed", "exception": error})
                    visitor.cut()

    def _report_serving(self, node: Node, names: list[str | None]) -> None:
        public, agents, internal_name = names
        settings = self._settings
        self._report(
            {
                "event": "serving",
                "domain": settings.domain,
                "public": public,
                "agents": agents,
                "internal": internal_name,
                "key_file": str(settings.key_file),
                "public_url": node.public_url("NAME"),
            }
        )

    # ---- the end

    def _grace(self, number: signal.Signals) -> float:
        grace = self._settings.grace
        return grace if number == signal.SIGTERM else min(grace, INTERACTIVE_GRACE)

    def _say_stopping(self, node: Node, grace: float) -> None:
        self._report({"event": "stopping", "open": node.services.exchanges, "grace": grace})

    def _listen_to_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._on_signal, number)

    def _on_signal(self, number: signal.Signals) -> None:
        if self._stop.done():
            self._hurry.set()
        else:
            self._at_signal()
            self._stop.set_result(number)


def _owners(node: Node) -> dict[str, str]:
    """The names that are alive, each with its project."""
    return {tunnel.name: tunnel.project for tunnel in node.hub.tunnels.values()}


def raise_descriptor_limit() -> None:
    """Soft limit to the hard one: a tunnel's visitors are descriptors."""
    try:
        import resource
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
