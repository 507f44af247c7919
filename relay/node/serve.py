"""A node's life: start order, signals, drain order, exit code. Each step of the end says why it comes where it does."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from typing import Protocol

import uvloop

from relay import __version__
from relay.api import app as api
from relay.api import internal
from relay.api.door import door_factory
from relay.node.assemble import Node, Report, assemble, visitor_factory
from relay.node.errors import StartError
from relay.node.ground import lay
from relay.node.listeners import Listener, Sockets
from relay.registry.audit import Action
from relay.registry.errors import RegistryError
from relay.registry.records import RELAY, Note
from relay.settings import ServeSettings

SWEEP_EVERY = 0.25
# Ctrl-C is a person who waits.
INTERACTIVE_GRACE = 1.0
# Answers that were complete when the grace time ended have so long to arrive.
LEAVE_WITHIN = 3.0


def run(settings: ServeSettings, report: Report) -> int:
    """Serves until a signal. Blocks; the exit code."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            return runner.run(_serve(settings, report))
        except StartError as error:
            report({"event": "error", "message": str(error)})
            return 1


async def _serve(settings: ServeSettings, report: Report) -> int:
    return await Serving(settings, report).run()


class PublicListener(Protocol):
    """What a node does with a listener."""

    async def listen(self) -> None:
        """Accepts from here on."""

    def stop_accepting(self) -> None:
        """No new connections; those that are open go on."""

    async def aclose(self) -> None:
        """Ends."""


class Serving:
    """One node, from its first socket to its last."""

    def __init__(self, settings: ServeSettings, report: Report) -> None:
        self._settings = settings
        self._report = report
        self._loop = asyncio.get_running_loop()
        self._stop: asyncio.Future[signal.Signals] = self._loop.create_future()
        self._hurry = asyncio.Event()

    async def run(self, edge: Callable[[Node, socket.socket], PublicListener] | None = None) -> int:
        """Serves until a signal. `edge` makes another public listener than ours, for another ASGI server."""
        with contextlib.ExitStack() as sockets:  # also those of a start that fails half-way
            return await self._run(sockets, edge)

    async def _run(
        self, sockets: contextlib.ExitStack, edge: Callable[[Node, socket.socket], PublicListener] | None
    ) -> int:
        settings = self._settings
        logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        raise_descriptor_limit()
        bound = Sockets.bind(settings, sockets)
        async with lay(settings, bound.public.getsockname()[1]) as ground:
            node = assemble(ground, self._report)
            try:
                await node.follower.load()
            except RegistryError as error:
                raise StartError(f"The registry cannot be read: {error}") from None
            node.journal.note(Note(RELAY, Action.RELAY_START, ground.signer.kid, details={"version": __version__}))
            await self._serve(node, bound, edge)
        self._report({"event": "stopped"})
        return 0

    async def _serve(
        self, node: Node, bound: Sockets, edge: Callable[[Node, socket.socket], PublicListener] | None
    ) -> None:
        services = node.services
        public: PublicListener = (
            Listener(bound.public, None, visitor_factory(services)) if edge is None else edge(node, bound.public)
        )
        agents = Listener(bound.agents, api.build_app(node.office), door_factory(node.doorway, services.trusts))
        listeners: list[PublicListener] = [agents, public]
        if bound.internal is not None:
            numbers = internal.LiveNumbers(node.hub, lambda: services.exchanges, lambda: len(services.visitors))
            app = internal.build_app(numbers, lambda: "draining" if services.draining else "", node.known_host)
            listeners.append(Listener(bound.internal, app, "httptools"))
        self._listen_to_signals()
        async with self._background(node):
            # Agents first: who calls a name at once should find it.
            for listener in listeners:
                await listener.listen()
            self._report_serving(node, bound.names())
            number = await self._stop
            await self._drain(node, public, number)
            await asyncio.gather(*(listener.aclose() for listener in listeners))

    @contextlib.asynccontextmanager
    async def _background(self, node: Node) -> AsyncIterator[None]:
        """What goes on beside the listeners. The books are closed last: all before may leave something for them."""
        work = [asyncio.ensure_future(one) for one in (self._sweep(node), node.follower.run())]
        books = asyncio.ensure_future(node.bookkeeper.run(time.time))
        try:
            yield
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            node.bookkeeper.finish()
            await books

    async def _drain(self, node: Node, public: PublicListener, number: signal.Signals) -> None:
        services = node.services
        grace = self._settings.grace if number == signal.SIGTERM else min(self._settings.grace, INTERACTIVE_GRACE)
        self._report({"event": "stopping", "open": services.exchanges, "grace": grace})
        # First nobody new: what comes from here on is answered with `Connection: close`, or not accepted at all.
        services.draining = True
        public.stop_accepting()
        # Held requests would otherwise use up the grace time; their agents come back to the next process.
        node.hub.give_up()
        for visitor in list(services.visitors):
            visitor.shutdown()
        services.on_idle = self._hurry.set
        if services.exchanges:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await self._hurry.wait()
        # Visitors before agents: an exchange that is cut must be cut as an abort, not as an answer about a lost agent.
        for visitor in list(services.visitors):
            visitor.cut()
        # Answers that are complete and still on their way; the sweeper ends them, too.
        if services.visitors:
            empty = asyncio.Event()
            services.on_empty = empty.set
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LEAVE_WITHIN):
                    await empty.wait()
        await node.doorway.aclose("the relay stops")

    async def _sweep(self, node: Node) -> None:
        """Asks every visitor's connection for its deadlines, and ends sessions whose key is over."""
        while True:
            await asyncio.sleep(SWEEP_EVERY)
            node.live.expire(time.time())
            now = self._loop.time()
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

    def _listen_to_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._on_signal, number)

    def _on_signal(self, number: signal.Signals) -> None:
        if self._stop.done():
            self._hurry.set()
        else:
            self._stop.set_result(number)


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
