"""Names that nobody has: Caddy asks no authority for a certificate, and the relay says that it does not know them."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Awaitable, Callable

import pytest

from tests.compose.conftest import Start, Told
from tests.compose.engine import DOMAIN, Stack
from tests.compose.outside import Outside
from tests.support.local import LocalProcess

pytestmark = [pytest.mark.compose, pytest.mark.timeout(300)]
MANY = 1000
AT_ONCE = 20
KNOWN_WITHIN = 2.0  # seconds; the relay looks twice a second what others have changed in its registry


@pytest.fixture(scope="module")
def outside(started: Start) -> Outside:
    return started(Stack())


async def handshake(outside: Outside, name: str) -> str:
    """What became of a TLS handshake for a name: how the other side refused it."""
    try:
        _, writer = await asyncio.open_connection(
            "127.0.0.1", outside.stack.https, ssl=outside.context, server_hostname=name
        )
    except ssl.SSLError as error:
        return str(error.reason)
    writer.close()
    return "let in"


async def plain(outside: Outside, host: str) -> tuple[int, dict[str, str], bytes]:
    """Status, fields and body of a GET without TLS."""
    reader, writer = await asyncio.open_connection("127.0.0.1", outside.stack.http)
    writer.write(f"GET /some?where=1 HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    head, _, body = (await asyncio.wait_for(reader.read(), 20)).partition(b"\r\n\r\n")
    writer.close()
    first, *lines = head.decode().split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return int(first.split()[1]), fields, body


async def spread(visit: Callable[[int], Awaitable[None]]) -> None:
    """All of them, a few at once."""
    waiting = list(range(MANY))

    async def work() -> None:
        while waiting:
            await visit(waiting.pop())

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))


async def test_a_thousand_unknown_names_cost_no_certificate(outside: Outside, told: Told) -> None:
    """Each handshake is refused, no certificate is asked for, and a name that is known is served as before."""
    before = outside.stack.certificates()
    ends: dict[str, int] = {}

    async def knock(number: int) -> None:
        said = await handshake(outside, f"nobody-{number}.{DOMAIN}")
        ends[said] = ends.get(said, 0) + 1

    await spread(knock)
    assert ends == {"TLSV1_ALERT_INTERNAL_ERROR": MANY}
    assert outside.stack.certificates() == before == {DOMAIN}
    assert "nobody-" not in "".join(
        line for line in outside.stack("logs", "--no-color", "caddy").splitlines() if "tls.obtain" in line
    )
    async with LocalProcess() as local, outside.agent(local.port, "known", outside.key("--subdomain", "known")[1]):
        assert await outside.visit("known") == 200
        assert outside.stack.certificates() == {DOMAIN, f"known.{DOMAIN}"}
    told(f"{MANY} unknown names over TLS: {ends}, certificates asked for: none")


async def test_a_thousand_unknown_names_without_tls(outside: Outside) -> None:
    """Each is told so by the relay, in its own way."""
    found: list[tuple[int, str | None]] = []

    async def call(number: int) -> None:
        status, fields, body = await plain(outside, f"nobody-{number}.{DOMAIN}")
        found.append((status, fields.get("relay-error")))
        assert json.loads(body)["error"] == "unknown_host"

    await spread(call)
    assert found == [(404, "unknown_host")] * MANY


async def test_a_known_name_without_tls_is_sent_to_https(outside: Outside) -> None:
    """With its path, and so is the domain itself; other hosts are told that there is no such tunnel."""
    outside.stack.relay("projects", "create", "sender", "--quiet")
    outside.stack.relay("subdomains", "reserve", "sent", "--project", "sender")
    end = time.monotonic() + KNOWN_WITHIN
    while (await plain(outside, f"sent.{DOMAIN}"))[0] != 308 and time.monotonic() < end:
        await asyncio.sleep(0.05)
    for host in (f"sent.{DOMAIN}", DOMAIN):
        status, fields, _ = await plain(outside, f"{host}:{outside.stack.http}")
        assert (status, fields["location"]) == (308, f"https://{host}:{outside.stack.https}/some?where=1")
    for host in ("127.0.0.1", "elsewhere.example", f"a.b.{DOMAIN}"):
        status, fields, _ = await plain(outside, host)
        assert (status, fields["relay-error"]) == (404, "unknown_host")


async def test_another_host_than_the_certificates(outside: Outside) -> None:
    """A connection that was made for a known name and asks for an unknown one gets the relay's own answer."""
    async with LocalProcess() as local, outside.agent(local.port, "host", outside.key("--subdomain", "host")[1]):
        assert await outside.visit("host") == 200
        for host in (f"nobody.{DOMAIN}", "elsewhere.example"):
            said = await outside.curl("--http2", "-D", "-", "-H", f"Host: {host}", outside.url("host", "/"))
            head, _, body = said.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/2 404")
            assert json.loads(body)["error"] == "unknown_host"


async def test_the_domain_itself_is_for_agents_and_commands(outside: Outside) -> None:
    """The API answers there, with what it answers strangers; nothing of the internal listener is there."""
    base = f"https://{DOMAIN}:{outside.stack.https}"
    said = await outside.curl("-o", "/dev/null", "-w", "%{http_code}", f"{base}/api/v1/projects")
    assert said == b"401"
    for path in ("/metrics", "/readyz", "/ask"):
        assert await outside.curl("-o", "/dev/null", "-w", "%{http_code}", base + path) == b"404"
