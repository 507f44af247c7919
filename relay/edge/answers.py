"""What the relay itself says to a visitor, and how: the whole contract as one table. Pure.

It alone decides status, wording and form of such an answer: HTML for a browser, a JSON-RPC error object for a POST with
a JSON body, JSON for all others. It knows nothing of why an answer is given. Texts that come from elsewhere (`detail`,
host, origin, request id) are cleaned here, so that none can bring markup or header bytes.
"""

from __future__ import annotations

import html
import json
import math
import re
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Final

from relay.exchange.heads import Fields


class Code(StrEnum):
    """The value of `Relay-Error`."""

    UNKNOWN_HOST = "unknown_host"
    AGENT_OFFLINE = "agent_offline"
    AGENT_LOST = "agent_lost"
    LOCAL_REFUSED = "local_refused"
    LOCAL_RESET = "local_reset"
    BAD_RESPONSE = "bad_response"
    HEAD_TIMEOUT = "head_timeout"
    BAD_REQUEST = "bad_request"
    REQUEST_TIMEOUT = "request_timeout"
    METHOD_NOT_SUPPORTED = "method_not_supported"
    OVERLOADED = "overloaded"
    DRAINING = "draining"
    BODY_TOO_LARGE = "body_too_large"
    HEAD_TOO_LARGE = "head_too_large"
    RATE_LIMITED = "rate_limited"
    QUOTA_EXHAUSTED = "quota_exhausted"
    TOO_MANY_STREAMS = "too_many_streams"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the contract. In the texts `{host}` is the host called and `{label}` its first label."""

    status: int
    rpc: int
    """`error.code` of the JSON-RPC form: never changes, and outside -32768 to -32000, which belong to the protocol."""
    sentence: str
    visitor: str
    """The visitor's next step."""
    owner: str = ""
    """The next step of the developer whose tunnel it is, to follow "If this tunnel is yours, "."""
    retry_after: int | None = None
    """Seconds, where the caller knows no better."""
    closes: bool = False
    """What follows on the connection cannot be trusted, or nothing may follow."""


_LATER: Final = "Try again later."
_SOON: Final = "Try again in a few seconds."

TABLE: Final[dict[Code, Row]] = {
    Code.UNKNOWN_HOST: Row(
        404, -31001, "There is no tunnel at {host}.",
        "Check the spelling of the address.", "open it with: relay http PORT --subdomain NAME",
    ),
    Code.AGENT_OFFLINE: Row(
        503, -31002, "The tunnel {host} exists, but no agent is connected to it.",
        _SOON, "start its agent: relay http PORT --subdomain {label}", 5,
    ),
    Code.AGENT_LOST: Row(
        502, -31003, "The link to the agent broke after the request had been delivered, and before an answer.",
        "The request may have had its effect and was not repeated: check, then send it again.",
        "look for a disconnect in the agent's output",
    ),
    Code.LOCAL_REFUSED: Row(
        502, -31004, "The agent is connected, but the local service did not accept the connection.",
        _LATER, "start the local service at that address, or start the agent with the address where it listens",
    ),
    Code.LOCAL_RESET: Row(
        502, -31005, "The local service broke off before it had answered.",
        "The request may have had its effect: check, then send it again.", "look into the local service's own log",
    ),
    Code.BAD_RESPONSE: Row(
        502, -31006, "The local service sent an answer that is not valid HTTP/1.1.",
        _LATER, "compare with: curl -i http://ADDRESS, and check that the agent points at an HTTP service",
    ),
    Code.HEAD_TIMEOUT: Row(
        504, -31007, "The local service sent no response head in time.",
        "The request may have had its effect: check, then send it again.",
        "look at what keeps the local service busy, or let it send its head earlier",
    ),
    Code.BAD_REQUEST: Row(
        400, -31008, "The relay does not accept this request.",
        "Correct the request as the message says.", closes=True,
    ),
    Code.REQUEST_TIMEOUT: Row(
        408, -31009, "The request did not arrive in time.",
        "Send it again without pauses.", closes=True,
    ),
    Code.METHOD_NOT_SUPPORTED: Row(
        501, -31010, "The relay does not carry this request method.",
        "Use a method of HTTP other than CONNECT and TRACE.", closes=True,
    ),
    Code.OVERLOADED: Row(
        503, -31011, "The relay is at its limit and did not take the request.",
        _SOON, "tell the relay's operator when this persists", 5,
    ),
    Code.DRAINING: Row(
        503, -31012, "The relay is about to restart and did not take the request.",
        _SOON, retry_after=5, closes=True,
    ),
    Code.BODY_TOO_LARGE: Row(
        413, -31013, "The request body is larger than this tunnel allows.",
        "Send less in one request.", "ask the relay's operator for a higher limit", closes=True,
    ),
    Code.HEAD_TOO_LARGE: Row(
        431, -31014, "The request head is larger than 32 KiB or has more than 100 fields.",
        "Send fewer or shorter headers; a browser's cookies for this site may be the cause.", closes=True,
    ),
    Code.RATE_LIMITED: Row(
        429, -31015, "Requests to this tunnel come faster than it allows.",
        "Wait as long as Retry-After says.", "ask the relay's operator for a higher rate", 10,
    ),
    Code.QUOTA_EXHAUSTED: Row(
        429, -31016, "This tunnel has used up what it may transfer for now.",
        "Wait as long as Retry-After says.", "ask the relay's operator for a larger quota", 3600,
    ),
    Code.TOO_MANY_STREAMS: Row(
        429, -31017, "This tunnel already carries as many requests at once as it may.",
        _SOON, "end idle event streams or WebSockets, or ask the relay's operator for a higher limit", 5,
    ),
    Code.UNAUTHORIZED: Row(
        401, -31018, "This tunnel asks for credentials, and the request brought none that are valid.",
        "Send the key or password that the tunnel's owner gave you.",
    ),
    Code.FORBIDDEN: Row(
        403, -31019, "The access rules of this tunnel do not admit this request.",
        "Ask the tunnel's owner for access.", "look at its access rules",
    ),
    Code.INTERNAL: Row(
        500, -31020, "The relay failed on this request.",
        "Try again, and tell the relay's operator the request id when it persists.",
    ),
}  # fmt: skip

