"""Things that an answer tells about a set-up that will not work for visitors: said once each, never changed in passing.

An authorization server that names its local address in its metadata (RFC 9728, RFC 8414) sends every remote client to
the client's own machine; the cure is on the local service's side or `--preserve-host`. An MCP server that lets anybody
in was hardly meant for everybody: the cure is `--private`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from relay.agent.targets import Target
from relay.exchange.headers import first
from relay.exchange.heads import RequestHead, ResponseHead

# As much of a metadata answer as is looked at, in bytes.
MOST_LOOKED_AT: Final = 64 * 1024
# As long as a request that opens an MCP session may be, in bytes.
MOST_INITIALIZE: Final = 8 * 1024
_INITIALIZE: Final = re.compile(rb'"method"[ \t\r\n]*:[ \t\r\n]*"initialize"')


class Hints:
    """Reports `hint` and `warning` events."""

    def __init__(self, report: Callable[[dict[str, object]], None]) -> None:
        self._report = report
        self._said: set[tuple[str, str]] = set()

    def on_answer(self, target: Target, head: ResponseHead) -> None:
        """Looks at a final head."""
        if head.status == 401:
            challenge = first(head.fields, b"www-authenticate") or b""
            if _names(challenge, target):
                self._say_local(target, "its WWW-Authenticate field")
        elif head.status == 421:
            self._say(
                target.url,
                "421",
                f"{target.url} answered 421: it does not accept the Host that it was sent. "
                "Allow this host name in the local service, or change --preserve-host.",
            )

    def watches(self, request: RequestHead) -> bool:
        """Whether bodies of this request's answer are worth a look."""
        return request.target.startswith(b"/.well-known/")

    def on_body(self, target: Target, data: bytes) -> None:
        """Looks at a part of a metadata document."""
        if _names(data[:MOST_LOOKED_AT], target):
            self._say_local(target, "its metadata")

    def suspects(self, request: RequestHead) -> bool:
        """Whether this may be the first request of an MCP session, by somebody who shows no credential."""
        if request.method != b"POST" or first(request.fields, b"authorization") is not None:
            return False
        kind = first(request.fields, b"content-type") or b""
        return kind.partition(b";")[0].strip(b" \t").lower() == b"application/json"

    def opens_mcp(self, subdomain: str, data: bytes) -> bool:
        """Whether the first part of such a request's body is an `initialize`, and nobody was warned of it yet."""
        if (subdomain, "open") in self._said or len(data) > MOST_INITIALIZE:
            return False
        return b'"jsonrpc"' in data and _INITIALIZE.search(data) is not None

    def on_open_mcp(self, subdomain: str) -> None:
        """It was answered with 200."""
        self._say(
            subdomain,
            "open",
            f"The MCP server behind {subdomain} let in a visitor without any credential, and so it will everybody who "
            "finds its address. Start the agent with --private (visitor keys) or --basic-auth-file (passwords).",
            "warning",
        )

    def _say_local(self, target: Target, where: str) -> None:
        self._say(
            target.url,
            "metadata",
            f"{target.url} names its own local address in {where}, which visitors cannot reach. Set the service's "
            "public URL to the tunnel's address, let it read X-Forwarded-Host and -Proto, or use --preserve-host.",
        )

    def _say(self, about: str, kind: str, message: str, event: str = "hint") -> None:
        if (about, kind) not in self._said:
            self._said.add((about, kind))
            self._report({"event": event, "message": message})


def _names(data: bytes, target: Target) -> bool:
    return _pattern(target).search(data) is not None


@lru_cache(maxsize=64)
def _pattern(target: Target) -> re.Pattern[bytes]:
    """The local service's address in a URL, whichever of its names it goes by, and not one that only begins like it."""
    loopback = rb"(?:127\.0\.0\.1|localhost|\[::1\]|0\.0\.0\.0):%d" % target.port
    return re.compile(rb"//(?:%b|%b)(?![0-9A-Za-z.:-])" % (loopback, re.escape(target.authority)))
