"""Which addresses the agent may connect to, and that only what was checked is connected to."""

from __future__ import annotations

import socket
from ipaddress import ip_network

import pytest

from relay.agent.addresses import AddressNotAllowed, AddressPolicy, resolve
from relay.agent.lookups import Lookups
from relay.agent.targets import parse_target

EVERYTHING = AddressPolicy((ip_network("0.0.0.0/0"), ip_network("::/0")))


@pytest.mark.parametrize(
    "ip",
    [
        "127.0.0.1", "127.9.9.9", "10.1.2.3", "172.16.0.1", "172.31.255.254", "192.168.1.1", "::1", "fd12::1",
        "fc00::1",        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::192.168.0.1", "2002:0a00:0001::1",
    ],
)  # fmt: skip
def test_loopback_and_private_addresses_are_allowed(ip: str) -> None:
    """Without any option, also where an IPv6 address stands for a private IPv4 address."""
    AddressPolicy().check(ip)


@pytest.mark.parametrize(
    "ip",
    [
        "1.1.1.1", "172.32.0.1", "192.169.0.1", "100.64.0.1", "198.18.0.1", "240.0.0.1", "2606:4700::1", "fec0::1",
        "::ffff:1.1.1.1", "64:ff9b::1.1.1.1", "64:ff9b:1::1.1.1.1", "2002:0101:0101::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    ],
)  # fmt: skip
def test_other_addresses_need_the_option(ip: str) -> None:
    """They are refused with a sentence that names the option, and pass with it."""
    with pytest.raises(AddressNotAllowed, match=r"--allow-upstream \S+/(32|128)"):
        AddressPolicy().check(ip)
    EVERYTHING.check(ip)


@pytest.mark.parametrize(
    "ip",
    [
        "169.254.169.254", "169.254.0.1", "169.254.170.2", "fe80::1", "fe80::1%eth0", "febf::1",
        "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254",
        "0.0.0.0", "0.1.2.3", "::", "224.0.0.1", "239.1.1.1", "ff02::1", "255.255.255.255",
        "::ffff:169.254.169.254", "64:ff9b::169.254.169.254", "64:ff9b:1::a9fe:a9fe", "2002:a9fe:a9fe::",
        "::169.254.169.254", "::ffff:0.0.0.0", "::ffff:168.63.129.16", "64:ff9b::100.100.100.200",
        "2001:0:a9fe:a9fe::", "2001:0:101:101:0:0:5601:5601",
    ],
)  # fmt: skip
def test_link_local_and_metadata_are_never_allowed(ip: str) -> None:
    """Not by default and not by the widest option, in no disguise."""
    for policy in (AddressPolicy(), EVERYTHING):
        with pytest.raises(AddressNotAllowed, match="never connects"):
            policy.check(ip)


def test_option_is_no_wider_than_it_says() -> None:
    """An allowed network allows its own addresses only."""
    policy = AddressPolicy((ip_network("203.0.113.0/29"), ip_network("2001:db8::/64")))
    policy.check("203.0.113.7")
    policy.check("2001:db8::5")
    policy.check("::ffff:203.0.113.7")
    for ip in ("203.0.113.8", "2001:db8:0:1::5"):
        with pytest.raises(AddressNotAllowed):
            policy.check(ip)


@pytest.mark.parametrize("text", ["", "localhost", "1.2.3", "127.1", "::1::"])
def test_what_is_no_address_is_refused(text: str) -> None:
    """The policy judges addresses, never names."""
    with pytest.raises(AddressNotAllowed):
        EVERYTHING.check(text)


class Names:
    """A name service in the hands of a test."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked = 0
        self.lookups = Lookups(self.ask)

    def ask(self, host: str, port: int) -> list[str]:
        self.asked += 1
        if not self.answers:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return self.answers.pop(0)

    async def resolve(self, host: str, port: int, policy: AddressPolicy) -> list[tuple[str, int]]:
        return await resolve(host, port, policy, self.lookups)


async def test_literals_and_localhost_need_no_name_service() -> None:
    """`localhost` is both loopback addresses, whatever the machine's files say."""
    names = Names()
    assert await names.resolve("localhost", 80, AddressPolicy()) == [("127.0.0.1", 80), ("::1", 80)]
    assert await names.resolve("10.0.0.1", 81, AddressPolicy()) == [("10.0.0.1", 81)]
    assert await names.resolve("::1", 82, AddressPolicy()) == [("::1", 82)]
    assert names.asked == 0


async def test_only_allowed_addresses_of_a_name_are_handed_out() -> None:
    """Each resolved address is judged by itself, and the order is kept."""
    names = Names(["fe80::1", "10.0.0.2", "8.8.8.8", "10.0.0.1"])
    assert await names.resolve("app.internal", 80, AddressPolicy()) == [("10.0.0.2", 80), ("10.0.0.1", 80)]


@pytest.mark.parametrize("host", ["app", "mcp_server-1", "mcp-server.backend", "host.docker.internal"])
async def test_names_of_containers(host: str) -> None:
    """The names that services have beside each other are targets, and their addresses are private."""
    target, names = parse_target(f"http://{host}:3000"), Names(["172.18.0.3"])
    assert await names.resolve(target.host, target.port, AddressPolicy()) == [("172.18.0.3", 3000)]


async def test_name_of_a_forbidden_address_is_refused() -> None:
    """A harmless name that resolves to a metadata service is told apart by its address."""
    names = Names(["169.254.169.254"])
    with pytest.raises(AddressNotAllowed, match=r"169\.254\.169\.254 is a link-local address"):
        await names.resolve("metadata.internal", 80, EVERYTHING)


async def test_every_connect_looks_up_and_checks_anew() -> None:
    """A name that was harmless a moment ago is judged by what it is now."""
    names = Names(["127.0.0.1"], ["169.254.169.254"])
    assert await names.resolve("rebind.example", 80, AddressPolicy()) == [("127.0.0.1", 80)]
    with pytest.raises(AddressNotAllowed):
        await names.resolve("rebind.example", 80, AddressPolicy())
    assert names.asked == 2


async def test_unknown_name_is_an_os_error() -> None:
    """No address is not the same as a forbidden one."""
    names = Names()
    with pytest.raises(OSError, match="not known"):
        await names.resolve("nowhere.example", 80, AddressPolicy())
    names = Names([])
    with pytest.raises(OSError, match="has no address"):
        await names.resolve("nowhere.example", 80, AddressPolicy())
