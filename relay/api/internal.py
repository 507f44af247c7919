"""The internal listener: health, metrics, and whether a name deserves a certificate. Never published."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from relay.telemetry.families import CONTENT_TYPE, Exposition


def build_app(numbers: Collector, unready: Callable[[], Sequence[str]], known_host: Callable[[str], bool]) -> Starlette:
    """`unready` says why the relay should not be given work, each reason on a line; nothing when it should."""
    exposition = Exposition(numbers)

    async def livez(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        reasons = unready()
        return PlainTextResponse("\n".join(reasons or ["ok"]) + "\n", 503 if reasons else 200)

    async def metrics(request: Request) -> Response:
        return Response(exposition.text(), media_type=CONTENT_TYPE)

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
