"""`relay health [HOST:PORT]`: whether the relay or the agent of this container takes visitors. One line, 0 or 1.

Asks /readyz of the internal listener. It is asked every few seconds, so this room stands beside the command line and
imports none of it: it is done while that would still be loading. It knows one request and the first line of an answer.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TextIO

WITHIN = 3.0  # seconds to connect, and then for the whole answer
MOST = 4096  # bytes of an answer that are looked at
VARIABLES = ("RELAY_INTERNAL", "RELAY_METRICS")
USAGE = "relay health [HOST:PORT], for example relay health 127.0.0.1:9090"
_ADDRESS = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s\[\]:/@]+)):([0-9]{1,5})")
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: .*)?\r\n")
# Where something listens on every address, it is found on this machine's own.
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def main(words: Sequence[str], environment: Mapping[str, str] = os.environ) -> int:
    """The command with its arguments, those behind `health`; its exit code."""
    given = words[0] if words else next(filter(None, map(environment.get, VARIABLES)), "")
    origin = "What was given" if words else next((name for name in VARIABLES if environment.get(name)), "")
    if not given or len(words) > 1:
        return _mistake(f"Which listener? Give its address, or set {' or '.join(VARIABLES)}: {USAGE}.")
    address = address_of(given)
    if address is None:
        return _mistake(f"{origin} must be HOST:PORT or [IPV6]:PORT, as in {USAGE}, but it is {given!r}.")
    ready, said = ask(*address)
    _say(sys.stdout, said)
    return 0 if ready else 1


def address_of(text: str) -> tuple[str, int] | None:
    """(host, port) to connect to; None for what is no address."""
    found = _ADDRESS.fullmatch(text.strip())
    if found is None or not 0 < int(found[3]) <= 65535:
        return None
    host = found[1] or found[2]
    return _ANY.get(host, host), int(found[3])


def ask(host: str, port: int) -> tuple[bool, str]:
    """Whether /readyz is answered with 200, and a line about it."""
    request = f"GET /readyz HTTP/1.0\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode("ascii", "replace")
    answer = b""
    try:
        with socket.create_connection((host, port), WITHIN) as connection:
            connection.sendall(request)
            end = time.monotonic() + WITHIN
            while len(answer) < MOST and (data := connection.recv(MOST)):
                answer += data
                connection.settimeout(max(end - time.monotonic(), 0.001))  # also where it comes byte by byte
    except (OSError, UnicodeError) as error:
        return False, f"not ready: nothing answers at {host}:{port} ({_words(error)})"
    found, body = _STATUS.match(answer), answer.partition(b"\r\n\r\n")[2]
    if found is None:
        return False, f"not ready: what answers at {host}:{port} does not speak HTTP"
    if found[1] == b"200":
        return True, "ready"
    reason = "".join(one if one.isprintable() else " " for one in body.decode("utf-8", "replace")).strip()
    return False, f"not ready: {reason[:400] or 'HTTP ' + found[1].decode()}"


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {WITHIN:g} seconds"
    return getattr(error, "strerror", None) or type(error).__name__


def _mistake(text: str) -> int:
    _say(sys.stderr, f"relay: {text}")
    return 2


def _say(stream: TextIO | None, line: str) -> None:
    """The exit code is the answer: that a line cannot be written, closed as a stream may be, changes nothing."""
    if stream is not None:
        with contextlib.suppress(OSError, ValueError):
            stream.write(line.encode("ascii", "backslashreplace").decode() + "\n")
            stream.flush()