_ORIGIN: Final = re.compile(rb"[\x21-\x7e]{1,512}")
_NOT_ID: Final = re.compile(r"[^0-9A-Za-z._-]+")
_NO_HTML: Final = re.compile(rb"(?:^|;)[ \t]*q=0(?:\.0*)?[ \t]*(?:;|$)")
_MAX_DETAIL: Final = 300
MAX_PREFIX: Final = 64 * 1024
_MAX_RETRY: Final = 31 * 24 * 3600
_EXPOSED: Final = b"Relay-Error, Retry-After, Relay-Request-Id, RateLimit, RateLimit-Policy"
_CHALLENGES: Final = (b'Bearer realm="relay"',)
_NO_SCRIPTS: Final = b"default-src 'none'; style-src 'unsafe-inline'"


@dataclass(frozen=True, slots=True)
class Extra:
    """What one answer says beyond its line of the contract."""

    challenges: tuple[bytes, ...] = ()
    """What a 401 asks for: values of `WWW-Authenticate`."""
    retry_after: float | None = None
    """Seconds; None: what the line says."""
    fields: tuple[tuple[bytes, bytes], ...] = ()
    """Further fields, such as `RateLimit`."""


NOTHING_MORE: Final = Extra()


@dataclass(slots=True)
class Facts:
    """What an answer has to know of its request. The defaults suit a head that could not be read."""

    method: bytes = b"GET"
    request_id: str = ""
    host: str = ""
    accept_html: bool = False
    json_post: bool = False
    origin: bytes | None = None
    body_prefix: bytes = b""
    """The request body as far as it has been read, for the id of a JSON-RPC request; empty where nothing was."""
    keep_alive: bool = False
    http10: bool = False
    extra: Extra = NOTHING_MORE


def accepts_html(accept: bytes) -> bool:
    """Whether an `Accept` value asks for text/html by name, as browsers do when they load a page."""
    lower = accept.lower()
    if b"text/html" not in lower:
        return False
    ranges = [part.partition(b";") for part in lower.split(b",")]
    return any(media.strip(b" \t") == b"text/html" and not _NO_HTML.search(rest) for media, _, rest in ranges)


def is_json(content_type: bytes) -> bool:
    """Whether a `Content-Type` value is application/json, with parameters or without."""
    return content_type.partition(b";")[0].strip(b" \t").lower() == b"application/json"


def facts_of(method: bytes, fields: Fields, request_id: str, host: str = "") -> Facts:
    """Facts of a head that the guard refused, or never saw: the last word is to close."""
    facts = Facts(method, request_id, host)
    for name, value in fields:
        match name.lower():
            case b"accept":
                facts.accept_html = facts.accept_html or accepts_html(value)
            case b"content-type":
                facts.json_post = facts.json_post or (method == b"POST" and is_json(value))
            case b"origin":
                facts.origin = facts.origin or value
    return facts


def closes(code: Code, facts: Facts) -> bool:
    """Whether the connection ends after this answer."""
    return TABLE[code].closes or facts.http10 or not facts.keep_alive


