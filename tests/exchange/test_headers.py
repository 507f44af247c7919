"""Header hygiene: what ends at a hop, what the relay adds, what the agent rewrites; everything else is left alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.exchange.headers import (
    CLAIMS,
    FORWARDED,
    HOP_BY_HOP,
    PROTECTED,
    Visit,
    add_forwarded,
    address_of,
    connection_tokens,
    first,
    own_hop,
    rewrite_for_local,
    strip_hop_by_hop,
)
from relay.exchange.heads import Fields, check_fields, encode_part

VISIT = Visit("203.0.113.7", "https", "demo.example.com")
NAMES = st.sampled_from(
    sorted(HOP_BY_HOP | PROTECTED | FORWARDED | {b"accept", b"set-cookie", b"x-a", b"mcp-method", b"trailer"})
)


@st.composite
def spelled(draw: st.DrawFn, name: bytes) -> bytes:
    """`name` in some case."""
    return bytes(byte ^ 0x20 if chr(byte).isalpha() and draw(st.booleans()) else byte for byte in name)


FIELDS = st.lists(
    st.tuples(NAMES.flatmap(spelled), st.sampled_from([b"", b"close", b"x-a, keep-alive", b"1"])), max_size=10
)


def stripped(fields: Fields) -> Fields:
    return strip_hop_by_hop(fields)


@given(FIELDS)
def test_what_ends_at_a_hop_is_gone_and_the_rest_untouched(fields: Fields) -> None:
    """No hop-by-hop or listed field goes on; the others do, in order and spelling; a second time changes nothing."""
    tokens = connection_tokens(fields)
    kept = stripped(fields)
    gone = [field for field in fields if field not in kept]
    assert [field for field in fields if field in kept] == kept
    assert all(name.lower() not in HOP_BY_HOP for name, _ in kept)
    assert all(name.lower() not in tokens or name.lower() in PROTECTED for name, _ in kept)
    assert all(name.lower() in HOP_BY_HOP | tokens for name, _ in gone)
    assert stripped(kept) == kept


@pytest.mark.parametrize(
    ("value", "tokens"),
    [
        (b"close", {b"close"}),
        (b"Keep-Alive, X-A", {b"keep-alive", b"x-a"}),
        (b" ,\tx-a\t,, X-A ,", {b"x-a"}),
        (b"", set()),
        (b'"x-a"', {b'"x-a"'}),
    ],
)
@pytest.mark.parametrize("name", [b"Connection", b"connection", b"CONNECTION", b"Proxy-Connection"])
def test_connection_options_are_read_in_every_spelling(name: bytes, value: bytes, tokens: set[bytes]) -> None:
    """Case, blanks and empty items of the list do not matter; several fields add up."""
    assert connection_tokens([(name, value), (b"Connectiom", b"no"), (b"Connection", b"te")]) == tokens | {b"te"}


@pytest.mark.parametrize("name", sorted(PROTECTED))
def test_a_connection_list_cannot_remove_what_gives_a_request_its_meaning(name: bytes) -> None:
    """Listing a protected field changes nothing: `Connection: host` and its like are a known attack."""
    fields = [(b"Connection", b"close, " + name), (name, b"1")]
    assert stripped(fields) == [(name, b"1")]


def test_trailer_stays_since_trailers_are_carried() -> None:
    """The announcement of trailers goes on with them, unless the Connection list names it."""
    assert stripped([(b"Trailer", b"X-Sum")]) == [(b"Trailer", b"X-Sum")]


# ---------------------------------------------------------------------------------------------------- forwarded


def added(fields: Fields, visit: Visit = VISIT, trusted: bool = False) -> dict[str, str]:
    result = add_forwarded(fields, visit, trusted)
    return {name.decode(): value.decode("latin-1") for name, value in result if name.lower() in FORWARDED}


def test_a_stranger_cannot_say_where_it_comes_from() -> None:
    """Inbound copies from an untrusted peer are dropped in every spelling; what is added is this hop's own."""
    forged = [(b"X-forwarded-FOR", b"1.1.1.1"), (b"forwarded", b"for=1.1.1.1"), (b"X-Forwarded-Host", b"evil")]
    more = [(b"x-forwarded-proto", b"gopher"), (b"X-Forwarded-Port", b"1"), (b"Accept", b"*/*")]
    result = add_forwarded(forged + more, VISIT, trusted=False)
    assert result == [
        (b"Accept", b"*/*"),
        (b"X-Forwarded-For", b"203.0.113.7"),
        (b"X-Forwarded-Proto", b"https"),
        (b"X-Forwarded-Host", b"demo.example.com"),
        (b"Forwarded", b'for=203.0.113.7;proto=https;host="demo.example.com"'),
    ]


