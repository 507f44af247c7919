"""Which key may be made under which, decided in the transaction that makes it: none wider than its parent."""

from __future__ import annotations

from sqlalchemy import insert, select

from relay.keys.forms import Kind
from relay.registry.database import Reading, Writing
from relay.registry.errors import Conflict, NotAllowed, NotFound
from relay.registry.names import check_free
from relay.registry.records import KeyRecord, NewKey
from relay.registry.rows import row_of_key
from relay.registry.schema import KEYS, PROJECTS
from relay.registry.trees import living

MINTS: dict[Kind, frozenset[Kind]] = {
    Kind.OPERATOR: frozenset({Kind.MASTER, Kind.CHILD, Kind.VISITOR}),
    Kind.MASTER: frozenset({Kind.CHILD, Kind.VISITOR}),
    Kind.CHILD: frozenset(),
    Kind.VISITOR: frozenset(),
}
LONGEST_LABEL = 200


async def add_key(write: Writing, now: float, new: NewKey, *, above: bool = True) -> KeyRecord:
    """Puts a key into the registry after every check. Raises NotAllowed, NotFound, Conflict.

    `above` is False for what the relay itself makes: an operator key without a parent.
    """
    _check_form(new, now)
    if new.parent_id is not None:
        lineage = await living(write, new.parent_id, now)
        _check_parent(new, lineage[-1])
        if lineage[-1].kind is Kind.OPERATOR and new.project_id is not None:
            await live_project(write, new.project_id)  # a deleted project's own keys are revoked
        if new.tunnel is not None and new.project_id is not None:
            await check_free(write, now, new.tunnel, new.project_id, quarantine=0)
    elif new.kind is not Kind.OPERATOR or above:
        raise NotAllowed("kind", f"A key of the kind {new.kind} is minted by another key.")
    return await insert_key(write, now, new)


async def insert_key(
    write: Writing, now: float, new: NewKey, token_version: int = 0, line: str | None = None
) -> KeyRecord:
    """Without any check but that the key is new. Raises Conflict."""
    record = KeyRecord(
        id=new.id,
        kind=new.kind,
        project_id=new.project_id,
        parent_id=new.parent_id,
        public=new.public,
        scope=new.scope,
        label=new.label,
        tunnel=new.tunnel,
        created_at=now,
        expires_at=new.expires_at,
        token_version=token_version,
        line=line,
        signer=new.signer,
    )
    try:
        await write.run(insert(KEYS), row_of_key(record))
    except Conflict:
        raise Conflict("key_exists", f"The key {new.id} is registered already.") from None
    if new.kind.private:
        write.ledger.keys_seq += 1
    return record


def _check_form(new: NewKey, now: float) -> None:
    if (new.public is not None) != new.kind.private or (new.public is not None and len(new.public) != 32):
        raise NotAllowed("public_key", "Operator and master keys have a public key of 32 bytes, others have none.")
    if (new.tunnel is not None) != (new.kind is Kind.VISITOR):
        raise NotAllowed("tunnel", "A visitor key is for one tunnel, other keys are for none.")
    if (new.project_id is None) != (new.kind is Kind.OPERATOR):
        raise NotAllowed("project", "Every key but an operator key belongs to a project.")
    if new.expires_at is None and not new.kind.private:
        raise NotAllowed("expiry", f"A key of the kind {new.kind} must expire.")
    if new.expires_at is not None and not now < new.expires_at < 1e11:
        raise NotAllowed("expiry", "The key would have expired already, or lives too long; choose another life.")
    if len(new.label) > LONGEST_LABEL or not new.label.isprintable():
        raise NotAllowed("label", f"A label is at most {LONGEST_LABEL} printable characters.")


def _check_parent(new: NewKey, parent: KeyRecord) -> None:
    if new.kind not in MINTS[parent.kind]:
        raise NotAllowed("kind", f"A key of the kind {parent.kind} mints no key of the kind {new.kind}.")
    if parent.kind is not Kind.OPERATOR and parent.project_id != new.project_id:
        raise NotAllowed("foreign_project", "A master key mints in its own project only.")
    if wider := new.scope.excess(parent.scope):
        raise NotAllowed("scope_wider", f"The key would be wider than its parent: {wider}.")
    if parent.expires_at is not None and (new.expires_at is None or new.expires_at > parent.expires_at):
        raise NotAllowed("expiry_later", "The key would outlive its parent; choose a shorter life.")
    if new.tunnel is not None and not parent.scope.allows(new.tunnel):
        raise NotAllowed("scope_wider", f"The parent's scope does not cover the name {new.tunnel}.")


async def live_project(read: Reading, project_id: str) -> str:
    """Its name. Raises NotFound, also when it was deleted."""
    query = select(PROJECTS.c.name).where(PROJECTS.c.id == project_id, PROJECTS.c.deleted_at.is_(None))
    row = await read.row(query)
    if row is None:
        raise NotFound("There is no such project.")
    return str(row.name)
