"""The meter of a link: whether a request may come in, and what its stream is measured by.

It alone knows the chain of a tunnel's limits: its key, the keys above that, the project; and the tunnel's own brake. A
request passes all of them or takes nothing from any. Where nothing is limited it costs the caller one addition.
"""

from __future__ import annotations

from dataclasses import dataclass

from relay.exchange.outgoing import QUOTA_EXHAUSTED, Opener
from relay.limits.allowances import Allowance
from relay.limits.brakes import Brake
from relay.limits.months import Month, month_of
from relay.limits.pacedstream import PacedStream, Terms
from relay.limits.pacing import Pacer
from relay.limits.refusals import Refusal, month_is_used_up, too_fast, too_large, too_many_streams
from relay.limits.ways import Way
from relay.mux.session import Session
from relay.mux.streamevents import StreamEvents

_NEVER = Month("", 0.0, 0.0)


@dataclass(slots=True)
class Ask:
    """A request that wants in: the visitor's address, the declared length of its body, whether it is an upgrade."""

    address: str
    length: int | None = None
    upgrade: bool = False


class _PacedOpener:
    """What an exchange that is under limits is given in the place of a session, for one request."""

    __slots__ = ("_pacer", "_session", "_terms", "_upgrade")

    def __init__(self, session: Session, pacer: Pacer, terms: Terms, upgrade: bool) -> None:
        self._session = session
        self._pacer = pacer
        self._terms = terms
        self._upgrade = upgrade

    def open(self, payload: bytes, ended: bool, owner: StreamEvents) -> PacedStream:
        """See `Session.open`."""
        most = None if self._upgrade else self._terms.body
        stream = PacedStream(self._terms, self._pacer, owner, most)
        stream.open(self._session, payload, ended)
        return stream


class Meter:
    """One for a link, or for a link and the name of a tunnel with a brake. `chain` begins with the link's own key."""

    __slots__ = (
        "__weakref__", "_brake", "_limiting", "_month", "body", "chain", "down", "limited", "open", "paced", "requests",
        "up",
    )  # fmt: skip

    def __init__(self, chain: tuple[Allowance, ...], own: Brake | None = None) -> None:
        self.chain = chain
        self.limited = False
        """Whether `admit` must be asked. If not, the caller adds 1 to `requests`, and opens streams as ever."""
        self.paced = False
        """Whether the streams themselves are under limits."""
        self.requests = 0
        """Let in and not counted in the chain yet."""
        self.up = Way()
        self.down = Way()
        self.body: int | None = None
        self.open: set[PacedStream] = set()
        self._brake = own
        self._limiting: tuple[Allowance, ...] = ()
        self._month = _NEVER
        for allowance in chain:
            allowance.watch(self)
        self.on_rescoped()

    def on_rescoped(self) -> None:
        """See `Watcher.on_rescoped`."""
        scopes = [allowance.scope for allowance in self.chain]
        self._limiting = tuple(allowance for allowance in self.chain if allowance.limited)
        self.limited = bool(self._limiting) or self._brake is not None
        self.paced = any(one.bandwidth or one.streams or one.body or one.monthly_bytes for one in scopes)
        self.body = min([one.body for one in scopes if one.body is not None], default=None)
        self.up.lead(tuple(allowance.up for allowance in reversed(self.chain)))
        self.down.lead(tuple(allowance.down for allowance in reversed(self.chain)))

    # ---- requests

    def admit(self, ask: Ask, now: float, wall: float) -> Refusal | None:
        """Lets a request in and counts it, or says why not; `now` is loop time, `wall` seconds since the epoch."""
        month = self._this_month(wall)
        period = month.name
        brake = self._brake
        for allowance in self._limiting:
            scope, rate = allowance.scope, allowance.rate
            if (
                (rate is not None and not rate.has(1, now))
                or (scope.streams is not None and allowance.streams >= scope.streams)
                or (scope.monthly_requests is not None and allowance.requests_in(period) >= scope.monthly_requests)
                or (scope.monthly_bytes is not None and allowance.bytes_in(period) >= scope.monthly_bytes)
            ):
                return self._refuse(ask, now, wall)
        if self.body is not None and ask.length is not None and ask.length > self.body:
            return self._refuse(ask, now, wall)
        if brake is not None:
            if not brake.admits(ask.address, now):
                return self._refuse(ask, now, wall)
            brake.spend(ask.address, now)
        for allowance in self.chain:
            if allowance.rate is not None:
                allowance.rate.tokens -= 1
            allowance.count(1, 0, 0, period)
        return None

    def opener(self, session: Session, pacer: Pacer, ask: Ask) -> Opener:
        """What the exchange of a request that was let in opens its stream with."""
        return _PacedOpener(session, pacer, self, ask.upgrade) if self.paced else session

    # ---- counts

    def fold(self, period: str, bytes_in: int, bytes_out: int) -> None:
        """Counts these bytes, and the requests since the last time, for the whole chain."""
        requests, self.requests = self.requests, 0
        if requests or bytes_in or bytes_out:
            for allowance in self.chain:
                allowance.count(requests, bytes_in, bytes_out, period)

    def enforce(self, wall: float) -> int:
        """Cuts what runs where the bytes of the month are used up; how many streams that were. Asked after `fold`."""
        if not self.open:
            return 0
        month = self._this_month(wall)
        for allowance in self._limiting:
            most = allowance.scope.monthly_bytes
            if most is not None and allowance.bytes_in(month.name) >= most:
                sentence = month_is_used_up(most, "byte", month, wall).sentence
                streams = list(self.open)
                for stream in streams:
                    stream.cut(QUOTA_EXHAUSTED, sentence)
                return len(streams)
        return 0

    # ---- Terms

    def on_opened(self, stream: PacedStream) -> None:
        """See `Terms.on_opened`."""
        self.open.add(stream)
        for allowance in self.chain:
            allowance.streams += 1

    def on_over(self, stream: PacedStream) -> None:
        """See `Terms.on_over`."""
        self.open.discard(stream)
        for allowance in self.chain:
            allowance.streams -= 1

    # ---- refusals

    def _refuse(self, ask: Ask, now: float, wall: float) -> Refusal:
        found = [] if self._brake is None else self._brake.refusals(ask.address, now)
        for allowance in self._limiting:
            found += self._refusals_of(allowance, now, wall)
        if self.body is not None and ask.length is not None and ask.length > self.body:
            found.append(too_large(self.body))
        return max(found, key=lambda one: one.weight)

    def _refusals_of(self, allowance: Allowance, now: float, wall: float) -> list[Refusal]:
        scope, rate, month = allowance.scope, allowance.rate, self._this_month(wall)
        found = []
        if rate is not None and scope.rate is not None and not rate.has(1, now):
            found.append(too_fast(scope.rate, rate.wait(1, now)))
        if scope.streams is not None and allowance.streams >= scope.streams:
            found.append(too_many_streams(scope.streams))
        if scope.monthly_requests is not None and allowance.requests_in(month.name) >= scope.monthly_requests:
            found.append(month_is_used_up(scope.monthly_requests, "request", month, wall))
        if scope.monthly_bytes is not None and allowance.bytes_in(month.name) >= scope.monthly_bytes:
            found.append(month_is_used_up(scope.monthly_bytes, "byte", month, wall))
        return found

    def _this_month(self, wall: float) -> Month:
        month = self._month
        if not month.starts <= wall < month.ends:
            month = self._month = month_of(wall)
        return month
