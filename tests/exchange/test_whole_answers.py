"""An answer whose body came in one frame with its end: the same rules as in several, and its owner is told at once."""

from __future__ import annotations

import pytest

from relay.exchange.outgoing import Failure
from relay.mux.streamevents import StreamEvents
from tests.exchange.test_outgoing import LENGTH_3, Asked, Log, answer, ask
from tests.mux.ends import f_data, f_head
from tests.support.clock import virtual


class Wholes(Log):
    """Remembers what came whole."""

    def __init__(self) -> None:
        super().__init__()
        self.wholes: list[tuple[bytes, bool]] = []
        """(the body, whether the exchange was complete when it was told)."""

    def on_last(self, data: memoryview) -> None:
        self.wholes.append((bytes(data), self.exchange.complete))
        super().on_last(data)


def whole(data: bytes) -> bytes:
    return f_data(1, data, ended=True)


async def asked_for_wholes(method: bytes = b"GET", *, upgrade: bool = False) -> Asked:
    asked = await ask(method, ended=not upgrade, upgrade=upgrade)
    log = Wholes()
    log.exchange = asked.exchange
    asked.log = log
    asked.exchange._events = log
    return asked


def wholes_of(asked: Asked) -> list[tuple[bytes, bool]]:
    assert isinstance(asked.log, Wholes)
    return asked.log.wholes


@pytest.mark.parametrize("declared", [True, False])
@virtual
async def test_an_answer_of_one_frame_is_told_at_once(declared: bool) -> None:
    """With its declared length, or without one."""
    asked = await asked_for_wholes()
    await asked.says(answer(200, LENGTH_3 if declared else []), whole(b"abc"))
    assert asked.log.names == ["head", "data", "end"]
    assert wholes_of(asked) == [(b"abc", True)]
    assert asked.gone


@pytest.mark.parametrize(
    ("said", "words", "names"),
    [
        ([answer(200, LENGTH_3), whole(b"ab")], "a body shorter than declared", ["head", "data", "failed"]),
        ([answer(200, LENGTH_3), whole(b"abcd")], "a body longer than declared", ["head", "failed"]),
        ([answer(200, LENGTH_3), f_data(1, b"a"), whole(b"bcd")], "a body longer than declared", None),
        ([answer(200, LENGTH_3), whole(b"")], "a body shorter than declared", None),
        ([whole(b"abc")], "a body before its head", ["failed"]),
        ([answer(103), whole(b"abc")], "a body before its head", ["informational", "failed"]),
        ([f_head(1, b"\0\0\0"), whole(b"abc")], "", ["failed"]),
    ],
)
@virtual
async def test_a_bad_answer_of_one_frame_is_one(said: list[bytes], words: str, names: list[str] | None) -> None:
    """Told once, and never as a whole answer; the session goes on."""
    asked = await asked_for_wholes()
    await asked.says(*said)
    assert asked.log.failure is not None
    assert asked.log.failure.code == "bad_response"
    assert words in asked.log.failure.detail
    assert wholes_of(asked) == []
    assert asked.log.names[-1] == "failed"
    assert names in (None, asked.log.names)
    assert not asked.exchange.complete
    assert asked.gone


@pytest.mark.parametrize(("method", "status"), [(b"HEAD", 200), (b"GET", 204), (b"GET", 304)])
@pytest.mark.parametrize("fields", [LENGTH_3, []])
@virtual
async def test_an_answer_without_a_body_has_none_in_one_frame_either(
    method: bytes, status: int, fields: list[tuple[bytes, bytes]]
) -> None:
    """Whatever it declares; an empty frame with the end is its end."""
    asked = await asked_for_wholes(method)
    await asked.says(answer(status, fields), whole(b"abc"))
    assert asked.log.failure == Failure("bad_response", "a body longer than declared")
    assert (asked.log.body, wholes_of(asked)) == (b"", [])
    asked = await asked_for_wholes(method)
    await asked.says(answer(status, fields), whole(b""))
    assert (asked.log.failure, asked.log.trailers) == (None, [])
    assert asked.gone


@virtual
async def test_what_a_pipe_says_last_has_any_length() -> None:
    """Behind a 101, whatever that declares, once the visitor's side has ended."""
    asked = await asked_for_wholes(upgrade=True)
    asked.exchange.end([])
    await asked.says(answer(101, LENGTH_3), whole(b"more than three bytes"))
    assert (asked.log.failure, asked.log.body, asked.log.trailers) == (None, b"more than three bytes", [])
    assert asked.exchange.upgraded
    assert asked.gone


@virtual
async def test_what_comes_for_a_visitor_who_left_is_told_to_nobody() -> None:
    """Also by whoever still calls the exchange itself."""
    asked = await asked_for_wholes()
    await asked.says(answer(200, LENGTH_3))
    asked.exchange.abort()
    owner: StreamEvents = asked.exchange
    owner.on_last(memoryview(b"abc"))
    assert (asked.log.names, asked.exchange.complete) == (["head"], False)
