"""The keys that nodes sign with, over HTTP: which there are, and retiring one that others may have."""

from __future__ import annotations

import re

from relay.api import models, problems
from relay.api.call import Call, Reply
from relay.keys.forms import public_text
from relay.keys.times import text_of, text_or_none

KID = r"^node_[0-9A-Za-z]{12}$"


async def page(call: Call) -> Reply:
    """Every key that a node of this relay signs or signed with."""
    items = [
        models.Signer(
            kid=one.kid,
            public_key=public_text(one.public),
            node=one.node,
            created_at=text_of(one.created_at),
            retired_at=text_or_none(one.retired_at),
        )
        for one in await call.office.registry.signers.all()
    ]
    return Reply(models.Signers(items=items))


async def retire(call: Call) -> Reply:
    """Whatever a key signed counts no longer, and what that opened is cut. A node takes another one for its own."""
    kid, registered = call.path["signer"], call.office.registry.signers
    if not re.fullmatch(KID, kid):
        raise problems.not_found("signing key", kid)
    retired = await registered.retire(call.actor, kid)
    await call.office.signing.learn(await registered.all())
    return Reply(models.RetiredSigner(kid=kid, retired=retired))
