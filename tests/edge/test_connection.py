"""A visitor's connection as a transport: reading, pausing, deadlines, and how it ends so that the visitor can tell."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_network
from typing import Any

import pytest

from relay.edge.connection import LINGER, READ_LEAST, Connection
from relay.edge.services import Services, Timeouts
from relay.mux.inbox import TURN_BYTES
from relay.tunnels.hold import HoldBounds
from relay.tunnels.hub import Hub
from tests.agent.localside import on_every_loop, within
from tests.edge.visits import HIGH_WATER, Transport
from tests.support.clock import virtual
from tests.tunnels.agents import a_metering

TIMES = Timeouts(head=10.0, idle=60.0)


class Plain(Connection):
    """A connection that remembers."""

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self.got: list[bytes] = []
        self.large: list[int] = []
        self.takes_large = False
        self.keep_half_open = False
        self.half_closes = 0
        self.drained = 0
        self.gone = 0
        self.overdue: list[str] = []

    def on_bytes(self, data: bytes) -> None:
        self.got.append(data)

    def on_large(self, data: memoryview) -> bool:
        self.large.append(len(data))
        return self.takes_large

    def on_half_close(self) -> bool:
        self.half_closes += 1
        return self.keep_half_open

    def on_drained(self) -> None:
        self.drained += 1

    def on_gone(self) -> None:
        self.gone += 1

    def on_overdue(self, reason: str) -> None:
        self.overdue.append(reason)

    @property
    def busy(self) -> bool:
        return False

    def shutdown(self) -> None:
        pass

    def hand_over(self) -> None:
        pass

    def part(self) -> None:
        pass

    def cut(self) -> None:
        pass


def services(**options: Any) -> Services:
    return Services(Hub(HoldBounds(), a_metering(), lambda *_: None), "tunnels.localhost", TIMES, **options)


def connected(bag: Services | None = None, **transport: Any) -> tuple[Plain, Transport]:
    connection = Plain(bag or services())
    wire = Transport(**transport)
    wire.protocol = connection
    connection.connection_made(wire)
    return connection, wire


async def passes(connection: Plain, seconds: float) -> None:
    """Time goes by, swept as the node does."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end:
        await asyncio.sleep(0.25)
        if not connection.closed:
            connection.check(loop.time())


# ---- reading


@virtual
async def test_who_calls_is_known() -> None:
    """Address and trust come from the transport; one without an address is unknown and trusted by nobody."""
    bag = services(trusted=(ip_network("10.0.0.0/8"),))
    connection, _ = connected(bag, peer=("10.1.2.3", 1))
    assert (connection.address, connection.trusted) == ("10.1.2.3", True)
    connection, _ = connected(bag, peer=("2001:db8::1", 1, 0, 0))
    assert (connection.address, connection.trusted) == ("2001:db8::1", False)
    connection, _ = connected(bag, peer="")
    assert (connection.address, connection.trusted) == ("unknown", False)


@virtual
async def test_the_bag_knows_every_connection_that_lives() -> None:
    """From its beginning to its end."""
    bag = services()
    connection, wire = connected(bag)
    assert bag.visitors == {connection}
    wire.reset()
    await asyncio.sleep(0)
    assert bag.visitors == set()
    assert (connection.closed, connection.gone) == (True, 1)


@virtual
async def test_bytes_are_handed_on_as_copies() -> None:
    """The buffer is shared by all connections: what was handed on does not change with the next read."""
    one, wire = connected()
    other, other_wire = connected()
    wire.arrive(b"first")
    other_wire.arrive(b"OTHER")
    wire.arrive(b"second")
    assert (one.got, other.got) == ([b"first", b"second"], [b"OTHER"])


@virtual
async def test_reads_grow_while_what_they_bring_is_taken() -> None:
    """A bulk upload is read in large pieces, to a bound; a paused connection's reads do not grow, and `read_small`
    begins again."""
    connection, wire = connected()
    wire.arrive(bytes(2_000_000))
    await asyncio.sleep(1)
    sizes = [len(part) for part in connection.got]
    assert sizes[:3] == [READ_LEAST, 2 * READ_LEAST, 4 * READ_LEAST]
    assert max(sizes) == 4 * READ_LEAST
    connection.read_small()
    assert len(connection.get_buffer(-1)) == READ_LEAST


