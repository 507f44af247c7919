"""What leaves next: control first, then turns; small data past the turns; one turn of the loop is one message."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.mux.carrier import ROOM
from relay.mux.outbox import EARLY, FRAME_ALONE, FRAME_SHARED, MESSAGE_TARGET, SMALL, Outbox, Queued, split
from relay.wire import frames
from relay.wire.errors import ResetCode
from relay.wire.frames import HEADER_SIZE, MAX_MESSAGE, encode
from tests.mux.ends import Owner, Side, against, f_credit, joined, settle
from tests.mux.test_windows import keep_writing
from tests.support.clock import virtual
from tests.support.framing import decode

MIB = 1024 * 1024
MUCH = 100 * MIB


class Source:
    """The sending half of a stream, as the outbox sees it."""

    def __init__(self, number: int, size: int, *, credit: int = MUCH, ends: bool = False) -> None:
        self.id = number
        self.send_credit = credit
        self.waiting = False
        self.left = size
        self.ends = ends

    def take(self, most: int) -> tuple[list[bytes | memoryview], int, bool]:
        size = min(most, self.left)
        self.left -= size
        return [bytes(size)], size, self.ends and not self.left

    def has_more(self) -> bool:
        return self.left > 0

    def on_sent(self) -> None:
        pass

    def reset(self, code: ResetCode, detail: str = "", delivered: bool = False) -> None:
        raise AssertionError("nothing has failed here")


def an_outbox(*sources: Source, credit: int = MUCH) -> Outbox:
    outbox = Outbox()
    outbox.credit = credit
    for source in sources:
        outbox.wait(source)
    return outbox


def next_frames(outbox: Outbox) -> list[tuple[int, int, int]]:
    """(type, stream, length) of the next message."""
    served: list[Queued] = []
    message = outbox.next_message(served)
    if message is None:
        return []
    assert message[:ROOM] == bytes(ROOM)
    return [(kind, number, len(payload)) for kind, number, payload in decode(memoryview(message)[ROOM:])]


def test_streams_take_turns_of_one_frame() -> None:
    """Neighbours send 32 KiB in turn, in the order in which they came; one that comes later is next in its place."""
    outbox = an_outbox(Source(1, MIB), Source(3, MIB))
    order = [number for _, number, _ in next_frames(outbox)]
    assert order == [1, 3] * 4
    late = Source(5, 100)
    outbox.wait(late)
    outbox.wait(late)
    following = next_frames(outbox)
    assert [number for _, number, _ in following[:4]] == [1, 3, 5, 1]
    assert following[2] == (frames.DATA, 5, 100)
    assert {length for _, number, length in following if number != 5} == {FRAME_SHARED}


def test_a_stream_that_is_alone_takes_large_frames() -> None:
    """Without neighbours a turn is one large frame, and a message is closed behind it."""
    outbox = an_outbox(Source(1, MIB))
    assert next_frames(outbox) == [(frames.DATA, 1, FRAME_ALONE)]


def test_control_comes_before_any_data() -> None:
    """Frames added while data waits are the first of the next message, whatever its size."""
    outbox = an_outbox(Source(1, MIB))
    for frame in (encode(frames.PING, 0, bytes(8)), encode(frames.RESET, 3, bytes(3))):
        outbox.control.append(frame)
        outbox.size += len(frame)
    assert [kind for kind, _, _ in next_frames(outbox)] == [frames.PING, frames.RESET, frames.DATA]


def test_a_message_ends_near_its_target() -> None:
    """A message holds no new turn once it has its size, so that the next control frame need not wait long."""
    outbox = an_outbox(*(Source(2 * number + 1, MIB) for number in range(100)))
    sizes = [sum(length + HEADER_SIZE for _, _, length in next_frames(outbox)) for _ in range(10)]
    assert all(MESSAGE_TARGET <= size < MESSAGE_TARGET + FRAME_SHARED + HEADER_SIZE for size in sizes)


def test_no_frame_passes_the_credit_of_its_stream_or_the_session() -> None:
    """Turns are cut to what may be sent; a stream without credit leaves the line, the session's lack keeps it."""
    poor = Source(1, MIB, credit=10)
    outbox = an_outbox(poor, Source(3, MIB), credit=1000)
    assert next_frames(outbox) == [(frames.DATA, 1, 10), (frames.DATA, 3, 990)]
    assert (outbox.credit, poor.send_credit, poor.waiting) == (0, 0, False)
    assert next_frames(outbox) == []
    outbox.credit = 50
    assert next_frames(outbox) == [(frames.DATA, 3, 50)]
    assert outbox.moved == 1050


