"""What opens the stream of a request that is under limits: an exchange takes it for its session."""

from __future__ import annotations

from relay.limits.pacedstream import PacedStream, Terms
from relay.limits.pacing import Pacer
from relay.mux.session import Session
from relay.mux.streamevents import StreamEvents


class PacedOpener:
    """What an exchange is given in the place of a session, for one request."""

    __slots__ = ("_pacer", "_session", "_terms", "_upgrade")

    def __init__(self, session: Session, pacer: Pacer, terms: Terms, upgrade: bool) -> None:
        self._session = session
        self._pacer = pacer
        self._terms = terms
        self._upgrade = upgrade

    def open(self, payload: bytes, ended: bool, owner: StreamEvents) -> PacedStream:
        """See `Session.open`."""
        most = None if self._upgrade else self._terms.body
        stream = PacedStream(self._terms, self._pacer, owner, most)
        stream.open(self._session, payload, ended)
        return stream
