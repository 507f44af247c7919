"""The brake of one tunnel: how many requests its own agent wants for it, in all and from each address. Pure.

One for a tunnel, whatever the number of its links. Addresses are remembered within a bound. It also decides what counts
as one caller, here and for all who count callers: an IPv4 address, or an IPv6 network of 64 bits, since whoever has one
address of it has them all.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, ip_address, ip_network
from weakref import WeakValueDictionary

from relay.limits.allowances import request_bucket
from relay.limits.buckets import Bucket
from relay.limits.refusals import Refusal, too_fast
from relay.wire.limits import TunnelLimits

MOST_ADDRESSES = 4096


@lru_cache(maxsize=MOST_ADDRESSES)
def network_of(address: str) -> str:
    """The caller that an address belongs to; what is no address is one caller of that name."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ip_network((parsed, 64), strict=False))


class Brake:
    """Raises nothing; asks cost nothing until `spend`."""

    __slots__ = ("__weakref__", "_addresses", "_all", "_per_address", "limits")

    def __init__(self, limits: TunnelLimits) -> None:
        self.limits = limits
        self._all = None if limits.rate is None else request_bucket(limits.rate)
        self._per_address = limits.rate_per_address
        # The one that was asked for last is at the end.
        self._addresses: dict[str, Bucket] = {}

    def admits(self, address: str, now: float) -> bool:
        """Whether a request of this visitor may come in."""
        if self._all is not None and not self._all.has(1, now):
            return False
        return self._per_address is None or self._bucket(address).has(1, now)

    def spend(self, address: str, now: float) -> None:
        """It came in."""
        if self._all is not None:
            self._all.spend(1, now)
        if self._per_address is not None:
            self._bucket(address).spend(1, now)

    def refusals(self, address: str, now: float) -> list[Refusal]:
        """Why it may not."""
        found = []
        if self._all is not None and self.limits.rate is not None and not self._all.has(1, now):
            found.append(too_fast(self.limits.rate, self._all.wait(1, now)))
        if self._per_address is not None:
            wait = self._bucket(address).wait(1, now)
            if wait:
                found.append(too_fast(self._per_address, wait, for_each_address=True))
        return found

    def _bucket(self, address: str) -> Bucket:
        network = network_of(address)
        bucket = self._addresses.pop(network, None)
        if bucket is None:
            bucket = request_bucket(self._per_address or 1)
            if len(self._addresses) >= MOST_ADDRESSES:
                del self._addresses[next(iter(self._addresses))]
        self._addresses[network] = bucket
        return bucket


class Brakes:
    """The brakes of live tunnels: links of one tunnel that ask for the same limits share one."""

    def __init__(self) -> None:
        self._all: WeakValueDictionary[tuple[str, TunnelLimits], Brake] = WeakValueDictionary()

    def of(self, name: str, limits: TunnelLimits) -> Brake:
        """The brake of the tunnel of this name; whoever holds it keeps it."""
        brake = self._all.get((name, limits))
        if brake is None:
            brake = self._all[name, limits] = Brake(limits)
        return brake
