"""The handshake's four bodies: hello, welcome, refused, renew. JSON, bounded, every member checked; no I/O.

Unknown members are ignored, so that either side may say more in a later version. Strings that were decoded hold no
control characters and no lone surrogates: they can be encoded, logged and shown on a terminal as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final

from relay.wire.access import AccessRules, rules_from_json, rules_to_json, ways_from_json
from relay.wire.errors import RemoteProtocolError
from relay.wire.frames import MAX_HELLO, MAX_WELCOME
from relay.wire.limits import TunnelLimits, limited_from_json, limits_from_json, limits_to_json

VERSION: Final = 1
SUBPROTOCOL: Final = "relay.v1"
PATH: Final = "/agent/v1"
MAX_SLOTS: Final = 4
MAX_NAMES: Final = 64
MAX_KEY: Final = 8192
MAX_VERSION: Final = 65535

_ID: Final = re.compile(r"[0-9A-Za-z_-]{1,64}")
_UNFIT: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
# One label of a host name: RFC 1123 §2.1, lower case, at most 63.
LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Hello:
    """An agent's first frame on a link."""

    instance: str
    slot: int
    generation: int
    key: str = field(repr=False)
    names: tuple[str, ...]
    versions: tuple[int, ...] = (VERSION,)
    agent: str = ""
    access: Mapping[str, AccessRules] = field(default_factory=dict)
    """What visitors must show, for those of `names` that are not open to everybody."""
    limits: Mapping[str, TunnelLimits] = field(default_factory=dict)
    """How many requests those of `names` take that have a limit of their own."""


@dataclass(frozen=True, slots=True)
class Welcome:
    """The relay's answer to a hello that it admits: each name with its public address, and how to behave."""

    session: str
    tunnels: tuple[tuple[str, str], ...]
    ping_interval: float
    max_streams: int
    version: int = VERSION
    relay: str = ""
    access: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The ways in, for each tunnel that has rules (see `AccessRules.ways`)."""
    limits: tuple[str, ...] = ()
    """The names whose own limits the relay keeps."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The relay's answer to a hello that it does not admit. `retry_after` is in seconds; None means never."""

    code: str
    message: str
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Renew:
    """A new key for a live session."""

    key: str = field(repr=False)


def encode_hello(hello: Hello) -> bytes:
    """The payload of a HELLO frame."""
    body = {each.name: getattr(hello, each.name) for each in fields(Hello)}
    del body["access"], body["limits"]
    if hello.access:
        body["access"] = rules_to_json(hello.access)
    if hello.limits:
        body["limits"] = limits_to_json(hello.limits)
    return _dump(body)


def decode_hello(payload: bytes) -> Hello:
    """Raises `RemoteProtocolError` that names the member that is wrong."""
    body = _load(payload)
    names = _strings(body, "names", MAX_NAMES)
    for name in names:
        if not LABEL.fullmatch(name):
            raise RemoteProtocolError(f"hello: names holds no subdomain: {name[:80]!r}")
    if len(set(names)) != len(names):
        raise RemoteProtocolError("hello: a name stands twice in names")
    versions = body.get("versions")
    if not isinstance(versions, list) or not 0 < len(versions) <= 16 or not all(map(_is_version, versions)):
        raise RemoteProtocolError(f"hello: versions must be a list of 1 to 16 integers from 1 to {MAX_VERSION}")
    instance = _text(body, "instance", 64)
    if not _ID.fullmatch(instance):
        raise RemoteProtocolError("hello: instance must be 1 to 64 of 0-9 A-Z a-z _ -")
    return Hello(
        instance=instance,
        slot=_integer(body, "slot", 0, MAX_SLOTS - 1),
        generation=_integer(body, "generation", 0, 2**53),
        key=_text(body, "key", MAX_KEY),
        names=names,
        versions=tuple(versions),
        agent=_text(body, "agent", 128) if "agent" in body else "",
        access=rules_from_json(body["access"], names) if "access" in body else {},
        limits=limits_from_json(body["limits"], names) if "limits" in body else {},
    )


