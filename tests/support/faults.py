"""A seeded TCP fault proxy between a port of its own on 127.0.0.1 and an upstream.

    async with FaultProxy(upstream_port, seed=1, delay=0.05) as proxy:
        connect to proxy.port; await proxy.cut()

This room owns the sockets: listener, pairs, ends. What happens to bytes between them is `delayline`'s, the methods a
test calls are `faultcontrols`'. As its own process, so that it does not compete with the test's event loop:
`python -m tests.support.faults --upstream HOST:PORT --delay 0.05` (see `faultprocess`). Only the kernel's handshake
is not delayed: a connect succeeds at once, its first bytes take their time.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any, Unpack, cast

from tests.support.delayline import Line, Path, Payload, Swallow
from tests.support.faultcontrols import FaultControls, How, Settings

READ_SIZE = 256 * 1024
HIGH_WATER = 1024 * 1024
FLUSH_POLL = 0.001
FLUSH_DEADLINE = 1.0
LINGER_ZERO = struct.pack("ii", 1, 0)


class Side(asyncio.BufferedProtocol):
    """One socket of a pair: the inlet of one line and the outlet of the other."""

    def __init__(self, pair: Pair, scratch: memoryview) -> None:
        self.ready = False
        self.lost = False
        self.outgoing: Line  # what is read here goes into this line
        self.incoming: Line  # and this one writes here
        self._pair = pair
        self._scratch = scratch
        self._transport: asyncio.Transport | None = None
        self._held = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        transport.set_write_buffer_limits(high=HIGH_WATER)
        if self._held:
            transport.pause_reading()
        self.ready = True
        if self._pair.is_cut:
            self.reset()
        self.incoming.flush()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._scratch

    def buffer_updated(self, nbytes: int) -> None:
        self.outgoing.feed(bytes(self._scratch[:nbytes]))

    def eof_received(self) -> bool:
        self.outgoing.feed_end("fin")
        return not self._pair.is_cut

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.ready = False
        self._pair.side_lost(self)

    def pause_writing(self) -> None:
        self.ready = False

    def resume_writing(self) -> None:
        self.ready = True
        self.incoming.flush()

    def hold(self) -> None:
        self._held = True
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def release(self) -> None:
        self._held = False
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def write(self, data: Payload) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def end(self, how: How) -> None:
        if how == "rst":
            self.reset_when_flushed()
        elif self._transport is not None and not self._transport.is_closing():
            self._transport.write_eof()
            self._pair.side_ended()

    def cut(self, how: How) -> None:
        self._pair.cut(how, flushed=True)

    def reset_when_flushed(self) -> None:
        """Reset once the bytes written before were handed to the kernel, or after a second."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + FLUSH_DEADLINE

        def poll() -> None:
            transport = self._transport
            if transport is not None and transport.get_write_buffer_size() and loop.time() < deadline:
                loop.call_later(FLUSH_POLL, poll)
            else:
                self.reset()

        poll()

    def reset(self) -> None:
        """Close with a TCP reset, dropping what was not sent."""
        if self._transport is not None and not self.lost:
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
            self._transport.abort()

    def close(self) -> None:
        """Close after what was written."""
        if self._transport is not None:
            self._transport.close()


class Pair:
    """The two sockets of one proxied connection and the two lines between them."""

    def __init__(self, proxy: FaultProxy, number: int) -> None:
        self.number = number
        self._proxy = proxy
        self.is_cut = False
        self.client = Side(self, proxy.scratch)
        self.upstream = Side(self, proxy.scratch)
        self.up = Line(proxy.up, self.client, self.upstream, f"{proxy.seed}/{number}/up")
        self.down = Line(proxy.down, self.upstream, self.client, f"{proxy.seed}/{number}/down")
        self.client.outgoing = self.upstream.incoming = self.up
        self.client.incoming = self.upstream.outgoing = self.down

    def side_lost(self, side: Side) -> None:
        """A socket is gone: unless we closed it, the other side learns by a reset, in its turn."""
        if not self.is_cut and not (self.up.finished and self.down.finished):
            side.outgoing.feed_end("rst")
        if self.client.lost and self.upstream.lost:
            self.forget()

    def side_ended(self) -> None:
        """Both directions half-closed: nothing is left to carry."""
        if self.up.finished and self.down.finished:
            self.client.close()
            self.upstream.close()

    def cut(self, how: How, *, flushed: bool = False) -> None:
        """End both sides: with resets, or with a FIN each while what still comes is read and forgotten."""
        if self.is_cut:
            return
        self.is_cut = True
        for line in (self.up, self.down):
            line.swallow("drop")
        for side in (self.client, self.upstream):
            if how == "fin":
                side.end("fin")
            elif flushed:
                side.reset_when_flushed()
            else:
                side.reset()

    def swallow(self, direction: str, mode: Swallow) -> None:
        """Set how each direction swallows."""
        self.up.swallow(mode if direction in ("up", "both") else "no")
        self.down.swallow(mode if direction in ("down", "both") else "no")

    def forget(self) -> None:
        """Stop timers and leave the proxy's list."""
        self.up.clear()
        self.down.clear()
        self._proxy.open_pairs.pop(self.number, None)


