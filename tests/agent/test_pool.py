"""The pool of connections to one local service: reuse, repetition, failures to connect, TLS, and its end."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from relay.agent import lookups
from relay.agent.addresses import AddressPolicy
from relay.agent.pool import Keep, LocalPool
from relay.agent.requests import LocalCall, LocalRequest
from relay.agent.targets import parse_target
from tests.agent.localside import Log, Peer, Service, on_every_loop, within
from tests.support.tlsfront import end_at_once

NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


def request(method: bytes = b"GET", body: str = "none") -> LocalRequest:
    fields = [(b"Host", b"x")]
    if body == "chunked":
        return LocalRequest(method, b"/", fields, "chunked")
    return LocalRequest(method, b"/", fields)


def start(pool: LocalPool, asked: LocalRequest | None = None) -> tuple[LocalCall, Log]:
    """An exchange begins; the log knows who takes the request."""
    log = Log()
    log.call = pool.start(asked or request(), log, asyncio.get_running_loop().time())
    return log.call, log


class Pooled:
    """A pool beside the service that it connects to."""

    def __init__(self, service: Service, pool: LocalPool) -> None:
        self.service = service
        self.pool = pool

    def start(self, asked: LocalRequest | None = None) -> tuple[LocalCall, Log]:
        return start(self.pool, asked)

    async def answered(self, peer: Peer | None = None, asked: LocalRequest | None = None) -> Peer:
        """A whole exchange, on `peer` when it is expected there, else on a new connection."""
        _, log = self.start(asked)
        peer = peer or await self.service.accept()
        await peer.head()
        await peer.send(NO_CONTENT)
        await log.over()
        assert log.names == ["head", "end"]
        return peer


@asynccontextmanager
async def pooled(idle: float = 4.0, fresh: float = 1.0, most_idle: int = 64) -> AsyncIterator[Pooled]:
    async with Service() as service:
        target = parse_target(str(service.port))
        pool = LocalPool(target, AddressPolicy(), keep=Keep(idle=idle, fresh=fresh, most=most_idle))
        yield Pooled(service, pool)
        await within(pool.aclose())


# ---- reuse ---------------------------------------------------------------------------------------------------------


@on_every_loop
async def test_connections_are_used_again() -> None:
    """One exchange after the other is one connection, whatever its method."""
    async with pooled() as local:
        peer = await local.answered()
        for method in (b"GET", b"POST", b"DELETE", b"PATCH"):
            await local.answered(peer, request(method))
        assert local.service.nobody_waits()


@on_every_loop
async def test_exchanges_beside_each_other_are_connections_beside_each_other() -> None:
    """No exchange waits for another, and the newest idle connection is taken first."""
    async with pooled() as local:
        (_, one), (_, two) = local.start(), local.start()
        peers = [await local.service.accept(), await local.service.accept()]
        for peer in peers:
            await peer.head()
        for log, peer in ((one, peers[0]), (two, peers[1])):
            await peer.send(NO_CONTENT)
            await log.over()
        await local.answered(peers[1])


@on_every_loop
async def test_request_that_may_not_be_repeated_takes_only_a_fresh_connection() -> None:
    """A connection that idled as long as `fresh` serves a GET, not a POST."""
    async with pooled(fresh=0.0) as local:
        first = await local.answered()
        second = await local.answered(asked=request(b"POST"))
        assert second is not first
        third = await local.answered(asked=request(b"PUT", "none"), peer=second)
        assert third is second


@on_every_loop
async def test_idle_connections_are_closed() -> None:
    """After `idle` seconds, seen by the local service; the next request makes a new one."""
    async with pooled(idle=0.05) as local:
        peer = await local.answered()
        assert await peer.rest() == b""
        assert await local.answered() is not peer


@on_every_loop
async def test_no_more_than_so_many_idle_connections() -> None:
    """Beyond `most_idle` the oldest is closed."""
    async with pooled(most_idle=1) as local:
        (_, one), (_, two) = local.start(), local.start()
        peers = [await local.service.accept(), await local.service.accept()]
        for peer in peers:
            await peer.head()
        for log, peer in ((one, peers[0]), (two, peers[1])):
            await peer.send(NO_CONTENT)
            await log.over()
        assert await peers[0].rest() == b""
        await local.answered(peers[1])


@on_every_loop
async def test_idle_connection_that_ended_is_not_taken() -> None:
    """Neither one that the local service closed nor one on which it spoke unasked."""
    async with pooled() as local:
        peer = await local.answered()
        peer.close()
        await _until_gone(local)
        other = await local.answered(asked=request(b"POST"))
        await other.send(b"unasked")
        await other.rest()
        await local.answered(asked=request(b"POST"))


async def _until_gone(local: Pooled) -> None:
    """The agent's end has seen that the local service closed."""
    async with asyncio.timeout(5):
        while local.pool._all:
            await asyncio.sleep(0.001)