@virtual
async def test_many_bytes_are_offered_uncopied_first() -> None:
    """Whoever takes them so gets no copy; few bytes are always copied."""
    connection, wire = connected()
    connection.takes_large = True
    wire.arrive(bytes(READ_LEAST))
    wire.arrive(b"few")
    assert (connection.large, connection.got) == ([READ_LEAST], [b"few"])
    connection.takes_large = False
    wire.arrive(bytes(READ_LEAST))
    assert [len(part) for part in connection.got] == [3, READ_LEAST]


@pytest.mark.parametrize("uncopied", [False, True])
@pytest.mark.parametrize("tls", [False, True])
@virtual
async def test_a_bulk_upload_lets_others_have_their_turn(uncopied: bool, tls: bool) -> None:
    """Enough was read in one turn of the loop: the next is read in the next turn, and all of it comes."""
    connection, wire = connected(tls=tls)
    connection.takes_large = uncopied
    size = 0
    wire.arrive(bytes(8 * TURN_BYTES))
    while True:
        seen, size = size, sum(map(len, connection.got)) + sum(connection.large if uncopied else [])
        assert 0 < size - seen < TURN_BYTES + 4 * READ_LEAST
        if size == 8 * TURN_BYTES:
            break
        assert not wire.reading
        await asyncio.sleep(0)  # resumes
        await asyncio.sleep(0)  # reads
    await asyncio.sleep(0)
    assert wire.reading


@virtual
async def test_whoever_pauses_or_closes_during_that_rest_is_heard() -> None:
    """The end of the rest resumes nothing that was paused meanwhile, and touches no transport that is closing."""
    for leave in (Plain.pause, Plain.close):
        connection, wire = connected()
        wire.arrive(bytes(2 * TURN_BYTES))
        assert not wire.reading
        seen = len(connection.got)
        leave(connection)
        await asyncio.sleep(1)
        assert (wire.reading, len(connection.got)) == (False, seen)


@virtual
async def test_a_paused_connection_reads_nothing() -> None:
    """Pause and resume as often as one likes; on a closing transport both are nothing."""
    connection, wire = connected()
    connection.pause()
    connection.pause()
    wire.arrive(b"later")
    await asyncio.sleep(1)
    assert connection.got == []
    connection.resume()
    connection.resume()
    await asyncio.sleep(0)
    assert connection.got == [b"later"]
    connection.close()
    connection.pause()
    connection.resume()
    assert not connection.paused


@pytest.mark.parametrize("keep", [False, True])
@virtual
async def test_a_half_close_is_the_owners_decision(keep: bool) -> None:
    """Kept open for the other direction, or the end of all."""
    connection, wire = connected()
    connection.keep_half_open = keep
    wire.fin()
    await asyncio.sleep(0)
    assert wire.ended is not keep


# ---- deadlines


@virtual
async def test_a_connection_that_says_nothing_is_overdue() -> None:
    """After the time for a head; nobody asks twice."""
    connection, _ = connected()
    await passes(connection, TIMES.head - 0.5)
    assert connection.overdue == []
    await passes(connection, 60)
    assert connection.overdue == ["silence"]


@virtual
async def test_a_visitor_that_reads_nothing_is_cut() -> None:
    """Not one byte of its answer taken for the idle time: cut. A slow one, however slow, is not."""
    connection, wire = connected()
    wire.stuck = True
    connection.patience.wait_for_ever()
    connection.write(bytes(HIGH_WATER * 4))
    assert connection.full
    for _ in range(5):
        await passes(connection, TIMES.idle - 1)
        assert not wire.aborted
        wire.take(1)
    await passes(connection, TIMES.idle + 1)
    assert wire.aborted


@virtual
async def test_every_stall_is_timed_by_itself() -> None:
    """A visitor that stopped once, read on, and stops again at the very same place has its whole time again."""
    connection, wire = connected()
    wire.stuck = True
    connection.patience.wait_for_ever()
    for _ in range(3):
        connection.write(bytes(HIGH_WATER * 2))
        await passes(connection, TIMES.idle - 1)
        assert not wire.aborted
        wire.take()
        await passes(connection, 100)
    connection.write(bytes(HIGH_WATER * 2))
    connection.close_after_answer()
    await passes(connection, TIMES.idle - 1)
    assert not wire.aborted


