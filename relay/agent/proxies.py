"""The proxy on the way to the relay: which one the environment names, and what it means when it says no.

A proxy's credentials are in its address and nowhere else: what is shown of it is host and port.
"""

from __future__ import annotations

import os
import re
import sys
import urllib.parse
from dataclasses import dataclass, field

from relay.agent.targets import is_loopback

# The port of a proxy that names none, by scheme.
_PORTS = {"http": 80, "https": 443, "socks4": 1080, "socks5": 1080}
_ALIASES = {"socks5h": "socks5", "socks4a": "socks4", "socks": "socks5"}
# Systems whose own settings name a proxy too.
_TELL_BY_THEMSELVES = ("darwin", "win32")
_STATUS = re.compile(r"status ([1-5][0-9]{2})\b")


class BadProxy(Exception):
    """The environment names a proxy that can be none; the text is one sentence without the address."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """Where to ask for a way to the relay."""

    url: str = field(repr=False)
    """With the credentials, if there are any; ASCII."""
    shown: str
    """Host and port."""


def proxy_for(relay_url: str) -> Proxy | None:
    """The proxy that the environment names for this relay (`HTTPS_PROXY`, `NO_PROXY`), as HTTP clients read it.

    None for this machine's own addresses: a key for them must not leave it in the clear. Raises `BadProxy`.
    """
    parts = urllib.parse.urlsplit(relay_url)
    if parts.hostname is not None and is_loopback(parts.hostname):
        return None
    if sys.platform not in _TELL_BY_THEMSELVES and not any(name.lower().endswith("_proxy") for name in os.environ):
        return None
    from urllib.request import getproxies, proxy_bypass  # here: it brings an HTTP client and e-mail along

    if proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    scheme = "https" if parts.scheme == "wss" else "http"
    text = getproxies().get(scheme)
    return _parsed(text.strip(), f"{scheme.upper()}_PROXY") if text and text.strip() else None


def _parsed(text: str, name: str) -> Proxy:
    example = f"for example {name}=http://proxy.example.com:3128"
    try:
        parts = urllib.parse.urlsplit(text if "://" in text else f"http://{text}")
        host, port = (parts.hostname or "").encode("idna").decode("ascii"), parts.port
    except ValueError:  # a port that is none, brackets that do not close, a name that is none
        raise BadProxy(f"{name} in the environment is no address of a proxy, {example}.") from None
    scheme = _ALIASES.get(parts.scheme, parts.scheme)
    if scheme not in _PORTS:
        raise BadProxy(f"{name} in the environment must be {', '.join(_PORTS)} or host:port, {example}.")
    if not host:
        raise BadProxy(f"{name} in the environment names no host, {example}.")
    shown = f"{f'[{host}]' if ':' in host else host}:{port or _PORTS[scheme]}"
    user = ""
    if parts.username is not None:
        given = (urllib.parse.unquote(part or "") for part in (parts.username, parts.password))
        user = ":".join(urllib.parse.quote(part, safe="") for part in given) + "@"
    return Proxy(f"{scheme}://{user}{shown}", shown)


def refusal_in_words(said: str, proxy: Proxy, relay: str) -> str:
    """What a proxy's no means for the way to `relay` (host and port); `said` is how the library puts it."""
    found = _STATUS.search(said)
    status = int(found[1]) if found else 0
    if status == 407:
        return (
            f"the proxy {proxy.shown} wants a user and a password (HTTP 407): "
            "give them in HTTPS_PROXY, http://USER:PASSWORD@HOST:PORT"
        )
    if status in (401, 403, 405, 451):
        return f"the proxy {proxy.shown} does not allow connections to {relay} (HTTP {status}): ask whoever runs it"
    if status in (502, 503, 504):
        return f"the proxy {proxy.shown} does not reach {relay} (HTTP {status})"
    if status:
        return f"the proxy {proxy.shown} answered HTTP {status} instead of a way to {relay}"
    return f"the proxy {proxy.shown} gave no way to {relay}: {said}"
