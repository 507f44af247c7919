"""What a developer reads while an agent runs: one line a state change, one a request, and a hint where one helps.

The agent says what happened; this room decides what is worth a line, in which words, and how often.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from relay.cli.output import (
    DIM,
    GREEN,
    RED,
    YELLOW,
    Event,
    Lines,
    Report,
    clock,
    duration,
    harmless,
    json_lines,
    sentence,
    size,
)
from relay.keys.forms import without_keys


@dataclass(frozen=True, slots=True)
class Situation:
    """What the hints need to know. `targets` gives the local service's address for each subdomain."""

    relay: str
    key_origin: str
    targets: Mapping[str, str]


_UPGRADE = "Upgrade whichever is older, this agent with: pip install --upgrade tunnel-relay"
REFUSALS = {
    "bad_key": "The key shown was that of {key}; give one of this relay with --key-file or RELAY_KEY.",
    "expired": "The key shown was that of {key}; give another one, or a master key and --project, and the agent "
    "replaces its keys by itself.",
    "revoked": "Start it anew with another key.",
    "name_taken": "Stop the other agent, or choose another name with --subdomain.",
    "name_reserved": "Choose another name with --subdomain.",
    "version": _UPGRADE + ".",
}
_RESTARTS = "The relay is being restarted. Trying again until it takes this agent."
REQUEST_ERRORS = {
    "local_refused": "Nothing listens on {target}: start the local service, or give the address where it listens.",
    "unreachable": "The local service cannot be reached: {detail}",
    "local_reset": "The local service at {target} broke the connection off: look at its own log.",
    "bad_response": "What {target} answered is not HTTP: is it the right port, and http:// or https:// as it needs?",
    "head_timeout": "The local service at {target} sent no answer in time: look at its own log.",
}
# What an agent itself hints at (a 421, metadata that names the local address) is not said again here.
STATUSES = {
    401: "The 401 came from the local service at {target}, not from the relay: the visitor must send what that service "
    "asks for, and Authorization passes through untouched.",
}


class Hints:
    """Says once what to do about a refusal or an error of the local service; again only after it had gone away."""

    def __init__(self, situation: Situation) -> None:
        self._situation = situation
        self._given: set[tuple[str, str]] = set()

    def for_request(self, event: Event) -> str | None:
        """A hint that goes with this request, if it needs one and had none yet."""
        subdomain = str(event.get("subdomain", ""))
        error, status = event.get("error"), event.get("status")
        if error is None and status not in STATUSES:
            if self._given:
                self._given -= {(subdomain, known) for known in REQUEST_ERRORS}
            return None
        subject, detail = str(status if error is None else error), str(event.get("detail", ""))
        if subject == "local_refused" and detail and "connection refused" not in detail:
            subject = "unreachable"
        text = STATUSES[int(subject)] if error is None else REQUEST_ERRORS.get(subject)
        if text is None or (subdomain, subject) in self._given:
            return None
        self._given.add((subdomain, subject))
        target = self._situation.targets.get(subdomain, "the tunnel's address")
        return text.format(target=target, detail=sentence(detail))

    def for_start(self, subdomain: str) -> str:
        """The hint that nothing listens, given before the first request."""
        self._given.add((subdomain, "local_refused"))
        return REQUEST_ERRORS["local_refused"].format(target=self._situation.targets[subdomain])

    def for_refusal(self, code: object) -> str:
        """The next step after the relay said no; empty where its own sentence must do."""
        return REFUSALS.get(str(code), "").format(key=self._situation.key_origin)


def reporter(lines: Lines, situation: Situation, *, as_json: bool, quiet: bool) -> tuple[Report, Hints]:
    """What to give the agent to report to, and the hints that it shares."""
    hints = Hints(situation)
    tell = json_lines(lines) if as_json else People(lines, Lines(sys.stderr), situation, hints).report

    def report(event: Event) -> None:
        if event.get("event") != "request":
            tell(event)
            return
        hint = hints.for_request(event)
        if not quiet:
            # A query may hold somebody's secret, and belongs into no log; nor does a key in a path.
            path = str(event.get("path", "")).partition("?")[0]
            tell({**event, "path": without_keys(path)})
        if hint:
            tell({"event": "hint", "message": hint})

    return report, hints


