"""The API on the agent listener, so far only what a browser or a script sees that comes to the wrong door."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

_HERE = "This is where agents connect to this relay: relay http 3000 --relay URL-OF-THIS-LISTENER\n"


async def _root(request: Request) -> Response:
    return PlainTextResponse(_HERE)


async def _not_found(request: Request, error: Exception) -> Response:
    return JSONResponse(
        {"type": "about:blank", "title": "Not Found", "status": 404, "detail": f"There is no {request.url.path} here."},
        404,
        media_type="application/problem+json",
    )


def build_app() -> Starlette:
    """The ASGI application behind the agents' door."""
    return Starlette(routes=[Route("/", _root)], exception_handlers={404: _not_found})
