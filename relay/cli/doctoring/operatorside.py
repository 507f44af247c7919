"""The operator's side: what a relay of this machine needs, from its settings to how it looks from outside."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from relay.agent.lookups import in_thread
from relay.agent.targets import is_loopback
from relay.cli.doctoring import machine
from relay.cli.doctoring.errors import Trouble
from relay.cli.doctoring.findings import FAIL, OK, WARN, Examination
from relay.cli.doctoring.talk import asked, object_of
from relay.cli.doctoring.ways import SOON, Place, addresses, connected, line_to
from relay.cli.output import harmless
from relay.settings import Address, ServeSettings, SettingsError, load

CHECKS = (
    "settings", "data", "disk", "keys", "tls.files", "database", "limits.files", "limits.memory", "versions",
    "dns.domain", "dns.names", "port.public", "port.agents", "port.internal", "ready", "tls.domain", "tls.names",
    "clock",
)  # fmt: skip
API = "/api/v1"
CLOCK_OFF = 20.0
_START = "Start it: relay serve (docs/operating.md)"


async def examine(found: Examination, config: Path | None, environment: Mapping[str, str]) -> None:
    """Everything, from the inside out."""
    try:
        settings = await in_thread(lambda: load({}, environment, config))
    except SettingsError as error:
        found.note("settings", FAIL, str(error), "Set it right; relay serve would not start")
        for check in CHECKS[1:]:
            found.skip(check, "the settings are not valid")
        return
    where = str(config or environment.get("RELAY_CONFIG") or "the environment and the defaults")
    found.note("settings", OK, f"The settings of {harmless(where)} are valid, for {settings.domain}")
    await _machine(found, settings)
    same = await _names(found, settings)
    await _listeners(found, settings)
    await _outside(found, settings, same)


async def _machine(found: Examination, settings: ServeSettings) -> None:
    if await found.look("data", 2.0, _several(found, "data", lambda: machine.data(settings.data))):
        await found.look("disk", 2.0, _several(found, "disk", lambda: [machine.disk(settings.data)]))
        await found.look("keys", 2.0, _several(found, "keys", lambda: machine.keys(settings)))
    else:
        found.skip("disk", "there is no data directory")
        found.skip("keys", "there is no data directory")
    if settings.tls_cert is not None:
        await found.look("tls.files", 2.0, _several(found, "tls.files", lambda: machine.pair(settings)))
    else:
        found.skip("tls.files", "TLS is spoken by a proxy in front, or not at all")
    await found.look("database", 6.0, _several(found, "database", lambda: machine.database(settings)))
    await found.look("limits.files", 1.0, _several(found, "limits.files", lambda: [machine.descriptors(settings)]))
    await found.look("limits.memory", 1.0, _several(found, "limits.memory", lambda: [machine.memory(settings)]))
    await found.look("versions", 1.0, _several(found, "versions", lambda: [machine.versions()]))


async def _several(found: Examination, check: str, look: Callable[[], Iterable[machine.Found]]) -> bool:
    """What a look on the machine gives, taken in a thread."""
    for level, message, step in await in_thread(lambda: list(look())):
        found.note(check, level, message, step)
    return True


# ---------------------------------------------------------------------------------------------- names


async def _names(found: Examination, settings: ServeSettings) -> bool:
    """Whether the domain, and any name below it, lead somewhere, and to the same place."""
    domain = settings.domain
    if is_loopback(domain):
        found.note("dns.domain", OK, f"{domain} and the names below it are this machine, and for this machine alone")
        found.skip("dns.names", "names below localhost need no record")
        return True
    ips = await found.look("dns.domain", 4.0, _resolved(domain, f"an A or AAAA record for {domain}"))
    if ips is None:
        found.skip("dns.names", f"{domain} does not resolve")
        return False
    found.note("dns.domain", OK, f"{domain} is {', '.join(ips)}", "", addresses=ips)
    name = f"{_random()}.{domain}"
    below = await found.look("dns.names", 4.0, _resolved(name, f"a wildcard record: *.{domain}"))
    if below is None:
        return False
    if set(below) == set(ips):
        found.note("dns.names", OK, f"Any name below it leads to the same place (tried {name})", "", addresses=below)
        return True
    step = f"Let *.{domain} have the same addresses as {domain}, unless that is meant"
    found.note("dns.names", WARN, f"{name} is {', '.join(below)}, and {domain} is not", step, addresses=below)
    return True


async def _resolved(host: str, record: str) -> list[str]:
    try:
        return sorted(await addresses(host, 443))
    except Trouble as trouble:
        raise Trouble(str(trouble), f"Give the domain's zone {record}") from None


async def _starred(work: Coroutine[Any, Any, None], place: Place) -> None:
    """The work; what it says of a name that nobody has, it says of all such names."""
    label = place.host.partition(".")[0]
    try:
        await work
    except Trouble as trouble:
        said, step = (text.replace(label, "*") for text in (str(trouble), trouble.next_step))
        raise Trouble(said, step, trouble.level) from None


def _random() -> str:
    """A name that nobody has."""
    return f"relay-doctor-{secrets.token_hex(4)}"


# ---------------------------------------------------------------------------------------------- listeners


async def _listeners(found: Examination, settings: ServeSettings) -> None:
    tls = settings.tls_cert is not None
    visitors = _place(settings.public, f"{_random()}.{settings.domain}", tls)
    await found.look("port.public", 4.0, _starred(_public(found, settings.public, visitors), visitors))
    await found.look("port.agents", 4.0, _agents(found, settings, _place(settings.agents, settings.domain, tls)))
    if settings.internal is None:
        found.skip("port.internal", "no internal listener is set: it would serve /readyz and /metrics")
        found.skip("ready", "no internal listener is set")
        return
    place = _place(settings.internal, "localhost", False)
    await found.look("ready", 4.0, _ready(found, settings.internal, place))


def _place(address: Address, host: str, tls: bool) -> Place:
    """A listener, reached from this machine and spoken to as if from outside."""
    at = {"0.0.0.0": "127.0.0.1", "::": "::1", "localhost": "127.0.0.1"}.get(address.host, address.host)
    return Place(host, address.port, tls, None, at)


async def _listening(address: Address, place: Place) -> None:
    """Raises `Trouble` if nobody is."""
    try:
        sock, _, _ = await connected(place)
    except Trouble:
        raise Trouble(f"Nobody listens on {address}: the relay does not run", _START) from None
    sock.close()


async def _public(found: Examination, address: Address, place: Place) -> None:
    await _listening(address, place)
    talk, answer = await asked(place, "GET", "/", {"Connection": "close", "Accept": "application/json"})
    talk.line.close()
    said = answer.fields.get("relay-error", "")
    if (answer.status, said) != (404, "unknown_host"):
        raise Trouble(
            f"What listens on {address} answers a name that nobody has with {answer.status}"
            + (f" {said}" if said else ", and is not this relay"),
            "Look what listens there: ss -ltnp",
        )
    found.note("port.public", OK, f"The relay listens on {address}, and answers an unknown name as it should")


async def _agents(found: Examination, settings: ServeSettings, place: Place) -> None:
    await _listening(settings.agents, place)
    talk, _answer = await asked(place, "GET", API, {"Connection": "close"})
    hello = object_of(await talk.whole())
    talk.line.close()
    if hello.get("domain") != settings.domain:
        other = f"a relay for {harmless(hello['domain'])}" if "domain" in hello else "not this relay"
        raise Trouble(f"What listens on {settings.agents} is {other}", "Look what listens there: ss -ltnp")
    version = harmless(hello.get("version", "?"))
    found.note("port.agents", OK, f"The relay {version} listens for agents on {settings.agents}", "", version=version)


async def _ready(found: Examination, address: Address, place: Place) -> None:
    await _listening(address, place)
    talk, answer = await asked(place, "GET", "/readyz", {"Connection": "close"})
    reasons = harmless((await talk.whole()).decode("utf-8", "replace").strip().replace("\n", "; "))
    talk.line.close()
    found.note("port.internal", OK, f"The internal listener is on {address}")
    if answer.status == 200:
        found.note("ready", OK, "The relay says that it is ready")
    else:
        found.note("ready", FAIL, f"The relay says that it is not ready: {reasons}", "Look at its log")


# ---------------------------------------------------------------------------------------------- from outside


async def _outside(found: Examination, settings: ServeSettings, resolves: bool) -> None:
    base = urlsplit(settings.base_url(settings.public.port))
    if base.scheme != "https" or not resolves:
        why = "the names do not resolve" if base.scheme == "https" else "addresses are http, without TLS"
        for check in ("tls.domain", "tls.names"):
            found.skip(check, why)
        found.skip("clock", "the relay was not reached from outside")
        return
    port = base.port or 443
    if settings.tls_cert is not None and settings.public_url is None:
        port_of_domain = settings.agents.port
    else:
        port_of_domain = port
    domain = Place(settings.domain, port_of_domain, True)
    reached = await found.look("tls.domain", 5.0, _certificate(found, "tls.domain", domain))
    if reached:
        await found.look("clock", 4.0, _clock(found, domain))
        name = Place(f"{_random()}.{settings.domain}", port, True)
        await found.look("tls.names", 5.0, _starred(_below(found, name), name))
    else:
        found.skip("tls.names", f"{settings.domain} cannot be reached by TLS")
        found.skip("clock", f"{settings.domain} cannot be reached by TLS")


async def _certificate(found: Examination, check: str, place: Place) -> bool:
    line = await line_to(place)
    line.close()
    shown = line.certificate
    assert shown is not None
    said = f"{place.shown} shows a certificate of {shown.issuer}, valid until {shown.until}"
    details: dict[str, object] = {"issuer": shown.issuer, "not_after": shown.ends, "names": list(shown.names)}
    if shown.ends - time.time() < SOON:
        found.note(check, WARN, f"{said}, which is soon", "Look why it is not renewed by itself", **details)
    else:
        found.note(check, OK, said, "", **details)
    return True


async def _below(found: Examination, place: Place) -> None:
    """A name that nobody has: by a wildcard there is a certificate for it, on demand there is none."""
    try:
        await _certificate(found, "tls.names", place)
    except Trouble as trouble:
        if "does not agree on TLS" not in str(trouble):
            raise
        said = "A name that nobody has gets no certificate, as it should be where they are made on demand"
        found.note("tls.names", OK, said, "", wildcard=False)


async def _clock(found: Examination, place: Place) -> None:
    talk, answer = await asked(place, "GET", API, {"Connection": "close"})
    talk.line.close()
    try:
        theirs = parsedate_to_datetime(answer.fields["date"]).timestamp() + 0.5
    except (KeyError, ValueError):
        found.skip("clock", "the answer has no Date")
        return
    skew = abs(theirs - time.time())
    if skew < CLOCK_OFF:
        found.note("clock", OK, f"This machine's clock and that of {place.host} differ by {skew:.0f} s")
    else:
        step = "Set both by NTP: keys are valid by the clock"
        found.note("clock", WARN, f"This machine's clock and that of {place.host} differ by {skew:.0f} s", step)
