"""What a thief finds in copies of a relay's database and log: every value, and every secret that a value could be.

This room knows files and encodings; what a found value opens is tried by `test_leaked`.
"""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.support.keys import DIGITS
from tests.system.forger import unb64

MOST_WORD = 8000
_WORD = re.compile(rb"[0-9A-Za-z_.+/=~-]{4,%d}" % MOST_WORD)
_ID = re.compile(r"mtk_(?:operator|master|child|visitor)_[0-9A-Za-z]{12}")


def values_of(database: Path) -> Iterator[object]:
    """Every value in every row of a SQLite file."""
    with contextlib.closing(sqlite3.connect(database)) as file:
        tables = [name for (name,) in file.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            for row in file.execute(f'SELECT * FROM "{table}"'):
                yield from row


def words_of(data: bytes) -> set[str]:
    """Every run of characters that a key or a password may be made of, whole and in its parts."""
    found: set[str] = set()
    for word in {match[0].decode() for match in _WORD.finditer(data)}:
        stripped = word.strip(".=/")
        found |= {word, stripped, *stripped.split("."), *stripped.split("/"), *stripped.split("=")}
        found |= {stripped.rpartition("_")[2], *_ID.findall(word)}
    return {word for word in found if len(word) >= 4}


def texts_of(values: Iterable[object]) -> set[str]:
    """Every value as a text, and every text in a value that is JSON."""
    found: set[str] = set()
    for value in values:
        if isinstance(value, bytes):
            found.add(value.hex())
            with contextlib.suppress(UnicodeDecodeError):
                found.add(value.decode())
        elif isinstance(value, str):
            found.add(value)
            with contextlib.suppress(ValueError):
                found |= set(_strings(json.loads(value)))
        elif isinstance(value, dict | list):  # PostgreSQL's JSON
            found |= set(_strings(value))
        elif value is not None:
            found.add(str(value))
    return found


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for name, each in value.items():
            yield str(name)
            yield from _strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each)
    elif value is not None:
        yield str(value)


def secrets_of(values: Iterable[object], words: Iterable[str]) -> set[bytes]:
    """Every 32 bytes that these hold in hexadecimal, base64 or base62, also within a longer word."""
    found = {value[at : at + 32] for value in values if isinstance(value, bytes) for at in range(len(value) - 31)}
    for word in words:
        for run in re.findall(r"[0-9A-Fa-f]{64,}", word):
            found |= {bytes.fromhex(run[at : at + 64]) for at in range(len(run) - 63)}
        for run in re.findall(r"[0-9A-Za-z+/_-]{43,}", word):
            for at in range(len(run) - 42):
                piece = run[at : at + 43]
                found |= {unb64(piece.replace("+", "-").replace("/", "_")), *_of_base62(piece)}
    return {each for each in found if len(each) == 32}


def _of_base62(piece: str) -> Iterator[bytes]:
    if piece.isalnum():
        number = 0
        for digit in piece:
            number = number * 62 + DIGITS.index(digit)
        with contextlib.suppress(OverflowError):
            yield number.to_bytes(32, "big")


def public_of(secret: bytes) -> bytes:
    """The public key that belongs to a secret: what a thief who has the public ones compares with."""
    return Ed25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()
