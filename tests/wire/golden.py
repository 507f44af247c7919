"""Reads the golden vectors, and says what a message means with every decoder of the wire applied."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from relay.wire import frames
from relay.wire.errors import RemoteProtocolError
from tests.support.framing import decode

VECTORS = Path(__file__).with_name("vectors")
TYPES = {name: kind for kind, name in frames.NAMES.items()}

Vector = dict[str, Any]


def load(name: str) -> dict[str, Any]:
    """The vectors of one file."""
    content: dict[str, Any] = json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))
    return content


def unhex(value: str | list[Any]) -> bytes:
    """Bytes of a hexadecimal string, or of a list of such and of `{repeat, times}`."""
    if isinstance(value, str):
        return bytes.fromhex(value)
    return b"".join(
        bytes.fromhex(part) if isinstance(part, str) else bytes.fromhex(part["repeat"]) * part["times"]
        for part in value
    )


def interpret(message: bytes) -> tuple[list[Vector], str | None]:
    """(frames in the words of the vectors, with bytes for payloads; the error that ended them, or None)."""
    found: list[Vector] = []
    try:
        for kind, stream, payload in decode(memoryview(message)):
            frame: Vector = {"type": frames.NAMES[kind], "stream": stream, "payload": bytes(payload)}
            if kind == frames.CREDIT:
                frame["credit"] = frames.decode_credit(payload)
            elif kind == frames.RESET:
                code, delivered, detail = frames.decode_reset(payload)
                frame["reset"] = {"code": code, "delivered": delivered, "detail": detail}
            elif kind == frames.GOING_AWAY:
                code, last, detail = frames.decode_going_away(payload)
                frame["away"] = {"code": code, "last_stream": last, "detail": detail}
            found.append(frame)
    except RemoteProtocolError as error:
        return found, str(error)
    return found, None
