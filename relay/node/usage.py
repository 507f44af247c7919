"""What is used each month, kept: this node's counts go to the registry in batches, other nodes' counts come from it.

Nothing of it is on the way of a request, and a registry that is away loses nothing: what could not be written stays and
is tried again. A crash loses what was counted since the last batch.
"""

from __future__ import annotations

import asyncio
import logging

from relay.limits.allowances import Totals
from relay.limits.months import period_of
from relay.node.rounds import Rounds
from relay.registry import Registry
from relay.registry.errors import RegistryError
from relay.registry.records import UsageRow
from relay.tunnels.hub import Hub
from relay.tunnels.metering import Count

COUNT_EVERY = 1.0
WRITE_EVERY = 2.0
LEARN_EVERY = 10.0
_LOGGER = logging.getLogger("relay.usage")


class Usage:
    """One per node."""

    def __init__(self, registry: Registry, hub: Hub) -> None:
        self._registry = registry
        self._hub = hub
        self._metering = hub.metering
        self._rounds = Rounds(COUNT_EVERY)
        self._written_at = 0.0
        self._learned_at = 0.0
        self._away = False

    async def run(self) -> None:
        """Counts, writes and learns until `finish`; never cancelled, or nobody would know what has been written."""
        async for ended in self._rounds:
            try:
                await self.attend(ended)
            except Exception as error:  # a defect here must not leave everything uncounted for ever
                if not isinstance(error, RegistryError):
                    asyncio.get_running_loop().call_exception_handler({"message": "usage failed", "exception": error})
                elif not self._away:
                    _LOGGER.error("usage cannot be written now: %s", error)
                self._away = True
            else:
                self._away = False

    def finish(self) -> None:
        """Nothing is carried any more: `run` writes what is left, and ends."""
        self._rounds.finish()

    async def attend(self, ended: bool = False) -> None:
        """One round; at the end whatever is left is written. Raises `RegistryError`."""
        metering = self._metering
        self.count()
        now = metering.clock()
        if ended or now - self._written_at >= WRITE_EVERY:
            self._written_at = now
            await self._write()
            self._forget()
        if not ended and now - self._learned_at >= LEARN_EVERY:
            self._learned_at = now
            await self._learn(metering.ids())
        elif not ended and metering.fresh:
            await self._learn(set(metering.fresh))

    def count(self) -> None:
        """See `relay.api.office.Usages`."""
        self._metering.fold_all(self._hub.sessions())

    def used(self, id: str) -> Totals | None:
        """See `relay.api.office.Usages`."""
        allowance = self._metering.allowances.get(id)
        return None if allowance is None else allowance.used(period_of(self._metering.now()))

    async def _write(self) -> None:
        counts = self._metering.unwritten()
        await self._registry.usage.add([_row(count) for count in counts])
        self._metering.written(counts)

    async def _learn(self, ids: set[str]) -> None:
        """Reads what the registry has of these; what is counted meanwhile comes on top."""
        metering = self._metering
        keys = metering.projects_of_keys()
        if not keys:
            metering.fresh.clear()
            return
        period = period_of(metering.now())
        sums = await self._registry.usage.sums(period, set(keys.values()), [key for key in keys if key in ids])
        metering.learn(period, {one: Totals(*found) for one, found in sums.items()}, ids)

    def _forget(self) -> None:
        """Keys that no link lives by."""
        keys = self._metering.projects_of_keys()
        self._metering.forget([key for key in keys if key not in self._hub.by_key])


def _row(count: Count) -> UsageRow:
    used = count.totals
    return UsageRow(count.project, count.key_id, count.period, used.requests, used.bytes_in, used.bytes_out)
