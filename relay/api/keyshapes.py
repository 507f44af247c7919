"""Keys as they are told, and who is told when they are revoked."""

from __future__ import annotations

from relay.api import models
from relay.api.office import Office
from relay.keys.forms import Kind, public_text
from relay.keys.scopes import Scope
from relay.keys.times import text_of, text_or_none
from relay.registry.records import KeyRecord, Revocation


def key_of(office: Office, record: KeyRecord, project_name: str | None) -> models.Key:
    """As it is told at this moment."""
    now = office.now()
    state = record.state(now)
    if state == "valid" and record.signer in office.verifier.retired:
        state = "retired"
    return models.Key(
        id=record.id,
        kind=record.kind,
        project=record.project_id,
        project_name=project_name,
        parent=record.parent_id,
        label=record.label,
        scope=models.Scope.model_validate(record.scope.to_json()),
        tunnel=record.tunnel,
        public_key=None if record.public is None else public_text(record.public),
        created_at=text_of(record.created_at),
        expires_at=text_or_none(record.expires_at),
        revoked_at=text_or_none(record.revoked_at),
        revoked_by=record.revoked_by,
        state=state,
        token_version=record.token_version,
        successor=record.successor_id,
        last_used_at=text_or_none(record.last_used_at),
        last_used_from=record.last_used_from,
    )


def limits_of(scope: Scope) -> models.Limits:
    """As they are told, without names."""
    return models.Limits.model_validate(scope.limits())


def told_of_revocation(office: Office, revocation: Revocation) -> models.Revoked:
    """Cuts what the revoked keys hold open, then counts them: whoever reads the counts can rely on it."""
    if revocation.ids:
        office.live.on_revoked(revocation.ids, revocation.by, revocation.at)
    counts = {kind.value: revocation.counts.get(kind, 0) for kind in Kind}
    return models.Revoked(**counts, remaining=revocation.remaining)
