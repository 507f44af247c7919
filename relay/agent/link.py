"""One link to the relay: dial, say hello, hear the answer, serve streams until it breaks.

Tries once; trying again is `slots`'.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import picows
from python_socks import ProxyError  # picows' own word for what a proxy says no with

from relay.agent.dialing import NoWay, find, hang_up, reach
from relay.agent.failures import in_words
from relay.agent.forwarder import Forwarder
from relay.agent.lookups import Lookups
from relay.agent.proxies import BadProxy, Proxy, proxy_for, refusal_in_words
from relay.agent.refusals import unfit
from relay.agent.sharing import outcome
from relay.mux.carriers.websocket import WebSocketCarrier
from relay.mux.glance import Carried
from relay.mux.session import Session, SessionOptions
from relay.mux.stream import Stream
from relay.mux.streamevents import StreamEvents
from relay.wire import frames
from relay.wire.access import AccessRules
from relay.wire.errors import AwayCode, RemoteProtocolError
from relay.wire.hello import (
    PATH,
    SUBPROTOCOL,
    Hello,
    Refused,
    Renew,
    Welcome,
    decode_refused,
    decode_welcome,
    encode_hello,
    encode_renew,
)

ATTEMPT_WITHIN = 3.0
RENEWED_WITHIN = 10.0
LONGEST_WAIT = 5.0  # what is in front of a relay may ask for any time; visitors wait
SETTLED_WITHIN = 1.0  # how long the relay may take to say that all came that was sent to it
# What a session that ended so would be answered, if it came back by the same key.
VERDICTS: dict[int, str] = {AwayCode.REVOKED: "revoked", AwayCode.CLOSED: "tunnel_closed"}


class LinkFailed(Exception):
    """The relay could not be reached, did not answer, or does not speak our protocol; the text says why.

    `wait` is for how many seconds a relay that is busy asked.
    """

    def __init__(self, sentence: str, wait: float = 0.0) -> None:
        super().__init__(sentence)
        self.wait = wait


class LinkRefused(Exception):
    """The relay answered the hello, or a new key, with a refusal."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused.message)
        self.refused = refused


@dataclass(slots=True)
class Lost:
    """How a link ended."""

    reason: str
    announced: bool
    """The relay said before that it would go."""


@dataclass(slots=True)
class Renewal:
    """A key that was offered to a live session."""

    key: str = field(repr=False)
    answer: asyncio.Future[Welcome | Refused]