# ---- sent again, or not --------------------------------------------------------------------------------------------


async def stale(local: Pooled, asked: LocalRequest, answer: bytes = b"") -> tuple[LocalCall, Log]:
    """A request on a pooled connection that closes after the request came, with `answer` as its last words."""
    peer = await local.answered()
    call, log = local.start(asked)
    if asked.body == "chunked":
        call.write(b"body")
        call.end([])
    await peer.head()
    if asked.body == "chunked":
        await peer.until(b"0\r\n\r\n")
    if answer:
        await peer.send(answer)
    peer.close()
    return call, log


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"])
@on_every_loop
async def test_stale_connection_is_forgiven_once(method: bytes) -> None:
    """A method that may be repeated, without a body, is sent again on a new connection, and not a third time."""
    async with pooled() as local:
        _, log = await stale(local, request(method))
        peer = await local.service.accept()
        assert (await peer.head()).startswith(method + b" / ")
        await peer.send(NO_CONTENT)
        await log.over()
        assert log.names == ["head", "end"]
    async with pooled() as local:
        _, log = await stale(local, request(method))
        peer = await local.service.accept()
        await peer.head()
        peer.close()
        await log.over()
        assert log.names == ["failed"]
        assert local.service.nobody_waits()


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        (request(b"POST"), b""),
        (request(b"PATCH"), b""),
        (request(b"get"), b""),
        (request(b"PUT", "chunked"), b""),
        (request(b"GET", "chunked"), b""),
        (request(b"GET"), b"H"),
        (request(b"GET"), b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
)
@on_every_loop
async def test_stale_connection_is_a_failure_for_the_rest(asked: LocalRequest, answer: bytes) -> None:
    """It may have had effect, or an answer had begun: the visitor is told instead."""
    async with pooled() as local:
        _, log = await stale(local, asked, answer)
        await log.over()
        assert log.failure is not None
        assert log.failure[0] == "local_reset"
        assert log.failure[1].startswith(f"http://127.0.0.1:{local.service.port} closed the connection")
        assert log.failure[2] is False
        assert local.service.nobody_waits()


@on_every_loop
async def test_new_connection_that_closes_is_a_failure() -> None:
    """Repetition is for connections that had idled, not for a local service that breaks."""
    async with pooled() as local:
        _, log = local.start()
        peer = await local.service.accept()
        await peer.head()
        peer.close()
        await log.over()
        assert log.failure is not None
        assert log.failure[0] == "local_reset"
        assert local.service.nobody_waits()


@on_every_loop
async def test_what_was_said_of_the_call_holds_on_its_second_connection() -> None:
    """A handshake that is sent again keeps its half-close."""
    async with pooled() as local:
        asked = LocalRequest(b"GET", b"/ws", [(b"Host", b"x")], "upgrade")
        peer = await local.answered()
        call, log = local.start(asked)
        call.end([])
        await peer.head()
        peer.close()
        peer = await local.service.accept()
        await peer.head()
        await peer.send(SWITCH + b"x")
        assert await peer.rest() == b""
        peer.close()
        await log.over()
        assert log.names == ["head", "data", "end"]


# ---- while connecting ----------------------------------------------------------------------------------------------


