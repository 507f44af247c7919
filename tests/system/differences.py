"""What the tunnel changes: the complete list of docs/promises.md, row by row, and nothing else.

`predict` tells from an exchange with the local service itself what both ends must see of the same exchange through the
tunnel. A row whose effect is not within one exchange has no rule here and a test of its own elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from tests.system.twoways import Answered, Arrived, Fields, HeadSeen, Seen

PAGE = Path(__file__).parents[2] / "docs" / "promises.md"
TITLE = "Differences from a direct connection"

HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-connection proxy-authenticate proxy-authorization te transfer-encoding upgrade"
    b" http2-settings".split()
)
# A Connection list cannot remove these.
NOT_LISTED_AWAY = frozenset(
    b"host content-length content-type authorization cookie origin forwarded x-forwarded-for x-forwarded-proto"
    b" x-forwarded-host mcp-session-id mcp-protocol-version last-event-id date".split()
)
FORWARDED = frozenset(b"forwarded x-forwarded-for x-forwarded-proto x-forwarded-host x-forwarded-port".split())
NOT_IN_TRAILERS = (
    HOP_BY_HOP | FORWARDED | frozenset(b"host content-length content-encoding authorization cookie".split())
)


@dataclass(frozen=True, slots=True)
class Way:
    """How this visitor came: what it called the tunnel, what the local service is called, the request's first line."""

    public: bytes
    local: bytes
    line: bytes

    @property
    def http10(self) -> bool:
        """Whether the visitor speaks HTTP/1.0."""
        return self.line.endswith(b"HTTP/1.0")


OnRequest = Callable[[Arrived, Way], Arrived]
OnAnswer = Callable[[Answered, Way], Answered]


@dataclass(frozen=True, slots=True)
class Difference:
    """One row of the list; `row` is its first cell."""

    row: str
    request: OnRequest | None = None
    answer: OnAnswer | None = None


# ---- requests --------------------------------------------------------------------------------------------------------


def host_and_origin(seen: Arrived, way: Way) -> Arrived:
    def rewritten(name: bytes, value: bytes) -> bytes:
        if name.lower() == b"host":
            return way.local
        if name.lower() == b"origin" and value.lower() == b"http://" + way.public:
            return b"http://" + way.local
        return value

    return replace(seen, headers=tuple((name, rewritten(name, value)) for name, value in seen.headers))


def forwarded(seen: Arrived, way: Way) -> Arrived:
    ours: Fields = (
        (b"X-Forwarded-For", b"127.0.0.1"),
        (b"X-Forwarded-Proto", b"http"),
        (b"X-Forwarded-Host", way.public),
        (b"Forwarded", b'for=127.0.0.1;proto=http;host="%b"' % way.public),
    )
    return replace(seen, headers=without(seen.headers, FORWARDED) + ours)


def hop_by_hop_of_request(seen: Arrived, way: Way) -> Arrived:
    return replace(seen, headers=without_hop_by_hop(seen.headers))


def absolute_form(seen: Arrived, way: Way) -> Arrived:
    match = re.fullmatch(rb"http://[^/?]*(.*)", seen.target)
    if match is None:
        return seen
    path = match[1]
    if not path and seen.method == b"OPTIONS":
        return replace(seen, target=b"*")
    return replace(seen, target=path if path.startswith(b"/") else b"/" + path)


def http10_request(seen: Arrived, way: Way) -> Arrived:
    if not way.http10:
        return seen
    return replace(seen, version=b"HTTP/1.1", headers=without(seen.headers, frozenset([b"expect"])))


def trailers_of_request(seen: Arrived, way: Way) -> Arrived:
    return replace(seen, trailers=without(seen.trailers, NOT_IN_TRAILERS))


# ---- answers ---------------------------------------------------------------------------------------------------------


def hop_by_hop_of_answer(seen: Answered, way: Way) -> Answered:
    interim = tuple((line, without_hop_by_hop(fields)) for line, fields in seen.interim)
    return replace(seen, interim=interim, headers=without_hop_by_hop(seen.headers))


def version_of_answer(seen: Answered, way: Way) -> Answered:
    def first(line: bytes) -> bytes:
        return b"HTTP/1.1 " + line.partition(b" ")[2]

    interim: tuple[HeadSeen, ...] = tuple((first(line), fields) for line, fields in seen.interim)
    return replace(seen, interim=interim, line=first(seen.line))


def without_length(seen: Answered, way: Way) -> Answered:
    if seen.framing not in ("chunked", "close"):
        return seen
    return replace(seen, framing="close" if way.http10 else "chunked")


def http10_answer(seen: Answered, way: Way) -> Answered:
    return replace(seen, interim=(), trailers=()) if way.http10 else seen


