"""Who may come in, as the options of `relay http` say it: files read line by line, and what is wrong in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import argon2
import pytest

from relay.cli.access_options import Access, read_access, read_fields, read_users
from relay.cli.errors import Mistake
from relay.wire.access import MAX_USERS, AccessRules, why_not_hash
from tests.cli.conftest import Command, StandIn

HASH = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$pTsPpGxrQy0KZ8dvmSOsbQaqEFl8WWxnYTUlOhN9lQo"
SECRET = "swordfish-canary"

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file that only its owner may read."""

    def written(content: str | bytes, mode: int = 0o600) -> Path:
        path = tmp_path / "file"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        path.chmod(mode)
        return path

    return written


def test_users_with_passwords_and_hashes(write: Write) -> None:
    """Comments and empty lines aside; colons, hash signs and spaces belong to a password; hashes stay as they are."""
    path = write(f"# people\r\n\r\nann:{SECRET}\r\nbo b: a:b#c \n  # more\n\ncy:{HASH}\nd\u00f6:x")
    users = dict(read_users(path))
    assert list(users) == ["ann", "bo b", "cy", "d\u00f6"]
    assert users["cy"] == HASH
    for user, password in (("ann", SECRET), ("bo b", " a:b#c "), ("d\u00f6", "x")):
        assert argon2.PasswordHasher().verify(users[user], password)
        assert why_not_hash(users[user]) == ""


def test_a_password_is_hashed_in_normal_form(write: Write) -> None:
    """As the relay reads what a browser sends, whatever the editor wrote."""
    ((user, known),) = read_users(write("jo\u0308:e\u0301"))
    assert user == "j\u00f6"
    assert argon2.PasswordHasher().verify(known, "\u00e9")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (SECRET, "line 1: write user:password"),
        (f"ann:x\n\n# x\n:{SECRET}", "line 4: a user has 1 to 64"),
        (f"{'u' * 65}:{SECRET}", "line 1: a user has 1 to 64"),
        (f"a\tb:{SECRET}", "line 1: a user has printable"),
        ("ann:", "line 1: a password has 1 to"),
        (f"ann:{SECRET}\x07", "line 1: a password has"),
        (f"ann:{SECRET}\nann:{SECRET}2", "line 2: the user ann stands twice"),
        (f"ann:$2y$05${SECRET}", "line 1: a hash is an argon2id hash"),
        (f"ann:$apr1${SECRET}", "line 1: a hash is an argon2id hash"),
        (f"ann:{{SHA}}{SECRET}", "line 1: a hash is an argon2id hash"),
        (f"ann:$argon2i$v=19$m=8,t=1,p=1${SECRET}", "line 1: a hash is an argon2id hash"),
        ("ann:" + HASH.replace("t=2", "t=7"), "line 1: a hash has at most m=131072 (KiB), t=6"),
        ("", "names no user"),
        ("# ann:x\n \n", "names no user"),
        ("\n".join(f"u{n}:{HASH}" for n in range(MAX_USERS + 1)), f"line {MAX_USERS + 1}: a tunnel has at most"),
        (b"ann:\xff\xfe", "not text in UTF-8"),
        ("ann:x\n" + "#" * 70_000, "longer than 64 KiB"),
    ],
)
def test_what_is_wrong_with_users_names_the_line_only(write: Write, content: str | bytes, said: str) -> None:
    """One sentence with the file and the line, and nothing of a password."""
    path = write(content)
    with pytest.raises(Mistake) as caught:
        list(read_users(path))
    assert f"--basic-auth-file {path}" in str(caught.value)
    assert said in str(caught.value)
    assert SECRET not in str(caught.value)


def test_fields_for_the_local_service(write: Write) -> None:
    """In order, duplicates and case kept, space around a value left out."""
    path = write(f"# for the service\nAuthorization: Bearer {SECRET}\r\nX-Api-Key:\tk \nx-api-key: \u00e9\n")
    assert read_fields(path) == [
        (b"Authorization", f"Bearer {SECRET}".encode()),
        (b"X-Api-Key", b"k"),
        (b"x-api-key", b"\xe9"),
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (SECRET, "line 1: write Name: value"),
        (f"X-A: b\nX A: {SECRET}", "line 2: the name is no field name"),
        (f": {SECRET}", "line 1: the name is no field name"),
        (f"\u00e4: {SECRET}", "line 1: a header field has no such characters"),
        ("X-A: \u20ac", "line 1: a header field has no such characters"),
        (f"X-A: {SECRET}\x01", "line 1: the value is empty or holds"),
        ("X-A: ", "line 1: the value is empty or holds"),
        ("Host: a", "line 1: Host is set by the agent itself"),
        ("CONTENT-LENGTH: 5", "line 1: CONTENT-LENGTH is set by"),
        ("Transfer-Encoding: chunked", "line 1: Transfer-Encoding is set by"),
        ("connection: x", "line 1: connection is set by"),
        ("Upgrade: x", "line 1: Upgrade is set by"),
        ("Expect: 100-continue", "line 1: Expect is set by"),
        ("", "must have 1 to 32 lines"),
        ("X-A: b\n" * 33, "must have 1 to 32 lines"),
    ],
)
def test_what_is_wrong_with_fields_names_the_line_only(write: Write, content: str, said: str) -> None:
    """What the agent sets itself is refused; a value is never repeated."""
    path = write(content)
    with pytest.raises(Mistake) as caught:
        read_fields(path)
    assert f"--upstream-header-file {path}" in str(caught.value)
    assert said in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("read", [lambda path: list(read_users(path)), read_fields])
