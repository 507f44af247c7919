"""A relay that speaks TLS by a test's own authority, an agent that trusts it, and visitors that say how TLS ended."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from tests.support.authority import Authority, Files
from tests.support.local import LocalService
from tests.support.processes import DOMAIN, AgentProcess, RelayProcess

NAMES = (DOMAIN, f"*.{DOMAIN}")


@dataclass
class TlsHouse:
    """`relay`, and an agent with the name `t` before `local`."""

    authority: Authority
    files: Files
    relay: RelayProcess
    local: LocalService

    @asynccontextmanager
    async def agent(self, port: int, name: str) -> AsyncIterator[AgentProcess]:
        """Another agent, that trusts the authority by its environment, with its tunnel."""
        agent = AgentProcess(
            port,
            relay_port=self.relay.agents_port,
            key_file=self.relay.data / "operator.key",
            subdomain=name,
            args=["--relay", f"wss://{DOMAIN}:{self.relay.agents_port}"],
            env={"SSL_CERT_FILE": str(self.authority.ca)},
        )
        async with agent:
            await agent.established()
            yield agent


class TlsVisitor:
    """A blocking one, for threads. `ended` says how the answer ended: `notified`, or `cut` without close_notify."""

    def __init__(self, house: TlsHouse, tls: ssl.SSLContext | None = None, *, name: str = "t", port: int = 0) -> None:
        self._host = f"{name}.{DOMAIN}"
        raw = socket.create_connection(("127.0.0.1", port or house.relay.public_port), timeout=10)
        context = tls or house.authority.trusting()
        context.set_alpn_protocols(["h2", "http/1.1"])
        self.wire = context.wrap_socket(raw, server_hostname=self._host, suppress_ragged_eofs=False)
        self.ended: Literal["", "notified", "cut"] = ""
        self._unread = bytearray()

    def ask(self, target: str, *fields: str, method: str = "GET", version: str = "1.1") -> None:
        head = [f"{method} {target} HTTP/{version}", f"Host: {self._host}", *fields]
        self.wire.sendall("\r\n".join([*head, "", ""]).encode())

    def until(self, mark: bytes) -> bytes:
        """What came up to and with a mark."""
        while (end := self._unread.find(mark)) < 0:
            self._unread += self._some()
        end += len(mark)
        return self._taken(end)

    def rest(self) -> bytes:
        """All that comes until the end; see `ended`."""
        whole = [bytes(self._unread)]
        while not self.ended:
            whole.append(self._read())
        return b"".join(whole)

    def answer(self) -> tuple[bytes, bytes]:
        """Head and body of an answer with a length."""
        head = self.until(b"\r\n\r\n")
        fields = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:-2])
        length = int(fields[b"content-length"])
        while len(self._unread) < length:
            self._unread += self._some()
        return head, self._taken(length)

    def serial(self) -> int:
        """Which certificate was shown."""
        found = self.wire.getpeercert()
        assert found is not None
        return int(str(found["serialNumber"]), 16)

    def _taken(self, count: int) -> bytes:
        found = bytes(self._unread[:count])
        del self._unread[:count]
        return found

    def _some(self) -> bytes:
        data = self._read()
        assert data, f"the answer ended ({self.ended}) after {self._unread[-100:]!r}"
        return data

    def _read(self) -> bytes:
        try:
            data = self.wire.recv(256 * 1024)
            self.ended = "" if data else "notified"
        except ssl.SSLEOFError:
            data, self.ended = b"", "cut"
        return data

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.wire.close()


@asynccontextmanager
async def tls_house(folder: Path) -> AsyncIterator[TlsHouse]:
    """All of it, on free ports."""
    authority = Authority(folder)
    files = authority.issue(*NAMES)
    data = folder / "data"
    async with AsyncExitStack() as stack:
        local = await stack.enter_async_context(LocalService())
        relay = RelayProcess(data, args=files.flags)
        data.mkdir(mode=0o700)
        relay.key_file.touch(mode=0o600)  # the operator's is used: the agent mints for itself, over TLS
        await stack.enter_async_context(relay)
        house = TlsHouse(authority, files, relay, local)
        await stack.enter_async_context(house.agent(local.port, "t"))
        yield house
