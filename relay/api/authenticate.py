"""From the Authorization field to a caller, or to a refusal.

Everything that needs no proof is refused without a query: the registry is asked about a key only once its signature has
shown that the relay itself made it. Operator and master keys never need a query: the keyring has them.
"""

from __future__ import annotations

from collections.abc import Sequence

from relay.api import problems
from relay.api.office import Office, Refusal
from relay.api.problems import Problem
from relay.api.rights import Caller
from relay.keys.errors import BadKey, Reason
from relay.keys.forms import Kind, check_text, kind_of
from relay.keys.requests import read_kid, verify_request
from relay.keys.times import text_of
from relay.registry.errors import NotFound
from relay.registry.records import KeyRecord
from relay.tunnels.revocations import Verdict

_LONGEST_LINEAGE = 16
_SIGN = "Sign a request with it: see relay token."


async def authenticate(office: Office, fields: Sequence[str], address: str) -> Caller:
    """Whose request this is. `fields` are the values of all its Authorization fields; raises `Problem`."""
    try:
        caller = _prove(office, _bearer(fields), address)
    except BadKey as error:
        office.refused(_refusal_of_bad(office, error, address))
        raise problems.bad_key(error) from None
    except Problem as problem:
        office.refused(Refusal(address, code=problem.code))
        raise
    try:
        await _check(office, caller)
    except Problem as problem:
        office.refused(refusal_of(caller, problem))
        raise
    office.used(caller.key_id, address)
    return caller


def refusal_of(caller: Caller, problem: Problem, right: str = "") -> Refusal:
    """For the audit: who was refused what."""
    code = problem.reason or problem.code
    return Refusal(caller.address, caller.key_id, caller.lineage, caller.project or "", code, right)


def _refusal_of_bad(office: Office, error: BadKey, address: str) -> Refusal:
    record = office.keyring.public_of(error.key_id) if error.key_id else None
    lineage = () if record is None else tuple(one.id for one in ancestors(office, record))
    project = "" if record is None else record.project_id or ""
    return Refusal(address, error.key_id, lineage, project, error.reason.value)


def _bearer(fields: Sequence[str]) -> str:
    if not fields:
        raise problems.unauthorized("This needs a key.", f"Send Authorization: Bearer. {_SIGN}", presented=False)
    if len(fields) > 1:
        raise problems.unauthorized("There is more than one Authorization field.", "Send one.")
    scheme, _, text = fields[0].partition(" ")
    text = text.strip(" ")
    if scheme.lower() != "bearer" or not text:
        raise problems.unauthorized("The Authorization field holds no bearer key.", "Send Authorization: Bearer KEY.")
    return text


# ---- whose key it is, proven without a query


def _prove(office: Office, text: str, address: str) -> Caller:
    """Raises `BadKey`, `Problem`."""
    kind = kind_of(text)
    if kind is None:
        return _by_signature(office, text, address)
    if not kind.private:
        return _by_token(office, text, kind, address)
    check_text(text)
    # Whoever reads along has it now; an answer that worked would teach people to send it again.
    raise problems.unauthorized(
        "An operator or master key itself must never be sent.", f"Rotate it, for it is known now. {_SIGN}"
    )


def _by_signature(office: Office, token: str, address: str) -> Caller:
    record = office.keyring.public_of(read_kid(token))
    if record is None or record.public is None:
        raise BadKey(Reason.SIGNER, "The relay does not know the key that signed this request.")
    verify_request(token, record.public, office.audiences, office.now())
    return Caller(
        kind=record.kind,
        key_id=record.id,
        project=record.project_id,
        lineage=tuple(one.id for one in ancestors(office, record)),
        scope=record.scope,
        expires_at=record.expires_at,
        address=address,
    )


def _by_token(office: Office, text: str, kind: Kind, address: str) -> Caller:
    grant = office.verifier.verify(text, kind, office.now())
    return Caller(
        kind=kind,
        key_id=grant.key_id,
        project=grant.project,
        lineage=grant.lineage,
        scope=grant.scope,
        expires_at=grant.expires_at,
        address=address,
    )


def ancestors(office: Office, record: KeyRecord) -> list[KeyRecord]:
    """Those that the keyring has, topmost first."""
    found: list[KeyRecord] = []
    parent_id = record.parent_id
    while parent_id is not None and len(found) < _LONGEST_LINEAGE:
        parent = office.keyring.public_of(parent_id)
        if parent is None:
            break
        found.append(parent)
        parent_id = parent.parent_id
    return found[::-1]


# ---- whether it still counts


async def _check(office: Office, caller: Caller) -> None:
    """Raises `Problem`."""
    if caller.kind is Kind.VISITOR:
        raise problems.forbidden("A visitor key opens a tunnel's public address and nothing else.")
    record = office.keyring.public_of(caller.key_id) if caller.kind.private else await _recorded(office, caller)
    if record is None or (record.kind, record.project_id) != (caller.kind, caller.project):
        raise problems.unauthorized(f"The registry does not know the key {caller.key_id}.", "Mint a new key.")
    _refuse_dead(record, office.now())
    _refuse_wider(caller, [record, *ancestors(office, record)])


async def _recorded(office: Office, caller: Caller) -> KeyRecord | None:
    try:
        return await office.registry.keys.get(caller.key_id)
    except NotFound:
        return None


def _refuse_dead(record: KeyRecord, now: float) -> None:
    state = record.state(now)
    if state == "revoked":
        verdict = Verdict(record.revoked_by or "", record.revoked_at or now)
        raise problems.unauthorized(verdict.sentence(record.id), "Use another key.", state)
    if state != "valid":
        at = text_of(record.expires_at or now)
        following = "Use its successor, or mint a new key."
        raise problems.unauthorized(f"The key {record.id} expired at {at}.", following, state)


def _refuse_wider(caller: Caller, above: Sequence[KeyRecord]) -> None:
    for one in above:
        wider = caller.scope.excess(one.scope)
        if wider:
            raise problems.unauthorized(
                f"The key {caller.key_id} claims more than {one.id} has to give: {wider}.", "Mint a new key.", "wider"
            )
