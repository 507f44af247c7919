"""Sources of keys for tests of the agent: they mint whenever they are asked, and say no as often as they are told."""

from __future__ import annotations

import threading
from collections.abc import Callable

from relay.agent.config import MintedKey

DAY = 86400.0


class Mint:
    """Gives `key-1`, `key-2` and so on; the clock of whoever signs them is `ahead` of the agent's."""

    def __init__(self, now: Callable[[], float], life: float = DAY, ahead: float = 0.0) -> None:
        self.minted: list[str] = []
        self.asked = 0
        self.refusals: list[Exception] = []
        self.gate: threading.Event | None = None
        """What a mint waits for."""
        self.threads: set[threading.Thread] = set()
        self._now = now
        self._life = life
        self._ahead = ahead
        self._busy = threading.Lock()

    def fresh(self) -> MintedKey:
        """See `KeySource.fresh`."""
        assert self._busy.acquire(blocking=False), "two mints at a time"
        try:
            self.asked += 1
            self.threads.add(threading.current_thread())
            if self.gate is not None:
                assert self.gate.wait(10)
            if self.refusals:
                raise self.refusals.pop(0)
            self.minted.append(f"key-{len(self.minted) + 1}")
            issued = self._now() + self._ahead
            return MintedKey(self.minted[-1], issued, issued + self._life, renewable=True)
        finally:
            self._busy.release()


class Mover(Mint):
    """A source whose login may move a name: `moves` is what it answers, or raises."""

    def __init__(self, now: Callable[[], float], moves: bool | Exception) -> None:
        super().__init__(now)
        self.moves = moves
        self.claims: list[tuple[str, ...]] = []

    def claim_for_login(self, names: tuple[str, ...]) -> bool:
        """See `Claimant.claim_for_login`."""
        self.claims.append(names)
        if isinstance(self.moves, Exception):
            raise self.moves
        return self.moves
