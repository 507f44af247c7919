"""Operator and master keys in memory, so that a forged request costs no query. Kept fresh by `follower`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from relay.keys.forms import Kind
from relay.registry.records import KeyRecord
from relay.tunnels.revocations import Revocations, Verdict


class MasterKeys:
    """See `relay.api.office.Keyring`."""

    def __init__(self, revocations: Revocations) -> None:
        self._keys: dict[str, KeyRecord] = {}
        self._revocations = revocations
        revocations.on_revoked.append(self._on_revoked)

    def public_of(self, key_id: str) -> KeyRecord | None:
        """See `Keyring.public_of`."""
        return self._keys.get(key_id)

    def soonest_end(self, kind: Kind, now: float) -> float | None:
        """When the first of the keys that count ends; None: none does. One that was replaced is to end."""
        ends = [
            one.expires_at
            for one in self._keys.values()
            if one.kind is kind
            and one.successor_id is None
            and one.expires_at is not None
            and one.state(now) == "valid"
        ]
        return min(ends, default=None)

    def learn(self, record: KeyRecord) -> None:
        """See `Keyring.learn`. What was taken from a key stays taken: what is learned may have been read before."""
        if record.public is None:
            return
        known = self._keys.get(record.id)
        record = record if known is None else _least(known, record)
        if record.revoked_at is None and (verdict := self._revocations.verdict(record.id)):
            record = replace(record, revoked_at=verdict.at, revoked_by=verdict.by)
        self._keys[record.id] = record

    def learn_all(self, records: Iterable[KeyRecord]) -> None:
        """All that there are now. One that is missing stays with what was last known of it: revoked, or expired."""
        for record in records:
            self.learn(record)

    def _on_revoked(self, revoked: Mapping[str, Verdict]) -> None:
        for key_id in revoked.keys() & self._keys.keys():
            self.learn(self._keys[key_id])


def _least(known: KeyRecord, read: KeyRecord) -> KeyRecord:
    """What was read, with the shorter life of the two and the successor of either: the registry takes neither back."""
    if (known.expires_at, known.successor_id) == (read.expires_at, read.successor_id):
        return read
    ends = [one.expires_at for one in (known, read) if one.expires_at is not None]
    return replace(read, expires_at=min(ends, default=None), successor_id=read.successor_id or known.successor_id)
