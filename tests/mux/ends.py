"""Both ends of a session in memory, for tests of the mux: owners that remember, and a peer that speaks in raw frames.

Everything runs on a virtual loop; `settle` lets all that is under way arrive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from relay.mux.carrier import ROOM
from relay.mux.session import Session, SessionOptions
from relay.mux.stream import Stream
from relay.mux.streamevents import StreamEvents
from relay.wire import frames
from relay.wire.errors import AwayCode
from relay.wire.frames import encode, encode_credit, encode_reset
from tests.support.carriers import MemoryCarrier, pair
from tests.support.framing import decode

HELLO = b"{}"


class Owner:
    """`StreamEvents` that remembers. Consumes at once, unless `greedy` is False: then when told to."""

    def __init__(self, greedy: bool = True) -> None:
        self.stream: Stream | None = None
        self.greedy = greedy
        self.payload = b""
        """Of the OPEN that made the stream."""
        self.ended = False
        """Whether OPEN said that no body follows."""
        self.names: list[str] = []
        self.heads: list[bytes] = []
        self.body = bytearray()
        self.size = 0
        self.keep = True
        """Keep the bytes, beside counting them."""
        self.trailers: bytes | None = None
        self.reset: tuple[int, bool, str] | None = None
        self.lulls = 0
        self.writable = 0
        self.held = 0
        self.react: Callable[[str], None] | None = None
        """Called at the end of every event, with its name."""

    def take(self, amount: int | None = None) -> None:
        """Consumes what is held, or so much of it."""
        assert self.stream is not None
        amount = self.held if amount is None else min(amount, self.held)
        self.held -= amount
        self.stream.consumed(amount)

    def on_head(self, payload: bytes) -> None:
        self.heads.append(payload)
        self._note("head")

    def on_lull(self) -> None:
        self.lulls += 1

    def on_data(self, data: memoryview) -> bool:
        if self.keep:
            self.body += data
        self.size += len(data)
        if not self.greedy:
            self.held += len(data)
        self._note("data")
        return self.greedy

    def on_last(self, data: memoryview) -> None:
        self.on_data(data)
        self.held = 0
        self.on_end(b"")

    def on_end(self, trailers: bytes) -> None:
        assert self.trailers is None, "a second end"
        self.trailers = trailers
        self._note("end")

    def on_reset(self, code: int, delivered: bool, detail: str) -> None:
        self.reset = (code, delivered, detail)
        self._note("reset")

    def on_writable(self) -> None:
        self.writable += 1
        self._note("writable")

    def _note(self, name: str) -> None:
        assert self.reset is None or name == "reset", f"{name} after the reset"
        if not (name == "data" and self.names[-1:] == ["data"]):
            self.names.append(name)
        if self.react is not None:
            self.react(name)


class Side:
    """One end: a session with its owner, who remembers."""

    def __init__(self, carrier: MemoryCarrier, *, opener: bool, **options: Any) -> None:
        self.carrier = carrier
        self.owners: list[Owner] = []
        self.handshakes: list[tuple[int, bytes]] = []
        self.away: list[tuple[int, str]] = []
        self.lost: list[str] = []
        self.make: Callable[[], Owner] = Owner
        self.on_opened: Callable[[Owner], StreamEvents | None] = lambda owner: owner
        self.session = Session(carrier, self, SessionOptions(opener=opener, **options))
        carrier.owner = self.session

    def open(self, payload: bytes = b"request", *, ended: bool = False, owner: Owner | None = None) -> Owner:
        """Opens a stream; its owner."""
        owner = owner or self.make()
        owner.stream = self.session.open(payload, ended, owner)
        self.owners.append(owner)
        return owner

    def on_handshake(self, kind: int, payload: bytes) -> None:
        self.handshakes.append((kind, payload))

    def on_open(self, stream: Stream, payload: bytes, ended: bool) -> StreamEvents | None:
        owner = self.make()
        owner.stream, owner.payload, owner.ended = stream, payload, ended
        self.owners.append(owner)
        return self.on_opened(owner)

    def on_going_away(self, code: int, detail: str) -> None:
        self.away.append((code, detail))

    def on_lost(self, reason: str) -> None:
        self.lost.append(reason)


@dataclass(slots=True)
class Ends:
    """Relay and agent, joined."""

    relay: Side
    agent: Side

    async def opened(self, payload: bytes = b"request", *, ended: bool = False) -> tuple[Owner, Owner]:
        """A new stream: (the relay's owner, the agent's)."""
        mine = self.relay.open(payload, ended=ended)
        await settle(self.relay.carrier.delay)
        return mine, self.agent.owners[-1]


def joined(delay: float = 0.0, rate: float | None = None, **options: Any) -> Ends:
    """Two sessions over one path, both established."""
    return between(*pair(delay, rate), **options)


def between(one: MemoryCarrier, other: MemoryCarrier, **options: Any) -> Ends:
    """Two sessions over these carriers, both established."""
    ends = Ends(Side(one, opener=True, **options), Side(other, opener=False, **options))
    ends.relay.session.establish()
    ends.agent.session.establish()
    return ends


async def settle(delay: float = 0.0) -> None:
    """Lets what was queued now, and what that causes, arrive."""
    for _ in range(8):
        await asyncio.sleep(delay + 1e-6)


class RawPeer:
    """The other end, which sends whatever bytes a test likes, and keeps the frames that come."""

    def __init__(self, carrier: MemoryCarrier) -> None:
        self.carrier = carrier
        self.frames: list[tuple[int, int, bytes]] = []
        self.messages: list[int] = []
        self.lost: str | None = None
        carrier.owner = self

    async def send(self, *parts: bytes) -> None:
        """One message, and whatever it causes."""
        self.carrier.send(bytearray(ROOM) + b"".join(parts))
        await settle(self.carrier.delay)

    def kinds(self, number: int | None = None) -> list[str]:
        """Names of the frames that came on a stream (None: on all), pings apart."""
        quiet = (frames.PING, frames.PONG)
        return [frames.NAMES[kind] for kind, on, _ in self.frames if kind not in quiet and number in (None, on)]

    @property
    def verdict(self) -> tuple[int, str] | None:
        """(code, detail) of the GOING_AWAY that came."""
        for kind, _, payload in self.frames:
            if kind == frames.GOING_AWAY:
                code, _, detail = frames.decode_going_away(memoryview(payload))
                return code, detail
        return None

    def blamed(self, words: str) -> bool:
        """Whether the session was ended as a protocol error, for a reason with these words."""
        code, detail = self.verdict or (-1, "")
        closed = self.carrier.closed or (0, "")
        return code == AwayCode.PROTOCOL_ERROR and words in detail and closed[0] in (1000, 1002)

    def on_message(self, message: memoryview) -> None:
        self.messages.append(len(message))
        self.frames += [(kind, number, bytes(payload)) for kind, number, payload in decode(message)]

    def on_noise(self) -> None:
        pass

    def on_writable(self) -> None:
        pass

    def on_lost(self, reason: str) -> None:
        self.lost = reason


def against(*, opener: bool, rate: float | None = None, **options: Any) -> tuple[Side, RawPeer]:
    """A session (`opener`: the relay's) that is established, and a raw peer."""
    one, other = pair(rate=rate)
    side = Side(one, opener=opener, **options)
    side.session.establish()
    return side, RawPeer(other)


def watched() -> list[dict[str, Any]]:
    """What the running loop's exception handler is told from now on."""
    troubles: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: troubles.append(context))
    return troubles


# Frames, by the shortest way to write them.


def f_open(number: int, payload: bytes = b"request", *, ended: bool = False) -> bytes:
    return encode(frames.OPEN_END if ended else frames.OPEN, number, payload)


def f_data(number: int, data: bytes = b"data", *, ended: bool = False) -> bytes:
    return encode(frames.DATA_END if ended else frames.DATA, number, data)


def f_end(number: int, trailers: bytes = b"") -> bytes:
    return encode(frames.END, number, trailers)


def f_head(number: int, payload: bytes = b"head", *, ended: bool = False) -> bytes:
    return encode(frames.HEAD_END if ended else frames.HEAD, number, payload)


def f_reset(number: int, code: int = 0) -> bytes:
    return encode_reset(number, code)


def f_credit(number: int, amount: int = 1) -> bytes:
    return encode_credit(number, amount)


def f_ping(nonce: bytes = b"\0" * 8) -> bytes:
    return encode(frames.PING, 0, nonce)
