"""Where the requests of each tunnel go, and the connections to each local service, as settings come and go.

What stays the same keeps its connections; what has changed finishes over the old ones.
"""

from __future__ import annotations

from relay.agent.addresses import AddressPolicy
from relay.agent.config import AgentSettings
from relay.agent.forwarder import Route
from relay.agent.parsers import PARSERS
from relay.agent.pool import LocalPool
from relay.agent.targets import Target


class Routes:
    """By one set of settings after another."""

    def __init__(self, settings: AgentSettings) -> None:
        self._pools: dict[str, tuple[object, LocalPool]] = {}
        self._retired: list[LocalPool] = []
        self.by_name: dict[str, Route] = {}
        self.follow(settings)

    def follow(self, settings: AgentSettings) -> None:
        """Other settings from now on; whoever forwards requests is to be given `by_name` anew."""
        before, self._pools = self._pools, {}
        self.by_name = {name: self._route(name, target, settings, before) for name, target in settings.tunnels}
        self._retired = [pool for pool in self._retired if not pool.empty]
        for _, pool in before.values():
            pool.retire()
            self._retired.append(pool)

    def drop_idle(self) -> None:
        """Closes connections that idle."""
        for _, pool in self._pools.values():
            pool.drop_idle()

    def connections(self) -> tuple[int, int]:
        """To all local services, those before included: open in all, and idle."""
        counts = [pool.counts for pool in (*self._retired, *(pool for _, pool in self._pools.values()))]
        return sum(open_ for open_, _ in counts), sum(idle for _, idle in counts)

    async def aclose(self) -> None:
        """Ends every connection; exchanges that run are told that they failed."""
        for pool in [*self._retired, *(pool for _, pool in self._pools.values())]:
            await pool.aclose()

    def _route(
        self, name: str, target: Target, settings: AgentSettings, before: dict[str, tuple[object, LocalPool]]
    ) -> Route:
        """Takes the pool out of those before, if it leads to the same place in the same way."""
        way = target, settings.allow_upstream, settings.http_parser
        if name in before and before[name][0] == way:
            pool = before.pop(name)[1]
        else:
            pool = LocalPool(target, AddressPolicy(settings.allow_upstream), PARSERS[settings.http_parser])
        self._pools[name] = way, pool
        return Route(
            name,
            target,
            pool,
            settings.upstream.get(name, []),
            private=name in settings.access,
            preserve_host=name in settings.preserve_host,
        )