class People:
    """Events as lines for people. What is said once, the same failure of every attempt say, is not said again until
    the relay has been reached.
    """

    def __init__(self, lines: Lines, complaints: Lines, situation: Situation, hints: Hints) -> None:
        self._lines = lines
        self._complaints = complaints
        self._situation = situation
        self._hints = hints
        self._tunnels: set[tuple[str, str]] = set()
        self._up: set[object] = set()
        self._was_up = False
        self._said: set[str] = set()
        self._last = ""

    def report(self, event: Event) -> None:
        """One event of the agent; an unknown one is passed over."""
        name = str(event.get("event"))
        if tell := self.TELLS.get(name):
            tell(self, event)
            self._last = name

    def _state(self, text: str, colour: str, lines: Lines | None = None) -> None:
        if text not in self._said:
            self._said.add(text)
            self._news(text, colour, lines)

    def _news(self, text: str, colour: str, lines: Lines | None = None) -> None:
        lines = lines or self._lines
        lines.say(f"{lines.paint(clock(), DIM)}  {lines.paint(text, colour)}")

    def _connecting(self, event: Event) -> None:
        if not self._was_up:
            self._state(f"Connecting to {self._situation.relay}", DIM)

    def _connected(self, event: Event) -> None:
        if self._was_up and not self._up:
            self._state("Connected to the relay again.", GREEN)
        self._was_up = True
        self._said.clear()
        self._up.add(event.get("slot"))

    def _established(self, event: Event) -> None:
        subdomain, url = harmless(event.get("subdomain")), harmless(event.get("url"))
        if (subdomain, url) in self._tunnels:
            return
        self._tunnels.add((subdomain, url))
        if self._last != "established":
            self._lines.say("Tunnel established:", GREEN)
        self._lines.say(f"  {url} → {harmless(event.get('target'))}")

    def _disconnected(self, event: Event) -> None:
        reason, slot = harmless(event.get("reason", "")).rstrip("."), event.get("slot")
        was_up = slot in self._up
        self._up.discard(slot)
        if self._last == "refused":
            if _RESTARTS not in self._said:
                self._state("Trying again until the relay agrees.", DIM)
        elif self._up:
            if was_up:
                self._state(f"One of the links to the relay is lost ({reason}), another carries on.", YELLOW)
        elif was_up:
            self._state(f"The relay is lost ({reason}). Trying again until it answers.", RED)
        elif not self._was_up:
            text = f"The relay at {self._situation.relay} cannot be reached ({reason})."
            self._state(f"{text} Is it running, and is --relay right? Trying again until it answers.", RED)

    def _minted(self, event: Event) -> None:
        self._state(f"Minted the key {harmless(event.get('key'))} for this agent.", DIM)

    def _mint_failed(self, event: Event) -> None:
        said = sentence(event.get("message", ""))
        if event.get("retry_in") is None:
            self._state(said, RED, self._complaints)
        else:
            self._state(f"{said} Trying again until there is a key for this agent.", YELLOW)

    def _claimed(self, event: Event) -> None:
        names = event.get("subdomains")
        shown = ", ".join(map(harmless, names if isinstance(names, list) else []))
        self._state(f"Moved {shown} to this project from another one of the same login.", YELLOW)

    def _revoked(self, event: Event) -> None:
        step = self._hints.for_refusal("revoked")
        self._state(f"{sentence(event.get('message', ''))} {step}", RED, self._complaints)

    def _tunnel_closed(self, event: Event) -> None:
        self._state(f"The tunnel was closed: {sentence(event.get('message', ''))}", RED, self._complaints)

    def _refused(self, event: Event) -> None:
        if event.get("code") == "draining":  # an ordinary restart is no complaint
            self._state(_RESTARTS, YELLOW)
            return
        said = f"The relay refused: {sentence(event.get('message', ''))}"
        step = self._hints.for_refusal(event.get("code"))
        self._state(" ".join(filter(None, (said, step))), RED, self._complaints)

    def _released(self, event: Event) -> None:
        self._up.discard(event.get("slot"))

    def _reloaded(self, event: Event) -> None:
        told = [
            f"{kind} {', '.join(map(harmless, names))}"
            for kind in ("added", "removed", "changed")
            if isinstance(names := event.get(kind), list) and names
        ]
        self._news(f"Read the file anew: {'; '.join(told) or 'the tunnels are the same'}.", GREEN)

    def _reload_failed(self, event: Event) -> None:
        said = sentence(event.get("message", ""))
        self._news(f"The tunnels stay as they were. {said}", RED, self._complaints)

    def _request(self, event: Event) -> None:
        self._lines.say("  ".join(self._columns(event)))

    def _columns(self, event: Event) -> Iterator[str]:
        paint = self._lines.paint
        yield paint(clock(), DIM)
        if len(self._situation.targets) > 1:
            yield harmless(event.get("subdomain"))
        yield f"{harmless(event.get('method')):<7}"
        yield harmless(event.get("path"))
        status, error = event.get("status"), event.get("error")
        if isinstance(status, int) and status:
            yield paint(str(status), GREEN if status < 400 else YELLOW if status < 500 else RED)
        if error:
            yield paint(harmless(error), DIM if error == "cancelled" else RED)
        yield duration(event.get("duration"))
        yield size(event.get("bytes"))

    def _hint(self, event: Event) -> None:
        self._lines.say(f"Hint: {sentence(event.get('message', ''))}", YELLOW)

    def _warning(self, event: Event) -> None:
        self._lines.say(f"Warning: {sentence(event.get('message', ''))}", RED)

    def _woke(self, event: Event) -> None:
        self._news(f"This machine slept for {_span(event.get('asleep'))}. Looking after the tunnel.", YELLOW)

    def _network_changed(self, event: Event) -> None:
        self._news(f"The network has changed, to {harmless(event.get('address'))}. Looking after the tunnel.", YELLOW)

    def _clock_changed(self, event: Event) -> None:
        by = event.get("by")
        way = "back" if isinstance(by, int | float) and by < 0 else "forward"
        self._news(f"This machine's clock was set {way} by {_span(by)}.", DIM)

    def _metrics(self, event: Event) -> None:
        self._lines.say(f"Metrics at http://{harmless(event.get('address'))}/metrics", DIM)

    def _stopping(self, event: Event) -> None:
        if event.get("open"):
            self._lines.say("Stopping: what is under way may finish. Ctrl-C again stops at once.")

    def _stopped(self, event: Event) -> None:
        self._lines.say("Stopped.")

    def _error(self, event: Event) -> None:
        self._complaints.say(f"Unexpected: {sentence(event.get('message', ''))}", RED)

    TELLS: ClassVar[dict[str, Callable[[People, Event], None]]] = {
        "connecting": _connecting,
        "connected": _connected,
        "established": _established,
        "disconnected": _disconnected,
        "minted": _minted,
        "mint_failed": _mint_failed,
        "claimed": _claimed,
        "revoked": _revoked,
        "tunnel_closed": _tunnel_closed,
        "refused": _refused,
        "released": _released,
        "reloaded": _reloaded,
        "reload_failed": _reload_failed,
        "request": _request,
        "hint": _hint,
        "warning": _warning,
        "woke": _woke,
        "network_changed": _network_changed,
        "clock_changed": _clock_changed,
        "metrics": _metrics,
        "stopping": _stopping,
        "stopped": _stopped,
        "error": _error,
    }


def _span(seconds: object) -> str:
    """A time that may be hours, without its sign."""
    amount = abs(seconds) if isinstance(seconds, int | float) else 0
    for unit, size_of_it in (("h", 3600), ("min", 60)):
        if amount >= 2 * size_of_it:
            return f"{amount / size_of_it:.0f} {unit}"
    return f"{amount:.0f} s"
