"""`relay keys revoke`: which key asks for it, and the lines that people and the published tutorial look for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relay.keys.forms import Kind
from relay.keys.requests import read_kid
from tests.cli.conftest import Command
from tests.cli.fakerelay import Answer, FakeRelay, Request, problem
from tests.cli.keytexts import id_of, mistyped, private, signed

MASTER = "mtk_master_000000000001"


def counts(**given: int) -> dict[str, int]:
    return {**dict.fromkeys(("operator", "master", "child", "visitor", "remaining"), 0), **given}


def revoked(relay: FakeRelay, key_id: str, *answers: Any) -> None:
    relay.on(f"POST /keys/{key_id}/revoke", *answers)


@pytest.mark.parametrize(
    ("key_id", "given", "lines"),
    [
        (MASTER, counts(master=1, child=3), ["Revoked 1 master key.", "Revoked 3 child keys (cascade)."]),
        (MASTER, counts(master=1), ["Revoked 1 master key."]),
        (
            MASTER,
            counts(master=1, child=1, visitor=2),
            ["Revoked 1 master key.", "Revoked 1 child key (cascade).", "Revoked 2 visitor keys (cascade)."],
        ),
        (MASTER, counts(child=3), ["Revoked 3 child keys (cascade)."]),
        (MASTER, counts(), [f"{MASTER} was revoked already."]),
        (
            "mtk_operator_000000000001",
            counts(operator=1, master=2, child=3),
            ["Revoked 1 operator key.", "Revoked 2 master keys (cascade).", "Revoked 3 child keys (cascade)."],
        ),
        ("mtk_visitor_000000000001", counts(visitor=1), ["Revoked 1 visitor key."]),
    ],
)
def test_what_was_revoked(
    key_id: str, given: dict[str, int], lines: list[str], command: Command, relay: FakeRelay
) -> None:
    """A line for each kind, that of the key given first, in the words of the tutorial."""
    revoked(relay, key_id, given)
    result = command("keys", "revoke", "--cascade", key_id)
    assert (result.code, result.out.splitlines(), result.err) == (0, lines, "")
    assert relay.asked[0].body == {"cascade": True}


def test_without_cascade_what_stays_is_said(command: Command, relay: FakeRelay) -> None:
    """How many keys below go on, and how to end them too."""
    revoked(relay, MASTER, counts(master=1, remaining=3), counts(remaining=1))
    assert command("keys", "revoke", MASTER).out.splitlines() == [
        "Revoked 1 master key.",
        "3 keys below it stay valid until they expire; revoke them with --cascade.",
    ]
    assert relay.asked[0].body == {"cascade": False}
    assert command("keys", "revoke", MASTER).out.splitlines() == [
        f"{MASTER} was revoked already.",
        "1 key below it stays valid until it expires; revoke it with --cascade.",
    ]


def test_revoke_for_programs(command: Command, relay: FakeRelay) -> None:
    """The counts, with the id."""
    revoked(relay, MASTER, counts(master=1))
    found = json.loads(command("keys", "revoke", MASTER, "--json").out)
    assert found == {"id": MASTER, "cascade": False, **counts(master=1)}


def asker(request: Request) -> str:
    """Whose key was shown: its id, or the text of a token that is a key."""
    return request.bearer if request.bearer.startswith("mtk_") else read_kid(request.bearer)


@pytest.mark.parametrize("kind", [Kind.OPERATOR, Kind.MASTER])
def test_a_whole_private_key_signs_its_own_end(kind: Kind, command: Command, relay: FakeRelay) -> None:
    """Nothing else is needed; the key itself does not leave."""
    text = private(kind)
    revoked(relay, id_of(text), counts(**{kind.value: 1}))
    result = command("keys", "revoke", "--cascade", text)
    assert result.out == f"Revoked 1 {kind.value} key.\n"
    assert [asker(one) for one in relay.asked] == [id_of(text)]


def test_a_whole_child_key_is_shown_to_end_itself(command: Command, relay: FakeRelay) -> None:
    """It is a token, so it is sent."""
    text = signed()
    revoked(relay, id_of(text), counts(child=1))
    assert command("keys", "revoke", text).out == "Revoked 1 child key.\n"
    assert [asker(one) for one in relay.asked] == [text]


def test_a_whole_visitor_key_is_only_named(command: Command, relay: FakeRelay, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may do nothing, so the caller's own key asks."""
    text, own = signed(Kind.VISITOR), private()
    monkeypatch.setenv("RELAY_MASTER_KEY", own)
    revoked(relay, id_of(text), counts(visitor=1))
    assert command("keys", "revoke", text).out == "Revoked 1 visitor key.\n"
    assert [asker(one) for one in relay.asked] == [id_of(own)]


def test_a_second_time_another_key_asks(command: Command, relay: FakeRelay, monkeypatch: pytest.MonkeyPatch) -> None:
    """A revoked key proves nothing; whoever has another learns from the relay that it was revoked already."""
    text, own = private(), private(Kind.OPERATOR)
    monkeypatch.setenv("MTK_MASTER", text)  # as it still is in the shell of the tutorial
    monkeypatch.setenv("RELAY_MASTER_KEY", own)

    def answer(request: Request) -> Answer:
        return problem(401, "Revoked.") if asker(request) == id_of(text) else Answer(body=counts())

    revoked(relay, id_of(text), answer)
    result = command("keys", "revoke", "--cascade", text)
    assert (result.code, result.out) == (0, f"{id_of(text)} was revoked already.\n")
    assert [asker(one) for one in relay.asked] == [id_of(text), id_of(own)]


def test_a_second_time_without_another_key(command: Command, relay: FakeRelay, monkeypatch: pytest.MonkeyPatch) -> None:
    """The relay's own sentence is what there is to say."""
    text = private()
    monkeypatch.setenv("MTK_MASTER", text)
    monkeypatch.delenv("RELAY_MASTER_KEY")
    revoked(relay, id_of(text), problem(401, "It was revoked by mtk_operator_000000000001."))
    result = command("keys", "revoke", text)
    assert (result.code, result.out) == (3, "")
    assert "was revoked by mtk_operator_000000000001" in result.err


@pytest.mark.parametrize("kind", list(Kind))
def test_a_mistyped_key_is_not_sent(kind: Kind, command: Command, relay: FakeRelay) -> None:
    """The sentence offers the id, where it can be read off, and shows no more."""
    text = private(kind) if kind.private else signed(kind)
    result = command("keys", "revoke", mistyped(text))
    assert (result.code, relay.asked) == (2, [])
    assert "mistyped" in result.err
    if kind.private:
        assert f"relay keys revoke {id_of(text)}\n" in result.err
    assert mistyped(text)[30:] not in result.err


def test_a_foreign_key_is_not_found(command: Command, relay: FakeRelay) -> None:
    """A refusal by id is the last word."""
    result = command("keys", "revoke", MASTER)
    assert result.code == 4
    assert len(relay.asked) == 1
