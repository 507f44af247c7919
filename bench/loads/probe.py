"""How long a small GET takes: `python -m bench.loads.probe`, on a few keep-alive connections, at a gentle rate.

Each connection sends its next request `--interval` seconds after the one before, or once that is answered if this is
later. The first answer of each connection is not counted.
"""

from __future__ import annotations

import argparse
import selectors
import socket
import time
from dataclasses import dataclass

from bench.loads.wire import LoadError, arguments, connect, end_of_head, expect, length_of, quantile, request, say


@dataclass(slots=True)
class Asker:
    """One connection: when its next request is due, when the last one left (0: none under way)."""

    sock: socket.socket
    due: float
    sent: float = 0.0
    got: bytes = b""
    counted: bool = False


def main() -> None:
    """Entry of `python -m bench.loads.probe`."""
    parser = arguments("Time small requests.")
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--interval", type=float, default=0.002)
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    times = sorted(probe(options))
    if not times:
        raise LoadError("no request was answered in time")
    say("result", count=len(times), p50=quantile(times, 0.5), p99=quantile(times, 0.99), most=times[-1])


def probe(options: argparse.Namespace) -> list[float]:
    """The seconds that each request took."""
    times: list[float] = []
    selector = selectors.DefaultSelector()
    ask = request("GET", options.path, options.host)
    began = time.perf_counter()
    askers: list[Asker] = []
    for number in range(options.connections):
        asker = Asker(connect(options.port), began + options.interval * number / options.connections)
        asker.sock.setblocking(False)
        selector.register(asker.sock, selectors.EVENT_READ, asker)
        askers.append(asker)
    end = began + options.seconds
    while (now := time.perf_counter()) < end:
        for asker in askers:
            if not asker.sent and asker.due <= now:
                asker.sent = time.perf_counter()
                asker.due = max(asker.due + options.interval, now)
                asker.sock.send(ask)
        waiting = [asker.due for asker in askers if not asker.sent]
        wake = min([end, *waiting])
        for key, _events in selector.select(max(0.0, wake - time.perf_counter())):
            took = _read(key.data)
            if took is not None:
                times.append(took)
    return times


def _read(asker: Asker) -> float | None:
    """Seconds, once the answer is whole and counts."""
    piece = asker.sock.recv(65536)
    if not piece:
        raise LoadError("the connection was closed")
    asker.got += piece
    end = end_of_head(asker.got)
    if not end or len(asker.got) < end + (length_of(asker.got) or 0):
        return None
    took = time.perf_counter() - asker.sent
    expect(asker.got, 200)
    counted, asker.counted = asker.counted, True
    asker.sent, asker.got = 0.0, b""
    return took if counted else None


if __name__ == "__main__":
    main()
