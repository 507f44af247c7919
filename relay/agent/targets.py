"""What a developer types as TARGET, read once into a value. Pure; whether the address is allowed is not known here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Literal

Scheme = Literal["http", "https"]

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORTS: dict[Scheme, int] = {"http": 80, "https": 443}
EXAMPLES = "3000, 127.0.0.1:3000 or http://127.0.0.1:3000"

# Underscores are no host name, but names of containers have them.
_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(?:\.(?!-)[a-z0-9_-]{1,63}(?<!-))*\.?")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_PORT = re.compile(r"[0-9]{1,5}")


class TargetError(ValueError):
    """The text is no target; the message is one sentence with an example."""


def place(host: str, port: int) -> str:
    """Host and port as people write them, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True, slots=True)
class Target:
    """Where the local service listens."""

    scheme: Scheme
    host: str
    """A name in lower case, or an IP address without brackets."""
    port: int

    @property
    def authority(self) -> bytes:
        """The value of `Host` (RFC 9110 §7.2): the port is left out where it is the scheme's default."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}").encode("ascii")

    @property
    def url(self) -> str:
        """As people write it, `http://127.0.0.1:3000`, without a path."""
        return f"{self.scheme}://{self.authority.decode('ascii')}"


def parse_target(text: str) -> Target:
    """A port, `host:port`, `[v6]:port` or a URL without a path. Raises `TargetError`."""
    text = text.strip()
    if _PORT.fullmatch(text):
        return Target("http", DEFAULT_HOST, _port(text, text))
    scheme: Scheme = "http"
    rest = text
    default: int | None = None
    if match := _SCHEME.fullmatch(text):
        lower = match[1].lower()
        if lower not in ("http", "https"):
            raise TargetError(f"A target is http:// or https://, and {lower}:// is neither; for example {EXAMPLES}.")
        scheme = "https" if lower == "https" else "http"
        rest = match[2]
        default = DEFAULT_PORTS[scheme]
        rest = _authority_of(rest)
    host, port = _split(rest, text)
    if port is None and default is None:
        raise TargetError(f"The target {text!r} has no port; for example {text}:3000.")
    number = default if port is None else _port(port, text)
    assert number is not None
    return Target(scheme, host, number)


def _authority_of(rest: str) -> str:
    """What stands between `//` and the path, which must be empty or `/`."""
    authority, slash, path = rest.partition("/")
    for sign, what in (("?", "a query"), ("#", "a fragment")):
        if sign in rest:
            raise TargetError(f"A target is scheme, host and port only, without {what}; for example {EXAMPLES}.")
    if slash and path:
        raise TargetError(
            f"A target has no path, since visitors' paths are passed on as they are: leave out '/{path}';"
            f" for example {EXAMPLES}."
        )
    if "@" in authority:
        raise TargetError(f"A target holds no user name or password; for example {EXAMPLES}.")
    return authority


def _split(authority: str, text: str) -> tuple[str, str | None]:
    """Host, checked, and port text."""
    port: str | None
    if authority.startswith("["):
        literal, bracket, tail = authority[1:].partition("]")
        if not bracket or (tail and not tail.startswith(":")):
            raise TargetError(f"The target {text!r} is no address; for example [::1]:3000.")
        host, port = _literal(literal, text), (tail[1:] if tail else None)
    else:
        name, colon, port_text = authority.partition(":")
        if ":" in port_text:
            raise TargetError(f"The IPv6 address in {text!r} stands without brackets; for example [::1]:3000.")
        host, port = name.lower(), (port_text if colon else None)
        if not _NAME.fullmatch(host) or len(host) > 253:
            raise TargetError(f"The target {text!r} is no port, host:port or URL; for example {EXAMPLES}.")
    if host in ("0.0.0.0", "::"):
        raise TargetError(f"{host} is an address to listen on, not to connect to; use for example {DEFAULT_HOST}:3000.")
    return host, port


def _literal(text: str, target: str) -> str:
    try:
        address: IPv4Address | IPv6Address = ip_address(text)
    except ValueError:
        address = IPv4Address(0)
    if isinstance(address, IPv4Address) or address.scope_id is not None:
        raise TargetError(f"{target!r} holds no plain IPv6 address between its brackets; for example [::1]:3000.")
    return str(address)


def _port(text: str, target: str) -> int:
    if not _PORT.fullmatch(text) or not 1 <= int(text) <= 65535:
        raise TargetError(f"The port in {target!r} is not a number from 1 to 65535; for example {EXAMPLES}.")
    return int(text)


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine; names below `localhost` are, by RFC 6761 §6.3."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
