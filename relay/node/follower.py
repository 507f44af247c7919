"""Follows the registry: what others changed reaches this memory within a poll, or the node knows that it is deaf.

The sequence numbers of the registry are the truth. What is read is read from before the point where the poll began, so
that nothing falls between two polls.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from relay.node.live import LiveTunnels
from relay.node.masterkeys import MasterKeys
from relay.node.projectplans import ProjectPlans
from relay.node.signing import Signing
from relay.registry import Registry
from relay.registry.errors import RegistryError
from relay.registry.records import Position
from relay.tunnels.hub import Hub
from relay.tunnels.revocations import Revocations, Verdict

POLL_EVERY = 0.5
# Revoked keys that have expired are forgotten so often, in seconds.
FORGET_EVERY = 3600.0
# Revoked keys are remembered for so long after they expired: a clock that is set back must not wake them.
REMEMBERED = 7 * 86_400.0
_LOGGER = logging.getLogger("relay.registry")


@dataclass(frozen=True, slots=True)
class Followed:
    """What is kept fresh, and by which clock. `now` is in seconds since the epoch, `clock` steady."""

    registry: Registry
    revocations: Revocations
    masters: MasterKeys
    signing: Signing
    hub: Hub
    live: LiveTunnels
    plans: ProjectPlans
    now: Callable[[], float]
    clock: Callable[[], float]


class Follower:
    """One per node."""

    def __init__(self, followed: Followed) -> None:
        self.followed = followed
        self._at = Position(0, 0, 0)
        self._away = False
        self._forgot_at = followed.clock()

    async def load(self) -> None:
        """Everything, once, before the node listens. Raises `RegistryError`."""
        one = self.followed
        began = one.clock()
        at = await one.registry.changes.position()
        await self._learn_alive()
        await self._read_keys()
        await self._read_names()
        await self._read_plans()
        self._at = at
        one.revocations.heard(began)

    async def run(self) -> None:
        """Polls for ever; a registry that is away is asked again."""
        while True:
            await asyncio.sleep(POLL_EVERY)
            try:
                await self.poll()
            except Exception as error:  # a defect here must not leave the node deaf for ever
                if not isinstance(error, RegistryError):
                    asyncio.get_running_loop().call_exception_handler({"message": "a poll failed", "exception": error})
                elif not self._away:
                    self._away = True
                    _LOGGER.error("the registry is away: %s", error)
            else:
                if self._away:
                    self._away = False
                    _LOGGER.warning("the registry is back")

    async def poll(self) -> None:
        """Reads what is new. Raises `RegistryError`."""
        one = self.followed
        began = one.clock()
        at = await one.registry.changes.position()
        if at.revocation_seq != self._at.revocation_seq:
            found = await one.registry.changes.revoked_since(self._at.revocation_seq)
            one.revocations.learn({each.id: Verdict(each.revoked_by, each.revoked_at) for each in found})
        if at.keys_seq != self._at.keys_seq:
            await self._read_keys()
        if at.names_seq != self._at.names_seq:
            await self._read_names()
            await self._read_plans()
        self._at = at
        one.revocations.heard(began)
        await one.signing.renew()  # which may have failed before
        if began - self._forgot_at >= FORGET_EVERY:
            self._forgot_at = began
            await self._learn_alive()

    async def _learn_alive(self) -> None:
        one = self.followed
        before = one.revocations.known()
        alive = await one.registry.changes.revoked_alive(one.now() - REMEMBERED)
        found = {each.id: Verdict(each.revoked_by, each.revoked_at) for each in alive}
        one.revocations.learn(found)
        one.revocations.forget(before - found.keys())  # and nothing that was learned while we read

    async def _read_keys(self) -> None:
        one = self.followed
        one.masters.learn_all(await one.registry.keys.masters())
        await one.signing.learn(await one.registry.signers.all())

    async def _read_names(self) -> None:
        """Names that changed hands elsewhere. What this node did itself while it read is newer than what it read."""
        live, reserved = self.followed.live, self.followed.hub.reserved
        before = dict(reserved)
        owners = await self.followed.registry.subdomains.owners()
        for name in before.keys() | owners.keys():
            known, owner = before.get(name), owners.get(name)
            if known != owner and reserved.get(name) == known:
                live.on_moved(name, owner or "")

    async def _read_plans(self) -> None:
        """Plans that were given or taken elsewhere; as for names."""
        plans = self.followed.plans
        before = dict(plans.given)
        found = await self.followed.registry.projects.plans()
        for project in before.keys() | found.keys():
            known, plan = before.get(project), found.get(project)
            if known != plan and plans.given.get(project) == known:
                plans.changed(project, plan)