@virtual
async def test_a_deadline_stands_still_while_an_answer_is_not_read() -> None:
    """What was expected before is expected again, with the time that was left, once the visitor has read on."""
    connection, wire = connected()
    wire.stuck = True
    connection.patience.expect("silence", connection.loop.time() + 60.0)
    connection.write(bytes(HIGH_WATER * 2))
    await passes(connection, 30)
    wire.take(100)
    await passes(connection, 45)
    wire.take()
    assert connection.drained == 1
    await passes(connection, 50)
    assert connection.overdue == []
    await passes(connection, 20)
    assert connection.overdue == ["silence"]


# ---- ends


@virtual
async def test_an_answer_of_our_own_arrives_before_the_end() -> None:
    """FIN behind it; what the visitor still sends is thrown away; after a while the connection is cut."""
    connection, wire = connected()
    wire.arrive(b"request")
    connection.write(b"answer")
    connection.close_after_answer()
    assert wire.fin_sent
    assert not wire.ended
    wire.arrive(b"the rest of an upload")
    await passes(connection, LINGER - 0.5)
    assert (connection.got, wire.ended) == ([b"request"], False)
    await passes(connection, 1.0)
    assert wire.aborted
    assert connection.overdue == []


@virtual
async def test_a_paused_upload_is_read_to_let_the_answer_through() -> None:
    """Closing behind an answer reads again: unread bytes would make the end a reset, which destroys the answer."""
    connection, wire = connected()
    connection.pause()
    wire.arrive(b"x")
    connection.write(b"answer")
    connection.close_after_answer()
    await asyncio.sleep(0)
    assert wire.arrived == []
    assert connection.got == []


@virtual
async def test_a_visitor_that_closes_behind_its_answer_ends_it_at_once() -> None:
    """No need to wait for the lingering time."""
    connection, wire = connected()
    connection.keep_half_open = True
    connection.write(b"answer")
    connection.close_after_answer()
    wire.fin()
    await asyncio.sleep(0)
    assert (wire.ended, wire.aborted) == (True, False)


