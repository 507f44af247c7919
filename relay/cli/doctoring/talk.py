"""One HTTP/1.1 conversation over a line, piece by piece as it comes, with a time for each."""

from __future__ import annotations

import json
import time
from typing import Any

import h11

from relay.cli.doctoring.errors import Trouble
from relay.cli.doctoring.ways import Line, Place, line_to

MOST_WHOLE = 256 * 1024
PIECE = 64 * 1024
Fields = dict[str, str]


class Answer:
    """The head of an answer; its body is still to come."""

    def __init__(self, status: int, fields: Fields, seconds: float) -> None:
        self.status = status
        self.fields = fields
        self.seconds = seconds
        """From the request to this head."""

    @property
    def kind(self) -> str:
        """The content's type, without parameters."""
        return self.fields.get("content-type", "").partition(";")[0].strip().lower()


class Talk:
    """Asks once. Raises `Trouble` where the other side does not speak HTTP, or ends too early."""

    def __init__(self, line: Line, host: str) -> None:
        self.line = line
        self._host = host
        self._http = h11.Connection(h11.CLIENT)

    async def ask(self, method: str, target: str, fields: Fields, body: bytes = b"") -> Answer:
        """Sends a request, and waits for the head of its answer."""
        given = {"Host": self._host, "User-Agent": "relay-doctor", "Accept": "*/*", **fields}
        if body:
            given["Content-Length"] = str(len(body))
        began = time.monotonic()
        sent = self._http.send(h11.Request(method=method, target=target, headers=list(given.items())))
        sent = (sent or b"") + ((self._http.send(h11.Data(body)) or b"") if body else b"")
        self.line.writer.write(sent + (self._http.send(h11.EndOfMessage()) or b""))
        while True:
            event = await self._event()
            if isinstance(event, h11.Response) or (
                isinstance(event, h11.InformationalResponse) and event.status_code == 101
            ):
                found = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in event.headers}
                return Answer(event.status_code, found, time.monotonic() - began)

    async def piece(self) -> bytes:
        """More of the body; empty at its end."""
        while True:
            event = await self._event()
            if isinstance(event, h11.Data):
                return bytes(event.data)
            if isinstance(event, h11.EndOfMessage):
                return b""

    async def whole(self) -> bytes:
        """All of the body, or the first part of a long one."""
        found = b""
        while len(found) < MOST_WHOLE and (piece := await self.piece()):
            found += piece
        return found

    async def event(self) -> str:
        """The data of the next server-sent event that has some; empty at the end."""
        while True:
            while b"\n\n" not in self._unread:
                piece = await self.piece()
                if not piece or len(self._unread) > MOST_WHOLE:
                    return ""
                self._unread = (self._unread + piece).replace(b"\r\n", b"\n")
            block, self._unread = self._unread.split(b"\n\n", 1)
            lines = [line[5:].strip() for line in block.split(b"\n") if line.startswith(b"data:")]
            if any(lines):  # a first event without data only begins the stream
                return b"\n".join(lines).decode("utf-8", "replace")

    _unread = b""

    async def _event(self) -> Any:  # noqa: ANN401 - one of h11's events
        try:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                self._http.receive_data(await self.line.reader.read(PIECE))
        except h11.RemoteProtocolError:
            raise Trouble(
                f"What answers at {self._host} does not speak HTTP, or breaks off",
                "Look whether the port is right, and whether TLS is spoken there (wss://, https://) or not",
            ) from None
        except OSError:
            raise Trouble(
                f"The connection to {self._host} broke off", "Look at the log of what listens there"
            ) from None
        if isinstance(event, h11.ConnectionClosed):
            raise Trouble(f"The connection to {self._host} ended early", "Look at the log of what listens there")
        return event


async def asked(place: Place, method: str, target: str, fields: Fields, body: bytes = b"") -> tuple[Talk, Answer]:
    """A conversation on a line of its own. Raises `Trouble`."""
    default = 443 if place.tls else 80
    bracketed = f"[{place.host}]" if ":" in place.host else place.host
    talk = Talk(await line_to(place), bracketed if place.port == default else place.shown)
    try:
        return talk, await talk.ask(method, target, fields, body)
    except BaseException:
        talk.line.close()
        raise


def object_of(body: bytes | str) -> dict[str, Any]:
    """A JSON object, empty if it is none."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
