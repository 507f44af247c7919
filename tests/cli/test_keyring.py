"""Which key is shown to which relay, and when it stays at home."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from relay.cli.errors import Mistake, NoKey
from relay.cli.keyring import audience_of, find_key, find_relay, keys_at_hand, refuse_whole_keys
from relay.keys.forms import Kind
from tests.cli.conftest import Command
from tests.cli.fakerelay import FakeRelay
from tests.cli.keytexts import id_of, mistyped, private, signed

RELAY = "ws://127.0.0.1:8081"
ELSEWHERE = "wss://tunnels.example.com"


def put(path: Path, text: str, mode: int = 0o600) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def login(base: Path, relay: str, key: str) -> None:
    put(base / "relay" / "login.json", json.dumps({"relay": relay, "key": key}))


# ---------------------------------------------------------------------------------------------------- keys


def test_the_order_of_the_places(tmp_path: Path) -> None:
    """--key-file, RELAY_KEY, RELAY_MASTER_KEY, MTK_MASTER, the login, this machine's relay; each says where it was."""
    texts = [signed(), signed(), private(), private(), private(Kind.OPERATOR), private(Kind.OPERATOR)]
    given = put(tmp_path / "given", texts[0] + "\r\n")
    login(tmp_path / "config", RELAY, texts[4])
    put(tmp_path / "data" / "operator.key", texts[5] + "\n")
    environment = {"RELAY_KEY": texts[1], "RELAY_MASTER_KEY": texts[2], "MTK_MASTER": f" {texts[3]}\n"}
    places = {"XDG_CONFIG_HOME": str(tmp_path / "config"), "RELAY_DATA": str(tmp_path / "data")}
    found = list(keys_at_hand(given, environment | places, RELAY))
    assert [key.text for key in found] == texts
    assert [key.origin for key in found] == [
        f"the file {given}",
        "RELAY_KEY",
        "RELAY_MASTER_KEY",
        "MTK_MASTER",
        f"the login in {tmp_path / 'config' / 'relay' / 'login.json'}",
        f"the file {tmp_path / 'data' / 'operator.key'}",
    ]
    assert [key.kind for key in found[1:3]] == [Kind.CHILD, Kind.MASTER]
    assert find_key(None, {**environment, **places, "RELAY_KEY": ""}, RELAY).text == texts[2]
    for key in found:
        assert key.text not in repr(key)
        assert key.id == id_of(key.text)


def test_the_login_is_for_its_own_relay(tmp_path: Path) -> None:
    """A key that was given to one relay is not shown to another, and the sentence says which it is for."""
    login(tmp_path, ELSEWHERE, signed())
    environment = {"XDG_CONFIG_HOME": str(tmp_path), "RELAY_DATA": str(tmp_path / "none")}
    assert find_key(None, environment, ELSEWHERE).origin.startswith("the login")
    with pytest.raises(NoKey, match=r"the login is for wss://tunnels\.example\.com, and this is ws://127"):
        find_key(None, environment, RELAY)