@on_every_loop
async def test_bytes_written_while_connecting_are_held() -> None:
    """`write` says wait, and once the bytes went to the connection, go on; not one is lost."""
    async with pooled() as local:
        call, log = local.start(request(b"POST", "chunked"))
        buffer = bytearray(b"one")
        assert not call.write(memoryview(buffer))
        buffer[:] = b"!!!"
        assert not call.write(b"two")
        await log.until(lambda: log.writable == 1)
        assert log.call is not None
        assert log.call is not call
        assert log.call.write(b"three")
        log.call.end([(b"T", b"1")])
        peer = await local.service.accept()
        await peer.head()
        assert await peer.until(b"\r\n\r\n") == b"3\r\none\r\n3\r\ntwo\r\n5\r\nthree\r\n0\r\nT: 1\r\n\r\n"


@on_every_loop
async def test_body_that_ended_while_connecting() -> None:
    """Held bytes, their end, and the word that they went on their way."""
    async with pooled() as local:
        call, log = local.start(request(b"POST", "chunked"))
        assert not call.write(b"all")
        call.end([])
        peer = await local.service.accept()
        await peer.head()
        assert await peer.until(b"0\r\n\r\n") == b"3\r\nall\r\n0\r\n\r\n"
        assert log.writable == 1
        await peer.send(NO_CONTENT)
        await log.over()
        await local.answered(peer)


@on_every_loop
async def test_abort_while_connecting() -> None:
    """No event comes, no request is sent, and nothing is left to close."""
    async with pooled() as local:
        call, log = local.start()
        await asyncio.sleep(0)
        call.abort()
        call.abort()
        _, other = local.start()
        while True:
            peer = await local.service.accept()
            try:
                await peer.head()
                break
            except AssertionError:
                continue  # the connection of the call that was given up
        await peer.send(NO_CONTENT)
        await other.over()
        assert (log.names, other.names) == ([], ["head", "end"])


def unused_port(host: str = "127.0.0.1") -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as wire:
        wire.bind((host, 0))
        port: int = wire.getsockname()[1]
        return port


async def refusal(target: str, connect_timeout: float = 10.0) -> str:
    """What is said when nothing can be connected to."""
    pool = LocalPool(parse_target(target), AddressPolicy(), keep=Keep(connecting=connect_timeout))
    call, log = start(pool, request(b"POST", "chunked"))
    call.write(b"held")
    await log.over()
    assert log.names == ["failed"]
    assert log.failure is not None
    assert log.failure[0] == "local_refused"
    assert log.failure[2] is False
    assert call.write(b"more")
    await within(pool.aclose())
    return log.failure[1]


@on_every_loop
async def test_nothing_listens() -> None:
    """The address tried and why, in words."""
    port = unused_port()
    assert await refusal(str(port)) == f"http://127.0.0.1:{port}: connection refused"


@on_every_loop
async def test_localhost_is_both_addresses() -> None:
    """A service on ::1 alone is found under `localhost`, and a refusal names both."""
    try:
        service = Service("::1")
    except OSError:
        pytest.skip("no IPv6 here")
    async with service:
        pool = LocalPool(parse_target(f"localhost:{service.port}"), AddressPolicy())
        _, log = start(pool)
        peer = await service.accept()
        await peer.head()
        await peer.send(b"nonsense")
        await log.over()
        assert log.failure is not None
        assert log.failure[1].startswith(f"http://localhost:{service.port} (::1) sent a bad response head")
        await within(pool.aclose())
    assert await refusal(f"localhost:{service.port}") == (
        f"http://localhost:{service.port}: connection refused (127.0.0.1, ::1)"
    )


@on_every_loop
async def test_address_that_is_not_allowed() -> None:
    """The policy's sentence reaches the visitor's side."""
    said = await refusal("169.254.169.254:80")
    assert said == "http://169.254.169.254: 169.254.169.254 is a link-local address, to which the agent never connects."


