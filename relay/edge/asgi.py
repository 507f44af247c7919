"""The tunnel path as a plain ASGI callable, over the same exchange, for other ASGI servers.

Thin: what ASGI cannot say is lost here and listed in docs/promises.md ("Under another ASGI server"). The server in
front is the guard of bytes; what a head means is decided by `guard.check`, where it goes by `routing`, as elsewhere.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from time import monotonic
from typing import Any

from relay.edge import access, answers, routing
from relay.edge.account import BROKEN_OFF, COMPLETE, VISITOR_LEFT, Account
from relay.edge.answers import NOTHING_MORE, Code, Extra, Facts
from relay.edge.guard import Body, Refusal, Request, check
from relay.edge.services import Services
from relay.exchange.headers import HOP_BY_HOP
from relay.exchange.heads import Fields, ResponseHead
from relay.exchange.outgoing import Exchange, Failure
from relay.tunnels.hub import Link, Tunnel

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class AbortedError(Exception):
    """The answer broke off: raised into the server, which has no other way to cut a response."""


class TunnelApp:
    """The ASGI application."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] == "http":
            await self._serve(scope, receive, send)
        elif scope["type"] == "lifespan":
            await _lifespan(receive, send)
        else:
            # An upgraded connection is a pipe of bytes, which ASGI does not have.
            await receive()
            await send({"type": "websocket.close", "code": 1008})

    async def _serve(self, scope: Message, receive: Receive, send: Send) -> None:
        services = self._services
        request_id = services.new_id()
        fields: Fields = [(bytes(name), bytes(value)) for name, value in scope["headers"]]
        method = scope["method"].encode("latin-1")
        try:
            request = check(method, _target(scope), "1.0" if scope["http_version"] == "1.0" else "1.1", fields)
        except Refusal as refusal:
            self._count_refusal(refusal.code, request_id, monotonic())
            facts = answers.facts_of(method, fields, request_id)
            await _say(send, refusal.code, facts, refusal.message)
            return
        account = Account(request, request_id, monotonic())
        services.exchanges += 1
        client = scope.get("client") or ("unknown", 0)
        caller = routing.Caller(services, client[0], services.trusts(client[0]))
        try:
            await _Visit(services, account, receive, send).run(caller)
        finally:
            account.client = caller.who(request)
            services.close_account(account)

    def _count_refusal(self, code: Code, request_id: str, now: float) -> None:
        account = Account(None, request_id, now)
        account.refuse(code, now)
        self._services.close_account(account)


