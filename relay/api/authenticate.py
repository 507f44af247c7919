"""From the Authorization field to a caller, or to a refusal.

Everything that needs no proof is refused without a query: the registry is asked about a key only once its signature has
shown that the relay itself made it. Operator and master keys never need a query: the keyring has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address

from relay.api import problems
from relay.api.office import Office, Refusal
from relay.api.problems import Problem
from relay.api.rights import Caller
from relay.api.times import text_of
from relay.keys.errors import BadKey, Reason
from relay.keys.forms import Kind, check_text, kind_of
from relay.keys.requests import read_kid, verify_request
from relay.keys.tokens import Grant
from relay.registry.errors import NotFound
from relay.registry.records import KeyRecord

_LONGEST_LINEAGE = 16
_SIGN = "Sign a request with it: see relay token."


async def authenticate(office: Office, fields: Sequence[str], address: str) -> Caller:
    """Whose request this is. `fields` are the values of all its Authorization fields; raises `Problem`."""
    proven: list[Caller] = []
    try:
        text = _bearer(fields)
        kind = kind_of(text)
        if kind in (Kind.CHILD, Kind.VISITOR):
            caller = await _by_token(office, text, kind, address, proven)
        elif kind is not None:
            _refuse_private(text)
        else:
            caller = _by_signature(office, text, address, proven)
    except BadKey as error:
        problem = problems.bad_key(error)
        office.refused(_refusal_of_bad(office, error, address))
        raise problem from None
    except Problem as problem:
        office.refused(refusal_of(proven[0], problem) if proven else Refusal(address, code=problem.code))
        raise
    office.used(caller.key_id, address)
    return caller


def refusal_of(caller: Caller, problem: Problem, right: str = "") -> Refusal:
    """For the audit: who was refused what."""
    code = problem.reason or problem.code
    return Refusal(caller.address, caller.key_id, caller.lineage, caller.project or "", code, problem.detail, right)


def _refusal_of_bad(office: Office, error: BadKey, address: str) -> Refusal:
    record = office.keyring.public_of(error.key_id) if error.key_id else None
    lineage = () if record is None else tuple(one.id for one in _ancestors(office, record))
    project = "" if record is None else record.project_id or ""
    return Refusal(address, error.key_id, lineage, project, error.reason.value, str(error))


def address_of(office: Office, peer: str, forwarded_for: str) -> str:
    """The client's address: the last one of X-Forwarded-For that is not a trusted proxy's, if the peer is one."""
    address = peer
    for one in reversed(forwarded_for.split(",")):
        if not office.trusts(address):
            break
        try:
            address = str(ip_address(one.strip()))
        except ValueError:
            break
    return address


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


def _refuse_private(text: str) -> None:
    check_text(text)
    # Whoever reads along has it now; an answer that worked would teach people to send it again.
    raise problems.unauthorized(
        "An operator or master key itself must never be sent.", f"Rotate it, for it is known now. {_SIGN}"
    )


# ---- keys that sign their requests


def _by_signature(office: Office, token: str, address: str, proven: list[Caller]) -> Caller:
    now = office.now()
    record = office.keyring.public_of(read_kid(token))
    if record is None or record.public is None:
        raise BadKey(Reason.SIGNER, "The relay does not know the key that signed this request.")
    verify_request(token, record.public, office.audiences, now)
    ancestors = _ancestors(office, record)
    caller = Caller(
        kind=Kind(record.kind),
        key_id=record.id,
        project=record.project_id,
        lineage=tuple(one.id for one in ancestors),
        scope=record.scope,
        expires_at=record.expires_at,
        address=address,
    )
    proven.append(caller)
    _refuse_dead(record, now)
    _refuse_wider(caller, ancestors)
    return caller


def _ancestors(office: Office, record: KeyRecord) -> list[KeyRecord]:
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


# ---- keys that the relay signed


async def _by_token(office: Office, text: str, kind: Kind, address: str, proven: list[Caller]) -> Caller:
    now = office.now()
    grant = office.verifier.verify(text, kind, now)
    caller = Caller(
        kind=kind,
        key_id=grant.key_id,
        project=grant.project,
        lineage=grant.lineage,
        scope=grant.scope,
        expires_at=grant.expires_at,
        address=address,
    )
    proven.append(caller)
    if kind is Kind.VISITOR:
        raise problems.forbidden("A visitor key opens a tunnel's public address and nothing else.")
    record = await _recorded(office, grant)
    _refuse_dead(record, now)
    _refuse_wider(caller, [record, *_ancestors(office, record)])
    return caller


async def _recorded(office: Office, grant: Grant) -> KeyRecord:
    try:
        record = await office.registry.keys.get(grant.key_id)
    except NotFound:
        record = None
    if record is None or (record.kind, record.project_id) != (grant.kind, grant.project):
        raise problems.unauthorized(f"The registry does not know the key {grant.key_id}.", "Mint a new key.")
    return record


# ---- keys that are no longer what they were


def _refuse_dead(record: KeyRecord, now: float) -> None:
    state = record.state(now)
    if state == "revoked":
        by, at = record.revoked_by or "the relay", text_of(record.revoked_at or now)
        raise problems.unauthorized(f"The key {record.id} was revoked by {by} at {at}.", "Use another key.", state)
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
