"""The internal listener: health, metrics, and whether a name deserves a certificate. Never published."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from relay.mux.session import Session
from relay.tunnels.hub import Hub


class LiveNumbers(Collector):
    """What is alive now, read at scrape."""

    def __init__(self, hub: Hub, exchanges: Callable[[], int], visitors: Callable[[], int]) -> None:
        self._gauges: list[tuple[str, str, Callable[[], int]]] = [
            ("relay_tunnels_live", "Names that an agent serves now.", lambda: len(hub.tunnels)),
            ("relay_links_live", "Links of agents.", lambda: len(hub.links)),
            ("relay_streams_open", "Streams open on all links.", hub.open_streams),
            ("relay_requests_held", "Requests that wait for an agent to come back.", lambda: hub.held),
            ("relay_exchanges_open", "Exchanges under way.", exchanges),
            ("relay_visitor_connections", "Connections of visitors.", visitors),
            ("relay_window_held_bytes", "From agents, not taken by visitors yet.", lambda: _over(hub, _held)),
            ("relay_outbox_bytes", "Waiting to be sent to agents.", lambda: _over(hub, _waiting)),
            ("relay_credit_given_bytes", "What agents may still send.", lambda: _over(hub, _given)),
            ("relay_credit_left_bytes", "What agents let the relay still send.", lambda: _over(hub, _left)),
            ("relay_tasks", "Tasks of the event loop.", lambda: len(asyncio.all_tasks())),
        ]  # fmt: skip

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        for name, text, read in self._gauges:
            yield GaugeMetricFamily(name, text, value=read())


def _over(hub: Hub, read: Callable[[Session], int]) -> int:
    return sum(read(link.session) for link in hub.sessions())


def _held(session: Session) -> int:
    return session.window.held()


def _waiting(session: Session) -> int:
    return session.outbox.size + sum(stream.pending for stream in session.streams.values())


def _given(session: Session) -> int:
    return session.window.granted - session.window.received


def _left(session: Session) -> int:
    return session.outbox.credit


def build_app(numbers: LiveNumbers, unready: Callable[[], str], known_host: Callable[[str], bool]) -> Starlette:
    """`unready` says why the relay takes no visitors, "" when it does."""
    registry = CollectorRegistry()
    registry.register(numbers)

    async def livez(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        reason = unready()
        return PlainTextResponse(f"{reason or 'ok'}\n", 503 if reason else 200)

    async def metrics(request: Request) -> Response:
        return PlainTextResponse(generate_latest(registry), media_type="text/plain; version=0.0.4")

    async def ask(request: Request) -> Response:
        known = known_host(request.query_params.get("domain", ""))
        return PlainTextResponse("known\n" if known else "unknown\n", 200 if known else 404)

    return Starlette(
        routes=[
            Route("/livez", livez),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
            Route("/ask", ask),
        ]
    )