class Link:
    """Owner of one session."""

    def __init__(
        self,
        forwarder: Forwarder,
        on_away: Callable[[], None],
        names: Lookups | None = None,
        carried: Carried | None = None,
    ) -> None:
        self.session: Session | None = None
        self.slot = 0
        self.opened = 0
        """Streams that the relay has opened."""
        self.peer: tuple[str, int] | None = None
        """Address and port at the other end of the connection: the relay's, or a proxy's."""
        self.local = ""
        """This machine's address at its own end."""
        self._names, self._carried = names or Lookups(), carried or Carried()
        self._proxy: Proxy | None = None
        self._wire: socket.socket | None = None
        self._stage = ""
        self.key = ""
        """The key that the session lives by."""
        self.verdict: Refused | None = None
        """Why the relay ended the session for good: what it would answer to another hello by the same key."""
        self._access: Mapping[str, AccessRules] = {}
        self.parting = ""
        """What the relay said when it announced the end of the session; empty when it merely stops."""
        self.overloaded = False
        """The relay ended the session because it had no room."""
        self._renewal: Renewal | None = None
        self._forwarder = forwarder
        self._on_away = on_away
        self._away = False
        loop = asyncio.get_running_loop()
        self._answer: asyncio.Future[Welcome | Refused] = loop.create_future()
        self._ended: asyncio.Future[Lost] = loop.create_future()

    async def open(self, relay_url: str, hello: Hello, wanted: Callable[[], bool] = lambda: True) -> Welcome:
        """Dials and is welcomed; says no hello if it is not `wanted` any more when it could. Raises `LinkFailed`,
        `LinkRefused`.
        """
        self.slot, self.key, self._access = hello.slot, hello.key, hello.access
        try:
            async with asyncio.timeout(ATTEMPT_WITHIN):
                await self._dial(relay_url)
                if self.session is None:
                    raise ConnectionResetError("the connection closed at once")
                if not wanted():  # behind a hello, requests may be on their way already
                    raise ConnectionAbortedError("the agent stops")
                self.session.send(frames.encode(frames.HELLO, 0, encode_hello(hello)))
                answer = await outcome(self._answer)
        except BaseException as error:
            self.abort("given up")
            if isinstance(error, OSError | picows.WSError | NoWay | ProxyError | BadProxy):
                raise LinkFailed(self._explain(error, relay_url), _asked_to_wait(error)) from error
            raise
        if isinstance(answer, Refused):
            self.close("refused")
            raise LinkRefused(answer)
        return answer

    async def renew(self, key: str) -> Welcome:
        """Offers a new key. Raises `LinkRefused`, and the session goes on by the one it has; `LinkFailed` without an
        answer: one that comes later counts all the same.
        """
        if self.session is None or self.session.ended:
            raise LinkFailed("the link has ended")
        if self._renewal is None:
            self._renewal = Renewal(key, asyncio.get_running_loop().create_future())
            self.session.send(frames.encode(frames.RENEW, 0, encode_renew(Renew(key))))
        elif self._renewal.key != key:
            raise LinkFailed("the relay has not answered to the key before")
        try:
            async with asyncio.timeout(RENEWED_WITHIN):
                answer = await outcome(self._renewal.answer)
        except TimeoutError:
            raise LinkFailed(f"no answer within {RENEWED_WITHIN:g} seconds") from None
        except ConnectionResetError as error:
            raise LinkFailed(str(error)) from None
        if isinstance(answer, Refused):
            raise LinkRefused(answer)
        return answer

    async def wait(self) -> Lost:
        """Until the link has ended."""
        return await outcome(self._ended)

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._ended.done()

    @property
    def busy(self) -> bool:
        """Whether a stream is open, or something waits to be sent."""
        session = self.session
        if session is None or session.ended:
            return False
        return bool(session.streams or session.outbox.size) or not session.writable

    async def answers(self, within: float) -> bool:
        """Whether the relay answers a ping that is sent from now on, within so many seconds."""
        if self.session is None:
            return False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                # The first answer may be one to an older ping, which was on its way already.
                return await self.session.probe(within) and await self.session.probe(within)
        return False

    async def settle(self) -> None:
        """Until the relay has all that was sent, or does not answer: an end that overtook it would cut it off."""
        await self.answers(SETTLED_WITHIN)

    def go_away(self, detail: str) -> None:
        """No new streams; those that are open go on."""
        if self.session is not None:
            self.session.go_away(AwayCode.SHUTDOWN, detail)

    def close(self, detail: str) -> None:
        """Ends the link."""
        if self.session is not None:
            self.session.close(AwayCode.SHUTDOWN, detail)

    def abort(self, reason: str) -> None:
        """Ends the link without a word."""
        if self.session is not None:
            self.session.abort(reason)
        elif self._wire is not None:  # picows would keep it for ever
            hang_up(self._wire)

    async def _dial(self, relay_url: str) -> None:
        self._proxy = proxy_for(relay_url)
        transport, _ = await picows.ws_connect(
            lambda: WebSocketCarrier(self._connected),
            relay_url.rstrip("/") + PATH,
            websocket_handshake_timeout=None,  # an attempt has one deadline
            enable_auto_pong=False,
            max_frame_size=frames.MAX_MESSAGE,
            max_redirects=0,
            extra_headers=[("Sec-WebSocket-Protocol", SUBPROTOCOL)],
            proxy=None if self._proxy is None else self._proxy.url,
            socket_factory=self._reach,
            use_aiofastnet=False,
        )
        if transport.response is None:  # picows calls a connection that ended during the handshake a success
            raise ConnectionResetError("the connection closed at once")
        if transport.response.headers.get("Sec-WebSocket-Protocol") != SUBPROTOCOL:
            raise ConnectionAbortedError(f"answered as a WebSocket, but does not speak {SUBPROTOCOL}")

    async def _reach(self, where: picows.WSParsedURL) -> socket.socket:
        """A socket to the relay, or to the proxy before it."""
        self._stage = "the name was not resolved"
        found = await find(where.host, where.port, self._names)
        self._stage = "no connection"
        wire = self._wire = await reach(found, where.port)
        self._stage = "no answer"
        try:
            self.peer, self.local = wire.getpeername()[:2], wire.getsockname()[0]
        except OSError:  # it was reset at once, and belongs to nobody yet
            wire.close()
            raise
        return wire

    def _explain(self, error: BaseException, relay_url: str) -> str:
        """Why there is no link, in words that hold no credentials."""
        proxy = self._proxy
        if isinstance(error, BadProxy):
            return str(error)
        if isinstance(error, NoWay):
            words = in_words(error.cause)
            return words if proxy is None else f"the proxy {proxy.shown} cannot be reached: {words}"
        if isinstance(error, ProxyError) and proxy is not None:
            return refusal_in_words(str(error), proxy, urllib.parse.urlsplit(relay_url).netloc)
        if isinstance(error, TimeoutError):
            words = f"{self._stage} within {ATTEMPT_WITHIN:g} seconds"
        elif isinstance(error, picows.WSHandshakeError):
            status = getattr(error.response, "status", None)
            words = f"answered HTTP {int(status)} instead of a WebSocket" if status else "closed during the handshake"
        else:
            words = in_words(error) if isinstance(error, OSError) else str(error) or type(error).__name__
        return words if proxy is None else f"{words}, by way of the proxy {proxy.shown}"

    def _connected(self, carrier: WebSocketCarrier) -> Session:
        self.session = Session(carrier, self, SessionOptions(opener=False))
        return self.session

    # ---- SessionEvents

    def on_handshake(self, kind: int, payload: bytes) -> None:
        """See `SessionEvents.on_handshake`."""
        if self._renewal is not None and kind in (frames.RENEWED, frames.REFUSED):
            self._on_renewal(self._renewal, kind, payload)
            return
        if self._answer.done():
            raise RemoteProtocolError(f"{frames.NAMES[kind]} out of place")
        if kind == frames.WELCOME:
            welcome = decode_welcome(payload)
            assert self.session is not None
            if why := unfit(welcome, self._access):
                self._answer.set_result(Refused("version", why))
                self.close(why)
                return
            self.session.keepalive.interval = welcome.ping_interval
            self.session.establish()
            self._answer.set_result(welcome)
        elif kind == frames.REFUSED:
            self._answer.set_result(decode_refused(payload))
        else:
            raise RemoteProtocolError(f"{frames.NAMES[kind]} out of place")

    def _on_renewal(self, renewal: Renewal, kind: int, payload: bytes) -> None:
        answer = decode_welcome(payload) if kind == frames.RENEWED else decode_refused(payload)
        self._renewal = None
        if isinstance(answer, Welcome):
            self.key = renewal.key
            assert self.session is not None
            self.session.keepalive.interval = answer.ping_interval
        renewal.answer.set_result(answer)

    def on_open(self, stream: Stream, payload: bytes, ended: bool) -> StreamEvents | None:
        """See `SessionEvents.on_open`."""
        self.opened += 1
        return self._forwarder.accept(stream, payload, ended)

    def on_going_away(self, code: int, detail: str) -> None:
        """See `SessionEvents.on_going_away`: a new link is opened while this one finishes, unless it was a verdict."""
        self._away = True
        self.overloaded = code == AwayCode.OVERLOADED
        if code != AwayCode.SHUTDOWN:
            self.parting = detail
        if code in VERDICTS and self.verdict is None:
            self.verdict = Refused(VERDICTS[code], detail)
        self._on_away()

    def on_lost(self, reason: str) -> None:
        """See `SessionEvents.on_lost`."""
        if self.session is not None:
            self._carried.fold(self.session)
        if self.verdict is not None and not self._answer.done():
            self._answer.set_result(self.verdict)
        for answer in (self._answer, self._renewal.answer if self._renewal else self._answer):
            if not answer.done():
                answer.set_exception(ConnectionResetError(reason))
                answer.exception()  # whoever waited has been told; nobody may be waiting
        if not self._ended.done():
            self._ended.set_result(Lost(reason, self._away))


def _asked_to_wait(error: BaseException) -> float:
    """Seconds that an answer in place of a WebSocket asks for; not more than a proxy may ask without harm."""
    response = getattr(error, "response", None) if isinstance(error, picows.WSHandshakeError) else None
    text = "" if response is None else response.headers.get("Retry-After", "")
    return min(float(text), LONGEST_WAIT) if text.isascii() and text.isdigit() else 0.0