def test_the_end_goes_with_the_last_data() -> None:
    """A stream that ends with its queue says so in its last frame."""
    outbox = an_outbox(Source(1, FRAME_ALONE + 5, ends=True))
    assert next_frames(outbox) == [(frames.DATA, 1, FRAME_ALONE)]
    assert next_frames(outbox) == [(frames.DATA_END, 1, 5)]
    assert next_frames(outbox) == []


@given(st.lists(st.tuples(st.integers(0, 300_000), st.integers(0, 300_000)), max_size=20), st.integers(0, 2 * MIB))
def test_any_queues_leave_whole_and_within_their_credit(queues: list[tuple[int, int]], credit: int) -> None:
    """Whatever waits: messages keep the bounds of the wire, credit is exact, and nothing that could leave stays."""
    sources = [Source(2 * at + 1, size, credit=may) for at, (size, may) in enumerate(queues)]
    outbox = an_outbox(*(source for source in sources if source.left and source.send_credit), credit=credit)
    before = sum(source.left for source in sources)
    sent = 0
    while frames_of := next_frames(outbox):
        assert sum(length + HEADER_SIZE for _, _, length in frames_of) <= MAX_MESSAGE
        sent += sum(length for _, _, length in frames_of)
    assert sent == outbox.moved == credit - outbox.credit == before - sum(source.left for source in sources)
    assert all(source.send_credit >= 0 for source in sources)
    assert outbox.credit == 0 or all(not source.left or not source.send_credit for source in sources)


@given(st.lists(st.integers(1, frames.MAX_HEAD), min_size=1, max_size=40))
def test_a_message_that_grew_too_large_is_cut_between_frames(sizes: list[int]) -> None:
    """Heads that piled up leave in several messages, none above the bound, in order, each behind its room."""
    whole = bytearray(ROOM) + b"".join(encode(frames.OPEN, 2 * at + 1, bytes(size)) for at, size in enumerate(sizes))
    found: list[int] = []
    for part in split(whole):
        assert part[:ROOM] == bytes(ROOM)
        assert ROOM < len(part) <= MAX_MESSAGE + ROOM
        found += [len(payload) for _, _, payload in decode(memoryview(part)[ROOM:])]
    assert found == sizes


# ---- the same in a session


@virtual
async def test_one_turn_of_the_loop_is_one_message() -> None:
    """Opens, heads, small data and ends of many streams that one turn queued leave together, as long as they are few
    bytes.
    """
    ends = joined()
    carrier = ends.relay.carrier
    await settle()
    before = carrier.messages
    for _ in range(50):
        owner = ends.relay.open()
        assert owner.stream is not None
        owner.stream.write(b"body")
        owner.stream.end()
    await settle()
    assert carrier.messages - before == 1
    assert len(ends.agent.owners) == 50
    assert all((bytes(owner.body), owner.trailers) == (b"body", b"") for owner in ends.agent.owners)


@virtual
async def test_much_of_one_turn_leaves_before_its_end() -> None:
    """Small data, opens and heads: never more than a little waits, and all of it arrives in order."""
    ends = joined()
    relay, agent = await ends.opened()
    mine, theirs = relay.stream, agent.stream
    assert mine is not None
    assert theirs is not None
    ways: list[tuple[Side, Callable[[int], object]]] = [
        (ends.relay, lambda at: mine.write(b"%100d" % at)),
        (ends.relay, lambda at: ends.relay.open(b"%100d" % at)),
        (ends.agent, lambda at: theirs.send_head(b"%100d" % at)),
        (ends.agent, lambda at: theirs.write(b"%100d" % at)),
    ]
    for side, say in ways:
        before = side.carrier.messages
        for at in range(300):
            say(at)
            assert side.session.outbox.size < EARLY
        assert 2 <= side.carrier.messages - before <= 6
        await settle()
    said = [b"%100d" % at for at in range(300)]
    assert bytes(agent.body) == bytes(relay.body) == b"".join(said)
    assert relay.heads == said
    assert [owner.payload for owner in ends.agent.owners[1:]] == said


