"""Minting over HTTP: what is asked for, narrowed to what the caller has, registered, and only then said.

Whether a wish goes beyond what the keys above may give is the registry's to decide, while it writes.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from relay.api import models, problems
from relay.api.call import Call, Reply
from relay.api.keyshapes import key_of
from relay.api.projects import meant
from relay.api.rights import MINTING, Caller
from relay.api.wishes import DAY, ChildWish, MasterWish, MintWish, VisitorWish
from relay.keys.forms import Kind, read_public
from relay.keys.private import id_of_public
from relay.keys.scopes import Scope
from relay.keys.times import text_of
from relay.keys.tokens import Grant, new_id
from relay.registry.records import NewKey


async def mint(call: Call) -> Reply:
    """A key below the caller's. The text of a child or visitor key is in this answer and nowhere else."""
    wish = call.taken(MintWish).root
    kind = Kind(wish.kind)
    project = await meant(call, wish.project, MINTING[kind])
    now = call.office.now()
    expires_at = _expiry(call.who, wish, now)
    public = read_public(wish.public_key) if isinstance(wish, MasterWish) else None
    new = NewKey(
        kind=kind,
        id=new_id(kind) if public is None else id_of_public(kind, public),
        project_id=project.id,
        parent_id=call.who.key_id,
        public=public,
        scope=_scope(call.who, wish),
        label=wish.label,
        tunnel=wish.tunnel if isinstance(wish, VisitorWish) else None,
        expires_at=expires_at,
    )
    text = None
    if expires_at is not None and public is None:
        key = call.office.signing.key()
        new = replace(new, signer=key.kid)
        text = key.sign(_grant(call, new, math.floor(now), expires_at), call.office.issuer)
    record = await call.office.registry.keys.mint(call.actor, new)
    if public is not None:
        call.office.keyring.learn(record)
    return Reply(models.Minted(key=key_of(call.office, record, project.name), text=text), 201)


def _scope(caller: Caller, wish: MasterWish | ChildWish | VisitorWish) -> Scope:
    """What is asked for, and where nothing is, what the caller has."""
    members: dict[str, Any] = caller.scope.to_json()
    if isinstance(wish, VisitorWish):
        members["names"] = [wish.tunnel]
    elif wish.scope is not None:
        members |= wish.scope.model_dump(include=wish.scope.model_fields_set)
    return Scope.from_json(members)


def _expiry(caller: Caller, wish: MasterWish | ChildWish | VisitorWish, now: float) -> float | None:
    """In whole seconds, as a token says it; raises `Problem` when it would be later than the caller's."""
    most = None if caller.expires_at is None else math.floor(caller.expires_at)
    full = math.ceil(now)  # a life of a second must not be over before the key is there
    if wish.life is not None:
        if most is not None and math.floor(now) + wish.life > most:
            raise problems.invalid(
                f"The member 'life' of the body is too long: {caller.key_id} expires at {text_of(most)}."
            )
        return float(full + wish.life if most is None else min(full + wish.life, most))
    if isinstance(wish, MasterWish):
        return None if most is None else float(most)
    return float(full + DAY if most is None else min(full + DAY, most))


def _grant(call: Call, new: NewKey, now: int, expires_at: float) -> Grant:
    return Grant(
        kind=new.kind,
        key_id=new.id,
        project=new.project_id or "",
        lineage=(*call.who.lineage, call.who.key_id),
        scope=new.scope,
        issued_at=float(now),
        expires_at=expires_at,
        tunnel=new.tunnel or "",
    )
