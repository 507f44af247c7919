"""What a setting's value looks like: one parser for each kind, for text and for what TOML gives. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from urllib.parse import urlsplit

from relay.settings.amounts import MIB, size_of

Network = IPv4Network | IPv6Network

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a listener listens. Port 0 lets the system choose one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect. A name other than `localhost` counts as reachable from elsewhere."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


@dataclass(frozen=True, slots=True)
class Kind:
    """What a setting accepts: `parse` takes text or a TOML value and raises `ValueError`; `form` follows "must be"."""

    parse: Callable[[object], object]
    form: str
    example: str
    metavar: str


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError
    return value.strip()


def _domain(value: object) -> str:
    domain = _text(value).lower().removesuffix(".")
    if not _DOMAIN.fullmatch(domain) or domain.rpartition(".")[2].isdigit():
        raise ValueError
    return domain


def _address(value: object) -> Address:
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s\[\]:/@]+)):([0-9]{1,5})", _text(value))
    if match is None or int(match[3]) > 65535:
        raise ValueError
    if match[1]:
        return Address(str(ip_address(match[1])), int(match[3]))
    host = match[2].lower()
    return Address(str(ip_address(host)) if re.fullmatch(r"[0-9.]+", host) else host, int(match[3]))


def _path(value: object) -> Path:
    text = _text(value)
    if "\0" in text:
        raise ValueError
    try:
        return Path(text).expanduser()
    except RuntimeError:  # a ~ without a home directory
        raise ValueError from None


def _database(value: object) -> str:
    text = _text(value)
    url = urlsplit(text)
    if url.scheme == "sqlite":
        if not text.startswith("sqlite:///") or not url.path.strip("/") or url.query:
            raise ValueError
    elif url.scheme not in {"postgresql", "postgres"} or not url.path.strip("/") or not text.isprintable():
        raise ValueError
    return text


def _hosts(value: object) -> tuple[str, ...]:
    items = value if isinstance(value, list | tuple) else (value,)
    return tuple(_host(part) for item in items for part in re.split(r"[,\s]+", _text(item)))


def _host(text: str) -> str:
    try:
        return str(ip_address(text.strip("[]")))
    except ValueError:
        return _domain(text)


def _public_url(value: object) -> str:
    url = urlsplit(_text(value).lower())
    if url.scheme not in {"http", "https"} or not url.hostname or "@" in url.netloc:
        raise ValueError
    if url.path not in {"", "/"} or url.query or url.fragment:
        raise ValueError
    # As browsers write it, since an Origin is compared with it.
    port = f":{url.port}" if url.port and url.port != {"http": 80, "https": 443}[url.scheme] else ""
    return f"{url.scheme}://{_domain(url.hostname)}{port}"


def _networks(value: object) -> tuple[Network, ...]:
    items = value if isinstance(value, list | tuple) else (value,)
    return tuple(ip_network(_text(part)) for item in items for part in re.split(r"[,\s]+", _text(item)))


def _as_seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError
    return float(value)


def seconds(least: float, most: float = 31_536_000) -> Kind:
    def parse(value: object) -> float:
        number = _as_seconds(value)
        if not least <= number <= most:
            raise ValueError
        return number

    return Kind(parse, f"a number of seconds from {least:g} to {most:,.0f}", "10", "SECONDS")


def count(least: int, most: int, example: int) -> Kind:
    def parse(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise ValueError
        if not least <= int(value) <= most:
            raise ValueError
        return int(value)

    return Kind(parse, f"a whole number from {least} to {most}", str(example), "NUMBER")


def size(least: int, most: int) -> Kind:
    def parse(value: object) -> int:
        number = size_of(value)
        if not least <= number <= most:
            raise ValueError
        return number

    return Kind(parse, f"bytes from {least // MIB} MiB to {most // MIB} MiB", "64MiB", "BYTES")


def _plan(value: object) -> str:
    name = _text(value)
    if not re.fullmatch(_LABEL, name):
        raise ValueError
    return name


def choice(*words: str) -> Kind:
    def parse(value: object) -> str:
        if _text(value).lower() not in words:
            raise ValueError
        return _text(value).lower()

    return Kind(parse, "one of " + ", ".join(words), words[1], "|".join(words))


def _switch(value: object) -> bool:
    if isinstance(value, bool):
        return value
    word = _text(value).lower()
    if word not in _SWITCH:
        raise ValueError
    return _SWITCH[word]


_SWITCH = {"on": True, "true": True, "yes": True, "1": True, "off": False, "false": False, "no": False, "0": False}

DOMAIN = Kind(_domain, "a domain name without scheme, port or star", "tunnels.example.com", "DOMAIN")
ADDRESS = Kind(_address, "HOST:PORT or [IPV6]:PORT", "127.0.0.1:8080", "HOST:PORT")
PLAN = Kind(_plan, "the name of a plan", "hobby", "PLAN")
DIRECTORY = Kind(_path, "a path", "/var/lib/relay", "DIR")
FILE = Kind(_path, "a path", "/run/secrets/database-url", "FILE")
DATABASE = Kind(
    _database, "sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME", "postgresql://relay:…@db/relay", "URL"
)
"""A secret: it may hold a password, so it is never shown and has no flag."""
HOSTS = Kind(_hosts, "host names or addresses, separated by commas", "relay,10.0.0.5", "HOST,…")
PUBLIC_URL = Kind(_public_url, "http(s)://DOMAIN or http(s)://DOMAIN:PORT", "https://tunnels.example.com", "URL")
NETWORKS = Kind(_networks, "networks in CIDR form, separated by commas", "10.0.0.0/8,fd00::/8", "CIDR,…")
SWITCH = Kind(_switch, "on or off", "off", "on|off")
SECONDS = seconds(0.01)
SECONDS_OR_NONE = seconds(0)
