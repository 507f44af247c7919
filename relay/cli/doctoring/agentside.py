"""The developer's side: the local service, the way to the relay, the key, and a visit through the public address."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from relay import __version__
from relay.agent.addresses import AddressNotAllowed, AddressPolicy
from relay.agent.lookups import in_thread
from relay.agent.targets import Target
from relay.cli.client import BASE, CLOCK_LEEWAY, Client
from relay.cli.doctoring.errors import Trouble
from relay.cli.doctoring.findings import OK, WARN, Examination
from relay.cli.doctoring.roundtrip import BETWEEN_EVENTS, Service, call, opened, visit
from relay.cli.doctoring.speech import spoken_by
from relay.cli.doctoring.talk import Answer, asked, object_of
from relay.cli.doctoring.ways import SOON, Place, addresses, connected, line_to, proxy_of
from relay.cli.errors import Mistake
from relay.cli.http import random_name
from relay.cli.keyring import Key, find_key
from relay.cli.minting import key_source
from relay.cli.output import duration, harmless
from relay.keys.forms import Kind
from relay.keys.scopes import Scope

CHECKS = (
    "local.reach", "local.speaks", "relay.proxy", "relay.dns", "relay.tcp", "relay.tls", "relay.api", "clock", "key",
    "key.names", "tunnel", "tunnel.events",
)  # fmt: skip
KEY_SOON = 3600.0
"""Seconds before the end of a key that is not replaced by itself, from which on it is worth a warning."""
LIVE_WITHIN = 3.0
_DAMMED = 0.5
"""A share of the time between two events: if they arrive closer to each other, somebody kept the first one back."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to look at."""

    relay: str
    environment: Mapping[str, str]
    target: Target | None = None
    name: str | None = None
    key_file: Path | None = None
    project: str | None = None


async def examine(found: Examination, plan: Plan) -> None:
    """Everything, in the order of the way."""
    if plan.target is None:
        found.skip("local.reach", "no TARGET was given")
    else:
        await _local(found, plan.target)
    hello = await _relay(found, plan.relay)
    key = await found.look("key", 1.0, _found(plan))
    whole = None
    if key is not None:
        if hello is None:
            found.note("key", OK, f"{key.id} of {key.origin}; what the relay knows of it could not be asked")
        else:
            whole = await found.look("key", 8.0, _known(found, plan, key))
    if key is None or hello is None or whole is None:
        missing = "there is no key" if key is None else "the key is of no use"
        found.skip("tunnel", "the relay cannot be asked" if hello is None else missing)
        return
    name = plan.name or _name_for(whole)
    if not _may(found, whole, name):
        found.skip("tunnel", f"the key may not open {name}")
        return
    await found.look("tunnel", 10.0, _tunnel(found, plan, key, name, str(hello.get("public_url", ""))))


# ---------------------------------------------------------------------------------------------- the local service


async def _local(found: Examination, target: Target) -> None:
    place = Place(target.host, target.port, target.scheme == "https")
    if await found.look("local.reach", 3.0, _reached(found, target, place)):
        await found.look("local.speaks", 9.0, _spoken(found, target, place))
    else:
        found.skip("local.speaks", "there is no connection")


async def _reached(found: Examination, target: Target, place: Place) -> bool:
    try:
        sock, address, seconds = await connected(place)
    except Trouble as trouble:
        step = f"Start the local service, or give the address where it listens instead of {target.url}"
        raise Trouble(str(trouble), step) from None
    sock.close()
    try:
        AddressPolicy().check(address)
    except AddressNotAllowed as error:
        found.note("local.reach", WARN, f"{target.url} takes connections, and an agent refuses it: {error}")
        return True
    found.note("local.reach", OK, f"{target.url} takes connections ({duration(seconds)})", address=address)
    return True


async def _spoken(found: Examination, target: Target, place: Place) -> None:
    spoken = await spoken_by(place)
    said = " and ".join(spoken.languages) or "plain HTTP, and neither MCP nor WebSocket where they usually are"
    level = WARN if spoken.status >= 500 else OK
    message = f"{target.url} speaks {said}; GET / is answered {spoken.status}"
    found.note("local.speaks", level, message, "", status=spoken.status, **spoken.details)


# ---------------------------------------------------------------------------------------------- the relay


