"""Two processes of one machine talk over a Unix socket: lines of JSON, and open sockets beside them (SCM_RIGHTS).

Knows how to say and hear, and who is at the other end; not what about. `OSError` crosses this border: what it means is
decided where it is known what was asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

# Bytes of a line, unless its reader expects more.
MOST_LINE = 4096
BACKLOG = 16
# Bytes in sockaddr_un.sun_path, without the one that ends it.
_MOST_PATH = 107
_MOST_READ = 65536
_PEER = struct.Struct("3i")

Told = dict[str, object]


@contextlib.contextmanager
def _name(path: Path) -> Iterator[str]:
    """What to bind or connect to: the path, however long."""
    if len(os.fsencode(path)) <= _MOST_PATH:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def listen(path: Path) -> socket.socket:
    """Listens on a socket made there, closed to other users. Raises `OSError`."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(sock.fileno(), 0o600)  # on Linux the mode that the file is made with
        with _name(path) as name:
            sock.bind(name)
        path.chmod(0o600)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def connect(path: Path, most_sockets: int = 0) -> Talk | None:
    """A connection to whoever listens there; None: nobody does. Raises `OSError`."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        with _name(path) as name:
            sock.connect(name)
    except BaseException as error:
        sock.close()
        if isinstance(error, FileNotFoundError | ConnectionRefusedError):
            return None
        raise
    return Talk(sock, most_sockets)


class Talk:
    """One connection, a line at a time. `most_sockets`: with each line so many may come along; 0: they are refused."""

    def __init__(self, sock: socket.socket, most_sockets: int = 0) -> None:
        self._sock = sock
        self._most_sockets = most_sockets
        self._heard = bytearray()
        self._came: list[socket.socket] = []

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends it, with the sockets that nobody has taken."""
        for sock in self._came:
            sock.close()
        self._came.clear()
        self._sock.close()

    @property
    def peer(self) -> tuple[int, int]:
        """(process, user) at the other end, as the kernel says; where it says nothing, the mode of the file decides."""
        if not hasattr(socket, "SO_PEERCRED"):
            return 0, os.getuid()
        pid, uid, _ = _PEER.unpack(self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        return pid, uid

    async def say(self, told: Mapping[str, object], sockets: Sequence[int] = ()) -> None:
        """One line, and the descriptors that it speaks of. Raises `OSError`."""
        line = json.dumps(told).encode() + b"\n"
        while sockets:
            try:
                line = line[socket.send_fds(self._sock, [line], sockets) :]
                sockets = ()
            except BlockingIOError:
                await self._ready(writing=True)
        await asyncio.get_running_loop().sock_sendall(self._sock, line)

    async def hear(self, most: int = MOST_LINE) -> Told:
        """The next line; empty for whatever is none of ours, and at the end. Raises `OSError`."""
        while (end := self._heard.find(b"\n") + 1) == 0:
            if len(self._heard) > most or not await self._read():
                return {}
        line = self._heard[:end]
        del self._heard[:end]
        try:
            told = json.loads(line)
        except (ValueError, RecursionError):
            return {}
        return told if isinstance(told, dict) else {}

    def take(self, count: int) -> list[socket.socket]:
        """The next sockets that have come; fewer where fewer have."""
        taken, self._came = self._came[:count], self._came[count:]
        return taken

    async def _read(self) -> bool:
        await self._ready(writing=False)
        if self._most_sockets:
            flags = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
            data, descriptors, _, _ = socket.recv_fds(self._sock, _MOST_READ, self._most_sockets, flags)
            self._came += [socket.socket(fileno=one) for one in descriptors]
        else:  # the kernel closes what comes along
            data = self._sock.recv(_MOST_READ)
        self._heard += data
        return bool(data)

    async def _ready(self, writing: bool) -> None:
        """Until something can be written, or read."""
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        add, remove = (loop.add_writer, loop.remove_writer) if writing else (loop.add_reader, loop.remove_reader)
        add(self._sock, lambda: None if ready.done() else ready.set_result(None))
        try:
            await ready
        finally:
            remove(self._sock)