@on_every_loop
async def test_name_is_looked_up_and_checked_at_every_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    """One lookup a connection, and what it said is what is connected to."""
    asked: list[str] = []

    def lookup(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) < 3 else ["169.254.169.254"]

    monkeypatch.setattr(lookups, "addresses_of", lookup)
    async with Service() as service:
        pool = LocalPool(parse_target(f"rebind.example:{service.port}"), AddressPolicy())
        for _ in range(2):
            _, log = start(pool)
            peer = await service.accept()
            await peer.head()
            await peer.send(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
            await log.over()
            assert log.names == ["head", "end"]
        _, log = start(pool)
        await log.over()
        assert log.failure is not None
        assert "169.254.169.254 is a link-local address" in log.failure[1]
        assert asked == ["rebind.example"] * 3
        assert service.nobody_waits()
        await within(pool.aclose())


@on_every_loop
async def test_connect_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name service that does not answer counts too."""

    def lookup(host: str, port: int) -> list[str]:
        assert answering.wait(10)
        raise AssertionError

    answering = threading.Event()
    monkeypatch.setattr(lookups, "addresses_of", lookup)
    assert await refusal("slow.example:80", connect_timeout=0.05) == "http://slow.example: no connection within 0.05 s"
    answering.set()


@on_every_loop
async def test_name_that_does_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Said in words."""

    def lookup(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(lookups, "addresses_of", lookup)
    assert await refusal("nowhere.example:81") == "http://nowhere.example:81: the name does not resolve"


@on_every_loop
async def test_idle_connections_are_dropped_when_they_may_be_dead() -> None:
    """The next exchange is on a new one, and one that runs is not disturbed."""
    async with pooled() as local:
        _, running = local.start()
        busy = await local.service.accept()
        await busy.head()
        peer = await local.answered()
        local.pool.drop_idle()
        assert await peer.rest() == b""
        await local.answered()
        await busy.send(NO_CONTENT)
        await running.over()
        assert running.names == ["head", "end"]


# ---- the end -------------------------------------------------------------------------------------------------------


@on_every_loop
async def test_aclose_ends_everything() -> None:
    """Idle, running and connecting: each connection closes, each exchange is told, later ones as well."""
    async with Service() as service:
        pool = LocalPool(parse_target(str(service.port)), AddressPolicy())
        local = Pooled(service, pool)
        (_, one), (_, running) = local.start(), local.start()
        peers = [await service.accept(), await service.accept()]
        for peer in peers:
            await peer.head()
        await peers[0].send(NO_CONTENT)
        await one.over()
        _, connecting = local.start(request(b"POST"))
        _, also = local.start(request(b"POST"))
        await within(pool.aclose())
        for log in (running, also):
            assert log.failure is not None
            assert log.failure[0] == "local_reset"
            assert "the agent stops" in log.failure[1]
        assert connecting.names == ["failed"]
        for peer in peers:
            await peer.rest()
        _, late = local.start()
        assert late.names == []
        await late.over()
        assert late.names == ["failed"]
        await within(pool.aclose())


# ---- TLS -----------------------------------------------------------------------------------------------------------

# For localhost and 127.0.0.1, signed by itself; worth nothing elsewhere.
CERTIFICATE = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgALyY4STt8hOoS+BP
X35uirjd2YhmyNE2TSfNKmYftZqhRANCAASqL5hRU1S3RM+ml9kg0nO9xg0sx6Pc
GvCPw9XAVrWla11rHLMJcs1iL/VxU6KSpG+JAlZgzfLnNJIOinHseB1U
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBeDCCAR2gAwIBAgIBATAKBggqhkjOPQQDAjAUMRIwEAYDVQQDDAlsb2NhbGhv
c3QwIBcNMjAwMTAxMDAwMDAwWhgPMjEyMDAxMDEwMDAwMDBaMBQxEjAQBgNVBAMM
CWxvY2FsaG9zdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABKovmFFTVLdEz6aX
2SDSc73GDSzHo9wa8I/D1cBWtaVrXWscswlyzWIv9XFTopKkb4kCVmDN8uc0kg6K
cex4HVSjXjBcMBoGA1UdEQQTMBGCCWxvY2FsaG9zdIcEfwAAATAPBgNVHRMBAf8E
BTADAQH/MA4GA1UdDwEB/wQEAwIChDAdBgNVHQ4EFgQU95wgT1deBG/RHsdvvmAc
vMKuVSswCgYIKoZIzj0EAwIDSQAwRgIhANNoqb/u7k1lvnu72PKEzfT3YtGycSIc
y1GIwGBUW6H3AiEA8xLQ6rpVDU0MrFj+y6uE9tPFdhYDUQYBXCcL4kZLWU4=
-----END CERTIFICATE-----
"""


@asynccontextmanager
async def over_tls(folder: Path, answer: bytes, end: str = "") -> AsyncIterator[tuple[int, ssl.SSLContext]]:
    """A local service that answers every head over TLS, and then may `end` (close, abort); a context that trusts it."""
    file = folder / "local.pem"
    file.write_text(CERTIFICATE, encoding="ascii")
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(file)
    trusting = ssl.create_default_context(cafile=str(file))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(answer)
                await writer.drain()
                if end:
                    break
        except (OSError, EOFError):
            pass
        if end == "abort":
            writer.transport.abort()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=serving) as server:
        yield server.sockets[0].getsockname()[1], trusting


@on_every_loop
async def test_https_target(tmp_path: Path) -> None:
    """A local service behind TLS, with the connection used again."""
    async with over_tls(tmp_path, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") as (port, trusting):
        pool = LocalPool(parse_target(f"https://localhost:{port}"), AddressPolicy(), tls=trusting)
        for _ in range(3):
            _, log = start(pool)
            await log.over()
            assert log.names == ["head", "data", "end"]
        assert len(pool._all) == 1
        await within(pool.aclose())


@pytest.mark.parametrize(("end", "last"), [("close", "end"), ("abort", "failed")])
@on_every_loop
async def test_https_answer_until_close(tmp_path: Path, end: str, last: str) -> None:
    """TLS says when it ends on purpose; without that word an answer is cut off."""
    async with over_tls(tmp_path, b"HTTP/1.1 200 OK\r\n\r\nok", end) as (port, trusting):
        pool = LocalPool(parse_target(f"https://127.0.0.1:{port}"), AddressPolicy(), tls=trusting)
        _, log = start(pool)
        await log.over()
        assert log.names == ["head", "data", last]
        await within(pool.aclose())


@pytest.mark.parametrize("length", [b"", b"Content-Length: 700000\r\n"])
@on_every_loop
async def test_https_answer_in_bulk_with_its_end_right_behind(tmp_path: Path, length: bytes) -> None:
    """A local service that says that it ends and closes at once, waiting for nobody: all of it arrives."""
    size = 700_000
    async with over_tls(tmp_path, b"") as (_, trusting):
        serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        serving.load_cert_chain(tmp_path / "local.pem")
    answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\n" + length + b"\r\n" + bytes(size)

    def serve(listener: socket.socket) -> None:
        wire = serving.wrap_socket(listener.accept()[0], server_side=True)
        while not wire.recv(65536).endswith(b"\r\n\r\n"):
            pass
        wire.sendall(answer)
        end_at_once(wire)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**22)
        for _ in range(8):
            pool = LocalPool(
                parse_target(f"https://localhost:{listener.getsockname()[1]}"), AddressPolicy(), tls=trusting
            )
            served = asyncio.ensure_future(asyncio.to_thread(serve, listener))
            _, log = start(pool)
            await log.over()
            await within(served)
            assert (log.failure, len(log.body)) == (None, size)
            await within(pool.aclose())


@on_every_loop
async def test_certificate_that_nobody_trusts(tmp_path: Path) -> None:
    """Verification is on, and its complaint is said."""
    async with over_tls(tmp_path, NO_CONTENT) as (port, _):
        said = await refusal(f"https://127.0.0.1:{port}")
        assert said.startswith(f"https://127.0.0.1:{port}: its certificate is not trusted: self-signed certificate")


@on_every_loop
async def test_http_target_that_speaks_tls(tmp_path: Path) -> None:
    """The wrong scheme is told from the first bytes."""
    async with over_tls(tmp_path, NO_CONTENT) as (port, _):
        pool = LocalPool(parse_target(str(port)), AddressPolicy())
        _, log = start(pool)
        await log.over()
        assert log.failure is not None
        # asyncio's own TLS server only closes; others send an alert, which names https://
        assert log.failure[0] in ("local_reset", "bad_response")
        await within(pool.aclose())


@on_every_loop
async def test_https_target_that_speaks_plain_http() -> None:
    """A failed TLS handshake is a refusal that says so."""
    async with Service() as service:
        pool = LocalPool(parse_target(f"https://127.0.0.1:{service.port}"), AddressPolicy())
        _, log = start(pool)
        peer = await service.accept()
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await log.over()
        assert log.failure is not None
        assert log.failure[0] == "local_refused"
        assert "TLS failed" in log.failure[1]
        await within(pool.aclose())
