"""What waits on sessions at this moment, read in one walk: for whoever measures. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from relay.mux.session import Session


@dataclass(slots=True)
class Glance:
    """Sums over sessions; "sent" is what this side sends, "received" what its peers do. Sizes are in bytes."""

    streams: int = 0
    held: int = 0
    """Received and not consumed yet."""
    waiting: int = 0
    """Queued here."""
    credit_given: int = 0
    """What the peers may still send."""
    credit_left: int = 0
    """What this side may still send."""
    stalled_sent: int = 0
    """Streams with bytes queued here and no credit for them, be it their own or their session's."""
    stalled_received: int = 0
    """Streams whose peer has used up its credit, since what it sent has not been consumed."""
    sessions_stalled_sent: int = 0
    sessions_stalled_received: int = 0


def look(sessions: Iterable[Session]) -> Glance:
    """The sums over these."""
    found = Glance()
    for session in sessions:
        window, credit = session.window, session.outbox.credit
        streams = session.streams
        found.streams += len(streams)
        found.held += window.held()
        found.credit_given += window.granted - window.received
        found.credit_left += credit
        queued = 0
        for stream in streams.values():
            own = stream.seen
            if own.received >= own.granted and own.held():
                found.stalled_received += 1
            if pending := stream.pending:
                queued += pending
                if credit <= 0 or stream.send_credit <= 0:
                    found.stalled_sent += 1
        found.waiting += session.outbox.size + queued
        if credit <= 0 and queued:
            found.sessions_stalled_sent += 1
        if window.received >= window.granted and window.held():
            found.sessions_stalled_received += 1
    return found


def round_trips(sessions: Iterable[Session]) -> list[float]:
    """The last round trip of each that has measured one, in seconds, the shortest first."""
    return sorted(session.keepalive.trips.last for session in sessions if session.keepalive.measured)


class Carried:
    """Bytes of bodies that sessions have moved so far, each folded once, when it has ended."""

    def __init__(self) -> None:
        self.sent = 0
        self.received = 0

    def fold(self, session: Session) -> None:
        """This one has ended."""
        self.sent += session.outbox.moved
        self.received += session.window.received

    def total(self, sessions: Iterable[Session]) -> tuple[int, int]:
        """Sent and received, with those of sessions that go on."""
        going = [session for session in sessions if not session.ended]
        return (
            self.sent + sum(session.outbox.moved for session in going),
            self.received + sum(session.window.received for session in going),
        )