def test_a_trusted_proxys_chain_is_kept_and_extended() -> None:
    """From a trusted proxy the chain of addresses goes on, and scheme and host are what the visitor used."""
    fields = [
        (b"X-Forwarded-For", b"198.51.100.1"),
        (b"x-forwarded-for", b"198.51.100.2, 198.51.100.3"),
        (b"X-Forwarded-Proto", b"HTTPS, http"),
        (b"X-Forwarded-Host", b"demo.example.org, inner"),
        (b"Forwarded", b"for=198.51.100.1"),
    ]
    assert added(fields, Visit("10.0.0.1", "http", "inner"), trusted=True) == {
        "X-Forwarded-For": "198.51.100.1, 198.51.100.2, 198.51.100.3, 10.0.0.1",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "demo.example.org",
        "Forwarded": 'for=198.51.100.1, for=10.0.0.1;proto=https;host="demo.example.org"',
    }


@pytest.mark.parametrize("value", [b"", b"gopher", b"https;x", b",https", b"\xe4"])
def test_a_scheme_that_is_none_is_not_taken_from_a_proxy(value: bytes) -> None:
    """A trusted proxy that passes nonsense on does not change the scheme; nor does an empty host or chain."""
    fields = [(b"X-Forwarded-Proto", value), (b"X-Forwarded-Host", b""), (b"X-Forwarded-For", b" ")]
    assert added(fields, trusted=True) == added([])


@pytest.mark.parametrize(
    ("address", "node"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8::1", '"[2001:db8::1]"'),
        ("", "unknown"),
        ("unix:", "unknown"),
    ],
)
def test_a_node_is_written_as_the_rfc_says(address: str, node: str) -> None:
    """RFC 7239 §6: an IPv6 address in brackets and quotes, `unknown` for what is no address."""
    assert added([], Visit(address, "http", "a:8080"))["Forwarded"] == f'for={node};proto=http;host="a:8080"'


def test_a_quote_in_a_host_does_not_end_the_quoted_string() -> None:
    """A host that a trusted proxy let through cannot add elements of its own to `Forwarded`."""
    fields = [(b"X-Forwarded-Host", b'a";for="1.1.1.1\\')]
    assert added(fields, trusted=True)["Forwarded"].endswith(';host="a\\";for=\\"1.1.1.1\\\\"')


@given(FIELDS, st.booleans())
def test_what_is_added_is_fit_to_be_written(fields: Fields, trusted: bool) -> None:
    """The result has each of the four fields once, behind all others, which are untouched."""
    result = add_forwarded(fields, VISIT, trusted)
    check_fields(result)
    assert [name for name, _ in result[-4:]] == [
        b"X-Forwarded-For", b"X-Forwarded-Proto", b"X-Forwarded-Host", b"Forwarded",
    ]  # fmt: skip
    assert result[:-4] == [field for field in fields if field[0].lower() not in FORWARDED]


@pytest.mark.parametrize("name", [b"x_forwarded_for", b"X_Forwarded-Proto", b"x-forwarded_HOST", b"FORWARDED"])
def test_a_claim_is_known_in_every_spelling(name: bytes) -> None:
    """CGI and WSGI read X_Forwarded_For as X-Forwarded-For: such a copy is dropped, and can be told beforehand."""
    assert name.lower() in CLAIMS
    assert add_forwarded([(name, b"1.1.1.1")], VISIT, trusted=False) == add_forwarded([], VISIT, trusted=False)


