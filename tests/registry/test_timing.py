"""How long transactions take is counted for each of them, and which of them failed for the database's sake."""

from __future__ import annotations

import pytest

from relay.registry.errors import NotFound, SchemaError, Unavailable
from relay.registry.timing import Timing


@pytest.mark.parametrize(("error", "counts"), [(Unavailable, 1), (SchemaError, 1), (NotFound, 0), (ValueError, 0)])
def test_only_the_databases_own_failures_are_errors(error: type[Exception], counts: int) -> None:
    """A refusal is an answer; each of them took its time."""
    timing = Timing()
    with pytest.raises(error), timing.one():
        raise error("no")
    with timing.one():
        pass
    assert timing.errors == counts
    assert sum(timing.seconds.counts) == 2
    assert timing.seconds.total >= 0
