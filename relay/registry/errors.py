"""What the registry raises. Every text is a sentence for people, without query, parameter, key or database address."""

from __future__ import annotations


class RegistryError(Exception):
    """Base of this package's errors."""


class NotFound(RegistryError):
    """There is no such thing."""


class Refused(RegistryError):
    """What was asked is well understood and not done; `code` is for programs."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class Conflict(Refused):
    """It exists already."""


class NotAllowed(Refused):
    """A rule of keys, scopes or names forbids it."""


class Unavailable(RegistryError):
    """The database is away, locked for too long or full, or the change could not be audited: try again later."""


class SchemaError(RegistryError):
    """The database's schema is not the one that this relay works with."""
