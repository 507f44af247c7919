"""The table of stream states has the properties that the protocol relies on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.wire.states import TRANSITIONS, Signal, State

MIRROR_STATE = {
    State.OPEN: State.OPEN,
    State.LOCAL_ENDED: State.REMOTE_ENDED,
    State.REMOTE_ENDED: State.LOCAL_ENDED,
    State.CLOSED: State.CLOSED,
}
MIRROR_SIGNAL = {
    Signal.SEND_DATA: Signal.RECV_DATA,
    Signal.SEND_END: Signal.RECV_END,
    Signal.SEND_RESET: Signal.RECV_RESET,
    Signal.RECV_DATA: Signal.SEND_DATA,
    Signal.RECV_END: Signal.SEND_END,
    Signal.RECV_RESET: Signal.SEND_RESET,
}


def test_the_table_is_symmetric() -> None:
    """What one side may send is what the other may receive, in every state."""
    mirrored = {
        MIRROR_STATE[state]: {MIRROR_SIGNAL[signal]: MIRROR_STATE[after] for signal, after in steps.items()}
        for state, steps in TRANSITIONS.items()
    }
    assert mirrored == TRANSITIONS
    assert set(TRANSITIONS) == set(State)


@pytest.mark.parametrize("state", [state for state in State if state is not State.CLOSED])
def test_a_reset_closes_from_anywhere(state: State) -> None:
    """Either side may cut a stream that is not closed."""
    assert TRANSITIONS[state][Signal.SEND_RESET] is TRANSITIONS[state][Signal.RECV_RESET] is State.CLOSED


@given(st.lists(st.sampled_from(Signal)))
def test_nothing_is_sent_behind_an_end(signals: list[Signal]) -> None:
    """On any way through the table no direction has data behind its end, and none has anything behind a reset."""
    state = State.OPEN
    ended: set[str] = set()
    for signal in signals:
        after = TRANSITIONS[state].get(signal)
        direction, what = signal.name.split("_")
        legal = "RESET" not in ended and len(ended) < 2 and not (what != "RESET" and direction in ended)
        assert (after is not None) == legal
        if after is None:
            continue
        state = after
        if what != "DATA":
            ended.add("RESET" if what == "RESET" else direction)
    assert (state is State.CLOSED) == ("RESET" in ended or len(ended) == 2)