@given(st.text(max_size=20), st.sampled_from(["http", "https"]))
def test_what_a_visitors_hop_adds_is_encoded_once(host: str, scheme: str) -> None:
    """Where nobody claims anything, the encoded fields are those that are added otherwise."""
    host = host.encode("latin-1", "replace").decode("latin-1")
    added = add_forwarded([], Visit("192.0.2.1", scheme, host), trusted=False)
    assert own_hop("192.0.2.1", scheme, host) == encode_part(added)


# ---------------------------------------------------------------------------------------------------- rewriting


@pytest.mark.parametrize(
    ("origin", "becomes"),
    [
        (b"https://demo.example.com", b"http://127.0.0.1:3000"),
        (b"HTTPS://Demo.example.com", b"http://127.0.0.1:3000"),
        (b"http://demo.example.com", b"http://demo.example.com"),
        (b"https://demo.example.com:444", b"https://demo.example.com:444"),
        (b"https://evil.example", b"https://evil.example"),
        (b"https://demo.example.com.evil.example", b"https://demo.example.com.evil.example"),
        (b"null", b"null"),
        (b"", b""),
    ],
)
def test_only_the_tunnels_own_origin_is_rewritten(origin: bytes, becomes: bytes) -> None:
    """A foreign page keeps its Origin, so that the local service can refuse it."""
    fields = [(b"hOST", b"Demo.example.com"), (b"Origin", origin), (b"X-Forwarded-Proto", b"https")]
    assert rewrite_for_local(fields, b"127.0.0.1:3000") == [
        (b"hOST", b"127.0.0.1:3000"),
        (b"Origin", becomes),
        (b"X-Forwarded-Proto", b"https"),
    ]
    assert fields[0][1] == b"Demo.example.com"  # a head is shared, and not changed


def test_every_host_and_origin_is_rewritten() -> None:
    """A head that holds either twice keeps no name of the tunnel's."""
    fields = [(b"Host", b"a"), (b"origin", b"http://a"), (b"HOST", b"b"), (b"Origin", b"http://a")]
    assert rewrite_for_local(fields, b"l") == [
        (b"Host", b"l"), (b"origin", b"http://l"), (b"HOST", b"l"), (b"Origin", b"http://l"),
    ]  # fmt: skip
    assert rewrite_for_local([], b"l") == []


def test_the_rewritten_origin_has_the_local_services_scheme() -> None:
    """A local service behind TLS sees its own `https` origin."""
    fields = [(b"Host", b"demo.example.com"), (b"Origin", b"http://demo.example.com")]
    assert rewrite_for_local(fields, b"localhost:8443", b"https") == [
        (b"Host", b"localhost:8443"),
        (b"Origin", b"https://localhost:8443"),
    ]


def test_the_first_field_of_a_name_is_found_in_any_case() -> None:
    """`first` takes the first of several, and tells an empty value from none."""
    fields = [(b"X-A", b""), (b"x-a", b"2")]
    assert first(fields, b"x-a") == b""
    assert first(fields, b"x-b") is None


@pytest.mark.parametrize(
    ("trusted", "forwarded", "expected"),
    [
        ((), "203.0.113.9", "192.0.2.1"),
        (("192.0.2.1",), "", "192.0.2.1"),
        (("192.0.2.1",), "203.0.113.9", "203.0.113.9"),
        (("192.0.2.1",), "198.51.100.1, 203.0.113.9", "203.0.113.9"),
        (("192.0.2.1", "203.0.113.9"), "198.51.100.1, 203.0.113.9", "198.51.100.1"),
        (("192.0.2.1",), "198.51.100.1, nonsense\x1b", "192.0.2.1"),
        (("192.0.2.1",), "2001:DB8::1", "2001:db8::1"),
    ],
)
def test_only_trusted_proxies_are_believed(trusted: tuple[str, ...], forwarded: str, expected: str) -> None:
    """The last address that is not a trusted proxy's; what is no address is nobody's."""
    assert address_of("192.0.2.1", forwarded, trusted.__contains__) == expected
