"""The proxy that the environment names: for which relays it counts, what it may look like, and what its no means."""

from __future__ import annotations

import pytest

from relay.agent.proxies import BadProxy, Proxy, proxy_for, refusal_in_words

WSS = "wss://relay.example.com"
THREE = "http://proxy:3128"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """One without proxies."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("relay", "given", "found"),
    [
        (WSS, {}, None),
        (WSS, {"https_proxy": THREE}, THREE),
        (WSS, {"HTTPS_PROXY": THREE}, THREE),
        ("wss://relay.example.com:8443/x", {"https_proxy": "http://u:p@proxy:1"}, "http://u:p@proxy:1"),
        (WSS, {"http_proxy": THREE}, None),
        ("ws://relay.example.com", {"http_proxy": THREE}, THREE),
        ("ws://127.0.0.1:8081", {"http_proxy": THREE}, None),
        ("ws://relay.localhost:8081", {"http_proxy": THREE}, None),
        ("wss://[::1]", {"https_proxy": THREE}, None),
        ("ws://relay.example.com", {"https_proxy": THREE}, None),
        (WSS, {"https_proxy": THREE, "no_proxy": "example.com"}, None),
        ("wss://relay.example.com:443", {"https_proxy": THREE, "no_proxy": "relay.example.com"}, None),
        (WSS, {"https_proxy": THREE, "no_proxy": "*"}, None),
        ("ws://127.0.0.1:8081", {"http_proxy": THREE, "no_proxy": "localhost,127.0.0.1"}, None),
    ],
)
def test_the_environments_proxy(
    relay: str, given: dict[str, str], found: str | None, environment: pytest.MonkeyPatch
) -> None:
    """As HTTP clients read it: by scheme, with exceptions."""
    for name, value in given.items():
        environment.setenv(name, value)
    proxy = proxy_for(relay)
    assert (None if proxy is None else proxy.url) == found


@pytest.mark.parametrize(
    ("text", "url", "shown"),
    [
        ("proxy:3128", "http://proxy:3128", "proxy:3128"),
        (" http://Proxy.Example.com ", "http://proxy.example.com:80", "proxy.example.com:80"),
        ("https://proxy", "https://proxy:443", "proxy:443"),
        ("socks5://proxy", "socks5://proxy:1080", "proxy:1080"),
        ("socks5h://proxy:9", "socks5://proxy:9", "proxy:9"),
        ("http://[::1]:3128/", "http://[::1]:3128", "[::1]:3128"),
        ("http://me:p%40ss:wörd@proxy:1", "http://me:p%40ss%3Aw%C3%B6rd@proxy:1", "proxy:1"),
        ("http://me@proxy:1", "http://me:@proxy:1", "proxy:1"),
        ("http://bücher.example:1", "http://xn--bcher-kva.example:1", "xn--bcher-kva.example:1"),
    ],
)
def test_what_a_proxy_may_look_like(text: str, url: str, shown: str, environment: pytest.MonkeyPatch) -> None:
    """With or without a scheme and a port; credentials are kept and shown nowhere."""
    environment.setenv("HTTPS_PROXY", text)
    proxy = proxy_for(WSS)
    assert proxy == Proxy(url, shown)
    assert "p%40ss" not in repr(proxy)


@pytest.mark.parametrize(
    "text",
    ["http://me:secret@proxy:port", "ftp://me:secret@proxy", "http://me:secret@", "http://me:secret@[::1", ":3128"],
)
def test_what_can_be_no_proxy(text: str, environment: pytest.MonkeyPatch) -> None:
    """Said in a sentence that names the variable and repeats no secret."""
    environment.setenv("HTTPS_PROXY", text)
    with pytest.raises(BadProxy, match="HTTPS_PROXY in the environment") as caught:
        proxy_for(WSS)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("HTTP proxy rejected connection with status 407", "wants a user and a password (HTTP 407): give them in"),
        ("HTTP proxy rejected connection with status 403", "does not allow connections to relay:443 (HTTP 403)"),
        ("HTTP proxy rejected connection with status 502", "does not reach relay:443 (HTTP 502)"),
        ("HTTP proxy rejected connection with status 418", "answered HTTP 418 instead of a way to relay:443"),
        ("HTTP proxy returned an invalid response", "gave no way to relay:443: HTTP proxy returned an invalid"),
    ],
)
def test_what_a_no_means(said: str, words: str) -> None:
    """Its cause, and whom to turn to; the proxy is named, its credentials are not."""
    told = refusal_in_words(said, Proxy("http://me:secret@proxy:3128", "proxy:3128"), "relay:443")
    assert told.startswith("the proxy proxy:3128 ")
    assert words in told
    assert "secret" not in told
