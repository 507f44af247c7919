"""What a refusal means: which are waited out, which are the end, and how an exit code tells them apart."""

from __future__ import annotations

import pytest

from relay.agent.config import Exit
from relay.agent.refusals import exit_for, wait_after
from relay.wire.hello import Refused

NEVER = None


@pytest.mark.parametrize(
    ("code", "retry_after", "at_first", "later"),
    [
        ("bad_key", None, NEVER, NEVER),
        ("name_taken", None, NEVER, NEVER),
        ("name_taken", 5.0, NEVER, 5.0),  # whoever starts it should learn at once that the name is not free
        ("too_many", 5.0, 5.0, 5.0),
        ("too_many", None, NEVER, NEVER),
        ("overloaded", 1.0, 1.0, 1.0),
        ("draining", 0.25, 0.25, 0.25),
        ("draining", None, 0.0, 0.0),
        ("registry_unavailable", None, 0.0, 0.0),
        ("registry_unavailable", 2.0, 2.0, 2.0),
        ("of a later time", 3.0, 3.0, 3.0),
        ("of a later time", None, NEVER, NEVER),
    ],
)
def test_what_is_tried_again(code: str, retry_after: float | None, at_first: float | None, later: float | None) -> None:
    """By the time that the relay gives, and whether the agent was admitted before."""
    refused = Refused(code, "No.", retry_after)
    assert (wait_after(refused, established=False), wait_after(refused, established=True)) == (at_first, later)


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        ("bad_key", Exit.KEY_REFUSED),
        ("too_many", Exit.KEY_REFUSED),
        ("name_taken", Exit.NAME_REFUSED),
        ("version", Exit.VERSION_REFUSED),
        ("revoked", Exit.KEY_REVOKED),
        ("tunnel_closed", Exit.TUNNEL_CLOSED),
        ("overloaded", Exit.UNEXPECTED),
        ("of a later time", Exit.UNEXPECTED),
    ],
)
def test_which_end_it_is(code: str, exit_code: Exit) -> None:
    """As docs/agent.md lists them."""
    assert exit_for(Refused(code, "No.")) == exit_code
