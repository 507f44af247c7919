"""What this node signs with, and whose signatures count on it. A key that was retired never counts again.

A node whose own key was retired, since others may have it, takes another one at once, in its file before it counts;
until it has one it serves on and signs nothing.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Sequence

from relay.keys.tokens import SigningKey, TokenVerifier
from relay.node.ground import Ground
from relay.node.keyfiles import another_signing_key
from relay.node.live import LiveTunnels
from relay.registry.errors import RegistryError, Unavailable
from relay.registry.records import Signer

_LOGGER = logging.getLogger("relay.registry")


class Signing:
    """See `relay.api.office.Signing`. One per node."""

    def __init__(self, ground: Ground, verifier: TokenVerifier, live: LiveTunnels) -> None:
        self._ground = ground
        self._verifier = verifier
        self._live = live
        self._key = ground.signer
        self._one_at_a_time = asyncio.Lock()
        self._troubled = False

    def key(self) -> SigningKey:
        """See `Signing.key`."""
        if self._key.kid in self._verifier.retired:
            raise Unavailable("The signing key of this node was retired, and it has no other yet.")
        return self._key

    async def learn(self, signers: Sequence[Signer]) -> None:
        """See `Signing.learn`."""
        retired = {one.kid for one in signers if one.retired_at is not None}
        self._verifier.learn({one.kid: one.public for one in signers}, retired)
        self._live.on_retired(retired)
        await self.renew()

    async def renew(self) -> None:
        """Another key, if this node's own was retired. Where none can be had now, the follower asks again."""
        async with self._one_at_a_time:
            if self._key.kid not in self._verifier.retired:
                return
            try:
                new = another_signing_key(self._ground.settings.data)
                await self._ground.registry.signers.add(new.kid, new.public, socket.gethostname())
            except (OSError, RegistryError) as error:
                if not self._troubled:
                    _LOGGER.error("this node has no signing key, and mints no child or visitor key: %s", error)
                self._troubled = True
                return
            self._troubled = False
            self._verifier.learn({new.kid: new.public}, ())
            self._key = new
