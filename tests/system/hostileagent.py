"""A hand-made agent that is admitted like any other and then sends raw frames that no agent of ours would.

Nothing of what it is given to say is checked before it is sent.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from struct import pack

from relay.exchange.heads import Fields, RequestHead, decode_request
from relay.wire import frames
from relay.wire.hello import Hello
from tests.support.processes import RelayProcess
from tests.system.handagent import HandAgent

Script = Callable[[int, RequestHead], list[bytes]]
"""From a stream's number and its request to the frames that are sent, each in a message of its own."""


def frame(kind: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame, whatever its payload."""
    return frames.HEADER.pack(stream, kind << 24 | len(payload)) + payload


def fields_of(fields: Fields) -> bytes:
    """Fields as the wire carries them, whatever they hold; also trailers."""
    return pack(">H", len(fields)) + b"".join(pack(">HH", len(n), len(v)) + n + v for n, v in fields)


def head_of(status: int, fields: Fields, reason: bytes = b"OK") -> bytes:
    """The payload of a HEAD frame, whatever it says."""
    return pack(">HB", status, len(reason)) + reason + fields_of(fields)


class HostileAgent(HandAgent):
    """One link for one name; `script` is asked about each request that comes."""

    def __init__(self, relay: RelayProcess, name: str, script: Script) -> None:
        key = relay.key_file.read_text().strip()
        super().__init__(relay.agents_port, Hello(secrets.token_hex(8), 0, 1, key, (name,)))
        self.script = script
        self.resets: list[int] = []
        """Code of each RESET from the relay."""

    async def _take(self, kind: int, stream: int, payload: bytes) -> None:
        if kind & ~frames.END_FLAG == frames.OPEN:
            for raw in self.script(stream, decode_request(payload)):
                await self._connection.send(raw)
        elif kind == frames.RESET:
            self.resets.append(frames.decode_reset(memoryview(payload))[0])
        else:
            await super()._take(kind, stream, payload)
