"""Any well-formed exchange is the same through the tunnel as without it, but for the list in the page of promises."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, assume, given, settings

from tests.system import differences, edges
from tests.system.differences import Way, observed, predict, rows_of
from tests.system.edges import remembered
from tests.system.exchanges import Drawn, exchanges
from tests.system.twoways import PARSERS, House

pytestmark = pytest.mark.xdist_group("house")


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.chaos
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(drawn=exchanges(PARSERS))
async def test_both_ends_see_what_they_see_without_the_tunnel(house: House, drawn: Drawn) -> None:
    """What each end saw of an exchange with the local service itself predicts by the list what they see through us."""
    assume(house.edge == "protocol" or not beyond_asgi(drawn))
    host = house.host(drawn.name)
    direct, tunnelled = await house.both(drawn.request(host), drawn.script, drawn.cuts)
    predicted = predict(direct, Way(host, house.local_authority, drawn.line))
    assert remembered(observed(tunnelled), house.edge) == remembered(predicted, house.edge)


def beyond_asgi(drawn: Drawn) -> bool:
    """What one or the other ASGI server does not take, takes for itself, or does not send."""
    status = int(drawn.script.head.split(b" ")[1])
    h2c = any(field.lower() == b"upgrade: h2c" for field in drawn.fields)
    return status > 599 or h2c or b" ; q=" in drawn.body


def test_the_page_of_promises_has_these_lists() -> None:
    """The rows of the page are the differences that the comparison knows, in the same words and order."""
    assert rows_of(differences.TITLE) == [difference.row for difference in differences.DIFFERENCES]
    assert rows_of(edges.TITLE) == [loss.row for loss in edges.LOSSES.values()]
