"""From a carrier to a link: the hello and its deadline, admission, the welcome. Who yields to whom is `rivals`' affair.

Bounds what strangers can make the relay hold and do: connections, those that have not been admitted, and how often one
caller (see `crowds`) may come in vain.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from relay.limits.brakes import network_of
from relay.mux.carrier import Carrier
from relay.mux.session import Session, SessionOptions
from relay.mux.stream import Stream
from relay.mux.streamevents import StreamEvents
from relay.telemetry.links import LinkCounts
from relay.tunnels.admission import Admission, Principal
from relay.tunnels.crowds import Crowd, Failures
from relay.tunnels.hub import Hub, Link
from relay.tunnels.rivals import clear_rivals, clear_twin
from relay.wire import frames
from relay.wire.errors import AwayCode, RemoteProtocolError, ResetCode
from relay.wire.hello import (
    VERSION,
    Hello,
    Refused,
    Welcome,
    decode_hello,
    decode_renew,
    encode_refused,
    encode_welcome,
)

HELLO_WITHIN = 5.0
# A stranger that leaves sooner than this, without an answer, has cost a handshake for nothing; maybe the path broke.
HASTY = 0.25
HASTY_WEIGHT = 0.1
# Refusals that are this relay's own doing, and those of somebody who has shown no key of this relay's.
_OURS = frozenset(("overloaded", "draining", "registry_unavailable"))
_CLUELESS = frozenset(("bad_hello", "bad_key", "version"))
PROVEN_WEIGHT = 0.25
_FATES = {code: "dead" if code is AwayCode.DEAD_PEER else code.name.lower() for code in AwayCode}
DRAINING = Refused("draining", "This process of the relay takes no new links; come again shortly.", 0.25)


@dataclass(frozen=True, slots=True)
class DoorwayOptions:
    """What is said to every agent, and the bounds before one is admitted."""

    public_url: Callable[[str], str]
    session: SessionOptions
    most_strangers: int = 512
    most_strangers_per_address: int = 64
    most_connections: int = 4096
    """Whatever they are for: agents, and calls of the API."""
    most_connections_per_address: int = 2048
    most_links_per_key: int = 4096
    relay: str = ""


class Doorway:
    """Every agent connection enters here."""

    def __init__(self, hub: Hub, admission: Admission, options: DoorwayOptions) -> None:
        self.hub = hub
        self.admission = admission
        self.options = options
        self.closing = False
        self.connections = Crowd(options.most_connections, options.most_connections_per_address)
        self.failures = Failures()
        self.counts = LinkCounts()
        self._strangers = Crowd(options.most_strangers, options.most_strangers_per_address)
        self._tasks: set[asyncio.Task[None]] = set()
        self._guests: set[Guest] = set()

    def welcome_carrier(self, carrier: Carrier, address: str) -> Session:
        """A carrier is connected; the session that receives its events."""
        guest = Guest(self, carrier, address)
        self._guests.add(guest)
        crowded = self._strangers.enter(guest.network)
        if self.closing:
            guest.refuse(DRAINING)
        elif crowded:
            guest.refuse(Refused("overloaded", "The relay is busy; try again shortly.", 1.0))
        return guest.session

    def go_away(self, detail: str) -> None:
        """No new links; every agent is told to open others. Those that there are serve on until `aclose`."""
        self.closing = True
        for guest in list(self._guests):
            guest.send_away(detail)

    async def aclose(self, detail: str) -> None:
        """Ends every session and waits for what this object owns."""
        self.closing = True
        for guest in list(self._guests):
            guest.session.close(AwayCode.SHUTDOWN, detail)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def spawn(self, work: Callable[[], Awaitable[Refused | None]], guest: Guest) -> None:
        """Judges a key in a task of this doorway's; the guest is told a refusal."""
        task = asyncio.get_running_loop().create_task(self._judge(work, guest))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        guest.judged_by(task)

    @property
    def turned_away(self) -> int:
        """Connections that were too many, in all or before their hello."""
        return self.connections.refused + self._strangers.refused

    @property
    def judging(self) -> int:
        """How many keys are being judged."""
        return len(self._tasks)

    def known(self, guest: Guest) -> None:
        """A stranger is one no longer."""
        self._strangers.leave(guest.network)

    def failed(self, guest: Guest, weight: float) -> None:
        """A stranger has come in vain."""
        self.failures.failed(guest.network, guest.session.now(), weight)

    def forget(self, guest: Guest) -> None:
        """A connection has ended."""
        self._guests.discard(guest)

    async def admit(self, guest: Guest, hello: Hello) -> Refused | None:
        """Lets a guest in, or says why not."""
        if VERSION not in hello.versions:
            return Refused("version", f"This relay speaks version {VERSION} of the protocol only.")
        answer = await self.admission.admit(hello, guest.address)
        if isinstance(answer, Refused):
            return answer
        link = Link(guest.session, hello.instance, hello.slot, hello.generation, answer, hello.names)
        link.address, link.access, link.limits = guest.address, hello.access, hello.limits
        refused = await clear_rivals(self.hub, link)
        if self.closing:
            return DRAINING
        # From here on nothing waits: what was true when the link is put in service was true when it was asked.
        refused = refused or self._crowded(answer) or self.last_word(answer, hello.names)
        if refused is None and not guest.session.ended:
            refused = clear_twin(self.hub, link)
        if refused is not None:
            self.admission.refused(answer, hello.names, guest.address, refused)
        elif not guest.session.ended:
            guest.enter(link)
        return refused

    async def _judge(self, work: Callable[[], Awaitable[Refused | None]], guest: Guest) -> None:
        try:
            refused = await work()
        except Exception as error:  # a registry that is away, say: the agent should not wait for its deadline
            asyncio.get_running_loop().call_exception_handler({"message": "admission failed", "exception": error})
            refused = Refused("overloaded", "The relay could not check the key; try again shortly.", 1.0)
        if refused is not None:
            guest.refuse(refused)

    def last_word(self, principal: Principal, names: tuple[str, ...]) -> Refused | None:
        """What admission says now, or that more tunnels would be alive by one key than its scope allows."""
        refused = self.admission.last_word(principal, names)
        if refused is not None:
            return refused
        for one, scope in self.hub.metering.ceilings(principal):
            most = scope.tunnels
            if most is not None and len(self.hub.names_below(one).union(names)) > most:
                return Refused("too_many", _too_many(principal, one, most))
        return None

    def _crowded(self, principal: Principal) -> Refused | None:
        most = self.options.most_links_per_key
        if len(self.hub.by_key.get(principal.key_id, ())) < most:
            return None
        return Refused("too_many", f"This key holds {most} links; close some, or mint another key.", 10.0)