def test_a_file_that_is_not_there_is_named(tmp_path: Path, read: Callable[[Path], object]) -> None:
    """With the reason that the system gives."""
    with pytest.raises(Mistake, match=r"missing cannot be read \(No such file"):
        read(tmp_path / "missing")


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o644, True), (0o640, True), (0o604, True)])
def test_a_file_that_others_can_read_is_warned_of(
    write: Write, capsys: pytest.CaptureFixture[str], mode: int, warned: bool
) -> None:
    """And read all the same: in a container it is often so."""
    path = write(f"ann:{HASH}", mode)
    assert read_access(False, path, None).rules == AccessRules(False, (("ann", HASH),))
    said = capsys.readouterr().err
    assert ("can be read by others" in said) is warned
    assert (str(path) in said) is warned


def test_without_options_everybody_may_come_in() -> None:
    """No rules, no fields, nothing in the HELLO."""
    assert read_access(False, None, None) == Access()
    assert Access().for_each(["a", "b"]) == {}
    assert read_access(True, None, None).for_each(["a", "b"]) == {"a": AccessRules(True), "b": AccessRules(True)}


def test_a_credential_for_everybody_is_warned_of(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """What the local service asks for, given to whoever comes: only where the relay asks for nothing instead."""
    path = write(f"Authorization: Bearer {SECRET}")
    assert read_access(True, None, path).rules == AccessRules(True)
    assert capsys.readouterr().err == ""
    access = read_access(False, None, path)
    said = capsys.readouterr().err
    assert "open to everybody" in said
    assert SECRET not in said + repr(access)


def test_more_users_than_a_hello_holds(write: Write) -> None:
    """Many users are no trouble for one tunnel, and are told to be one for many tunnels, before anything is sent."""
    path = write("\n".join(f"{'u' * 50}{n}:{HASH}" for n in range(MAX_USERS)))
    access = read_access(True, path, None)
    assert len(access.for_each(["one"])) == 1
    with pytest.raises(Mistake, match="for 4 tunnels are too much for one agent"):
        access.for_each(["one", "two", "three", "four"])


def test_the_options_reach_the_agent(command: Command, agent: StandIn, tmp_path: Path) -> None:
    """For every tunnel alike; what is secret shows neither in the settings as they are printed nor on the screen."""
    for name, text in (("people", f"ann:{SECRET}\n"), ("fields", f"Authorization: Bearer {SECRET}\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    result = command(
        "http", "-s", "a=3000", "-s", "b=3001", "--private",
        "--basic-auth-file", str(tmp_path / "people"), "--upstream-header-file", str(tmp_path / "fields"),
    )  # fmt: skip
    settings = agent.settings
    assert set(settings.access) == set(settings.upstream) == {"a", "b"}
    assert {rules.ways for rules in settings.access.values()} == {("visitor_key", "basic")}
    assert settings.upstream["b"] == [(b"Authorization", f"Bearer {SECRET}".encode())]
    assert SECRET not in repr(settings) + result.out + result.err
    assert "argon2" not in repr(settings)


def test_without_the_options_the_tunnel_is_open(command: Command, agent: StandIn) -> None:
    """Nothing is asked of visitors, nothing added for the local service."""
    command("http", "3000", "-s", "a")
    assert (agent.settings.access, agent.settings.upstream) == ({}, {"a": []})


def test_a_mistake_in_a_file_sends_nothing(command: Command, agent: StandIn, tmp_path: Path) -> None:
    """Exit code 2, one sentence, and no agent was started."""
    (tmp_path / "people").write_text(f"ann {SECRET}\n")
    (tmp_path / "people").chmod(0o600)
    result = command("http", "3000", "--basic-auth-file", str(tmp_path / "people"))
    assert (result.code, agent.settings) == (2, None)
    assert "line 1: write user:password" in result.err
    assert SECRET not in result.err


def test_a_warning_of_the_agent_is_shown(command: Command, agent: StandIn) -> None:
    """As one line, in the same words."""
    agent.events = [{"event": "warning", "message": "The MCP server is open."}]
    assert "Warning: The MCP server is open." in command("http", "3000", "-s", "a").out
