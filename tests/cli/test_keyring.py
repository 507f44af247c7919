"""Which key is shown to which relay, and when it stays at home."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay.cli.keyring import find_key, find_relay
from relay.cli.output import Mistake

KEY = "k3y-" + "x" * 28


def test_the_order_of_the_places(tmp_path: Path) -> None:
    """--key-file before RELAY_KEY before the key of a relay on this machine; each says where it was."""
    (tmp_path / "agent.key").write_text("of-the-data-directory\n", encoding="ascii")
    (tmp_path / "given").write_text("of-the-file\r\n", encoding="ascii")
    environment = {"RELAY_DATA": str(tmp_path), "RELAY_KEY": "of-the-environment"}
    found = find_key(tmp_path / "given", environment)
    assert (found.text, found.origin) == ("of-the-file", f"the file {tmp_path / 'given'}")
    found = find_key(None, environment)
    assert (found.text, found.origin) == ("of-the-environment", "RELAY_KEY")
    found = find_key(None, {**environment, "RELAY_KEY": ""})
    assert (found.text, found.origin) == ("of-the-data-directory", f"the file {tmp_path / 'agent.key'}")
    assert "of-the-data" not in repr(found)


def test_the_data_directory_has_a_default(tmp_path: Path) -> None:
    """Without RELAY_DATA the key is looked for where `relay serve` keeps it by itself."""
    (tmp_path / "relay").mkdir()
    (tmp_path / "relay" / "agent.key").write_text(KEY, encoding="ascii")
    assert find_key(None, {"XDG_STATE_HOME": str(tmp_path)}).text == KEY


def test_no_key_at_all(tmp_path: Path) -> None:
    """The sentence gives both ways to give one, and the place that was looked at."""
    with pytest.raises(Mistake) as said:
        find_key(None, {"RELAY_DATA": str(tmp_path)})
    for text in ("--key-file", "RELAY_KEY", str(tmp_path / "agent.key")):
        assert text in str(said.value)
    assert said.value.code == 2


def test_a_named_file_that_is_not_there(tmp_path: Path) -> None:
    """A key file that was named is not passed over in silence."""
    with pytest.raises(Mistake, match="No such file"):
        find_key(tmp_path / "absent", {"RELAY_KEY": KEY})
    with pytest.raises(Mistake, match=r"cannot be read \(Is a directory\)"):
        find_key(tmp_path, {})


@pytest.mark.parametrize("text", ["", "two words here", "s3cret\nsecond line", "s3cret\x00", "s3crét", "s3cret" * 2000])
def test_what_is_no_key_is_not_shown(text: str, tmp_path: Path) -> None:
    """A file that holds something else is refused without a word of what it holds."""
    path = tmp_path / "key"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(Mistake) as said:
        find_key(path, {})
    assert "s3cr" not in str(said.value)
    assert "one line of visible ASCII" in str(said.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ws://127.0.0.1:8081", "ws://127.0.0.1:8081"),
        ("ws://localhost", "ws://localhost"),
        ("ws://tunnels.localhost:8081/", "ws://tunnels.localhost:8081"),
        ("ws://[::1]:8081", "ws://[::1]:8081"),
        ("WSS://Tunnels.Example.com", "wss://tunnels.example.com"),
        ("https://tunnels.example.com", "wss://tunnels.example.com"),
        ("http://127.0.0.1:8081", "ws://127.0.0.1:8081"),
    ],
)
def test_addresses_of_a_relay(text: str, expected: str) -> None:
    """What people paste is understood, and comes out as scheme, host and port."""
    assert find_relay(text, {}, False) == expected
    assert find_relay(None, {"RELAY_URL": text}, False) == expected


def test_the_flag_before_the_environment_before_this_machine() -> None:
    """--relay overrides RELAY_URL; without either it is the relay on this machine."""
    assert find_relay("ws://127.0.0.1:1", {"RELAY_URL": "ws://127.0.0.1:2"}, False) == "ws://127.0.0.1:1"
    assert find_relay(None, {}, False) == "ws://127.0.0.1:8081"


@pytest.mark.parametrize(
    "text",
    [
        "tunnels.example.com",
        "ftp://x",
        "ws://",
        "ws://h:port",
        "wss://h/path",
        "wss://h?x",
        "wss://me@h",
        "wss://a b",
        "ws://[::1",
    ],
)
def test_what_is_no_address_of_a_relay(text: str) -> None:
    """The sentence names the source, and an example in its own form."""
    with pytest.raises(Mistake, match=r"--relay must be .*--relay wss://"):
        find_relay(text, {}, False)
    with pytest.raises(Mistake, match=r"RELAY_URL must be .*RELAY_URL=wss://"):
        find_relay(None, {"RELAY_URL": text}, False)


@pytest.mark.parametrize(
    "host", ["tunnels.example.com", "10.0.0.5", "192.168.1.1:8081", "[fd00::1]", "localhost.evil.example"]
)
def test_no_key_in_the_clear(host: str) -> None:
    """ws:// to another machine is refused with both next steps, unless --insecure."""
    with pytest.raises(Mistake) as said:
        find_relay(f"ws://{host}", {}, False)
    assert "wss://" in str(said.value)
    assert "--insecure" in str(said.value)
    assert find_relay(f"ws://{host}", {}, True) == f"ws://{host}"
