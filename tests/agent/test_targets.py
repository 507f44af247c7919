"""What a developer may type as TARGET, and what is said about the rest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.agent.targets import Target, TargetError, parse_target


@pytest.mark.parametrize(
    ("text", "target", "authority", "url"),
    [
        ("3000", Target("http", "127.0.0.1", 3000), b"127.0.0.1:3000", "http://127.0.0.1:3000"),
        (" 3000\n", Target("http", "127.0.0.1", 3000), b"127.0.0.1:3000", "http://127.0.0.1:3000"),
        ("80", Target("http", "127.0.0.1", 80), b"127.0.0.1", "http://127.0.0.1"),
        ("localhost:8000", Target("http", "localhost", 8000), b"localhost:8000", "http://localhost:8000"),
        ("My_App.internal:1", Target("http", "my_app.internal", 1), b"my_app.internal:1", "http://my_app.internal:1"),
        ("[::1]:8080", Target("http", "::1", 8080), b"[::1]:8080", "http://[::1]:8080"),
        ("[0:0::1]:80", Target("http", "::1", 80), b"[::1]", "http://[::1]"),
        ("http://10.0.0.2", Target("http", "10.0.0.2", 80), b"10.0.0.2", "http://10.0.0.2"),
        ("HTTP://Host:3000/", Target("http", "host", 3000), b"host:3000", "http://host:3000"),
        ("https://host", Target("https", "host", 443), b"host", "https://host"),
        ("https://host:443", Target("https", "host", 443), b"host", "https://host"),
        ("https://host:80", Target("https", "host", 80), b"host:80", "https://host:80"),
        ("https://[fd00::5]", Target("https", "fd00::5", 443), b"[fd00::5]", "https://[fd00::5]"),
    ],
)
def test_forms_of_a_target(text: str, target: Target, authority: bytes, url: str) -> None:
    """Each form gives scheme, host and port, the Host field and the address as people write it."""
    parsed = parse_target(text)
    assert parsed == target
    assert (parsed.authority, parsed.url) == (authority, url)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no port, host:port or URL"),
        ("0", "1 to 65535"),
        ("65536", "1 to 65535"),
        ("localhost", "localhost:3000"),
        ("localhost:", "1 to 65535"),
        ("localhost:http", "1 to 65535"),
        ("localhost:٣", "1 to 65535"),
        (":3000", "no port, host:port or URL"),
        ("::1:3000", "brackets"),
        ("[::1", "[::1]:3000"),
        ("[::1]3000", "[::1]:3000"),
        ("[::1]", "no port"),
        ("[fe80::1%eth0]:80", "no plain IPv6"),
        ("[127.0.0.1]:80", "no plain IPv6"),
        ("ws://localhost:3000", "ws:// is neither"),
        ("tcp://localhost:3000", "tcp:// is neither"),
        ("http://localhost:3000/mcp", "leave out '/mcp'"),
        ("http://localhost:3000?x=1", "without a query"),
        ("http://localhost:3000/#top", "without a fragment"),
        ("http://user:pass@localhost:3000", "no user name or password"),
        ("http://", "no port, host:port or URL"),
        ("http://a..b:80", "no port, host:port or URL"),
        ("-x:80", "no port, host:port or URL"),
        ("bücher:80", "no port, host:port or URL"),
        ("a b:80", "no port, host:port or URL"),
        ("0.0.0.0:3000", "an address to listen on"),
        ("http://[::]:3000", "an address to listen on"),
    ],
)
def test_what_is_no_target(text: str, says: str) -> None:
    """One sentence says what is wrong, and an example what would be right."""
    with pytest.raises(TargetError) as caught:
        parse_target(text)
    message = str(caught.value)
    assert says in message
    assert "for example" in message
    assert message.endswith((".", ":3000"))
    assert "\n" not in message


@given(st.text(max_size=40))
def test_any_text_is_a_target_or_an_error(text: str) -> None:
    """Nothing else is raised, and a target reads itself back from its own address."""
    try:
        target = parse_target(text)
    except TargetError:
        return
    assert parse_target(target.url) == target
