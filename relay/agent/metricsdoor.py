"""The agent's listener for health and metrics: a few short GET requests at a time, each on a connection of its own.

Knows nothing of what it tells. Bounded, since whoever can reach it needs no key: connections, the size of a head, and
the time for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass

from relay.agent.config import CannotListen
from relay.agent.targets import place

MOST_CONNECTIONS = 8
HEAD_MOST = 8192
# A request head, and then its answer, may take so many seconds.
HEAD_WITHIN = 5.0
ANSWER_WITHIN = 5.0
PLAIN = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Page:
    """What a path answers."""

    status: int
    body: bytes
    content_type: str = PLAIN


Pages = Mapping[str, Callable[[], Page]]
_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises `CannotListen`."""
    shown = place(host, port)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise CannotListen(_sentence(shown, port, error)) from None
    try:
        if hasattr(socket, "SO_REUSEPORT"):  # on Windows SO_REUSEADDR would share a port that is taken
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(MOST_CONNECTIONS)
    except OSError as error:
        sock.close()
        raise CannotListen(_sentence(shown, port, error)) from None
    return sock


def address_of(sock: socket.socket) -> str:
    """Where it listens, with the port that it really has."""
    return place(*sock.getsockname()[:2])


def _sentence(shown: str, port: int, error: OSError | UnicodeError) -> str:
    why = "no host has such a name" if isinstance(error, UnicodeError) else (error.strerror or str(error)).rstrip(".")
    return (
        f"The metrics of this agent (--metrics, RELAY_METRICS) cannot be served at {shown}: {why}. Give another "
        f"address, for example 127.0.0.1:{port + 1 if 0 < port < 65535 else 9091}."
    )


@contextlib.asynccontextmanager
async def serving(sock: socket.socket, pages: Pages) -> AsyncIterator[None]:
    """Answers by `pages` while the block runs; ends every connection at its end."""
    door = _Door(pages)
    server = await asyncio.start_server(door.enter, sock=sock, limit=HEAD_MOST)
    try:
        yield
    finally:
        server.close()
        await door.aclose()


class _Door:
    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._tasks: set[asyncio.Task[None]] = set()
        self._asking: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        """Those whose head is not complete, the oldest first."""

    def enter(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A connection was made."""
        if len(self._tasks) >= MOST_CONNECTIONS:
            if not self._asking:  # all are being answered
                writer.transport.abort()
                return
            # Who is slow to ask must not keep a health check out. Its task ends by that.
            self._asking.pop(next(iter(self._asking))).transport.abort()
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        self._asking[task] = writer
        task.add_done_callback(self._left)

    def _left(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._asking.pop(task, None)

    async def aclose(self) -> None:
        """Ends what is left."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(HEAD_WITHIN):
                head = await reader.readuntil(b"\r\n\r\n")
            task = asyncio.current_task()
            assert task is not None
            self._asking.pop(task, None)
            answer = self._answer(head.split(b"\r\n", 1)[0])
            async with asyncio.timeout(ANSWER_WITHIN):
                writer.write(answer)
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.transport.abort()

    def _answer(self, line: bytes) -> bytes:
        parts = line.decode("latin-1").split(" ")
        if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
            return _encode(Page(400, b"This is no HTTP/1.1 request.\n"), False)
        method, path = parts[0], parts[1].partition("?")[0]
        if method not in ("GET", "HEAD"):
            return _encode(Page(405, b"GET only.\n"), False)
        page = self._pages.get(path)
        try:
            found = Page(404, b"There is nothing here.\n") if page is None else page()
        except Exception as error:  # a defect of a number must not look like an agent that is away
            asyncio.get_running_loop().call_exception_handler({"message": "metrics failed", "exception": error})
            found = Page(500, b"The agent failed to answer.\n")
        return _encode(found, method == "HEAD")


def _encode(page: Page, head_only: bool) -> bytes:
    lines = [
        f"HTTP/1.1 {page.status} {_REASONS[page.status]}",
        f"Content-Type: {page.content_type}",
        f"Content-Length: {len(page.body)}",
        "Cache-Control: no-store",
        "Connection: close",
        *(["Allow: GET, HEAD"] if page.status == 405 else []),
    ]
    head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
    return head if head_only else head + page.body
