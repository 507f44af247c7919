"""One reading of `Host`: what is accepted, how it is written down, and which names lie below a domain."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.edge.hosts import MAX_NAME, BadHost, Host, normalise_host, subdomain_of

LONG = ".".join(["a" * 63] * 3 + ["a" * 61])


@pytest.mark.parametrize(
    ("raw", "name", "port"),
    [
        (b"mcp.tunnels.localhost", "mcp.tunnels.localhost", None),
        (b"MCP.Tunnels.LocalHost:8080", "mcp.tunnels.localhost", 8080),
        (b"mcp.example.com.", "mcp.example.com", None),
        (b"mcp.example.com.:443", "mcp.example.com", 443),
        (b"a", "a", None),
        (b"x--1.xn--bcher-kva.example", "x--1.xn--bcher-kva.example", None),
        (b"127.0.0.1:1", "127.0.0.1", 1),
        (b"a:65535", "a", 65535),
        (b"[::1]", "[::1]", None),
        (b"[2001:DB8:0:0::1]:8443", "[2001:db8::1]", 8443),
        (LONG.encode(), LONG, None),
        (LONG.encode() + b".:65535", LONG, 65535),
    ],
)
def test_a_host_has_one_spelling(raw: bytes, name: str, port: int | None) -> None:
    """Case, one trailing dot and the long forms of an IPv6 address make no difference."""
    assert normalise_host(raw) == Host(name, port)


@pytest.mark.parametrize(
    "raw",
    [
        b"", b".", b"..", b"a..", b".a", b"a..b", b":80", b" a", b"a ", b"a\t", b"a\x00", b"a\r\nb", b"a\n", b"a,b",
        b"a b", b"user@a", b"user:pw@a", b"a/", b"a?x", b"a#x", b"http://a", b"a\\b", b"a%41", b"a%2eb", b"*.a", b"a_b",
        b"-a", b"a-", b"a.-b.c", b"a" * 64, LONG.encode() + b"a", b"a." * 500, "bücher.example".encode(), b"\xff",
        b"a\x7f",
        b"a:", b"a:0", b"a:080", b"a:65536", b"a:99999", b"a:123456", b"a:-1", b"a:+1", b"a:x", b"a:80:80", b"a:\xb2",
        b"::1", b"[]", b"[::1", b"::1]", b"[::1]a", b"[::1].", b"[::1%eth0]", b"[1.2.3.4]", b"[v1.a]", b"[::1]:",
        b"[:::1]",
    ],
)  # fmt: skip
def test_what_names_no_host_is_refused(raw: bytes) -> None:
    """Nothing is guessed: userinfo, escapes, lists, other alphabets, empty parts and impossible ports are errors."""
    with pytest.raises(BadHost):
        normalise_host(raw)


@given(st.binary(max_size=300) | st.from_regex(rb"[a-zA-Z0-9.:\[\]-]{1,20}", fullmatch=True))
def test_any_bytes_give_a_host_or_bad_host(raw: bytes) -> None:
    """What is accepted is short, plain, lower case, and is read the same again."""
    try:
        host = normalise_host(raw)
    except BadHost:
        return
    assert host.name == host.name.lower()
    assert host.name.isascii()
    assert host.name.isprintable()
    assert 0 < len(host.name) <= MAX_NAME
    assert not host.name.endswith(".")
    assert normalise_host(host.authority.encode()) == host


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("mcp.tunnels.localhost", "mcp"),
        ("a.b.tunnels.localhost", None),
        ("tunnels.localhost", None),
        ("localhost", None),
        (".tunnels.localhost", None),
        ("mcptunnels.localhost", None),
        ("mcp.tunnels.localhost.evil", None),
        ("mcp.nottunnels.localhost", None),
        ("[::1]", None),
    ],
)
def test_a_subdomain_is_exactly_one_label(name: str, label: str | None) -> None:
    """Neither the domain itself, nor deeper names, nor names that only look alike are subdomains."""
    assert subdomain_of(name, "tunnels.localhost") == label


def test_long_values_do_not_fill_the_cache() -> None:
    """A value longer than any host is refused by its length, with a reason that does not repeat it."""
    with pytest.raises(BadHost) as caught:
        normalise_host(b"a" * 30_000)
    assert str(caught.value) == "longer than 253 characters"
