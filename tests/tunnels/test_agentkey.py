"""Admission by the one agent key: who shows it may claim any name that is not kept for the relay."""

from __future__ import annotations

import pytest

from relay.tunnels.admission import RESERVED, Principal, refuse_reserved
from relay.tunnels.agentkey import AgentKeyAdmission
from relay.wire.hello import LABEL, Hello, Refused


def hello(key: str, *names: str) -> Hello:
    return Hello("a", 0, 1, key, names or ("demo",))


async def test_the_key_admits_to_one_project() -> None:
    """Whoever shows it is of the same project, so that agents may take each other's place."""
    admission = AgentKeyAdmission("secret")
    first = await admission.admit(hello("secret", "one", "two"))
    assert isinstance(first, Principal)
    assert first == await admission.admit(hello("secret", "three"))


@pytest.mark.parametrize("key", ["", "secret ", "Secret", "secre", "secrets", "é", "\ud800", "x" * 8192])
async def test_any_other_key_is_refused_for_good(key: str) -> None:
    """With a sentence that says what to do, no retry, and nothing of the key in it."""
    refused = await AgentKeyAdmission("secret").admit(hello(key))
    assert isinstance(refused, Refused)
    assert (refused.code, refused.retry_after) == ("bad_key", None)
    assert "--key-file" in refused.message
    assert "secret" not in refused.message


async def test_names_of_the_relay_are_refused_only_to_who_has_the_key() -> None:
    """A stranger learns nothing about names."""
    admission = AgentKeyAdmission("secret")
    refused = await admission.admit(hello("secret", "demo", "www"))
    assert isinstance(refused, Refused)
    assert (refused.code, refused.retry_after) == ("name_reserved", None)
    assert "'www'" in refused.message
    stranger = await admission.admit(hello("wrong", "www"))
    assert isinstance(stranger, Refused)
    assert stranger.code == "bad_key"


async def test_a_key_can_be_renewed_by_itself_only() -> None:
    """The same key goes on as the same principal; another is refused."""
    admission = AgentKeyAdmission("secret")
    principal = await admission.admit(hello("secret"))
    assert isinstance(principal, Principal)
    assert await admission.renew(principal, "secret", ("demo",)) is principal
    refused = await admission.renew(principal, "other", ("demo",))
    assert isinstance(refused, Refused)
    assert refused.code == "bad_key"


def test_reserved_names_are_names() -> None:
    """Each could be claimed if it were not kept: one label, in lower case."""
    assert {"www", "api", "connect", "admin"} <= RESERVED
    assert all(LABEL.fullmatch(name) for name in RESERVED)
    assert refuse_reserved(("demo", "mcp-www")) is None
    assert refuse_reserved(()) is None