async def _relay(found: Examination, relay: str) -> dict[str, Any] | None:
    """What its API says of itself."""
    parts = urlsplit(relay)
    tls = parts.scheme == "wss"
    host, port = parts.hostname or "", parts.port or (443 if tls else 80)
    try:
        place = Place(host, port, tls, proxy_of(relay))
    except Trouble as trouble:
        found.note("relay.proxy", "fail", str(trouble), trouble.next_step)
        _skip(found, "relay.dns", "the proxy is not usable")
        return None
    if place.proxy is not None:
        found.note("relay.proxy", OK, f"The way leads through {place.proxy.shown}, which the environment names")
        found.skip("relay.dns", "the proxy looks the name up")
    elif _is_address(host):
        found.skip("relay.dns", "it is an address, and no name")
    elif not await found.look("relay.dns", 4.0, _resolved(found, host, port)):
        _skip(found, "relay.tcp", "the relay's name does not resolve")
        return None
    if not await found.look("relay.tcp", 4.0, _taken(found, place)):
        _skip(found, "relay.tls", "there is no connection")
        return None
    if not tls:
        found.skip("relay.tls", "the address is ws://, without TLS")
    elif not await found.look("relay.tls", 4.0, _agreed(found, place)):
        _skip(found, "relay.api", "there is no TLS")
        return None
    return await found.look("relay.api", 5.0, _hello(found, place))


def _is_address(host: str) -> bool:
    with suppress(ValueError):
        return bool(ip_address(host))
    return False


def _skip(found: Examination, first: str, why: str) -> None:
    """What cannot be looked at any more, from the first one on."""
    steps = ("relay.dns", "relay.tcp", "relay.tls", "relay.api", "clock")
    for check in steps[steps.index(first) :]:
        found.skip(check, why)


async def _resolved(found: Examination, host: str, port: int) -> bool:
    ips = await addresses(host, port)
    found.note("relay.dns", OK, f"{host} is {', '.join(ips)}", addresses=ips)
    return True


async def _taken(found: Examination, place: Place) -> bool:
    sock, address, seconds = await connected(place)
    sock.close()
    found.note("relay.tcp", OK, f"{place.shown} takes connections ({address}, {duration(seconds)})", address=address)
    return True


async def _agreed(found: Examination, place: Place) -> bool:
    line = await line_to(place)
    line.close()
    shown = line.certificate
    assert shown is not None
    about = f"issued by {shown.issuer}, valid until {shown.until}"
    details: dict[str, object] = {"issuer": shown.issuer, "names": list(shown.names), "not_after": shown.ends}
    if shown.ends - time.time() < SOON:
        step = "Renew it, or look why that does not happen by itself"
        found.note("relay.tls", WARN, f"{line.version}, certificate {about}, which is soon", step, **details)
    else:
        found.note("relay.tls", OK, f"{line.version}, certificate {about}", "", **details)
    return True


async def _hello(found: Examination, place: Place) -> dict[str, Any]:
    talk, answer = await asked(place, "GET", BASE, {"Connection": "close", "Accept": "application/json"})
    hello = object_of(await talk.whole())
    talk.line.close()
    error = answer.fields.get("relay-error", "")
    if answer.status != 200 or "version" not in hello or "domain" not in hello:
        raise Trouble(
            f"What answers at {place.shown} is not a relay's agent listener (HTTP {answer.status}"
            + (f", {error})" if error else ")"),
            "Give the address where agents connect, with --relay or RELAY_URL"
            + ("; this one is where visitors do, or a proxy sends the domain itself there" if error else ""),
        )
    version = harmless(hello["version"])
    other = f"; this is {__version__}" if version != __version__ else ""
    found.note("relay.api", OK, f"Relay {version} for {harmless(hello['domain'])}{other}", version=version)
    _clock(found, answer)
    return hello


def _clock(found: Examination, answer: Answer) -> None:
    try:
        theirs = parsedate_to_datetime(answer.fields["date"]).timestamp() + 0.5
    except (KeyError, ValueError):
        found.skip("clock", "the relay's answer has no Date")
        return
    skew = theirs - time.time()
    if abs(skew) < CLOCK_LEEWAY:
        said = f"This machine's clock and the relay's differ by {abs(skew):.0f} s"
        found.note("clock", OK, said, seconds=round(skew))
        return
    way = "behind" if skew > 0 else "ahead of"
    step = "Set this machine's clock right, for example by NTP; or the relay's"
    found.note("clock", WARN, f"This machine's clock is {abs(skew):.0f} s {way} the relay's", step, seconds=round(skew))


# ---------------------------------------------------------------------------------------------- the key


async def _found(plan: Plan) -> Key:
    try:
        key = find_key(plan.key_file, plan.environment, plan.relay)
    except Mistake as mistake:
        cause, _, step = str(mistake).partition(": ")
        raise Trouble(cause, step or "Give a key with --key-file or RELAY_KEY, or log in: relay login") from None
    if key.kind is Kind.VISITOR:
        raise Trouble(f"What {key.origin} holds is a visitor key, which opens no tunnel", "Give a child or master key")
    return key