def encode_welcome(welcome: Welcome) -> bytes:
    """The payload of a WELCOME or RENEWED frame."""
    body = asdict(welcome)
    access = body.pop("access")
    if not welcome.limits:
        del body["limits"]
    body["tunnels"] = [
        {"name": name, "url": url} | ({"access": access[name]} if name in access else {})
        for name, url in welcome.tunnels
    ]
    return _dump(body)


def decode_welcome(payload: bytes) -> Welcome:
    """Raises `RemoteProtocolError` that names the member that is wrong."""
    body = _load(payload, MAX_WELCOME)
    tunnels = body.get("tunnels")
    if not isinstance(tunnels, list) or len(tunnels) > MAX_NAMES or not all(isinstance(t, dict) for t in tunnels):
        raise RemoteProtocolError("welcome: tunnels must be a list of objects")
    interval = body.get("ping_interval")
    if isinstance(interval, bool) or not isinstance(interval, int | float) or not 0.05 <= interval <= 3600:
        raise RemoteProtocolError("welcome: ping_interval must be 0.05 to 3600 seconds")
    named = tuple((_text(t, "name", 63), _text(t, "url", 512)) for t in tunnels)
    return Welcome(
        session=_text(body, "session", 64),
        tunnels=named,
        ping_interval=float(interval),
        max_streams=_integer(body, "max_streams", 1, 2**31),
        version=_integer(body, "version", 1, MAX_VERSION),
        relay=_text(body, "relay", 128) if "relay" in body else "",
        access={t["name"]: ways_from_json(t["access"]) for t in tunnels if "access" in t},
        limits=limited_from_json(body["limits"], tuple(name for name, _ in named)) if "limits" in body else (),
    )


def encode_refused(refused: Refused) -> bytes:
    """The payload of a REFUSED frame."""
    return _dump(asdict(refused))


def decode_refused(payload: bytes) -> Refused:
    """Raises `RemoteProtocolError` that names the member that is wrong."""
    body = _load(payload)
    retry = body.get("retry_after")
    if retry is not None and (isinstance(retry, bool) or not isinstance(retry, int | float) or not 0 <= retry <= 86400):
        raise RemoteProtocolError("refused: retry_after must be null or 0 to 86400 seconds")
    return Refused(_text(body, "code", 64), _text(body, "message", 1024), None if retry is None else float(retry))


def encode_renew(renew: Renew) -> bytes:
    """The payload of a RENEW frame."""
    return _dump(asdict(renew))


def decode_renew(payload: bytes) -> Renew:
    """Raises `RemoteProtocolError` that names the member that is wrong."""
    return Renew(_text(_load(payload), "key", MAX_KEY))


def _dump(body: dict[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


def _load(payload: bytes, most: int = MAX_HELLO) -> dict[str, Any]:
    if len(payload) > most:
        raise RemoteProtocolError(f"handshake body of {len(payload)} bytes, allowed are {most}")
    try:
        body = json.loads(str(payload, "utf-8"))  # given bytes, json would guess UTF-16 and UTF-32 too
    except (ValueError, RecursionError):
        raise RemoteProtocolError("handshake body is not JSON in UTF-8") from None
    if not isinstance(body, dict):
        raise RemoteProtocolError("handshake body is not a JSON object")
    return body


def _text(body: dict[str, Any], name: str, most: int) -> str:
    value = body.get(name)
    if not isinstance(value, str) or len(value) > most:
        raise RemoteProtocolError(f"{name} must be a string of at most {most} characters")
    if _UNFIT.search(value):
        raise RemoteProtocolError(f"{name} holds a control character or half a surrogate pair")
    return value


def _strings(body: dict[str, Any], name: str, most: int) -> tuple[str, ...]:
    value = body.get(name)
    if not isinstance(value, list) or len(value) > most or not all(isinstance(item, str) for item in value):
        raise RemoteProtocolError(f"{name} must be a list of at most {most} strings")
    return tuple(value)


def _is_version(value: object) -> bool:
    return type(value) is int and 1 <= value <= MAX_VERSION


def _integer(body: dict[str, Any], name: str, least: int, most: int) -> int:
    value = body.get(name)
    if type(value) is not int or not least <= value <= most:
        raise RemoteProtocolError(f"{name} must be an integer from {least} to {most}")
    return value
