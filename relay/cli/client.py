"""One relay's API over HTTP, asked with one key. Every failure becomes one sentence; nothing is tried twice.

Except after a clock that is wrong: a signature is good for a minute, so a request that was refused while this machine's
clock and the relay's differ is signed once more by the relay's clock. Proxies are the environment's, certificates are
verified, redirects are not followed: a key goes where it was meant to go.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import IO, Any
from urllib.parse import quote, urlencode, urlsplit

from relay import __version__
from relay.agent.targets import is_loopback
from relay.cli.errors import Mistake, Refusal, Unavailable
from relay.cli.keyring import Key, audience_of
from relay.cli.output import sentence, warn
from relay.keys.errors import BadKey
from relay.keys.forms import Kind
from relay.keys.private import PrivateKey

BASE = "/api/v1"
TIMEOUT = 10.0  # seconds without a byte
MOST_BYTES = 32 * 1024 * 1024
MOST_SAID = 400  # characters of a sentence of the relay's
# Signatures allow for this much, in seconds; below it the clock is no reason for a refusal.
CLOCK_LEEWAY = 20.0
_PROXY_SAID = re.compile(r"Tunnel connection failed: ([1-5][0-9]{2})\b")  # how http.client puts it
_NEVER_SENT = (ConnectionRefusedError, socket.gaierror, ssl.SSLError)

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


class Client:
    """`relay` is an address as `keyring.find_relay` gives it. Every method raises `Mistake` or one of its kinds."""

    def __init__(self, relay: str, key: Key) -> None:
        self.relay = relay
        self.key = key
        self._private = _private(key)
        self._audience = audience_of(relay)
        self._skew = 0.0
        self._base = "http" + relay.removeprefix("ws") + BASE
        self._opener = _opener(relay)

    # ---- requests

    def get(self, *path: str, **query: object) -> Object:
        """The answer to GET /api/v1/PATH…; what is None in the query is left out."""
        return self._ask("GET", path, None, query)

    def post(self, *path: str, body: Object) -> Object:
        """The answer to POST."""
        return self._ask("POST", path, body, {})

    def put(self, *path: str, body: Object) -> Object:
        """The answer to PUT."""
        return self._ask("PUT", path, body, {})

    def patch(self, *path: str, body: Object) -> Object:
        """The answer to PATCH."""
        return self._ask("PATCH", path, body, {})

    def delete(self, *path: str) -> Object:
        """The answer to DELETE, empty where there is none."""
        return self._ask("DELETE", path, None, {})

    def items(self, *path: str, **query: object) -> Iterator[Object]:
        """Every item of a list, page after page."""
        cursor: object = None
        while True:
            page = self.get(*path, **query, cursor=cursor)
            yield from _objects(page.get("items"), self.relay)
            following = page.get("next_cursor")
            if not following or following == cursor:
                return
            cursor = following

    def _ask(self, method: str, path: tuple[str, ...], body: Object | None, query: Mapping[str, object]) -> Object:
        url = "/".join((self._base, *(quote(part, safe="") for part in path)))
        given = {name: value for name, value in query.items() if value is not None}
        if given:
            url += "?" + urlencode(given)
        answer = self._send(method, url, body)
        if answer.status == 401 and self._private is not None and self._corrected(answer):
            answer = self._send(method, url, body)
        if not 200 <= answer.status < 300:
            raise self._refused(answer)
        if not answer.body:
            return {}
        found = _object(answer.body)
        if found is None:
            raise Unavailable(f"What answers at {self.relay} is not a relay's API: look whether --relay is right.")
        return found

    def _send(self, method: str, url: str, body: Object | None) -> _Answer:
        headers = {
            "Authorization": f"Bearer {self._credential()}",
            "Accept": "application/json",
            "User-Agent": f"relay/{__version__}",
        }
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(url, data, headers, method=method)
        try:
            with self._open(request) as response:
                status, fields = int(response.status), response.headers
                content = response.read(MOST_BYTES + 1)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._unreached(error, method) from None
        if len(content) > MOST_BYTES:
            raise Unavailable(
                f"The relay at {self.relay} answered with more than {MOST_BYTES >> 20} MiB: ask for less."
            )
        return _Answer(status, fields, content)

    def _open(self, request: urllib.request.Request) -> Any:  # noqa: ANN401 - what urllib gives for one of several schemes
        try:
            return self._opener.open(request, timeout=TIMEOUT)
        except urllib.error.HTTPError as refusal:
            return refusal  # an answer like any other

    def _credential(self) -> str:
        if self._private is None:
            return self.key.text
        return self._private.sign_request(self._audience, time.time() + self._skew)

    # ---- clocks

    def _corrected(self, answer: _Answer) -> bool:
        """Whether the relay's clock is another than the one that the request was signed by; it is used from now on."""
        try:
            theirs = parsedate_to_datetime(answer.headers.get("Date", "")).timestamp() + 0.5  # it is cut off
        except (ValueError, OverflowError):
            return False
        skew = theirs - time.time()
        if abs(skew - self._skew) < CLOCK_LEEWAY:
            return False
        self._skew = skew
        warn(
            f"This machine's clock is {abs(skew):.0f} seconds {'behind' if skew > 0 else 'ahead of'} the relay's; "
            "set it right."
        )
        return True

    # ---- failures

    def _unreached(self, error: Exception, method: str) -> Unavailable:
        reason = getattr(error, "reason", error)
        cause = reason if isinstance(reason, Exception) else error
        said = (
            f"The relay at {self.relay} cannot be reached ({_words(cause)}): look whether it runs and --relay is right."
        )
        if method != "GET" and not isinstance(cause, _NEVER_SENT):
            said += " Whether it still did what was asked is not known: look before you try again."
        return Unavailable(said)

    def _refused(self, answer: _Answer) -> Mistake:
        problem = _object(answer.body) or {}
        detail, step = problem.get("detail"), problem.get("next_action")
        status = answer.status
        if 300 <= status < 400:
            return Unavailable(
                f"{self.relay} leads elsewhere (HTTP {status}): give the relay's own address with --relay."
            )
        if not isinstance(detail, str) or not detail:
            return Unavailable(
                f"{self.relay} answered HTTP {status} without a reason, so it is perhaps not a relay, or one that is "
                "away behind its proxy: look whether --relay is right and the relay runs."
            )
        text = sentence(detail[:MOST_SAID])
        if isinstance(step, str) and step:
            text += " " + sentence(step[:MOST_SAID])
        if status in {408, 429} or status >= 500:
            return Unavailable(f"The relay cannot do it now. {text}")
        if status in {401, 403}:
            text += f" The key is that of {self.key.origin}."
            if self.key.kind is Kind.CHILD:
                text += " A child key opens tunnels; for everything else give a master or operator key."
        return Refusal(f"The relay refused: {text}", status)


