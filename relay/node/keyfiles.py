"""The two secrets of a node, each in a file of the data directory that its owner alone can read.

`operator.key` is the operator key of this machine, so that commands here need no login; `signing.key` signs the child
and visitor keys that this node mints. Neither is ever written to the database. Made at the first start, kept for good.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path

from relay.keys.errors import BadKey
from relay.keys.forms import Kind
from relay.keys.private import PrivateKey
from relay.keys.tokens import SigningKey
from relay.node.errors import StartError

SIGNING_NAME = "signing.key"


def make_directory(data: Path) -> None:
    """The data directory, closed to others. Raises `StartError`."""
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(
            f"The data directory {data} cannot be made: {error.strerror}. Name one that this user can make, "
            "for example --data /var/lib/relay (RELAY_DATA)."
        ) from None


def operator_key(path: Path) -> PrivateKey:
    """The operator key of this machine, made now if there is none. Raises `StartError`."""
    text = _kept(path, lambda: PrivateKey.generate(Kind.OPERATOR).text)
    try:
        key = PrivateKey.parse(text)
    except BadKey as error:
        raise StartError(f"The operator key in {path} cannot be used: {error} {_AGAIN}") from None
    if key.kind is not Kind.OPERATOR:
        raise StartError(f"The file {path} holds a {key.kind} key, not the operator key. {_AGAIN}")
    return key


def signing_key(data: Path) -> SigningKey:
    """What this node signs with, made now if there is none. Raises `StartError`."""
    path = data / SIGNING_NAME
    text = _kept(path, lambda: secrets.token_hex(32))
    try:
        secret = bytes.fromhex(text)
        if len(secret) != 32:
            raise ValueError
    except ValueError:
        raise StartError(
            f"The signing key in {path} is not 64 hexadecimal digits. Put the old file back, or remove it: a new key "
            "is made at the next start; what the old one signed stays valid until it expires or that key is retired."
        ) from None
    return SigningKey.from_secret(secret)


def another_signing_key(data: Path) -> SigningKey:
    """Takes the place of the one that this node signed with: in the file first, and whole. Raises OSError."""
    secret, path = secrets.token_bytes(32), data / SIGNING_NAME
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    _write(fresh, secret.hex())
    fresh.replace(path)
    return SigningKey.from_secret(secret)


_AGAIN = "Put the old file back, or remove it: a new operator key is made at the next start."


def _kept(path: Path, make: Callable[[], str]) -> str:
    try:
        try:
            _write(path, make())
        except FileExistsError:
            pass
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise StartError(f"The file {path} cannot be used: {reason}. Choose another place with --data.") from None
    if not text:  # a start that was killed between making the file and filling it
        raise StartError(f"The file {path} is empty. Remove it: the relay makes a new key at the next start.")
    return text


def _write(path: Path, text: str) -> None:
    """Makes the file. Raises OSError, FileExistsError among others."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(handle)
