"""From a carrier to a link: the hello and its deadline, admission, the rules for twins, the welcome.

Bounds what strangers can make the relay hold: connections that have not been admitted, in all and per address.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from relay.mux.carrier import Carrier
from relay.mux.session import Session, SessionOptions
from relay.mux.stream import Stream, StreamEvents
from relay.tunnels.admission import Admission, Principal
from relay.tunnels.hub import Hub, Link
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
PROBE_WITHIN = 0.7


@dataclass(frozen=True, slots=True)
class DoorwayOptions:
    """What is said to every agent, and the bounds before one is admitted."""

    public_url: Callable[[str], str]
    session: SessionOptions
    most_strangers: int = 512
    most_strangers_per_address: int = 64
    relay: str = ""


class Doorway:
    """Every agent connection enters here."""

    def __init__(self, hub: Hub, admission: Admission, options: DoorwayOptions) -> None:
        self.hub = hub
        self.admission = admission
        self.options = options
        self.closing = False
        self._strangers: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._guests: set[Guest] = set()

    def welcome_carrier(self, carrier: Carrier, address: str) -> Session:
        """A carrier is connected; the session that receives its events."""
        guest = Guest(self, carrier, address)
        self._guests.add(guest)
        crowded = (
            self._strangers.total() >= self.options.most_strangers
            or self._strangers[address] >= self.options.most_strangers_per_address
        )
        self._strangers[address] += 1
        if self.closing or crowded:
            guest.refuse(Refused("overloaded", "The relay is busy or stopping; try again shortly.", 1.0))
        return guest.session

    def go_away(self, detail: str) -> None:
        """No new links; every agent is told that this relay ends."""
        self.closing = True
        for guest in list(self._guests):
            guest.session.go_away(AwayCode.SHUTDOWN, detail)

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

    def known(self, address: str) -> None:
        """A stranger from this address is one no longer."""
        self._strangers[address] -= 1
        if self._strangers[address] <= 0:
            del self._strangers[address]

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
        link.address, link.access = guest.address, hello.access
        refused = await self._clear_rivals(link)
        # From here on nothing waits: what was true when the link is put in service was true when it was asked.
        refused = refused or self.last_word(answer, hello.names)
        if refused is None and not guest.session.ended:
            refused = self._clear_twin(link)
        if refused is None and not guest.session.ended:
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

    async def _clear_rivals(self, link: Link) -> Refused | None:
        """Another agent has a name that `link` claims: it keeps it if it answers, else it is evicted."""
        for tunnel in self.hub.rivals(link):
            taken = Refused("name_taken", f"The name {tunnel.name!r} is taken by another agent that is connected.")
            holders = list(tunnel.links)
            if tunnel.project != link.project:
                owner = self.hub.reserved.get(tunnel.name)
                if owner != link.project:
                    return taken if owner is None else Refused(taken.code, taken.message, 1.0)
                for holder in holders:
                    self.hub.dismiss(holder, AwayCode.SUPERSEDED, f"the name {tunnel.name!r} moved to another project")
                continue
            answers = await asyncio.gather(*(holder.session.probe(PROBE_WITHIN) for holder in holders))
            if any(answers):
                return Refused(taken.code, taken.message, 5.0)
            for holder in holders:
                self.hub.detach(holder)
                holder.session.abort("another agent of the same project took the name over")
        # While we waited, yet another agent may have come: judged again, without waiting.
        if self.hub.rivals(link):
            return Refused("name_taken", "Another agent claimed the name at the same moment.", 1.0)
        return None

    def last_word(self, principal: Principal, names: tuple[str, ...]) -> Refused | None:
        """What admission says now, or that more tunnels would be alive by one key than its scope allows."""
        refused = self.admission.last_word(principal, names)
        most = principal.scope.tunnels
        if refused is not None or most is None or len(self.hub.names_of_key(principal.key_id).union(names)) <= most:
            return refused
        return Refused(
            "too_many",
            f"This key opens at most {most} tunnels at once; close another one, or mint a key with a wider scope.",
        )

    def _clear_twin(self, link: Link) -> Refused | None:
        """Same instance, same slot: the newer generation wins at once."""
        twin = self.hub.twin(link)
        if twin is None:
            return None
        if twin.generation >= link.generation:
            return Refused("stale_generation", "A newer link of the same agent is connected.", 1.0)
        self.hub.detach(twin)
        if not (twin.session.leaving and twin.session.streams):  # one that we sent away may finish what it carries
            twin.session.close(AwayCode.SUPERSEDED, "a newer link of the same agent took this one's place")
        return None


class Guest:
    """One agent connection, from its first byte to its last. Owner of its session."""

    def __init__(self, doorway: Doorway, carrier: Carrier, address: str) -> None:
        self._doorway = doorway
        self.address = address
        self._stranger = True
        self._said_hello = False
        self._renewing = False
        self._judging: asyncio.Task[None] | None = None
        self._link: Link | None = None
        self.session = Session(carrier, self, doorway.options.session)
        self._deadline = self.session.loop.call_later(HELLO_WITHIN, self._no_hello)

    def refuse(self, refused: Refused) -> None:
        """Says why, and ends the connection of one that was not admitted before."""
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
        self._doorway.hub.detach(self._link)

    def judged_by(self, task: asyncio.Task[None]) -> None:
        """Whose work is for this guest, and ends with it: one that is gone must not keep the registry busy."""
        self._judging = task

    def on_lost(self, reason: str) -> None:
        """The connection has ended."""
        self._deadline.cancel()
        if self._judging is not None:
            self._judging.cancel()
        self._leave_strangers()
        self._doorway.forget(self)
        if self._link is not None:
            self._doorway.hub.detach(self._link)

    async def _renew(self, key: str) -> Refused | None:
        link = self._link
        assert link is not None
        doorway = self._doorway
        try:
            answer = await doorway.admission.renew(link.principal, key, link.names, self.address)
        finally:
            self._renewing = False
        refused = answer if isinstance(answer, Refused) else doorway.last_word(answer, link.names)
        if isinstance(answer, Refused) or refused is not None:
            return refused
        link.principal = answer
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
            )
        )

    def _leave_strangers(self) -> None:
        if self._stranger:
            self._stranger = False
            self._doorway.known(self.address)

    def _no_hello(self) -> None:
        if self._link is None:
            late = Refused("overloaded", "The relay could not check the key in time; try again shortly.", 1.0)
            none = Refused("bad_hello", f"No hello within {HELLO_WITHIN:g} seconds.", 1.0)
            self.refuse(late if self._said_hello else none)
