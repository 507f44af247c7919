"""The way to a host as an agent or a visitor takes it: its addresses, a connection, TLS and whose certificate that is.

Names below localhost are this machine. A proxy is the environment's, and looks names up by itself.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address

from relay.agent.dialing import NoWay, find, reach
from relay.agent.failures import in_words
from relay.agent.lookups import Lookups
from relay.agent.proxies import BadProxy, Proxy, proxy_for, refusal_in_words
from relay.agent.targets import place
from relay.cli.doctoring.errors import Trouble
from relay.cli.output import harmless

SOON = 14 * 86400.0
"""Seconds before the end of a certificate from which on it is worth a warning."""
AGREED_WITHIN = 2.5
"""Seconds for TLS."""
_OWN_AUTHORITY = "If it is an authority of your own, name its certificate: SSL_CERT_FILE=/path/to/ca.pem"


@dataclass(frozen=True, slots=True)
class Place:
    """Where to connect."""

    host: str
    port: int
    tls: bool
    proxy: Proxy | None = None
    at: str = ""
    """The address to connect to, where that is not the host's own."""

    @property
    def shown(self) -> str:
        """Host and port."""
        return place(self.host, self.port)


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a peer shows of itself. Times are seconds since the epoch."""

    issuer: str
    names: tuple[str, ...]
    begins: float
    ends: float

    @property
    def until(self) -> str:
        """The day of its end."""
        return day(self.ends)


@dataclass(slots=True)
class Line:
    """A connection. Seconds are those of its making."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    address: str
    seconds: float
    certificate: Certificate | None = None
    version: str = ""
    """Of TLS."""

    def close(self) -> None:
        self.writer.transport.abort()


def proxy_of(url: str) -> Proxy | None:
    """The proxy that the environment names for a relay's address. Raises `Trouble`."""
    try:
        return proxy_for(url)
    except BadProxy as error:
        raise Trouble(str(error), "Set the variable right, or take it away") from None


async def addresses(host: str, port: int) -> list[str]:
    """Those of a host; never empty. Raises `Trouble`."""
    try:
        return await find(host, port, Lookups())
    except NoWay as error:
        raise Trouble(
            f"{host}: {in_words(error.cause)}",
            f"Look whether the name is right and has a DNS record; ask with: getent hosts {host}",
        ) from None


async def connected(place: Place) -> tuple[socket.socket, str, float]:
    """A connection without TLS, with the address at its other end and the seconds that it took. Raises `Trouble`."""
    began = time.monotonic()
    if place.proxy is not None:
        sock = await _through(place.proxy, place)
        return sock, place.proxy.shown, time.monotonic() - began
    found = [place.at] if place.at else await addresses(place.host, place.port)
    began = time.monotonic()
    try:
        sock = await reach(found, place.port)
    except NoWay as error:
        raise Trouble(
            f"{place.shown} takes no connection ({in_words(error.cause)}; tried {', '.join(found)})",
            "Look whether it runs and listens there, and whether a firewall is in between",
        ) from None
    return sock, str(sock.getpeername()[0]), time.monotonic() - began


async def _through(proxy: Proxy, place: Place) -> socket.socket:
    from python_socks import ProxyError
    from python_socks.async_.asyncio import Proxy as Through

    try:
        return await Through.from_url(proxy.url).connect(place.host, place.port)
    except ProxyError as error:
        said = f"status {error.error_code}" if error.error_code else str(error)
        raise Trouble(refusal_in_words(said, proxy, place.shown), "Ask whoever runs the proxy") from None
    except OSError as error:
        raise Trouble(
            f"the proxy {proxy.shown}, which the environment names, takes no connection ({in_words(error)})",
            "Look whether HTTPS_PROXY is right, or take it away",
        ) from None


async def line_to(place: Place) -> Line:
    """A connection, with TLS where the place has it. Raises `Trouble`."""
    sock, address, seconds = await connected(place)
    if not place.tls:
        return Line(*await asyncio.open_connection(sock=sock), address, seconds)
    began = time.monotonic()
    context = ssl.create_default_context()
    try:
        reader, writer = await asyncio.open_connection(
            sock=sock, ssl=context, server_hostname=place.host, ssl_handshake_timeout=AGREED_WITHIN
        )
    except ssl.SSLCertVerificationError as error:
        raise await _distrusted(place, error) from None
    except (ssl.SSLError, OSError) as error:
        raise Trouble(
            f"{place.shown} does not agree on TLS ({in_words(error)})",
            "Look whether TLS is spoken on that port, by the relay or a proxy in front, or use ws:// on this machine",
        ) from None
    spoken: ssl.SSLObject = writer.get_extra_info("ssl_object")
    shown = spoken.getpeercert(True)
    assert shown is not None
    line = Line(reader, writer, address, seconds + time.monotonic() - began)
    line.certificate, line.version = read(shown), spoken.version() or ""
    return line


async def _distrusted(place: Place, error: ssl.SSLCertVerificationError) -> Trouble:
    """What is wrong with a certificate: it is looked at once more, without trust, and nothing is said to its owner."""
    said = f"The certificate of {place.shown} is not trusted: {harmless(error.verify_message).rstrip('.')}"
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        sock, _, _ = await connected(place)
        _, writer = await asyncio.open_connection(
            sock=sock, ssl=context, server_hostname=place.host, ssl_handshake_timeout=AGREED_WITHIN
        )
        shown = writer.get_extra_info("ssl_object").getpeercert(True)
        writer.transport.abort()
        found = read(shown)
    except (OSError, ValueError, Trouble):
        return Trouble(said, _OWN_AUTHORITY)
    said += f" (it is for {', '.join(found.names) or 'no host name'}, issued by {found.issuer}, until {found.until})"
    if not covers(found.names, place.host):
        return Trouble(said, f"Get a certificate for {place.host}, or use the name that it is for")
    if found.ends < time.time():
        return Trouble(said, "Renew it, or set this machine's clock right")
    return Trouble(said, _OWN_AUTHORITY)


def read(der: bytes) -> Certificate:
    """A certificate as it was sent. Raises ValueError."""
    from cryptography import x509

    found = x509.load_der_x509_certificate(der)
    try:
        other = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = (*other.get_values_for_type(x509.DNSName), *map(str, other.get_values_for_type(x509.IPAddress)))
    except x509.ExtensionNotFound:
        names = ()
    issuer = found.issuer.get_attributes_for_oid(x509.NameOID.ORGANIZATION_NAME)
    issuer += found.issuer.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    shown = harmless(" ".join(str(one.value) for one in issuer) or "nobody")
    begins, ends = found.not_valid_before_utc.timestamp(), found.not_valid_after_utc.timestamp()
    return Certificate(shown, tuple(harmless(name.lower()) for name in names), begins, ends)


def covers(names: tuple[str, ...], host: str) -> bool:
    """Whether a certificate for these names is one for this host (RFC 9525 §6.3: a star stands for one label)."""
    try:
        return str(ip_address(host)) in names
    except ValueError:
        return host in names or "*." + host.partition(".")[2] in names


def day(moment: float) -> str:
    """A date, in UTC."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d")
