"""A request's way in: from a head that was read to a link that may carry it.

Decides how long a request is held for an agent, and asks `access` of whoever calls a tunnel with rules: each request
anew, also one that was held. The reading is done by the class below it (`visitor`), the writing by the one above.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod

from relay.edge import access, routing
from relay.edge.answers import Code, Extra
from relay.edge.connection import READ_WAITING
from relay.edge.guard import Request
from relay.edge.phase import HEAD, HELD, PROVING
from relay.edge.services import Services
from relay.edge.speaker import Speaker
from relay.tunnels.hub import Link, Tunnel
from relay.wire.errors import ResetCode


class Entrant(Speaker):
    """Also the waiter of the hub while its request is held."""

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self._phase = HEAD
        self._caller = routing.Caller(services, "unknown", False)
        self._name = ""
        self._buffer = b""
        """What was read and is not parsed yet: the body of a request that waits, or what is pipelined behind one."""
        self._counted = 0
        """Bytes behind a held request that the hub knows of."""
        self._held_head = b""
        """Of a request that is held, as it came."""
        self._by_key = False
        """A visitor key let this exchange in: it is cut when the key is revoked, or its signer retired."""
        self._proved: access.Password | None = None
        self._proving: asyncio.Task[None] | None = None

    # ---- for the class below

    @abstractmethod
    def on_let_in(self, request: Request, tunnel: Tunnel, link: Link) -> None:
        """`request` goes out on a stream of `link`, which serves `tunnel`."""

    @abstractmethod
    def read_on(self) -> None:
        """A wait is over."""

    def enter(self, request: Request) -> None:
        """Finds a link for the request and lets it in, or waits for one, or answers."""
        try:
            tunnel, link = routing.find(self.services, request)
        except routing.Unroutable as no:
            self.answer(no.code, no.detail, no.extra)
            return
        name = self._name = request.called
        if self.account is not None:
            self.account.tunnel = name
        if tunnel is None or link is None:
            self._hold(request)
        elif tunnel.access is None:
            self.on_let_in(request, tunnel, link)
        else:
            self._judge(request, tunnel, link)

    def may_wait(self) -> bool:
        """Whether more may be read: of a request that is held, what has come is counted, and must have its room."""
        if self._phase is not HELD:
            return True
        more = len(self._buffer) - self._counted
        if more and not self.services.hub.grow(self._name, self, more):
            return False
        self._counted += more
        return True

    def _hold(self, request: Request) -> None:
        self._counted = len(self._buffer)
        # There must be room for one more read: what has been read is there, whether it has room or not.
        size = routing.size_of(request) + self._counted + READ_WAITING
        if self.services.draining or not self.services.hub.hold(self._name, self, size):
            self.answer(routing.nobody(self.services))
            return
        self._phase = HELD
        self.patience.wait_for_ever()
        self.read_little()

    def leave(self, code: ResetCode) -> None:
        """The exchange, or the wait for one, is over for this visitor."""
        if self._phase is HELD:
            self.services.hub.release(self._name, self)
        self._held_head = b""
        proving, self._proving = self._proving, None
        if proving is not None:
            proving.cancel()
        self._proved = None
        self.drop_exchange(code)
        self.served()

    def drop_exchange(self, code: ResetCode) -> None:
        """The agent is told; the visitor may have something coming yet."""
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.abort(code)

    def served(self) -> None:
        """The exchange is no longer under way."""
        account, services = self.account, self.services
        if account is not None:
            self.account = None
            if services.on_exchange is not None:
                account.client = self.address if account.request is None else self._caller.who(account.request)
            services.close_account(account)
        if self._by_key:
            self._by_key = False
            self.services.admitted.pop(self, None)

    # ---- access

    def _judge(self, request: Request, tunnel: Tunnel, link: Link) -> None:
        decision = routing.judge(request, self._caller, tunnel, self._proved)
        if isinstance(decision, access.Let):
            self._proved = None
            if decision.key_id:
                self._by_key = True
                self.services.admitted[self] = decision.key_id, decision.signer
                if self.account is not None:
                    self.account.visitor_key_id = decision.key_id
            self.on_let_in(decision.request, tunnel, link)
        elif isinstance(decision, access.No):
            self._refuse(decision)
        else:
            self._phase = PROVING
            self.patience.wait_for_ever()
            self._proving = self.loop.create_task(self._prove(request, decision))

    def _refuse(self, no: access.No) -> None:
        self._proved = None
        self.answer(no.code, no.detail, Extra(no.challenges))

    async def _prove(self, request: Request, shown: access.Password) -> None:
        """Waits for the check of a password, and then begins anew: much may have happened meanwhile."""
        refusal = shown.refusal
        try:
            right = await self.services.gate.password(shown, self._caller.who(request))
        except access.TooManyChecks as busy:
            right, refusal = False, access.No(Code.OVERLOADED, str(busy))
        except Exception as error:
            self.loop.call_exception_handler({"message": "a password could not be checked", "exception": error})
            right, refusal = False, access.No(Code.INTERNAL, "")
        self._proving = None
        try:
            if right:
                self._proved = shown
                self.enter(request)
            else:
                self._refuse(refusal)
            self.read_on()
        except Exception as error:  # nobody awaits this task: the visitor must not wait for ever
            self.loop.call_exception_handler({"message": "an exchange failed", "exception": error})
            self.break_off(by_close=True)

    # ---- Waiter of the hub

    def on_ready(self, link: Link) -> None:
        """See `Waiter.on_ready`."""
        if self._phase is not HELD:
            return
        self._held_head = b""
        tunnel = self.services.hub.tunnels.get(self._name)
        if self.request is None or tunnel is None:  # gone again, by what the one before us did to its link
            self.answer(Code.AGENT_OFFLINE)
        else:
            self._judge(self.request, tunnel, link)
        self.read_on()

    def on_given_up(self) -> None:
        """See `Waiter.on_given_up`."""
        if self._phase is HELD:
            self.answer(routing.nobody(self.services))