class FaultProxy(FaultControls):
    """The proxy in this process; `settings` hold for both directions until `set` changes one.

    `socket_buffer` fixes the kernel's receive buffers (bytes): with a rate, what waits there is part of the path.
    """

    def __init__(
        self,
        upstream_port: int,
        *,
        upstream_host: str = "127.0.0.1",
        seed: int = 1,
        socket_buffer: int | None = None,
        **settings: Unpack[Settings],
    ) -> None:
        self.seed = seed
        self.up = Path(**settings)
        self.down = Path(**settings)
        self.scratch = memoryview(bytearray(READ_SIZE))
        self.open_pairs: dict[int, Pair] = {}
        self._upstream = (upstream_host, upstream_port)
        self._socket_buffer = socket_buffer
        self._listener: socket.socket | None = None
        self._listening = False
        self._swallow_new: tuple[str, Swallow] = ("none", "no")
        self._black_hole: list[socket.socket] = []
        self._opening: set[asyncio.Task[None]] = set()
        self._taken = 0
        self._unreachable = 0

    async def __aenter__(self) -> FaultProxy:
        self._bind(0)
        self._listen()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Reset what is open and give the port back."""
        self._unlisten()
        for task in self._opening:
            task.cancel()
        await asyncio.gather(*self._opening, return_exceptions=True)
        self._empty_black_hole()
        for pair in list(self.open_pairs.values()):
            pair.cut("rst")
            pair.client.reset()
            pair.upstream.reset()
        for _turn in range(100):
            if not self.open_pairs:
                break
            await asyncio.sleep(0)

    def _bind(self, port: int) -> None:
        """Own the port; nothing answers on it before `_listen`, so that connects are refused."""
        listener = socket.socket()
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self._socket_buffer is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._socket_buffer)
        listener.bind(("127.0.0.1", port))
        self._listener = listener
        self.port = listener.getsockname()[1]

    def _listen(self) -> None:
        assert self._listener is not None
        self._listener.listen(4096)
        self._listening = True
        asyncio.get_running_loop().add_reader(self._listener, self._take)

    def _unlisten(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
        self._listener = None
        self._listening = False

    def _take(self) -> None:
        assert self._listener is not None
        for _ in range(64):
            try:
                taken, _address = self._listener.accept()
            except OSError:
                return
            taken.setblocking(False)
            self._taken += 1
            if self._swallow_new[0] in ("up", "both"):
                self._black_hole.append(taken)
                continue
            task = asyncio.create_task(self._open(taken, self._taken))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _open(self, taken: socket.socket, number: int) -> None:
        loop = asyncio.get_running_loop()
        pair = Pair(self, number)
        pair.swallow(*self._swallow_new)
        upstream = socket.socket()
        try:
            upstream.setblocking(False)
            if self._socket_buffer is not None:
                upstream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._socket_buffer)
            await loop.sock_connect(upstream, self._upstream)
        except BaseException as error:
            upstream.close()
            _reset_socket(taken)
            if not isinstance(error, OSError):
                raise
            self._unreachable += 1
            return
        self.open_pairs[number] = pair
        await loop.connect_accepted_socket(lambda: pair.client, taken)
        await loop.create_connection(lambda: pair.upstream, sock=upstream)

    def _empty_black_hole(self) -> None:
        while self._black_hole:
            _reset_socket(self._black_hole.pop())

    # ---- the commands of FaultControls ---------------------------------------------------------------------------

    async def _do(self, command: str, arguments: dict[str, Any]) -> Any:
        carry_out = getattr(self, f"_do_{command}", None)
        if carry_out is None:
            raise ValueError(f"no such command: {command}")
        return carry_out(**arguments)

    def _paths(self, direction: str) -> list[Path]:
        chosen = {"up": [self.up], "down": [self.down], "both": [self.up, self.down]}
        if direction not in chosen:
            raise ValueError(f"direction is up, down or both, not {direction!r}")
        return chosen[direction]

    def _chosen(self, pair: int | None) -> list[Pair]:
        return [each for number, each in list(self.open_pairs.items()) if pair is None or number == pair]

    def _do_set(self, direction: str, settings: dict[str, Any]) -> None:
        if unknown := set(settings) - set(Settings.__annotations__):
            raise ValueError(f"no such setting: {', '.join(sorted(unknown))}")
        for path in self._paths(direction):
            for name, value in settings.items():
                setattr(path, name, value)

    def _do_cut(self, how: How, pair: int | None) -> int:
        chosen = self._chosen(pair)
        for each in chosen:
            each.cut(how)
        return len(chosen)

    def _do_cut_after(self, count: int | None, direction: str, how: How) -> None:
        for path in self._paths(direction):
            path.cut_count, path.cut_how = count, how

    def _do_refuse(self) -> None:
        if self._listening:
            self._unlisten()
            self._bind(self.port)

    def _do_accept(self) -> None:
        if not self._listening:
            self._listen()

    def _do_swallow(self, direction: str, drop: bool, new: bool, pair: int | None) -> None:
        if direction != "none":
            self._paths(direction)
        mode: Swallow = "drop" if drop else "stall"
        if pair is None:
            self._swallow_new = (direction, mode) if new else ("none", "no")
            if direction == "none":
                self._empty_black_hole()
        for each in self._chosen(pair):
            each.swallow(direction, mode)

    def _do_corrupt(self, direction: str, after: int, every: int) -> None:
        for path in self._paths(direction):
            path.corrupt_after, path.corrupt_every = after, every

    def _do_pairs(self) -> list[int]:
        return sorted(self.open_pairs)

    def _do_stats(self) -> dict[str, int]:
        return {
            "connections": self._taken,
            "open": len(self.open_pairs) + len(self._black_hole),
            "unreachable": self._unreachable,
            "read_up": self.up.read,
            "read_down": self.down.read,
            "written_up": self.up.written,
            "written_down": self.down.written,
            "swallowed": self.up.swallowed + self.down.swallowed,
        }


def _reset_socket(taken: socket.socket) -> None:
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
    taken.close()


if __name__ == "__main__":
    from tests.support.faultprocess import main

    main()
