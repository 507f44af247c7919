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
        if record.public is not None:
            known = self._keys.get(record.id)
            self._keys[record.id] = record if known is None else _less(known, record)

    def learn_all(self, records: Iterable[KeyRecord]) -> None:
        """All that there are now. One that is missing stays with what was last known of it: revoked, or expired."""
        for record in records:
            self.learn(record)

    def _on_revoked(self, revoked: Mapping[str, Verdict]) -> None:
        for key_id in revoked.keys() & self._keys.keys():
            verdict = revoked[key_id]
            self._keys[key_id] = replace(self._keys[key_id], revoked_at=verdict.at, revoked_by=verdict.by)


def _less(known: KeyRecord, read: KeyRecord) -> KeyRecord:
    """Whichever of the two was read first: the registry only revokes, replaces, and shortens a life."""
    ends = [one.expires_at for one in (known, read) if one.expires_at is not None]
    revoked = known if read.revoked_at is None else read
    return replace(
        read,
        expires_at=min(ends, default=None),
        successor_id=read.successor_id or known.successor_id,
        revoked_at=revoked.revoked_at,
        revoked_by=revoked.revoked_by,
        revoked_seq=revoked.revoked_seq,
    )
