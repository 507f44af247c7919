"""Two sessions, joined, under any operations: what was written arrives, in order, with its end or a reset."""

from __future__ import annotations

import asyncio
from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from relay.mux.errors import SessionBusy, SessionGone
from relay.wire.errors import AwayCode, ResetCode
from relay.wire.states import State
from tests.mux.ends import Ends, Owner, Side, joined
from tests.support.clock import VirtualLoop

SIZES = st.sampled_from([1, 100, 16_384, 16_385, 65_536, 200_000]) | st.integers(1, 400_000)
# Bytes of one direction of one stream: recognisable at every place, and different for every stream.
PATTERN = bytes(range(251)) * 2000


class Half:
    """One side's half of a stream: what it wrote, and the owner that hears the other side."""

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self.wrote = 0
        self.heads = 0
        self.ended: bytes | None = None
        self.cut = False
        """This side has reset the stream."""
        self.may_write = True
        owner.react = self._react

    def _react(self, name: str) -> None:
        assert not self.cut, f"{name} after this side cut the stream"
        if name == "writable":
            assert not self.may_write, "told to go on without having been told to wait"
            self.may_write = True

    @property
    def alive(self) -> bool:
        """Whether this side may still write."""
        return self.ended is None and not self.cut and self.owner.reset is None


