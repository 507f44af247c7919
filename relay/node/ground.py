"""What a node stands on: its data directory, its two secrets, and the registry, made ready before anything listens."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from relay.keys.forms import Kind
from relay.keys.private import PrivateKey
from relay.keys.tokens import SigningKey
from relay.node.bookkeeper import HEADS_NAME, HeadsFile
from relay.node.errors import StartError
from relay.node.keyfiles import SIGNING_NAME, make_directory, operator_key, signing_key
from relay.registry import Database, Registry, migrate
from relay.registry.errors import Conflict, NotFound, RegistryError, Unavailable
from relay.registry.records import RELAY, NewKey
from relay.settings import ServeSettings

_WHERE = (
    " It is that of database_url (RELAY_DATABASE_URL, for example postgresql://relay:PASSWORD@db/relay), or else "
    "relay.db in the data directory (--data)."
)


@dataclass(frozen=True, slots=True)
class Ground:
    """Made before the node, and ended after it."""

    settings: ServeSettings
    public_port: int
    registry: Registry
    signer: SigningKey
    """What it signs with at first."""
    heads: HeadsFile


@contextlib.asynccontextmanager
async def lay(settings: ServeSettings, public_port: int) -> AsyncIterator[Ground]:
    """The ground, until the node has ended. Raises `StartError`."""
    make_directory(settings.data)
    operator, signer = operator_key(settings.key_file), signing_key(settings.data)
    heads = HeadsFile(settings.data / HEADS_NAME)
    heads.open()
    try:
        await asyncio.to_thread(migrate.ensure, settings.database)
        database = await Database.open(settings.database)
    except RegistryError as error:
        where = _WHERE if isinstance(error, Unavailable) else ""
        raise StartError(f"The registry cannot be opened: {error}{where}") from None
    try:
        registry = Registry(database, time.time, settings.quarantine)
        try:
            await _sign_on(registry, signer, settings.data / SIGNING_NAME)
            await _register(registry, operator)
        except RegistryError as error:
            raise StartError(f"The registry cannot be used: {error}") from None
        yield Ground(settings, public_port, registry, signer, heads)
    finally:
        await database.close()


async def _sign_on(registry: Registry, signer: SigningKey, path: Path) -> None:
    """What this node signs counts from now on, unless its key was retired. Raises `StartError`, `RegistryError`."""
    try:
        await registry.signers.add(signer.kid, signer.public, socket.gethostname())
    except Conflict as error:
        raise StartError(f"{error} Remove {path}: a new one is made at the next start.") from None


async def _register(registry: Registry, operator: PrivateKey) -> None:
    """Whoever can write this node's data directory is an operator; a key that was revoked stays so."""
    try:
        await registry.keys.get(operator.id)
    except NotFound:
        label = f"made by the relay on {socket.gethostname()}"
        new = NewKey(Kind.OPERATOR, operator.id, None, None, operator.public, label=label)
        with contextlib.suppress(Conflict):  # another process that started on this directory was faster
            await registry.keys.mint(RELAY, new)
