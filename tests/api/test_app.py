"""What a browser or a script sees that comes to the agents' door, and what the internal listener says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relay.api import app as api
from relay.api import internal
from relay.tunnels.hub import HoldBounds, Hub


async def call(app: Any, path: str, query: bytes = b"") -> tuple[int, dict[bytes, bytes], bytes]:
    """(status, fields, body) of a GET, straight at the callable."""
    sent: list[dict[str, Any]] = []
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "root_path": "",
        "headers": [(b"host", b"relay")],
        "client": ("192.0.2.1", 1),
        "server": ("192.0.2.2", 80),
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], dict(sent[0]["headers"]), body


async def test_the_agents_door_says_what_it_is() -> None:
    """A person who opens it in a browser reads what to type."""
    status, _, body = await call(api.build_app(), "/")
    assert status == 200
    assert b"relay http 3000" in body


@pytest.mark.parametrize("path", ["/api/v1/none", "/agent/v1", "/favicon.ico"])
async def test_anything_else_is_a_problem_document(path: str) -> None:
    """RFC 9457, with the path that was asked for."""
    status, fields, body = await call(api.build_app(), path)
    assert (status, fields[b"content-type"]) == (404, b"application/problem+json")
    assert path in json.loads(body)["detail"]


class Inside:
    """The internal application over a hub."""

    def __init__(self) -> None:
        self.hub = Hub(HoldBounds(), lambda event, names: None)
        self.reason = ""
        numbers = internal.LiveNumbers(self.hub, lambda: 3, lambda: 7)
        self.app = internal.build_app(numbers, lambda: self.reason, lambda host: host == "demo.tunnels.localhost")


async def test_alive_and_ready() -> None:
    """A relay that drains is alive and not ready, and says why."""
    inside = Inside()
    assert (await call(inside.app, "/livez"))[::2] == (200, b"ok\n")
    assert (await call(inside.app, "/readyz"))[::2] == (200, b"ok\n")
    inside.reason = "draining"
    assert (await call(inside.app, "/livez"))[0] == 200
    assert (await call(inside.app, "/readyz"))[::2] == (503, b"draining\n")


@pytest.mark.parametrize(
    ("query", "status"),
    [(b"domain=demo.tunnels.localhost", 200), (b"domain=other.tunnels.localhost", 404), (b"domain=", 404), (b"", 404)],
)
async def test_whether_a_name_deserves_a_certificate(query: bytes, status: int) -> None:
    """Only what is known does."""
    assert (await call(Inside().app, "/ask", query))[0] == status


async def test_metrics_are_read_when_asked() -> None:
    """The numbers of this moment, in the exposition format, with help for people."""
    inside = Inside()
    status, fields, body = await call(inside.app, "/metrics")
    assert status == 200
    assert fields[b"content-type"].startswith(b"text/plain; version=0.0.4")
    assert b"# HELP relay_tunnels_live " in body
    assert b"\nrelay_exchanges_open 3.0\n" in body
    assert b"\nrelay_visitor_connections 7.0\n" in body
    assert b"\nrelay_requests_held 0.0\n" in body
    inside.hub.held = 5
    assert b"\nrelay_requests_held 5.0\n" in (await call(inside.app, "/metrics"))[2]


async def test_nothing_else_is_inside() -> None:
    """No page of the framework's own either."""
    for path in ("/", "/docs", "/metrics/x", "/livez/"):
        assert (await call(Inside().app, path))[0] in (307, 404)