async def _known(found: Examination, plan: Plan, key: Key) -> dict[str, Any]:
    client = Client(plan.relay, key)
    try:
        whole = await in_thread(lambda: client.get("whoami"))
    except Mistake as mistake:
        # What is said here already, and what concerns other commands, is left out.
        said = str(mistake).removeprefix("The relay refused: ").partition(" The key is that of")[0]
        raise Trouble(f"{key.id} of {key.origin}: {said}", "Give another key with --key-file or RELAY_KEY") from None
    until, left = "without end", None
    with suppress(KeyError, TypeError, ValueError):
        ends = datetime.fromisoformat(whole["expires_at"])
        until, left = f"valid until {ends:%Y-%m-%d %H:%M} UTC", ends.timestamp() - time.time()
    article = "an" if key.kind is Kind.OPERATOR else "a"
    about = f"{key.id} of {key.origin}: {article} {key.kind} key, {until}"
    details = {"id": key.id, "kind": str(key.kind), "origin": key.origin, "expires_at": whole.get("expires_at")}
    if left is not None and left < KEY_SOON:
        step = "Mint another one, or give a master key, of which the agent mints its own and replaces them in time"
        found.note("key", WARN, f"{about}, which is soon", step, **details)
    else:
        found.note("key", OK, about, "", **details)
    return whole


def _scope(whole: Mapping[str, Any]) -> Scope:
    names = (whole.get("scope") or {}).get("names")
    try:
        return Scope(names=tuple(map(str, names))) if names else Scope()
    except (TypeError, ValueError):
        return Scope()


def _name_for(whole: Mapping[str, Any]) -> str:
    """One that the key may open: a random one if it can."""
    scope, name = _scope(whole), random_name()
    return name if scope.allows(name) else next((one for one in scope.names if scope.allows(one)), name)


def _may(found: Examination, whole: Mapping[str, Any], name: str) -> bool:
    scope = _scope(whole)
    if scope.allows(name):
        found.note("key.names", OK, f"The key may open {name}", names=list(scope.names))
        return True
    step = "Choose one of these with --subdomain, or mint a key for this name"
    found.note("key.names", "fail", f"The key opens {', '.join(scope.names)}, and not {name}", step)
    return False


# ---------------------------------------------------------------------------------------------- the visit


async def _tunnel(found: Examination, plan: Plan, key: Key, name: str, base: str) -> None:
    url = base.replace("://", f"://{name}.", 1)
    if plan.name is not None and await _is_live(found, url, name):
        return
    try:
        keys = key_source(plan.relay, key, plan.project, (name,), plan.environment)
    except Mistake as mistake:
        raise Trouble(str(mistake), "See relay http --help") from None
    try:
        async with Service() as service, opened(plan.relay, keys, name, service.port) as url:
            trip = await visit(url, service)
    finally:
        if plan.name is None and key.kind.private:
            await _release(plan, key, name)
    took = f"first byte after {duration(trip.first_byte)}, first event after {duration(trip.first_event)}"
    times = {"first_byte_seconds": round(trip.first_byte, 4), "first_event_seconds": round(trip.first_event, 4)}
    found.note("tunnel", OK, f"{url} reached a tunnel to this machine and back: {took}", "", url=url, **times)
    if trip.apart < BETWEEN_EVENTS * _DAMMED:
        step = "Let the proxy in front of the relay buffer nothing and flush at once (docs/operating.md)"
        said = f"Two events that were sent {duration(BETWEEN_EVENTS)} apart arrived {duration(trip.apart)} apart"
        found.note("tunnel.events", WARN, said, step)
    else:
        found.note("tunnel.events", OK, "Events arrive one by one, as they are sent")


async def _is_live(found: Examination, url: str, name: str) -> bool:
    """Whether the name has its agent already; then that one is called as it is."""
    try:
        async with asyncio.timeout(LIVE_WITHIN):
            answer = await call(url)
    except TimeoutError:  # perhaps it is held for an agent that just dropped
        return False
    error = answer.fields.get("relay-error")
    if error in ("unknown_host", "agent_offline"):
        return False
    took = duration(answer.seconds)
    if error in (None, "unauthorized", "forbidden"):
        found.note("tunnel", OK, f"{url} is live: it answered {answer.status} after {took}", "", url=url)
    else:
        step = f"Look at the agent of {name}, and at its local service"
        found.note("tunnel", "fail", f"{url} is live, and answered {answer.status} ({error}) after {took}", step)
    return True


async def _release(plan: Plan, key: Key, name: str) -> None:
    """Gives a random name back, if it was reserved."""
    with suppress(Mistake):
        await in_thread(lambda: Client(plan.relay, key).delete("subdomains", name))
