"""The three kinds of caller that the relay's own answers are made for, and what each must be able to read in one.

Also the contract itself, as it stands in docs/promises.md: what a visitor's program may rely on, written down a second
time on purpose.
"""

from __future__ import annotations

import asyncio
import html
import json
from dataclasses import dataclass

from tests.support.messages import Response
from tests.support.rawhttp import exchange

ORIGIN = b"https://app.example.com"
# code: (status, error.code of JSON-RPC, seconds of Retry-After)
CONTRACT: dict[str, tuple[int, int, int | None]] = {
    "unknown_host": (404, -31001, None),
    "agent_offline": (503, -31002, 5),
    "agent_lost": (502, -31003, None),
    "local_refused": (502, -31004, None),
    "local_reset": (502, -31005, None),
    "bad_response": (502, -31006, None),
    "head_timeout": (504, -31007, None),
    "bad_request": (400, -31008, None),
    "request_timeout": (408, -31009, None),
    "method_not_supported": (501, -31010, None),
    "overloaded": (503, -31011, 5),
    "draining": (503, -31012, 5),
    "head_too_large": (431, -31014, None),
    "too_many_streams": (429, -31017, 5),
    "unauthorized": (401, -31018, None),
    "forbidden": (403, -31019, None),
}
RPC_ID = "call-7"
RPC_BODY = json.dumps({"jsonrpc": "2.0", "id": RPC_ID, "method": "tools/call", "params": {"name": "é"}}).encode()


@dataclass(frozen=True, slots=True)
class Caller:
    """How one kind of caller asks."""

    name: str
    method: bytes
    fields: tuple[bytes, ...]
    body: bytes = b""

    def request(self, host: str, target: bytes = b"/", *more: bytes, method: bytes = b"") -> bytes:
        """The bytes of its request, with these fields besides."""
        lines = [b"%b %b HTTP/1.1" % (method or self.method, target), b"Host: " + host.encode(), *self.fields, *more]
        if self.body:
            lines.append(b"Content-Length: %d" % len(self.body))
        return b"\r\n".join(lines) + b"\r\n\r\n" + self.body


BROWSER = Caller(
    "browser",
    b"GET",
    (b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", b"User-Agent: Mozilla/5.0"),
)
CURL = Caller("curl", b"GET", (b"User-Agent: curl/8.5.0", b"Accept: */*"))
RPC = Caller(
    "JSON-RPC client",
    b"POST",
    (
        b"Content-Type: application/json; charset=utf-8",
        b"Accept: application/json, text/event-stream",
        b"Origin: " + ORIGIN,
    ),
    RPC_BODY,
)
CALLERS = (BROWSER, CURL, RPC)


async def ask_all(port: int, host: str, target: bytes = b"/") -> list[Response]:
    """Each kind of caller asks at once, on a connection of its own; answers in the order of `CALLERS`."""
    return list(await asyncio.gather(*(exchange(port, caller.request(host, target), 15) for caller in CALLERS)))


def check(caller: Caller, response: Response, code: str, *said: str, rpc_id: str | None = RPC_ID) -> None:
    """All that `caller` may rely on in an answer with this code; `said` are words of its message and next step."""
    status, rpc_code, retry_after = CONTRACT[code]
    head = response.head
    assert head is not None
    assert (response.status, head.get("relay-error"), response.ended) == (status, code.encode(), "clean"), response.raw
    assert head.all("retry-after") == ([] if retry_after is None else [b"%d" % retry_after])
    assert head.get("cache-control") == b"no-store"
    request_id = (head.get("relay-request-id") or b"").decode()
    assert len(request_id) >= 8
    if caller is RPC:
        _check_rpc(response, code, rpc_code, request_id, rpc_id)
        _check_readable_elsewhere(response)
    elif caller is BROWSER:
        assert head.get("content-type") == b"text/html; charset=utf-8"
        assert (head.get("content-security-policy") or b"").startswith(b"default-src 'none'")
    else:
        assert head.get("content-type") == b"application/json"
        told = json.loads(response.body)
        assert list(told) == ["error", "message", "next_action", "request_id"]
        assert (told["error"], told["request_id"]) == (code, request_id)
        assert told["next_action"]
    text = html.unescape(response.body.decode())
    assert request_id in text
    for words in said:
        assert words in text, text


def _check_rpc(response: Response, code: str, rpc_code: int, request_id: str, rpc_id: str | None) -> None:
    assert response.head is not None
    assert response.head.get("content-type") == b"application/json"
    told = json.loads(response.body)
    error = told["error"]
    assert (told["jsonrpc"], told["id"], error["code"]) == ("2.0", rpc_id, rpc_code)
    assert (error["data"]["error"], error["data"]["request_id"]) == (code, request_id)
    assert error["message"].endswith(error["data"]["next_action"])


def _check_readable_elsewhere(response: Response) -> None:
    """A script of another origin may read the answer, and nothing is granted to credentials."""
    assert response.head is not None
    assert response.head.all("access-control-allow-origin") == [ORIGIN]
    exposed = {name.strip() for name in (response.head.get("access-control-expose-headers") or b"").split(b",")}
    assert {b"Relay-Error", b"Retry-After"} <= exposed
    assert response.head.get("vary") == b"Origin"
    assert response.head.get("access-control-allow-credentials") is None
