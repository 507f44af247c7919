"""Admission by child keys: signature first, registry second, and once more, without waiting, right before it counts.

A key that no relay signed costs no query and leaves a count; a known one that is refused leaves an audit row.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from relay.keys.errors import BadKey, Reason
from relay.keys.forms import Kind, kind_of
from relay.keys.tokens import Grant, TokenVerifier
from relay.registry import Action, Registry
from relay.registry.errors import NotAllowed, NotFound, Unavailable
from relay.registry.records import Actor, KeyRecord, Note
from relay.tunnels.admission import Principal, refuse_reserved
from relay.tunnels.journal import Journal
from relay.tunnels.revocations import Revocations, Verdict
from relay.wire.hello import Hello, Refused

AWAY = Refused("registry_unavailable", "The relay's registry is away; the agent is admitted once it is back.", 1.0)
_MINT = "Mint another one: relay keys mint."


@dataclass(frozen=True, slots=True)
class KeyRoom:
    """What admission by keys uses; filled by the composition root."""

    verifier: TokenVerifier
    registry: Registry
    revocations: Revocations
    journal: Journal
    used: Callable[[str, str], None]
    """Notes that a key was used, from an address."""
    reserved: dict[str, str]
    """The hub's: name → project."""
    now: Callable[[], float]
    """Seconds since the epoch."""
    clock: Callable[[], float]
    """A steady clock, in seconds."""


class KeyAdmission:
    """See `Admission`."""

    def __init__(self, room: KeyRoom) -> None:
        self._room = room

    async def admit(self, hello: Hello, address: str) -> Principal | Refused:
        """See `Admission.admit`."""
        return refuse_reserved(hello.names) or await self._judge(hello.key, hello.names, address, None)

    async def renew(self, principal: Principal, key: str, names: tuple[str, ...], address: str) -> Principal | Refused:
        """See `Admission.renew`."""
        return await self._judge(key, names, address, principal)

    def last_word(self, principal: Principal, names: tuple[str, ...]) -> Refused | None:
        """See `Admission.last_word`."""
        room = self._room
        if room.revocations.deaf(room.clock()):
            return AWAY
        verdict = room.revocations.verdict(principal.key_id)
        if verdict is not None:
            return Refused("revoked", verdict.sentence(principal.key_id))
        if principal.signer in room.verifier.retired:
            return Refused("expired", f"The signing key of {principal.key_id} has just been retired. {_MINT}")
        for name in names:
            if room.reserved.get(name) != principal.project:
                return Refused("name_taken", f"The name {name!r} has just changed hands.", 1.0)
        return None

    def refused(self, principal: Principal, names: tuple[str, ...], address: str, refused: Refused) -> None:
        """See `Admission.refused`."""
        if refused is not AWAY:
            self._note(refused, Actor(principal.key_id, principal.lineage, address), principal.project, names)

    async def _judge(
        self, key: str, names: tuple[str, ...], address: str, before: Principal | None
    ) -> Principal | Refused:
        room = self._room
        try:
            grant = room.verifier.verify(key, Kind.CHILD, room.now())
        except BadKey as error:
            refused = _unproven(key, error)
            if error.key_id:  # the signature was right, so it is known whose key it is
                self._note(refused, Actor(error.key_id, (), address), "", names)
            else:
                room.journal.knocked(address, error.reason)
            return refused
        if room.journal.full or room.revocations.deaf(room.clock()):
            return AWAY
        try:
            answer = self._outside(grant, names, before) or await self._known(grant, names, address)
        except Unavailable:
            return AWAY
        if isinstance(answer, Refused):
            self._note(answer, Actor(grant.key_id, grant.lineage, address), grant.project, names)
        return answer

    def _note(self, refused: Refused, actor: Actor, project: str, names: tuple[str, ...]) -> None:
        details = {"code": refused.code, "names": list(names)}
        note = Note(actor, Action.SESSION_REFUSED, actor.key_id, project, details, self._room.now())
        self._room.journal.refused(note, refused.code)

    def _outside(self, grant: Grant, names: tuple[str, ...], before: Principal | None) -> Refused | None:
        verdict = self._room.revocations.verdict(grant.key_id)
        if verdict is not None:
            return Refused("revoked", verdict.sentence(grant.key_id))
        if before is not None and before.project != grant.project:
            return Refused("bad_key", "The new key is of another project than the session.")
        for name in names:
            if not grant.scope.allows(name):
                allowed = ", ".join(grant.scope.names)
                return Refused("bad_key", f"The key {grant.key_id} opens {allowed}, not {name!r}. {_MINT}")
        most = grant.scope.tunnels
        if most is not None and len(names) > most:  # before any of them is reserved
            said = f"The key {grant.key_id} opens at most {most} tunnels, not {len(names)}. {_MINT}"
            return Refused("too_many", said)
        return None

    async def _known(self, grant: Grant, names: tuple[str, ...], address: str) -> Principal | Refused:
        """What the registry says: the key is its own, valid, no wider than any above it, and the names are free."""
        room = self._room
        try:
            line = await room.registry.keys.lineage(grant.key_id)
        except NotFound:
            line = []
        if not line or (line[-1].kind, line[-1].project_id) != (grant.kind, grant.project):
            return Refused("bad_key", f"This relay does not know the key {grant.key_id}. {_MINT}")
        record = line[-1]
        if (refused := _state(record, room.now())) is not None:
            return refused
        for one in reversed(line):
            if excess := grant.scope.excess(one.scope):
                than = "it was minted" if one is record else f"{one.id} is"
                return Refused("bad_key", f"The key {grant.key_id} is wider than {than}: {excess}. {_MINT}")
        # Names that are the project's already need no claim: whether they still are is asked last of all, in any case.
        if any(room.reserved.get(name) != grant.project for name in names):
            try:
                await room.registry.subdomains.claim(Actor(record.id, grant.lineage, address), names, record)
            except NotAllowed as error:
                return Refused(error.code, str(error))
        for name in names:
            room.reserved.setdefault(name, grant.project)
        room.used(record.id, address)
        expires_at = math.inf if record.expires_at is None else min(record.expires_at, grant.expires_at)
        above = tuple((one.first, one.scope) for one in reversed(line[:-1]) if one.kind is Kind.MASTER)
        return Principal(grant.project, record.id, grant.lineage, grant.scope, above, expires_at, grant.signer)


def _state(record: KeyRecord, now: float) -> Refused | None:
    match record.state(now):
        case "revoked":
            by, at = record.revoked_by or "", record.revoked_at or 0.0
            return Refused("revoked", Verdict(by, at).sentence(record.id))
        case "expired":
            return Refused("expired", f"The key {record.id} has expired. {_MINT}")
    return None


def _unproven(key: str, error: BadKey) -> Refused:
    if error.reason is Reason.EXPIRED:
        return Refused("expired", f"The key has expired. {_MINT}")
    if error.reason is Reason.RETIRED:  # as good as expired: an agent that can get another key does
        return Refused("expired", f"{error} {_MINT}")
    kind = kind_of(key)
    if kind is not None and kind is not Kind.CHILD:
        return Refused("bad_key", f"A {kind} key opens no tunnel: mint a child key with it (relay keys mint).")
    return Refused("bad_key", f"The relay does not accept this key: {error} {_MINT}")