def _opener(relay: str) -> urllib.request.OpenerDirector:
    """Put together by hand: nothing here knows what a redirect is, or any scheme but the one that is needed."""
    opener = urllib.request.OpenerDirector()
    host = urlsplit(relay).hostname or ""
    if not is_loopback(host):  # another machine is not on the way to this one
        opener.add_handler(urllib.request.ProxyHandler())
    here = host.endswith(".localhost")
    if relay.startswith("wss:"):
        context = ssl.create_default_context()
        opener.add_handler(_HttpsHere(context) if here else urllib.request.HTTPSHandler(context=context))
    else:
        opener.add_handler(_HttpHere() if here else urllib.request.HTTPHandler())
    opener.add_handler(urllib.request.HTTPErrorProcessor())
    opener.add_handler(urllib.request.HTTPDefaultErrorHandler())
    return opener


def _connect_here(address: tuple[str, int], *args: Any) -> socket.socket:  # noqa: ANN401 - as socket takes them
    """Few resolvers know the names below localhost, which are this machine (RFC 6761 §6.3)."""
    return socket.create_connection(("localhost", address[1]), *args)


def _here(kind: type[http.client.HTTPConnection]) -> Any:  # noqa: ANN401 - a connection of that kind
    def make(*args: Any, **options: Any) -> http.client.HTTPConnection:  # noqa: ANN401 - what urllib gives
        connection = kind(*args, **options)
        connection._create_connection = _connect_here  # type: ignore[attr-defined]  # there is no other hook
        return connection

    return make


class _HttpHere(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_here(http.client.HTTPConnection), req)


class _HttpsHere(urllib.request.HTTPSHandler):
    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(context=context)
        self._own = context

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_here(http.client.HTTPSConnection), req, context=self._own)


def _private(key: Key) -> PrivateKey | None:
    if not key.kind.private:
        return None
    try:
        return PrivateKey.parse(key.text)
    except BadKey as error:
        raise Mistake(f"What {key.origin} holds was not sent. {error}") from None


def _words(cause: object) -> str:
    if isinstance(cause, TimeoutError):
        return f"no answer within {TIMEOUT:g} seconds"
    if isinstance(cause, ConnectionRefusedError):
        return "connection refused"
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not valid: {cause.verify_message}"
    if isinstance(cause, http.client.HTTPException):
        return "what answers does not speak HTTP as expected"
    if said := _PROXY_SAID.match(str(cause)):
        return f"the proxy that the environment names answered HTTP {said[1]} instead of a way there"
    return getattr(cause, "strerror", None) or type(cause).__name__


def _object(body: bytes | IO[bytes]) -> Object | None:
    try:
        found = json.loads(body)  # type: ignore[arg-type]
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _objects(value: object, relay: str) -> Iterator[Object]:
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise Unavailable(f"What answers at {relay} is not a relay's API: look whether --relay is right.")
    yield from value