def test_the_data_directory_has_a_default(tmp_path: Path) -> None:
    """Without RELAY_DATA the key is looked for where `relay serve` keeps it by itself."""
    text = private(Kind.OPERATOR)
    put(tmp_path / "relay" / "operator.key", text)
    assert find_key(None, {"XDG_STATE_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}, RELAY).text == text


def test_no_key_at_all(tmp_path: Path) -> None:
    """The sentence gives every way to give one, and the place that was looked at."""
    with pytest.raises(NoKey) as said:
        find_key(None, {"RELAY_DATA": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}, RELAY)
    for text in ("relay login", "--key-file", "RELAY_KEY", "RELAY_MASTER_KEY", str(tmp_path / "operator.key")):
        assert text in str(said.value)
    assert said.value.code == 2


def test_a_named_file_that_is_not_there(tmp_path: Path) -> None:
    """A key file that was named is not passed over in silence."""
    with pytest.raises(Mistake, match="No such file"):
        find_key(tmp_path / "absent", {"RELAY_KEY": signed()}, RELAY)
    with pytest.raises(Mistake, match=r"cannot be read \(Is a directory\)"):
        find_key(tmp_path, {}, RELAY)


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("source", ["RELAY_KEY", "RELAY_MASTER_KEY", "MTK_MASTER", "file", "login", "operator.key"])
def test_a_mistyped_key_stays_here(kind: Kind, source: str, tmp_path: Path) -> None:
    """The checksum finds it before anything is sent; the sentence names the place, and shows nothing of the key."""
    text = mistyped(private(kind) if kind.private else signed(kind))
    environment = {"XDG_CONFIG_HOME": str(tmp_path), "RELAY_DATA": str(tmp_path)}
    key_file = None
    if source == "file":
        key_file = put(tmp_path / "file", text)
    elif source == "login":
        login(tmp_path, RELAY, text)
    elif source == "operator.key":
        put(tmp_path / source, text)
    else:
        environment[source] = text
    with pytest.raises(Mistake) as said:
        find_key(key_file, environment, RELAY)
    assert source in str(said.value)
    assert "was not sent" in str(said.value)
    assert text[12:] not in str(said.value)


@pytest.mark.parametrize(
    "text", ["", "two words here", "s3cret\nsecond line", "s3cret\x00", "s3crét", "s3cret" * 20000]
)
def test_what_is_no_key_is_not_shown(text: str, tmp_path: Path) -> None:
    """A file that holds something else is refused without a word of what it holds."""
    with pytest.raises(Mistake) as said:
        find_key(put(tmp_path / "key", text), {}, RELAY)
    assert "s3cr" not in str(said.value)
    assert "mtk_" in str(said.value)


def test_an_id_is_no_key() -> None:
    """A public id in the place of a key is called what it is."""
    with pytest.raises(Mistake, match=r"RELAY_MASTER_KEY .* public id"):
        find_key(None, {"RELAY_MASTER_KEY": id_of(private())}, RELAY)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_file_that_others_can_read(mode: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A warning once, with the command that closes it; the key is used."""
    path = put(tmp_path / "key", private(), mode)
    for _ in range(2):
        find_key(path, {}, RELAY)
    assert capsys.readouterr().err.count(f"chmod 600 {path}") == 1


def test_a_credential_of_systemd(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    """No warning: its group bits stand for the service's own user."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    find_key(put(tmp_path / "agent-key", private(), 0o440), {}, RELAY)
    assert capsys.readouterr().err == ""


def test_a_file_of_mine_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No warning for a file that is closed."""
    find_key(put(tmp_path / "key", private()), {}, RELAY)
    assert capsys.readouterr().err == ""


def test_a_login_that_cannot_be_read(tmp_path: Path) -> None:
    """A broken file is said, with the next step, instead of passed over."""
    put(tmp_path / "relay" / "login.json", '{"relay": 1')
    with pytest.raises(Mistake, match="relay login"):
        find_key(None, {"XDG_CONFIG_HOME": str(tmp_path)}, RELAY)


# ---------------------------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize(
    "words",
    [
        ("http", "3000", "--project", "KEY"),
        ("keys", "show", "KEY"),
        ("keys", "mint", "--label=my KEY"),
        ("login", "KEY"),
        ("keys", "scan", "revoke", "KEY"),
    ],
)
def test_no_key_in_a_command_line(kind: Kind, words: tuple[str, ...], command: Command, relay: FakeRelay) -> None:
    """Refused with a sentence that does not repeat it, mistyped or not, and nothing is asked."""
    text = private(kind) if kind.private else signed(kind)
    for given in (text, mistyped(text), text[:-9]):
        result = command(*(word.replace("KEY", given) for word in words))
        assert (result.code, result.out, relay.asked) == (2, "", [])
        assert "others on this machine can read it" in result.err
        assert given not in result.err


def test_ids_and_the_one_exception() -> None:
    """A public id is no secret; `keys revoke` takes a whole key, as the published tutorial does."""
    text = private()
    refuse_whole_keys(["keys", "show", id_of(text)])
    refuse_whole_keys(["keys", "mint", "--key-out", f"{id_of(text)}_old.key"])
    refuse_whole_keys(["keys", "revoke", "--cascade", text])
    refuse_whole_keys(["--version", "keys", "revoke", text])


# ---------------------------------------------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ws://127.0.0.1:8081", "ws://127.0.0.1:8081"),
        ("ws://localhost", "ws://localhost"),
        ("ws://tunnels.localhost:8081/", "ws://tunnels.localhost:8081"),
        ("ws://[::1]:8081", "ws://[::1]:8081"),
        ("WSS://Tunnels.Example.com", "wss://tunnels.example.com"),
        ("https://tunnels.example.com", "wss://tunnels.example.com"),
        ("wss://tunnels.example.com:443", "wss://tunnels.example.com"),
        ("wss://tunnels.example.com:80", "wss://tunnels.example.com:80"),
        ("http://127.0.0.1:8081", "ws://127.0.0.1:8081"),
    ],
)
def test_addresses_of_a_relay(text: str, expected: str, tmp_path: Path) -> None:
    """What people paste is understood, and comes out as scheme, host and port, wherever it came from."""
    assert find_relay(text, {}, False) == expected
    assert find_relay(None, {"RELAY_URL": text}, False) == expected
    login(tmp_path, text, private())
    assert find_relay(None, {"XDG_CONFIG_HOME": str(tmp_path)}, False) == expected


def test_the_order_of_addresses(tmp_path: Path) -> None:
    """--relay, RELAY_URL, the login's address, the relay on this machine."""
    login(tmp_path, ELSEWHERE, private())
    environment = {"XDG_CONFIG_HOME": str(tmp_path), "RELAY_URL": "ws://127.0.0.1:2"}
    assert find_relay("ws://127.0.0.1:1", environment, False) == "ws://127.0.0.1:1"
    assert find_relay(None, environment, False) == "ws://127.0.0.1:2"
    assert find_relay(None, {**environment, "RELAY_URL": ""}, False) == ELSEWHERE
    assert find_relay(None, {"XDG_CONFIG_HOME": str(tmp_path / "none")}, False) == "ws://127.0.0.1:8081"


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
    "text", ["wss://me:secret@h", "wss://h?key=secret", "ftp://me:secret@h", "ws://me:secret@[::1"]
)
def test_a_password_in_an_address_is_not_shown(text: str) -> None:
    """The rest of it is."""
    with pytest.raises(Mistake, match="must be") as said:
        find_relay(text, {}, False)
    assert "secret" not in str(said.value)


@pytest.mark.parametrize(
    "host", ["tunnels.example.com", "10.0.0.5", "192.168.1.1:8081", "[fd00::1]", "localhost.evil.example"]
)
def test_no_key_in_the_clear(host: str) -> None:
    """ws:// to another machine is refused with both next steps, unless --insecure."""
    for scheme in ("ws", "http"):
        with pytest.raises(Mistake) as said:
            find_relay(f"{scheme}://{host}", {}, False)
        assert "wss://" in str(said.value)
        assert "--insecure" in str(said.value)
    assert find_relay(f"ws://{host}", {}, True) == f"ws://{host}"


@pytest.mark.parametrize(
    ("relay", "audience"),
    [
        ("ws://127.0.0.1:8081", "127.0.0.1"),
        ("ws://[::1]:8081", "::1"),
        ("ws://[0:0::1]", "::1"),
        ("wss://tunnels.example.com", "tunnels.example.com"),
    ],
)
def test_who_a_request_is_signed_for(relay: str, audience: str) -> None:
    """The host alone, an IPv6 address in its one spelling."""
    assert audience_of(relay) == audience