@virtual
async def test_nothing_is_sent_inside_another_sending() -> None:
    """Streams that are told to go on, and then write much at once, do so one behind the other."""
    side, peer = against(opener=True)
    await peer.send(f_credit(0, MUCH))
    depth, deepest, woken = 0, 0, 0

    def wakes(owner: Owner) -> Callable[[str], None]:
        def react(name: str) -> None:
            nonlocal depth, deepest, woken
            depth, woken = depth + 1, woken + 1
            deepest = max(deepest, depth)
            assert owner.stream is not None
            side.open(bytes(EARLY))
            owner.stream.write(bytes(MIB))
            depth -= 1

        return react

    owners = [side.open() for _ in range(3)]
    for owner in owners:
        assert owner.stream is not None
        owner.react = wakes(owner)
        assert not owner.stream.write(bytes(MIB))
    await settle()
    await peer.send(*(f_credit(number, 10 * MIB) for number in (1, 3, 5)))
    assert woken > 3
    assert deepest == 1


@virtual
async def test_a_stream_that_is_woken_inside_anothers_write_goes_on() -> None:
    """What a write sends early takes others' turns along: whoever has room again writes, and nothing is lost."""
    ends = joined()
    bulk, sink = await ends.opened()
    small, other = await ends.opened()
    large = bulk.stream
    assert large is not None
    assert small.stream is not None
    written = 0
    inside: list[bool] = []
    writing = False

    def go_on(name: str = "writable") -> None:
        nonlocal written
        if name == "writable":
            inside.append(writing)
            go = True
            while go and written < 20:
                go = large.write(bytes([written]) * 50_000)
                written += 1

    bulk.react = go_on
    ends.relay.session.writable = False
    assert not large.write(b"x" * 70_000)
    ends.relay.session.writable = True
    writing = True
    small.stream.write(b"y" * EARLY)
    writing = False
    await asyncio.sleep(1.0)
    assert inside[0]
    assert bytes(other.body) == b"y" * EARLY
    assert bytes(sink.body) == b"x" * 70_000 + b"".join(bytes([at]) * 50_000 for at in range(20))


@virtual
async def test_a_carrier_that_fails_once_does_not_hold_back_what_follows() -> None:
    """Whoever wrote hears of it; later writes leave as early as before."""
    ends = joined()
    relay, agent = await ends.opened()
    assert relay.stream is not None
    carrier = ends.relay.carrier
    send = carrier.send

    def fail(message: bytearray) -> bool:
        raise OSError("no memory")

    carrier.send = fail  # type: ignore[method-assign]
    with pytest.raises(OSError, match="no memory"):
        relay.stream.write(bytes(EARLY))
    carrier.send = send  # type: ignore[method-assign]
    before = carrier.messages
    relay.stream.write(b"x" * EARLY)
    assert carrier.messages - before == 1
    await settle()
    assert bytes(agent.body) == b"x" * EARLY


@virtual
async def test_many_large_heads_of_one_turn_arrive() -> None:
    """Requests with heads of 100 KB each, more than a message may hold, all arrive, in order."""
    side, peer = against(opener=True)
    payloads = [bytes([at]) * 100_000 for at in range(9)]
    for payload in payloads:
        side.open(payload)
    await settle()
    for payload in payloads:
        side.open(payload)
    await settle()
    assert max(peer.messages) <= MAX_MESSAGE
    assert [payload for kind, _, payload in peer.frames if kind == frames.OPEN] == payloads * 2


