"""WebSocket echo: `python -m bench.loads.websocket`, one message of 128 bytes under way on each connection.

The message is masked with zeros, so that one buffer serves all; whoever is in between cannot know.
"""

from __future__ import annotations

import select
import socket
import time
from dataclasses import dataclass

from bench.loads.wire import PATIENCE, LoadError, arguments, connect, expect, read_head, request, say

SIZE = 128
_PAYLOAD = b"m" * SIZE
_ASK = b"\x82" + bytes((0x80 | 126,)) + SIZE.to_bytes(2, "big") + bytes(4) + _PAYLOAD
_ANSWER = b"\x82" + bytes((126,)) + SIZE.to_bytes(2, "big") + _PAYLOAD
_UPGRADE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


@dataclass(slots=True)
class Peer:
    """One connection and what has come of the answer."""

    sock: socket.socket
    got: bytes = b""


def main() -> None:
    """Entry of `python -m bench.loads.websocket`."""
    parser = arguments("Echo WebSocket messages.")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    poll = select.epoll()  # a selector would cost as much as the message
    peers: dict[int, Peer] = {}
    for _ in range(options.connections):
        sock = connect(options.port)
        sock.sendall(request("GET", options.path, options.host, *_UPGRADE))
        head, rest = read_head(sock)
        expect(head, 101)
        peers[sock.fileno()] = Peer(sock, rest)
        sock.setblocking(False)
        poll.register(sock, select.EPOLLIN)
    count = 0
    began = now = time.perf_counter()
    for peer in peers.values():
        peer.sock.send(_ASK)
    while now < began + options.seconds:
        ready = poll.poll(PATIENCE)
        if not ready:
            raise LoadError(f"no message for {PATIENCE:g} s")
        for number, _events in ready:
            count += _read(peers[number])
        now = time.perf_counter()
    say("result", count=count, rate=count / (now - began))


def _read(peer: Peer) -> int:
    """1 once the echo is whole, and the next message has left."""
    piece = peer.sock.recv(65536)
    got = peer.got + piece if peer.got else piece
    if len(got) < len(_ANSWER):
        if not piece:
            raise LoadError("the WebSocket was closed")
        peer.got = got
        return 0
    if got != _ANSWER:
        raise LoadError(f"not the echo: {got[:40]!r}")
    peer.got = b""
    peer.sock.send(_ASK)
    return 1


if __name__ == "__main__":
    main()