def parts(code: Code, facts: Facts, detail: str = "") -> tuple[int, Fields, bytes]:
    """(status, fields, body): all but `Date` and `Connection`, which belong to whoever owns the connection.

    `detail` is what was tried or what was wrong, as an address or a few words.
    """
    row = TABLE[code]
    request_id = _NOT_ID.sub("", facts.request_id)[:128]
    message, steps = _texts(row, facts, detail)
    next_action = " ".join(steps)
    kind = b"application/json"
    if facts.json_post:
        # The next step stands in the message as well: many clients show nothing else of an error.
        data = {"error": code, "next_action": next_action, "request_id": request_id}
        error = {"code": row.rpc, "message": f"{message} {next_action}", "data": data}
        body = json.dumps({"jsonrpc": "2.0", "id": rpc_id(facts.body_prefix), "error": error}).encode()
    elif facts.accept_html:
        kind, body = b"text/html; charset=utf-8", _page(code, message, steps, request_id)
    else:
        plain = {"error": code, "message": message, "next_action": next_action, "request_id": request_id}
        body = json.dumps(plain).encode() + b"\n"
    fields: Fields = [
        (b"Content-Type", kind),
        (b"Content-Length", b"%d" % len(body)),
        (b"Cache-Control", b"no-store"),
        (b"X-Content-Type-Options", b"nosniff"),
        (b"Relay-Error", code.encode()),
    ]
    if request_id:
        fields.append((b"Relay-Request-Id", request_id.encode()))
    extra = facts.extra
    seconds = row.retry_after if extra.retry_after is None else extra.retry_after
    if seconds is not None:
        fields.append((b"Retry-After", b"%d" % math.ceil(min(max(seconds, 1), _MAX_RETRY))))
    fields += extra.fields
    exposed = _EXPOSED
    if row.status == 401:  # RFC 9110 §15.5.2: never without a challenge
        fields += [(b"WWW-Authenticate", challenge) for challenge in extra.challenges or _CHALLENGES]
        exposed += b", WWW-Authenticate"
    if kind.startswith(b"text/html"):
        fields.append((b"Content-Security-Policy", _NO_SCRIPTS))
    if facts.origin is not None and _ORIGIN.fullmatch(facts.origin):
        fields += (
            (b"Access-Control-Allow-Origin", facts.origin),
            (b"Access-Control-Expose-Headers", exposed),
            (b"Vary", b"Origin"),
        )
    return row.status, fields, b"" if facts.method == b"HEAD" else body


def render(code: Code, facts: Facts, detail: str = "", *, now_http_date: bytes) -> bytes:
    """The whole answer as HTTP/1.1 writes it. `now_http_date` is an IMF-fixdate (RFC 9110 §5.6.7)."""
    status, fields, body = parts(code, facts, detail)
    fields.append((b"Date", now_http_date))
    if closes(code, facts):
        fields.append((b"Connection", b"close"))
    lines = b"".join([b"%b: %b\r\n" % field for field in fields])
    return b"HTTP/1.1 %d %b\r\n%b\r\n%b" % (status, HTTPStatus(status).phrase.encode(), lines, body)


def _texts(row: Row, facts: Facts, detail: str) -> tuple[str, list[str]]:
    host = _clean(facts.host)[:253] or "this address"
    message = row.sentence.format(host=host)
    if detail := _clean(detail):
        message = f"{message[:-1]} ({detail})."
    steps = [row.visitor]
    if row.owner:
        label = host.partition(".")[0] if facts.host else "NAME"
        steps.append(f"If this tunnel is yours, {row.owner.format(label=label)}.")
    return message, steps


def _clean(text: str) -> str:
    """One line of printable characters: no controls, no line ends, nothing that turns the direction of writing."""
    return " ".join("".join([c if c.isprintable() else " " for c in text[:_MAX_DETAIL]]).split()).rstrip(".")


def rpc_id(prefix: bytes) -> str | int | float | None:
    """The id of a JSON-RPC request whose body is all of `prefix`; None for anything else, cut short ones included."""
    if not prefix or len(prefix) > MAX_PREFIX:
        return None
    try:
        request = json.loads(prefix)
    except (ValueError, RecursionError):
        return None
    found = request.get("id") if isinstance(request, dict) and "method" in request else None
    if isinstance(found, bool) or not isinstance(found, str | int | float):
        return None
    return None if isinstance(found, float) and not math.isfinite(found) else found


def _page(code: Code, message: str, steps: list[str], request_id: str) -> bytes:
    return _PAGE.format(
        status=TABLE[code].status,
        code=code,
        message=html.escape(message),
        steps="".join(f"<p>{html.escape(step)}</p>" for step in steps),
        request_id=html.escape(request_id),
    ).encode()


_PAGE: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>{status} {code}</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 36rem; margin: 15vh auto; padding: 0 1rem }}
h1 {{ font-size: 1.3rem }}
footer {{ margin-top: 2rem; font: .8rem ui-monospace, monospace; opacity: .7; overflow-wrap: anywhere }}
</style>
<h1>{message}</h1>
{steps}
<footer>{status} {code} · request {request_id}</footer>
</html>
"""
