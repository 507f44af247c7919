"""What is alive on this node, for those who change what may live: carried out before it is acknowledged."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping

from relay.api.office import LiveTunnel
from relay.edge.services import Services
from relay.telemetry.histograms import Histogram
from relay.tunnels.hub import Hub, Link, Tunnel
from relay.tunnels.revocations import Revocations, Verdict
from relay.wire.errors import AwayCode

CUT_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0)


class LiveTunnels:
    """See `relay.api.office.Live`."""

    def __init__(self, hub: Hub, services: Services, revocations: Revocations) -> None:
        self._hub = hub
        self._services = services
        self._revocations = revocations
        self.revoked = 0
        """Keys revoked since this node started."""
        self.cut = Histogram(CUT_SECONDS)
        """From the revocation of each key by which something lived here to its end, in seconds."""
        self._started = time.time()
        revocations.on_revoked.append(self._cut)

    def tunnels(self) -> list[LiveTunnel]:
        """See `Live.tunnels`."""
        return [_shown(tunnel) for tunnel in self._hub.tunnels.values()]

    def close(self, name: str, sentence: str) -> None:
        """See `Live.close`."""
        for link in self._hub.bearers(name):
            self._hub.dismiss(link, AwayCode.CLOSED, sentence)

    def on_revoked(self, ids: Collection[str], by: str, at: float) -> None:
        """See `Live.on_revoked`."""
        verdict = Verdict(by, at)
        self._revocations.learn(dict.fromkeys(ids, verdict))

    def on_moved(self, name: str, project: str) -> None:
        """See `Live.on_moved`; an empty project: the name was given up."""
        if project:
            self._hub.reserved[name] = project
        else:
            self._hub.reserved.pop(name, None)
        why = f"the name {name!r} " + ("moved to another project" if project else "was released")
        for link in self._hub.bearers(name):
            if link.project != project:
                self._hub.dismiss(link, AwayCode.SUPERSEDED, why)
        if not project:
            self._hub.forget(name)

    def expire(self, now: float) -> None:
        """Ends the sessions whose key has expired and was not renewed. `now`: seconds since the epoch."""
        for link in self._hub.sessions():
            if link.principal.expires_at <= now:
                self._end(link, f"the key {link.principal.key_id} has expired")

    def on_retired(self, signers: Collection[str]) -> None:
        """Ends what keys that these signed have opened, and what they were let in to."""
        for link in self._hub.sessions():
            if link.principal.signer in signers:
                self._end(link, f"the signing key of {link.principal.key_id} was retired")
        self._services.cut_admitted(signers)

    def _end(self, link: Link, why: str) -> None:
        self._hub.detach(link)  # its agent may be back with a new key at once: requests wait for it
        link.session.close(AwayCode.SHUTDOWN, why)

    def _cut(self, revoked: Mapping[str, Verdict]) -> None:
        lived = {key_id for key_id, _ in self._services.admitted.values() if key_id in revoked}
        for link in self._hub.sessions():
            verdict = revoked.get(link.principal.key_id)
            if verdict is not None:
                lived.add(link.principal.key_id)
                self._hub.dismiss(link, AwayCode.REVOKED, verdict.sentence(link.principal.key_id))
        self._services.cut_admitted(revoked.keys())
        now = time.time()
        self.revoked += sum(verdict.at >= self._started for verdict in revoked.values())
        for key_id in lived:
            self.cut.observe(max(now - revoked[key_id].at, 0.0))


def _shown(tunnel: Tunnel) -> LiveTunnel:
    link = tunnel.links[0]
    return LiveTunnel(
        name=tunnel.name,
        project=tunnel.project,
        key_id=link.principal.key_id,
        links=len(tunnel.links),
        since=time.time() - (link.session.now() - tunnel.since),
        streams=sum(len(one.session.streams) for one in tunnel.links),
        private=tunnel.access is not None,
    )
