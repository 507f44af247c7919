"""What several rooms of system tests share: a house for each edge, started once. No test lives here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import cast

import pytest
import pytest_asyncio

from tests.support.processes import Edge
from tests.system.edges import EDGES
from tests.system.twoways import House, started


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=EDGES)
async def house(request: pytest.FixtureRequest) -> AsyncIterator[House]:
    """For each edge one house; its tests run one after the other (xdist group `house`), on the session's loop."""
    async with started(cast(Edge, request.param)) as house:
        yield house
