"""Counts of what an agent did, made from the events that it reports: who is not measured counts nothing. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from relay.telemetry.histograms import Histogram
from relay.telemetry.traffic import SECONDS, class_of

Event = dict[str, object]
Report = Callable[[Event], None]

ERRORS = ("", "cancelled", "agent_lost", "head_timeout", "local_refused", "local_reset", "bad_response", "other")
_OTHER = "other"


class Tally:
    """Of one agent."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str]] = Counter()
        """By the status class of the local service's answer, and by what went wrong: `CLASSES`, `ERRORS`."""
        self.duration = Histogram(SECONDS)
        self.up: set[object] = set()
        """Slots whose link is up."""
        self.opened = self.lost = self.failed = self.refused = 0
        """Links that were admitted, those that were up and ended; attempts in vain, and of these by a refusal."""
        self.minted = self.key_failures = 0
        self.stopping = False
        self.trouble = ""
        """Why there is no link, in the words of the last event about it."""

    def listening(self, report: Report) -> Report:
        """A report that is heard here as well."""

        def tell(event: Event) -> None:
            self.hear(event)
            report(event)

        return tell

    def hear(self, event: Event) -> None:
        """One event (docs/agent.md); one that says nothing here is passed over."""
        match event.get("event"):
            case "request":
                self._request(event)
            case "connected":
                self.opened += 1
                self.up.add(event.get("slot"))
            case "disconnected":
                self._disconnected(event)
            case "released":
                self.up.discard(event.get("slot"))
            case "refused" | "revoked" | "tunnel_closed":
                self.refused += event["event"] == "refused"
                self.trouble = str(event.get("message", ""))
            case "minted":
                self.minted += 1
            case "mint_failed":
                self.key_failures += 1
                self.trouble = str(event.get("message", ""))
            case "renewal_failed":
                self.key_failures += 1
            case "stopping":
                self.stopping = True

    def reasons(self) -> list[str]:
        """Why the agent does not do its work now, a line each; nothing while it does."""
        found = ["the agent stops"] if self.stopping else []
        if not self.up:
            why = " ".join(self.trouble.split())
            found.append("no link to the relay is up" + (f": {why}" if why else ""))
        return found

    def _request(self, event: Event) -> None:
        status, error, took = event.get("status"), str(event.get("error", "")), event.get("duration")
        number = status // 100 if isinstance(status, int) else 0
        self.requests[class_of(number), error if error in ERRORS else _OTHER] += 1
        self.duration.observe(took if isinstance(took, int | float) else 0.0)

    def _disconnected(self, event: Event) -> None:
        if event.get("slot") in self.up:
            self.up.discard(event.get("slot"))
            self.lost += 1
        else:
            self.failed += 1
        self.trouble = str(event.get("reason", ""))