async def reply_times(ends_delay: float, rate: float, *, busy: bool) -> list[float]:
    """Seconds from a small request to its whole answer, 40 times, beside a bulk transfer or not."""
    ends = joined(delay=ends_delay, rate=rate)

    def serve(owner: Owner) -> Owner:
        assert owner.stream is not None
        if owner.payload == b"small":
            owner.stream.send_head(b"200")
            owner.stream.write(bytes(2000))
            owner.stream.end()
        return owner

    ends.agent.on_opened = serve
    if busy:
        relay, agent = await ends.opened(b"bulk", ended=True)
        relay.keep = False
        keep_writing(agent)()
        await asyncio.sleep(2.0)
        assert relay.size > rate / 2
    times: list[float] = []
    for _ in range(40):
        done = asyncio.Event()
        start = asyncio.get_running_loop().time()
        owner = Owner()
        owner.react = lambda name, done=done: done.set() if name == "end" else None
        ends.relay.open(b"small", ended=True, owner=owner)
        await done.wait()
        times.append(asyncio.get_running_loop().time() - start)
        await asyncio.sleep(0.003)
    return times


@pytest.mark.parametrize(("delay", "rate"), [(0.0005, 100e6), (0.025, 20e6)])
@virtual
async def test_a_bulk_transfer_does_not_delay_a_small_reply(delay: float, rate: float) -> None:
    """Beside a stream that fills the path a small exchange takes little more than alone: a frame or two of waiting."""
    alone = await reply_times(delay, rate, busy=False)
    beside = await reply_times(delay, rate, busy=True)
    assert max(beside) < max(alone) + 3 * MESSAGE_TARGET / rate + 0.004


@virtual
async def test_bulk_streams_share_evenly() -> None:
    """Ten streams that never stop move the same within a few per cent."""
    ends = joined(delay=0.005, rate=50e6)
    readers: list[Owner] = []
    for _ in range(10):
        relay, agent = await ends.opened(ended=True)
        relay.keep = False
        readers.append(relay)
        keep_writing(agent)()
    await asyncio.sleep(1.0)
    before = [reader.size for reader in readers]
    await asyncio.sleep(1.0)
    moved = [reader.size - start for reader, start in zip(readers, before, strict=True)]
    assert sum(moved) > 0.8 * 50e6
    assert max(moved) - min(moved) < 0.1 * sum(moved) / 10 + 4 * FRAME_SHARED


@virtual
async def test_a_full_transport_is_given_nothing_more() -> None:
    """While the carrier is full, control and data wait here, and control is first when there is room."""
    side, peer = against(opener=True, rate=1e6)
    await peer.send(f_credit(0, 100 * MIB))
    await asyncio.sleep(0.1)
    bulk = side.open()
    await peer.send(f_credit(1, 100 * MIB))
    await asyncio.sleep(0.1)
    assert bulk.stream is not None
    bulk.stream.write(bytes(8 * MIB))
    await settle()
    assert not side.session.writable
    sent = side.carrier.sent
    small = side.open(b"late")
    assert small.stream is not None
    small.stream.write(bytes(SMALL))
    await settle()
    assert side.carrier.sent == sent
    await asyncio.sleep(2.5 * FRAME_ALONE / 1e6)
    order = [(kind, number) for kind, number, _ in peer.frames if kind in (frames.OPEN, frames.DATA)]
    assert order[:5] == [(frames.OPEN, 1), (frames.DATA, 1), (frames.OPEN, 3), (frames.DATA, 1), (frames.DATA, 3)]


@virtual
async def test_small_data_of_a_stream_never_passes_its_own_queue() -> None:
    """A small write behind a large one waits for its turn: bytes of one stream keep their order."""
    ends = joined(delay=0.001)
    relay, agent = await ends.opened()
    assert relay.stream is not None
    relay.stream.write(b"a" * 300_000)
    relay.stream.write(b"b" * 10)
    relay.stream.write(b"c" * 300_000)
    relay.stream.write(b"d")
    relay.stream.end()
    await asyncio.sleep(1.0)
    assert bytes(agent.body) == b"a" * 300_000 + b"b" * 10 + b"c" * 300_000 + b"d"
