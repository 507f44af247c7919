"""The bag of what the visitors' side may use: ids, trust, the count of exchanges, dates."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from relay.edge.services import Services, Timeouts, http_date
from relay.tunnels.hold import HoldBounds
from relay.tunnels.hub import Hub
from tests.tunnels.agents import a_metering


def services(*trusted: str) -> Services:
    hub = Hub(HoldBounds(), a_metering(), lambda *_: None)
    return Services(hub, "tunnels.localhost", Timeouts(), trusted=tuple(ip_network(one) for one in trusted))


def test_request_ids_are_unique_and_of_one_process() -> None:
    """No two are alike; those of one process share a beginning that another's do not."""
    one, other = services(), services()
    ids = [one.new_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert len({made[:8] for made in ids}) == 1
    assert not other.new_id().startswith(ids[0][:8])


@pytest.mark.parametrize(
    ("address", "trusted"),
    [
        ("10.0.0.1", True),
        ("10.255.0.1", True),
        ("11.0.0.1", False),
        ("192.0.2.9", True),
        ("2001:db8::1", True),
        ("2001:db9::1", False),
        ("::ffff:10.0.0.1", True),
        ("::ffff:11.0.0.1", False),
        ("fe80::1%eth0", False),
        ("unknown", False),
        ("", False),
    ],
)
def test_proxies_are_trusted_by_network(address: str, trusted: bool) -> None:
    """Both families, single addresses too, and an IPv4 peer that a dual-stack socket shows as IPv6."""
    assert services("10.0.0.0/8", "192.0.2.9/32", "2001:db8::/32").trusts(address) is trusted
    assert services().trusts(address) is False


def test_a_date_is_written_as_http_wants_it() -> None:
    """RFC 9110 §5.6.7, with its own example."""
    assert http_date(784111777) == b"Sun, 06 Nov 1994 08:49:37 GMT"
