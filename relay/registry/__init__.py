"""What lasts: projects, keys, reserved names, the audit. The only package that knows a database."""

from relay.registry.audit import Action
from relay.registry.database import Database
from relay.registry.dialects import Limits
from relay.registry.errors import Conflict, NotAllowed, NotFound, Refused, RegistryError, SchemaError, Unavailable
from relay.registry.records import (
    RELAY,
    Actor,
    KeyFilter,
    KeyRecord,
    NewKey,
    Note,
    Page,
    Position,
    Project,
    Revocation,
    Revoked,
    Rotated,
    Signer,
    Subdomain,
    UsageRow,
    UsageSum,
    UsageTotal,
)
from relay.registry.registry import Registry

__all__ = [
    "RELAY",
    "Action",
    "Actor",
    "Conflict",
    "Database",
    "KeyFilter",
    "KeyRecord",
    "Limits",
    "NewKey",
    "NotAllowed",
    "NotFound",
    "Note",
    "Page",
    "Position",
    "Project",
    "Refused",
    "Registry",
    "RegistryError",
    "Revocation",
    "Revoked",
    "Rotated",
    "SchemaError",
    "Signer",
    "Subdomain",
    "Unavailable",
    "UsageRow",
    "UsageSum",
    "UsageTotal",
]