def trailers_of_answer(seen: Answered, way: Way) -> Answered:
    return replace(seen, trailers=without(seen.trailers, NOT_IN_TRAILERS))


# ---- the list --------------------------------------------------------------------------------------------------------

DIFFERENCES = (
    Difference(
        "`Host` names the local service, and `Origin` too where it is the tunnel's own public origin"
        " (`--preserve-host` keeps both)",
        request=host_and_origin,
    ),
    Difference("`Authorization` that let a visitor into a tunnel with access rules does not arrive"),
    Difference(
        "hop-by-hop fields (`Connection` and what it lists, `Keep-Alive`, `TE`, `Transfer-Encoding`, `Upgrade`,"
        " `Proxy-Connection`, `Proxy-Authenticate`, `Proxy-Authorization`, `HTTP2-Settings`) end at each hop, both"
        " ways",
        request=hop_by_hop_of_request,
        answer=hop_by_hop_of_answer,
    ),
    Difference(
        "`X-Forwarded-For`, `-Proto`, `-Host` and `Forwarded` are set behind the visitor's fields; a visitor's own, and"
        " `X-Forwarded-Port`, are dropped, but for trusted proxies",
        request=forwarded,
    ),
    Difference("white space around a field's value is gone"),  # no end of a test keeps it either
    Difference("a target in absolute-form arrives as a path, or as `*`", request=absolute_form),
    Difference(
        "a request in HTTP/1.0 arrives as HTTP/1.1, without `Expect`, and its connection closes after the answer",
        request=http10_request,
    ),
    Difference("an HTTP/1.0 visitor gets neither `1xx` answers nor trailers", answer=http10_answer),
    Difference(
        "the first line of an answer says HTTP/1.1, whatever the local service speaks", answer=version_of_answer
    ),
    Difference(
        "an answer without `Content-Length` comes chunked, to an HTTP/1.0 visitor delimited by close",
        answer=without_length,
    ),
    Difference("chunk sizes change, and chunk extensions are dropped"),  # what both ends compare is the body
    Difference(
        "trailers lose what is hop-by-hop, the fields of the forwarding chain, and `Host`, `Content-Length`,"
        " `Content-Encoding`, `Authorization` and `Cookie`",
        request=trailers_of_request,
        answer=trailers_of_answer,
    ),
    Difference("heads that the guard refuses never arrive, even where the local service would take them"),
    Difference(
        "an answer that is not valid HTTP/1.1, or whose head is above 64 KiB or 256 fields, becomes `bad_response`"
    ),
    Difference("no upgrade but to `websocket`"),
    Difference("requests of one connection may come on several, and those of several visitors on one"),
    Difference("a pipelined request arrives when the answer before it is complete"),
    Difference("a visitor that ends its side of the connection before its answer is complete has left"),
    Difference("the deadlines of the guard, of a response head, and of a visitor that reads nothing for 60 s"),
    Difference(
        "while so many visitors of a tunnel read nothing that a link's window (64 MiB) is nearly full, those that read "
        "nothing for 2 s are cut"
    ),
    Difference("while the agent is away, or has not come since the relay started, a new request waits up to 10 s"),
)


def predict(direct: Seen, way: Way) -> Seen:
    """What both ends see of this exchange through the tunnel."""
    arrived, answered = direct.arrived, direct.answered
    for difference in DIFFERENCES:
        arrived = difference.request(arrived, way) if difference.request is not None else arrived
        answered = difference.answer(answered, way) if difference.answer is not None else answered
    return Seen(arrived, answered)


def observed(tunnelled: Seen) -> Seen:
    """The same exchange as it was seen through the tunnel, without the fields that each hop makes for itself."""
    return Seen(
        replace(tunnelled.arrived, headers=without(tunnelled.arrived.headers, HOP_BY_HOP)),
        replace(tunnelled.answered, headers=without(tunnelled.answered.headers, HOP_BY_HOP)),
    )


def rows_of(title: str) -> list[str]:
    """First cells of the table under a heading of the page."""
    section = PAGE.read_text(encoding="utf-8").partition(f"## {title}\n")[2].partition("\n## ")[0]
    rows = [line.split(" | ")[0].removeprefix("| ") for line in section.splitlines() if line.startswith("| ")]
    return [row for row in rows if not set(row) <= set("-| ")][1:]


def without(fields: Fields, names: frozenset[bytes]) -> Fields:
    """The fields of other names."""
    return tuple(field for field in fields if field[0].lower() not in names)


def without_hop_by_hop(fields: Fields) -> Fields:
    """The fields that go on."""
    listed = [value for name, value in fields if name.lower() in (b"connection", b"proxy-connection")]
    tokens = {token.strip(b" \t").lower() for value in listed for token in value.split(b",")}
    return without(fields, HOP_BY_HOP | frozenset(tokens - NOT_LISTED_AWAY))