def _too_many(principal: Principal, id: str, most: int) -> str:
    if id == principal.key_id:
        return f"This key opens at most {most} tunnels at once; close another one, or mint a key with a wider scope."
    whose, wider = "The keys of one master key open", "with a master key of a wider scope"
    if id == principal.project:
        whose, wider = "The plan of this project allows", "after the relay's operator has given it a larger plan"
    return f"{whose} at most {most} tunnels at once; close another one, or try again {wider}."


class Guest:
    """One agent connection, from its first byte to its last. Owner of its session."""

    def __init__(self, doorway: Doorway, carrier: Carrier, address: str) -> None:
        self._doorway = doorway
        self.address = address
        self.network = network_of(address)
        self._stranger = True
        self._refused = False
        self._said_hello = False
        self._said_goodbye = False
        self._renewing = False
        self._judging: asyncio.Task[None] | None = None
        self._link: Link | None = None
        self.session = Session(carrier, self, doorway.options.session)
        self._came = self.session.now()
        self._deadline = self.session.loop.call_later(HELLO_WITHIN, self._no_hello)

    def refuse(self, refused: Refused) -> None:
        """Says why, and ends the connection of one that was not admitted before."""
        self._refused = True
        self._doorway.counts.on_refused(refused.code)
        if self._link is None and refused.code not in _OURS:
            clueless = refused.code in _CLUELESS and refused.retry_after is None
            self._doorway.failed(self, 1.0 if clueless else PROVEN_WEIGHT)
        self.session.send(frames.encode(frames.REFUSED, 0, encode_refused(refused)))
        if self._link is None:
            self.session.close(AwayCode.SHUTDOWN, refused.message)

    def enter(self, link: Link) -> None:
        """Admitted: the welcome leaves before any stream."""
        self._deadline.cancel()
        self._leave_strangers()
        self._link = link
        self.session.send(frames.encode(frames.WELCOME, 0, self._welcome(link)))
        self.session.establish()
        self._doorway.hub.attach(link)
        self._doorway.counts.on_opened((link.project, link.instance, link.slot))

    def send_away(self, detail: str) -> None:
        """The relay ends. Whose key is being judged is told by the verdict."""
        if self._link is not None:
            self.session.go_away(AwayCode.SHUTDOWN, detail)
        elif self._judging is None:
            self.refuse(DRAINING)

    # ---- SessionEvents

    def on_handshake(self, kind: int, payload: bytes) -> None:
        """See `SessionEvents.on_handshake`."""
        if kind == frames.HELLO and not self._said_hello:
            self._said_hello = True
            try:
                hello = decode_hello(payload)
            except RemoteProtocolError as error:
                self.refuse(Refused("bad_hello", str(error)))
                return
            self._doorway.spawn(partial(self._doorway.admit, self, hello), self)
        elif kind == frames.RENEW and self._link is not None and not self._renewing:
            key = decode_renew(payload).key
            self._renewing = True
            self._doorway.spawn(partial(self._renew, key), self)
        else:
            raise RemoteProtocolError(f"{frames.NAMES[kind]} out of place")

    def on_open(self, stream: Stream, payload: bytes, ended: bool) -> StreamEvents | None:
        """An agent opens no streams: the session has refused it before this."""
        stream.reset(ResetCode.STREAM_PROTOCOL)
        return None

    def on_going_away(self, code: int, detail: str) -> None:
        """The agent takes no new streams; what is open goes on."""
        if self._link is None:
            raise RemoteProtocolError("GOING_AWAY before the handshake is done")
        self._said_goodbye = True
        self._doorway.hub.detach(self._link)

    def judged_by(self, task: asyncio.Task[None]) -> None:
        """Whose work is for this guest, and ends with it: one that is gone must not keep the registry busy."""
        self._judging = task

    def on_lost(self, reason: str) -> None:
        """The connection has ended."""
        self._deadline.cancel()
        if self._stranger and not self._refused and self.session.now() - self._came < HASTY:
            self._doorway.failed(self, HASTY_WEIGHT)
        if self._judging is not None:
            self._judging.cancel()
        self._leave_strangers()
        self._doorway.forget(self)
        if self._link is not None:
            self._doorway.hub.detach(self._link)
            self._doorway.counts.on_lost(self._fate())

    def _fate(self) -> str:
        """What ended the session; one of `links.LOST`."""
        session = self.session
        if session.closed_with is not None:
            return _FATES[session.closed_with]
        if session.keepalive.dead(session.now()):
            return "dead"
        return "agent_left" if self._said_goodbye else "lost"

    async def _renew(self, key: str) -> Refused | None:
        link = self._link
        assert link is not None
        doorway = self._doorway
        try:
            answer = await doorway.admission.renew(link.principal, key, link.names, self.address)
        finally:
            self._renewing = False
        if isinstance(answer, Refused):
            return answer
        refused = doorway.last_word(answer, link.names)
        if refused is not None:
            doorway.admission.refused(answer, link.names, self.address, refused)
            return refused
        doorway.hub.live_by(link, answer)
        self.session.send(frames.encode(frames.RENEWED, 0, self._welcome(link)))
        return None

    def _welcome(self, link: Link) -> bytes:
        options = self._doorway.options
        return encode_welcome(
            Welcome(
                session=secrets.token_hex(8),
                tunnels=tuple((name, options.public_url(name)) for name in link.names),
                ping_interval=options.session.ping_interval,
                max_streams=options.session.max_streams,
                relay=options.relay,
                access={name: rules.ways for name, rules in link.access.items()},
                limits=tuple(link.limits),
            )
        )

    def _leave_strangers(self) -> None:
        if self._stranger:
            self._stranger = False
            self._doorway.known(self)

    def _no_hello(self) -> None:
        if self._link is None:
            late = Refused("overloaded", "The relay could not check the key in time; try again shortly.", 1.0)
            none = Refused("bad_hello", f"No hello within {HELLO_WITHIN:g} seconds.", 1.0)
            self.refuse(late if self._said_hello else none)
