"""What can go wrong with an exchange, as values: every failure has a code of the contract and a sentence."""

from __future__ import annotations


class ExchangeError(Exception):
    """Base of this package's errors."""


class MalformedHead(ExchangeError):
    """A head that cannot be read or may not be written: bad bytes, too many fields, too large."""


class MalformedBody(ExchangeError):
    """Body bytes that break their framing: a bad chunk, too few or too many bytes."""
