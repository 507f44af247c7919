"""What cannot be read, or may not be written, of a head or a body; the text says what is wrong with it."""

from __future__ import annotations


class ExchangeError(Exception):
    """Base of this package's errors."""


class MalformedHead(ExchangeError):
    """A head that cannot be read or may not be written: bad bytes, too many fields, too large."""


class MalformedBody(ExchangeError):
    """Body bytes that break their framing: a bad chunk, too few or too many bytes."""
