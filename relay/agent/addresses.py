"""Which addresses the agent may connect to, decided on the resolved address at every connect.

Loopback and private ranges by default, more by `--allow-upstream`, link-local and cloud metadata never. A name is
looked up once a connect and only addresses that were checked are handed out, so a name that changes its mind between
check and connect (DNS rebinding) gains nothing. This room opens no connection.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from relay.agent.lookups import Lookups

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address
SocketAddress = tuple[str, int]
"""An IP address and a port."""


class AddressNotAllowed(Exception):
    """The policy forbids this address; the message is one sentence."""


def _networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ip_network(text) for text in texts)


DEFAULT = _networks("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7")

# (what it is, networks): refused whatever the options say. Metadata services hand out credentials of the machine.
NEVER = (
    ("a link-local address", _networks("169.254.0.0/16", "fe80::/10")),
    (
        "a cloud metadata service",
        _networks("100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32", "fd00:ec2::254/128", "fd20:ce::254/128"),
    ),
    ("no address of one machine", _networks("0.0.0.0/8", "::/128", "224.0.0.0/4", "ff00::/8", "255.255.255.255/32")),
)

# The last 32 bits are an IPv4 address: NAT64 (RFC 6052, RFC 8215) and the deprecated IPv4-compatible form.
_EMBEDS_LAST = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"), IPv6Network("::/96"))
_NOT_EMBEDDED = (IPv6Address("::"), IPv6Address("::1"))


def embedded(address: Address) -> Iterator[IPv4Address]:
    """The IPv4 addresses that an IPv6 address stands for."""
    if isinstance(address, IPv4Address) or address in _NOT_EMBEDDED:
        return
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    elif address.sixtofour is not None:
        yield address.sixtofour
    elif address.teredo is not None:
        yield from address.teredo
    elif any(address in network for network in _EMBEDS_LAST):
        yield IPv4Address(int(address) & 0xFFFF_FFFF)


class AddressPolicy:
    """`allowed` are the networks of `--allow-upstream`."""

    __slots__ = ("_allowed",)

    def __init__(self, allowed: Sequence[Network] = ()) -> None:
        self._allowed = tuple(allowed)

    def check(self, ip: str) -> None:
        """Raises `AddressNotAllowed`. An IPv6 address that embeds an IPv4 address is judged by what it embeds."""
        try:
            address = ip_address(ip.partition("%")[0])
        except ValueError:
            raise AddressNotAllowed(f"{ip!r} is not an IP address.") from None
        judged: list[Address] = list(embedded(address)) or [address]
        for one in (address, *judged):
            for what, networks in NEVER:
                if any(one in network for network in networks if network.version == one.version):
                    raise AddressNotAllowed(f"{ip} is {what}, to which the agent never connects.")
        if _within(address, self._allowed):
            return
        for one in judged:
            if not _within(one, DEFAULT) and not _within(one, self._allowed):
                raise AddressNotAllowed(
                    f"{ip} is neither a loopback nor a private address;"
                    f" start the agent with --allow-upstream {address}/{address.max_prefixlen} to allow it."
                )


def _within(address: Address, networks: Sequence[Network]) -> bool:
    return any(network.version == address.version and address in network for network in networks)


async def resolve(host: str, port: int, policy: AddressPolicy, names: Lookups) -> list[SocketAddress]:
    """The allowed addresses of `host`, in the order to try them; never empty.

    Raises `AddressNotAllowed` when none is allowed, and `OSError` when the name does not resolve.
    """
    refusal: AddressNotAllowed | None = None
    found: list[SocketAddress] = []
    for ip in await names.addresses(host, port):
        try:
            policy.check(ip)
        except AddressNotAllowed as error:
            refusal = refusal or error
        else:
            found.append((ip, port))
    if found:
        return found
    raise refusal or OSError(f"{host} has no address")
