"""A certificate in the settings: both files or neither, and what it changes about addresses."""

from __future__ import annotations

import pytest

from relay.settings import ServeSettings, SettingsError, load

PAIR = {"RELAY_TLS_CERT": "/etc/relay/fullchain.pem", "RELAY_TLS_KEY": "/etc/relay/privkey.pem"}
OPEN = {"RELAY_PUBLIC": "0.0.0.0:443", "RELAY_AGENTS": "0.0.0.0:8443"}


def settings(**environment: str) -> ServeSettings:
    return load({}, {"RELAY_DATA": "/tmp/relay", **environment})


def test_with_a_certificate_no_proxy_is_needed() -> None:
    """Both listeners may be reached from elsewhere; the internal one, which stays plain, may not."""
    found = settings(**PAIR, **OPEN)
    assert str(found.tls_cert) == PAIR["RELAY_TLS_CERT"]
    with pytest.raises(SettingsError, match="give it a certificate"):
        settings(**OPEN)
    with pytest.raises(SettingsError, match=r"internal .* speaks plain HTTP there") as caught:
        settings(**PAIR, RELAY_INTERNAL="0.0.0.0:9090")
    assert "tls" not in str(caught.value)


@pytest.mark.parametrize(("given", "missing"), [("RELAY_TLS_CERT", "tls_key"), ("RELAY_TLS_KEY", "tls_cert")])
def test_one_file_alone_is_a_mistake(given: str, missing: str) -> None:
    """The sentence says which stands there and which does not, with an example of both."""
    with pytest.raises(SettingsError, match=f"from {given} in the environment.* together with {missing}") as caught:
        settings(**{given: PAIR[given]})
    assert "--tls-cert fullchain.pem --tls-key privkey.pem" in str(caught.value)


@pytest.mark.parametrize(
    ("domain", "port", "url"),
    [
        ("tunnels.example.com", 443, "https://tunnels.example.com"),
        ("tunnels.example.com", 8443, "https://tunnels.example.com:8443"),
        ("tunnels.localhost", 8443, "https://tunnels.localhost:8443"),
    ],
)
def test_addresses_have_https_and_the_port(domain: str, port: int, url: str) -> None:
    """Of the listener itself, but for the port that https has anyway."""
    assert settings(**PAIR, RELAY_DOMAIN=domain).base_url(port) == url


def test_a_public_address_of_its_own_counts_more() -> None:
    """It must be https then: what visitors are told is what they can call."""
    url = "https://tunnels.localhost:9443"
    assert settings(**PAIR, RELAY_PUBLIC_URL=url).base_url(443) == url
    with pytest.raises(SettingsError, match="must be an address with https since tls_cert is set"):
        settings(**PAIR, RELAY_PUBLIC_URL="http://tunnels.localhost:8080")
