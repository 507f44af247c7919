"""One reading of a `Host` value, for routing, certificates, access and logs alike. Pure.

It alone decides what a host is: letters, digits and hyphens in labels (RFC 1123 §2.1), or an IPv6 literal; a port from
1 to 65535. Nothing is repaired but case and one trailing dot. It knows nothing of which names exist.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

MAX_NAME: Final = 253
# A name with its trailing dot and the longest port. Longer values are refused before they could fill the cache.
_MAX_RAW: Final = MAX_NAME + len(".:65535")
_LABEL: Final = rb"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST: Final = re.compile(rb"(?:(%b(?:\.%b)*)\.?|\[([0-9A-Fa-f:.]{2,45})\])(?::([1-9][0-9]{0,4}))?" % (_LABEL, _LABEL))


class BadHost(ValueError):
    """A value that names no host, with the reason as its text."""


@dataclass(frozen=True, slots=True)
class Host:
    """A host as it was called."""

    name: str
    """Lower case, without a trailing dot; an IPv6 address is shortened and stands in brackets."""
    port: int | None = None

    @property
    def authority(self) -> str:
        """`name`, with `:port` where one was given."""
        return self.name if self.port is None else f"{self.name}:{self.port}"


@lru_cache(maxsize=4096)
def _parse(raw: bytes) -> Host:
    match = _HOST.fullmatch(raw)
    if match is None:
        raise BadHost("not a host name with an optional port")
    name, literal, digits = match.groups()
    port = int(digits) if digits else None
    if port is not None and port > 65535:
        raise BadHost("port above 65535")
    if literal is not None:
        try:
            return Host(f"[{ipaddress.IPv6Address(literal.decode())}]", port)
        except ValueError:
            raise BadHost("not an IPv6 address") from None
    if len(name) > MAX_NAME:
        raise BadHost(f"longer than {MAX_NAME} characters")
    return Host(name.decode().lower(), port)


def normalise_host(raw: bytes) -> Host:
    """What a `Host` value, or the authority of a URL, names. Raises `BadHost`."""
    if len(raw) > _MAX_RAW:
        raise BadHost(f"longer than {MAX_NAME} characters")
    return _parse(raw)


@lru_cache(maxsize=1024)
def subdomain_of(name: str, domain: str) -> str | None:
    """The one label that `name` has in front of `domain` (both normalised); None where it is anything else."""
    label, dot, rest = name.partition(".")
    return label if dot and label and rest == domain else None