class Sessions(RuleBasedStateMachine):
    """Random opens, writes, ends, resets, readers that stop and go on, time that passes, and an end of all."""

    halves = Bundle("halves")

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        self.troubles: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, context: self.troubles.append(context))
        self.pairs: list[tuple[Half, Half | None]] = []
        self.over = False
        self.ends: Ends

    def teardown(self) -> None:
        self.loop.close()

    def run(self, seconds: float = 0.0) -> None:
        """Lets virtual time pass; what is ready runs."""

        async def wait() -> None:
            await asyncio.sleep(seconds)

        self.loop.run_until_complete(wait())

    @initialize(
        delay=st.sampled_from([0.0, 0.01, 0.2]),
        rate=st.sampled_from([None, 1e6, 50e6]),
        window=st.sampled_from([1, 2, 64]),
    )
    def join(self, delay: float, rate: float | None, window: int) -> None:
        async def start() -> Ends:
            return joined(delay, rate, max_streams=6, session_window=window * 1024 * 1024)

        self.ends = self.loop.run_until_complete(start())
        self.delay = delay

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.ends.relay, self.ends.agent

    @rule(target=halves, ended=st.booleans())
    def open(self, ended: bool) -> Any:
        """A new stream: both halves, once the OPEN has arrived."""
        relay, agent = self.sides
        known = len(agent.owners)

        async def opened() -> Owner | None:
            try:
                return relay.open(ended=ended)
            except (SessionBusy, SessionGone):
                return None

        owner = self.loop.run_until_complete(opened())
        if owner is None:
            return multiple()
        mine = Half(owner)
        if ended:
            mine.ended = b""
        self.run(self.delay + 1.0)
        if len(agent.owners) == known:  # still behind other bytes, or refused on the way
            self.pairs.append((mine, None))
            return multiple(mine)
        theirs = Half(agent.owners[known])
        self.pairs.append((mine, theirs))
        return multiple(mine, theirs)

    @rule(half=halves, size=SIZES, patience=st.booleans())
    def write(self, half: Half, size: int, patience: bool) -> None:
        """Writes the next bytes of the pattern, as one piece; a polite writer waits when it was told to."""
        if not half.alive or (patience and not half.may_write):
            return
        start = half.wrote % 251
        data = PATTERN[start : start + size]
        half.wrote += len(data)
        assert half.owner.stream is not None
        half.may_write = half.owner.stream.write(data)

    @rule(half=halves)
    def head(self, half: Half) -> None:
        """The agent's side says a head."""
        if half.alive and not half.wrote and any(half is theirs for _, theirs in self.pairs):
            assert half.owner.stream is not None
            half.heads += 1
            half.owner.stream.send_head(b"head %d" % half.heads)

    @rule(half=halves, trailers=st.sampled_from([b"", b"trailers"]))
    def end(self, half: Half, trailers: bytes) -> None:
        """Half-closes."""
        if half.alive:
            assert half.owner.stream is not None
            half.ended = trailers
            half.owner.stream.end(trailers)

    @rule(half=consumes(halves))
    def reset(self, half: Half) -> None:
        """Cuts the stream."""
        assert half.owner.stream is not None
        if half.owner.reset is None and half.owner.stream.state is not State.CLOSED:
            half.cut = True
            half.owner.stream.reset(ResetCode.CANCEL, "cut")

    @rule(half=halves, greedy=st.booleans())
    def read(self, half: Half, greedy: bool) -> None:
        """A reader stops, or goes on and takes what it holds."""
        half.owner.greedy = greedy
        if greedy:
            half.owner.take()

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.05, 1.0]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.run(seconds)

    @rule(relays=st.booleans())
    def leave(self, relays: bool) -> None:
        """One side says that it goes; nothing that is open changes."""
        self.sides[0 if relays else 1].session.go_away(AwayCode.SHUTDOWN, "leaving")

    @rule(how=st.sampled_from(["close", "abort", "lost"]), relays=st.booleans())
    def finish(self, how: str, relays: bool) -> None:
        """The end of all, sometimes."""
        side = self.sides[0 if relays else 1]
        if how == "close":
            side.session.close(AwayCode.SHUTDOWN, "the end")
        elif how == "abort":
            side.session.abort("the end")
        else:
            side.carrier.abort()
        self.run(self.delay * 2 + 20.0)
        self.over = True
        for mine, theirs in self.pairs:
            for half in (mine, theirs):
                if half is not None and half.owner.stream is not None:
                    assert half.owner.stream.state is State.CLOSED
        for one in self.sides:
            assert one.session.streams == {}
            assert len(one.lost) == 1

    @invariant()
    def every_byte_is_in_its_place(self) -> None:
        """What arrived is a prefix of what was written; all of it, where there was an end."""
        for mine, theirs in self.pairs:
            for writer, reader in ((mine, theirs), (theirs, mine)):
                if writer is None or reader is None:
                    continue
                heard = reader.owner
                assert heard.size <= writer.wrote
                assert heard.body == (PATTERN * (heard.size // len(PATTERN) + 1))[: heard.size]
                assert heard.heads == [b"head %d" % (at + 1) for at in range(len(heard.heads))]
                if heard.trailers is not None:
                    assert (heard.size, heard.trailers) == (writer.wrote, writer.ended)

    @invariant()
    def the_books_are_balanced(self) -> None:
        """No credit below nothing, no more unread bytes than a window, nothing in the loop's error log."""
        assert self.troubles == []
        if not hasattr(self, "ends"):
            return
        for side in self.sides:
            session = side.session
            assert session.outbox.credit >= 0
            assert all(stream.send_credit >= 0 for stream in session.streams.values())
            assert session.window.held() == sum(stream.window.held() for stream in session.streams.values())
            assert session.window.held() <= session.options.session_window

    @rule()
    def drain(self) -> None:
        """When every reader reads and time passes, all that was written and not cut has arrived."""
        if self.over:
            return
        for _ in range(3):
            for mine, theirs in self.pairs:
                for half in (mine, theirs):
                    if half is not None:
                        half.owner.greedy = True
                        half.owner.take()
            self.run(15.0)
        for mine, theirs in self.pairs:
            for writer, reader in ((mine, theirs), (theirs, mine)):
                if writer is None or reader is None or writer.cut or reader.cut:
                    continue
                assert reader.owner.size == writer.wrote
                assert reader.owner.ended or reader.owner.trailers == writer.ended
                assert writer.may_write or writer.ended is not None


TestSessions = Sessions.TestCase
TestSessions.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
