"""Server-sent events: `python -m bench.loads.events read` times them, `… hold` keeps many silent streams open.

The live origin writes the time of sending (CLOCK_MONOTONIC, one for all processes of a machine) into each event.
"""

from __future__ import annotations

import argparse
import re
import socket
import sys
import time

from bench.loads.wire import PATIENCE, LoadError, arguments, connect, expect, quantile, read_head, request, say

_EVENT = re.compile(rb"data: (\d+)\n\n")


def main() -> None:
    """Entry of `python -m bench.loads.events`."""
    parser = arguments("Read event streams.")
    parser.add_argument("what", choices=("read", "hold"))
    parser.add_argument("--seconds", type=float, default=2.0, help="read: for how long")
    parser.add_argument("--streams", type=int, default=1, help="hold: how many")
    options = parser.parse_args()
    if options.what == "read":
        say("result", **read(options))
    else:
        hold(options)


def _subscribe(options: argparse.Namespace) -> tuple[socket.socket, bytes]:
    """An open stream and what came behind its head."""
    sock = connect(options.port)
    sock.sendall(request("GET", options.path, options.host, "Accept: text/event-stream"))
    head, rest = read_head(sock)
    expect(head, 200)
    return sock, rest


def read(options: argparse.Namespace) -> dict[str, float]:
    """Delay of each event behind the first, and the time from connecting to the first."""
    began = time.monotonic()
    sock, tail = _subscribe(options)
    delays: list[float] = []
    first = 0.0
    while (now := time.monotonic()) < began + options.seconds:
        end = 0
        for match in _EVENT.finditer(tail):
            end = match.end()
            if first:
                delays.append(now - int(match[1]) / 1e9)
            else:
                first = now - began
        tail = tail[end:]
        piece = sock.recv(65536)
        if not piece:
            raise LoadError("the event stream ended")
        tail += piece
    if not delays:
        raise LoadError("no event came")
    delays.sort()
    return {"count": len(delays), "p50": quantile(delays, 0.5), "p99": quantile(delays, 0.99), "first": first}


def hold(options: argparse.Namespace) -> None:
    """Opens the streams, each with its first event; keeps them until stdin ends."""
    held: list[socket.socket] = []
    for _ in range(options.streams):
        sock, tail = _subscribe(options)
        sock.settimeout(PATIENCE)
        while not _EVENT.search(tail):
            tail += sock.recv(65536)
        held.append(sock)
    say("holding", streams=len(held))
    sys.stdin.read()
    for sock in held:
        sock.close()
    say("result", streams=len(held))


if __name__ == "__main__":
    main()
