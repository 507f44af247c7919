"""Large bodies: `python -m bench.loads.bulk down|up`, as fast as they come or held at a rate, by size or by time.

Down, a body of zeros is read into one buffer and counted. Up, one buffer is sent again and again. One thread, large
system calls: this program must not be what limits.
"""

from __future__ import annotations

import argparse
import selectors
import socket
import time
from dataclasses import dataclass, field

from bench.loads.wire import PATIENCE, LoadError, arguments, connect, end_of_head, expect, length_of, request, say

PIECE = 1024 * 1024
PACED_PIECE = 128 * 1024
FOREVER = 2**62
_buffer = bytearray(PIECE)
_view = memoryview(_buffer)


@dataclass(slots=True)
class Flow:
    """One stream: its socket, the bytes moved, what is still to be moved."""

    sock: socket.socket
    left: int = FOREVER
    head: bytearray = field(default_factory=bytearray)
    headed: bool = False


@dataclass(slots=True)
class Meter:
    """Bytes over all streams, from the first byte on; and those behind `since` seconds."""

    since: float
    began: float = 0.0
    moved: int = 0
    late_began: float = 0.0
    late_moved: int = 0
    last: float = 0.0

    def add(self, count: int) -> None:
        """Bytes were moved."""
        now = time.monotonic()
        self.moved += count
        self.last = now
        if now - self.began >= self.since:
            if not self.late_began:
                self.late_began = now
            else:
                self.late_moved += count

    def result(self) -> dict[str, float]:
        """Figures: bytes, seconds, bytes/s over all and behind `since` (`sustained`)."""
        seconds = max(self.last - self.began, 1e-9)
        late = self.last - self.late_began if self.late_began else 0.0
        sustained = self.late_moved / late if late > 0 else 0.0
        return {"bytes": self.moved, "seconds": seconds, "rate": self.moved / seconds, "sustained": sustained}


def main() -> None:
    """Entry of `python -m bench.loads.bulk`."""
    parser = arguments("Move large bodies.")
    parser.add_argument("direction", choices=("down", "up"))
    parser.add_argument("--streams", type=int, default=1)
    parser.add_argument("--bytes", type=int, default=FOREVER, help="up: of one stream")
    parser.add_argument("--seconds", type=float, default=FOREVER, help="leave after this time")
    parser.add_argument("--since", type=float, default=0.0, help="`sustained` counts from here")
    parser.add_argument("--rate", type=float, default=0.0, help="down: bytes/s to be read, one stream only")
    options = parser.parse_args()
    say("result", **(down(options) if options.direction == "down" else up(options)))


def down(options: argparse.Namespace) -> dict[str, float]:
    """GET on every stream, read them all."""
    meter = Meter(options.since, time.monotonic())
    selector = selectors.DefaultSelector()
    for _ in range(options.streams):
        sock = connect(options.port)
        sock.sendall(request("GET", options.path, options.host))
        sock.setblocking(False)
        selector.register(sock, selectors.EVENT_READ, Flow(sock))
    most = _view[: PACED_PIECE if options.rate else PIECE]
    deadline = meter.began + options.seconds
    while selector.get_map() and time.monotonic() < deadline:
        ready = selector.select(PATIENCE)
        if not ready:
            raise LoadError(f"nothing came for {PATIENCE:g} s")
        for key, _events in ready:
            if not _read(key.data, most, meter):
                selector.unregister(key.fileobj)
                key.data.sock.close()
        if options.rate:
            ahead = meter.moved / options.rate - (time.monotonic() - meter.began)
            if ahead > 0:
                time.sleep(ahead)
    return meter.result()


def _read(flow: Flow, most: memoryview, meter: Meter) -> bool:
    """One read; False once the body is complete. Raises LoadError when it broke off."""
    count = flow.sock.recv_into(most)
    if not count:
        raise LoadError(f"closed with {flow.left} bytes to come")
    if not flow.headed:
        flow.head += most[:count]
        end = end_of_head(flow.head)
        if not end:
            return True
        expect(flow.head, 200)
        length = length_of(flow.head)
        flow.left = FOREVER if length is None else length
        flow.headed = True
        if not meter.moved:
            say("flowing")
        count = len(flow.head) - end
    flow.left -= count
    meter.add(count)
    return flow.left > 0


def up(options: argparse.Namespace) -> dict[str, float]:
    """POST on every stream; with a size, until every one was answered."""
    meter = Meter(options.since, time.monotonic())
    selector = selectors.DefaultSelector()
    for _ in range(options.streams):
        sock = connect(options.port)
        sock.sendall(request("POST", options.path, options.host, f"Content-Length: {min(options.bytes, 2**40)}"))
        sock.setblocking(False)
        selector.register(sock, selectors.EVENT_WRITE, Flow(sock, options.bytes))
    deadline = meter.began + options.seconds
    while selector.get_map() and time.monotonic() < deadline:
        ready = selector.select(PATIENCE)
        if not ready:
            raise LoadError(f"nothing was taken for {PATIENCE:g} s")
        for key, events in ready:
            flow: Flow = key.data
            if events & selectors.EVENT_READ:
                expect(flow.sock.recv(65536), 200)
                meter.last = time.monotonic()
                selector.unregister(flow.sock)
                flow.sock.close()
            elif not _write(flow, meter):
                selector.modify(flow.sock, selectors.EVENT_READ, flow)
    return meter.result()


def _write(flow: Flow, meter: Meter) -> bool:
    """One write; False once the body is sent."""
    if not meter.moved:
        say("flowing")
    sent = flow.sock.send(_view[: min(PIECE, flow.left)])
    flow.left -= sent
    meter.add(sent)
    return flow.left > 0


if __name__ == "__main__":
    main()