class _Visit:
    """One exchange under ASGI: events of the exchange on one side, two coroutines on the other."""

    def __init__(self, services: Services, account: Account, receive: Receive, send: Send) -> None:
        assert account.request is not None
        self._services = services
        self._account = account
        self._request = account.request
        self._request_id = account.request_id
        self._receive = receive
        self._send = send
        self._exchange = Exchange(self, account.request_id)
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._heads: deque[ResponseHead] = deque()
        # Bounded by the stream's window: what is here has not been consumed.
        self._data: deque[bytes] = deque()
        self._trailers: Fields | None = None
        self._failure: Failure | None = None
        self._ready: asyncio.Future[bool]
        self._prefix = b""

    async def run(self, caller: routing.Caller) -> None:
        """From route to end. Raises `AbortedError` when an answer broke off."""
        try:
            try:
                request, tunnel, link = await self._enter(caller)
                self._account.key_id = link.principal.key_id
                routing.begin(request, caller, self._exchange, tunnel, link)
            except routing.Unroutable as no:
                await self._answer(no.code, no.detail, no.extra)
                return
            upload = asyncio.ensure_future(self._upload())
            try:
                await self._download()
            finally:
                upload.cancel()
                await asyncio.gather(upload, return_exceptions=True)
                self._exchange.abort()
        finally:
            self._services.admitted.pop(self, None)

    async def _enter(self, caller: routing.Caller) -> tuple[Request, Tunnel, Link]:
        """What goes out, where to, and on which link. Raises `Unroutable`. After each wait all is looked at anew."""
        services = self._services
        proved: access.Password | None = None
        while True:
            tunnel, link = routing.find(services, self._request)
            name = self._account.tunnel = self._request.called
            if tunnel is None or link is None:
                await self._hold(name)
                continue
            decision = routing.judge(self._request, caller, tunnel, proved)
            if isinstance(decision, access.Let):
                if decision.key_id:
                    services.admitted[self] = decision.key_id, decision.signer
                    self._account.visitor_key_id = decision.key_id
                return decision.request, tunnel, link
            if isinstance(decision, access.Password):
                await self._prove(decision, caller.who(self._request))
                proved = decision
            else:
                raise routing.Unroutable(decision.code, decision.detail, Extra(decision.challenges))

    async def _prove(self, shown: access.Password, address: str) -> None:
        """Returns where the password is right. Raises `Unroutable`."""
        try:
            right = await self._services.gate.password(shown, address)
        except access.TooManyChecks as busy:
            raise routing.Unroutable(Code.OVERLOADED, str(busy)) from None
        if not right:
            raise routing.Unroutable(shown.refusal.code, shown.refusal.detail, Extra(shown.refusal.challenges))

    async def _hold(self, name: str) -> None:
        """Until there is a link. Raises `Unroutable`."""
        hub = self._services.hub
        self._ready = asyncio.get_running_loop().create_future()
        if self._services.draining or not hub.hold(name, self, routing.size_of(self._request)):
            raise routing.Unroutable(routing.nobody(self._services))
        try:
            ready = await self._ready
        finally:
            hub.release(name, self)
        if not ready:
            raise routing.Unroutable(routing.nobody(self._services))

    async def _upload(self) -> None:
        """Request body to the exchange; then waits for the visitor to leave."""
        more = self._request.body is not Body.NONE
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._failure = self._failure or Failure("", "the visitor left")
                self._exchange.abort()
                self._news.set()
                return
            data = message.get("body", b"")
            self._account.bytes_in += len(data) if more else 0
            if more and data:
                if self._request.json_post and len(self._prefix) < answers.MAX_PREFIX:
                    self._prefix += data[: answers.MAX_PREFIX]
                self._room.clear()
                if not self._exchange.write(data):
                    await self._room.wait()
            if more and not message.get("more_body", False):
                more = False
                self._exchange.end([])

    async def _download(self) -> None:
        """The answer to the server."""
        started = False
        while True:
            if self._heads:
                head = self._heads.popleft()
                self._account.status, self._account.head_at = head.status, monotonic()
                await self._send({"type": "http.response.start", "status": head.status, "headers": _fields(head)})
                # The head leaves before the first byte of body: some servers hold it until they are given some body.
                await self._send({"type": "http.response.body", "body": b"", "more_body": True})
                started = True
            elif self._data:
                data = self._data.popleft()
                await self._send({"type": "http.response.body", "body": data, "more_body": True})
                self._exchange.consumed(len(data))
                self._account.bytes_out += len(data)
            elif self._failure is not None:
                if started:
                    self._account.ended = BROKEN_OFF if self._failure.code else VISITOR_LEFT
                    raise AbortedError(self._failure.code)
                if self._failure.code:
                    await self._answer(Code(self._failure.code), self._failure.detail)
                return
            elif self._trailers is not None:
                await self._send({"type": "http.response.body", "body": b"", "more_body": False})
                self._account.ended = COMPLETE
                return
            else:
                self._news.clear()
                await self._wait_for_head()

    async def _wait_for_head(self) -> None:
        if self._exchange.answered or self._heads or self._failure is not None:
            await self._news.wait()
            return
        try:
            async with asyncio.timeout(self._services.timeouts.response_head):
                await self._news.wait()
        except TimeoutError:
            self._exchange.abort()
            self._failure = Failure(Code.HEAD_TIMEOUT, f"waited {self._services.timeouts.response_head:g} seconds")

    async def _answer(self, code: Code, detail: str, extra: Extra = NOTHING_MORE) -> None:
        facts = self._request.facts(self._request_id, self._prefix)
        facts.extra = extra
        self._account.refuse(code, monotonic())
        await _say(self._send, code, facts, detail)

    def cut(self) -> None:
        """See `Admitted.cut`."""
        self._heads.clear()
        self._data.clear()
        self._exchange.abort()
        self.on_failed(Failure(Code.UNAUTHORIZED, "the visitor key was revoked"))

    # ---- Waiter of the hub

    def on_ready(self, link: Link) -> None:
        """See `Waiter.on_ready`."""
        if not self._ready.done():
            self._ready.set_result(True)

    def on_given_up(self) -> None:
        """See `Waiter.on_given_up`."""
        if not self._ready.done():
            self._ready.set_result(False)

    # ---- ExchangeEvents

    def on_informational(self, head: ResponseHead) -> None:
        """See `ExchangeEvents.on_informational`: ASGI has no word for it."""

    def on_head(self, head: ResponseHead, length: int | None) -> None:
        """See `ExchangeEvents.on_head`."""
        self._heads.append(head)
        self._news.set()

    def on_lull(self) -> None:
        """See `ExchangeEvents.on_lull`: the head goes out by itself."""

    def on_data(self, data: memoryview) -> bool:
        """See `ExchangeEvents.on_data`."""
        if data:
            self._data.append(bytes(data))
            self._news.set()
        return False

    def on_last(self, data: memoryview) -> None:
        """See `ExchangeEvents.on_last`."""
        self.on_data(data)
        self.on_end([])

    def on_end(self, trailers: Fields) -> None:
        """See `ExchangeEvents.on_end`."""
        self._trailers = trailers
        self._news.set()

    def on_failed(self, failure: Failure) -> None:
        """See `ExchangeEvents.on_failed`."""
        self._failure = failure
        self._news.set()
        self._room.set()

    def on_writable(self) -> None:
        """See `ExchangeEvents.on_writable`."""
        self._room.set()


def _target(scope: Message) -> bytes:
    raw = scope.get("raw_path")
    path = bytes(raw) if raw else scope["path"].encode("utf-8")
    query = scope.get("query_string", b"")
    return path + b"?" + query if query else path


def _fields(head: ResponseHead) -> Fields:
    return [(name.lower(), value) for name, value in head.fields if name.lower() not in HOP_BY_HOP]


async def _say(send: Send, code: Code, facts: Facts, detail: str) -> None:
    status, fields, body = answers.parts(code, facts, detail)
    fields = [(name.lower(), value) for name, value in fields]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
