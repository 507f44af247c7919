"""What every load maker needs: a socket, a request head, the head of an answer, quantiles, one event a line."""

from __future__ import annotations

import argparse
import json
import math
import re
import socket
import sys
from collections.abc import Sequence

PATIENCE = 30.0  # seconds without a byte, after which a load maker gives up
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)


class LoadError(Exception):
    """The system under load did not answer as it must."""


def arguments(about: str) -> argparse.ArgumentParser:
    """A parser with where to connect: `--port`, `--host`, `--path`."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", required=True, help="the Host field")
    parser.add_argument("--path", default="/")
    return parser


def connect(port: int) -> socket.socket:
    """A connection to loopback, without Nagle's delay."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def request(method: str, path: str, host: str, *fields: str) -> bytes:
    """A request head."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {host}", *fields, "", ""]).encode()


def end_of_head(data: bytes | bytearray) -> int:
    """Where the body begins, 0 while the head is not complete."""
    return data.find(b"\r\n\r\n") + 4 if b"\r\n\r\n" in data else 0


def status_of(head: bytes | bytearray) -> int:
    """The status; raises LoadError for what is no answer."""
    match = _STATUS.match(head)
    if match is None:
        raise LoadError(f"no HTTP answer: {bytes(head[:80])!r}")
    return int(match[1])


def expect(head: bytes | bytearray, status: int) -> None:
    """Raises LoadError for another status."""
    if status_of(head) != status:
        raise LoadError(f"status {status} was expected: {bytes(head[:300])!r}")


def length_of(head: bytes | bytearray) -> int | None:
    """Content-Length, where there is one."""
    match = _LENGTH.search(head)
    return None if match is None else int(match[1])


def read_head(sock: socket.socket) -> tuple[bytes, bytes]:
    """A whole head and what came behind it. Raises LoadError."""
    data = b""
    while not (end := end_of_head(data)):
        piece = sock.recv(65536)
        if not piece:
            raise LoadError(f"closed before the head was complete: {data[:80]!r}")
        data += piece
    return data[:end], data[end:]


def quantile(sorted_values: Sequence[float], share: float) -> float:
    """The value below which this share of them lies (nearest rank); they must be sorted and not empty."""
    return sorted_values[max(0, min(len(sorted_values), math.ceil(share * len(sorted_values))) - 1)]


def say(event: str, **fields: object) -> None:
    """One event."""
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()