@pytest.mark.parametrize("size", [1000, HIGH_WATER * 4])
@virtual
async def test_lingering_begins_when_the_answer_is_on_its_way(size: int) -> None:
    """A slow reader gets its whole answer, be it large or small; then the connection ends all the same."""
    connection, wire = connected()
    wire.stuck = True
    connection.write(bytes(size))
    connection.close_after_answer()
    for _ in range(20):
        await passes(connection, 5.0)
        assert not wire.aborted, f"{wire.unsent} of {size} bytes are lost"
        wire.take(wire.unsent // 2)
    wire.take()
    await passes(connection, 10 * LINGER)
    assert wire.ended


@virtual
async def test_a_visitor_that_never_takes_its_last_answer_is_cut() -> None:
    """The idle time holds for it too."""
    connection, wire = connected()
    wire.stuck = True
    connection.write(bytes(1000))
    connection.close_after_answer()
    await passes(connection, TIMES.idle + LINGER + 1)
    assert wire.aborted


@virtual
async def test_under_tls_the_transport_holds_no_more_than_without() -> None:
    """By itself it takes eight times as much for a visitor who does not read."""
    assert connected(tls=True)[1].most_unwritten == 64 * 1024


@virtual
async def test_under_tls_an_end_is_the_end_of_both_ways() -> None:
    """There is no half-close there."""
    connection, wire = connected(tls=True)
    connection.write(b"answer")
    connection.close_after_answer()
    await asyncio.sleep(0)
    assert (wire.fin_sent, wire.ended) == (False, True)


@pytest.mark.parametrize("tls", [False, True])
@virtual
async def test_breaking_off_what_ends_with_the_connection_is_never_a_clean_end(tls: bool) -> None:
    """Aborted, without FIN behind what was written."""
    connection, wire = connected(tls=tls)
    connection.write(b"half of an ans")
    connection.break_off(by_close=True)
    assert wire.aborted
    assert not wire.fin_sent


@virtual
async def test_breaking_off_where_the_end_is_seen_lets_the_rest_arrive() -> None:
    """By length or in chunks the missing end tells; what was written is not thrown away, but not waited for long."""
    connection, wire = connected()
    wire.stuck = True
    connection.write(b"half of an ans")
    connection.break_off(by_close=False)
    assert not wire.aborted
    wire.take()
    await asyncio.sleep(0)
    assert (wire.ended, wire.aborted) == (True, False)


# ---- over real sockets, on each loop that may run it


@asynccontextmanager
async def real(
    bag: Services | None = None,
) -> AsyncIterator[tuple[list[Plain], asyncio.StreamReader, asyncio.StreamWriter]]:
    """(connections of a server, one visitor's reader and writer); the first connection has been made."""
    made: list[Plain] = []
    used = bag or services()

    def make() -> Plain:
        made.append(Plain(used))
        return made[-1]

    server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
    try:
        await until(lambda: made and hasattr(made[0], "_transport"))
        yield made, reader, writer
    finally:
        server.close()
        writer.transport.abort()
        for connection in made:
            if not connection.closed:
                connection._transport.abort()
        await until(lambda: all(connection.gone for connection in made))


async def until(holds: Any) -> None:
    """A condition that another end brings about, looked at in every turn of the loop."""

    async def wait() -> None:
        while not holds():
            await asyncio.sleep(0.001)

    await within(wait())


@on_every_loop
async def test_a_broken_off_answer_that_ends_by_close_is_a_reset() -> None:
    """The visitor's socket sees ECONNRESET, not the end of a body."""
    async with real() as (made, reader, _):
        made[0].write(b"half")
        assert await within(reader.readexactly(4)) == b"half"
        made[0].break_off(by_close=True)
        with pytest.raises(ConnectionResetError):
            await within(reader.read())


@on_every_loop
async def test_an_answer_to_a_visitor_that_still_sends_arrives_whole() -> None:
    """A large upload under way does not destroy the answer that refuses it."""
    async with real() as (made, reader, writer):
        for _ in range(50):
            writer.write(bytes(100_000))
        await until(lambda: made[0].got)
        made[0].pause()
        made[0].write(b"413")
        made[0].close_after_answer()
        assert await within(reader.read()) == b"413"


@pytest.mark.parametrize("first", ["visitor", "relay"])
@on_every_loop
async def test_a_connection_whose_ways_have_both_ended_is_gone(first: str) -> None:
    """A pipe that each side has half-closed, in either order, leaves no descriptor behind."""
    bag = services()
    async with real(bag) as (made, reader, writer):
        connection = made[0]
        connection.keep_half_open = first == "visitor"
        if first == "visitor":
            writer.write_eof()
            await until(lambda: connection.half_closes)
            assert not connection.gone
        connection.write(b"last")
        connection.half_close()
        assert await within(reader.read()) == b"last"
        if first == "relay":
            assert not connection.gone
            writer.write_eof()
        await until(lambda: connection.gone)
        assert bag.visitors == set()


@pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="only Linux tells")
@on_every_loop
async def test_a_visitor_that_is_gone_is_noticed_although_nobody_reads() -> None:
    """A connection that is paused and was reset by its peer ends at the next sweep."""
    async with real() as (made, _, writer):
        connection = made[0]
        connection.pause()
        connection.patience.wait_for_ever()
        connection.check(connection.loop.time())
        assert not connection.closed
        wire = writer.get_extra_info("socket")
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        writer.transport.abort()

        def swept() -> int:
            if not connection.closed:
                connection.check(connection.loop.time())
            return connection.gone

        await until(swept)


@pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="only Linux tells")
@on_every_loop
async def test_what_lies_unread_behind_an_end_each_way_is_read() -> None:
    """The kernel calls such a connection closed, as it does one that was reset; nothing of it may be thrown away."""
    async with real() as (made, reader, writer):
        connection = made[0]
        connection.pause()
        connection.patience.wait_for_ever()
        connection.half_close()
        assert await within(reader.read()) == b""
        writer.write(bytes(50_000))
        writer.write_eof()
        sock = connection._transport.get_extra_info("socket")
        await until(lambda: sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == b"\x07")
        connection.check(connection.loop.time())
        connection.resume()
        await until(lambda: connection.gone)
        assert sum(map(len, connection.got)) == 50_000
