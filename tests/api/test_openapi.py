"""The OpenAPI document and the code say the same: the same paths, and answers as described whatever is asked.

Requests are made from the document by schemathesis, always the same ones, against a real server.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import CHECKS
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode
from starlette.routing import Route

from relay.api import openapi
from relay.api.operations import OPERATIONS, PREFIX
from relay.keys.forms import Kind
from tests.api.world import Holder, World, actor, ask, without_registry, world
from tests.support.longer import CHAOS

DOCUMENT = openapi.document("1.2.3")
EXAMPLES = 150 if CHAOS else 5
# Asked without a parameter, a body or a key.
NOTHING_TO_GET_WRONG = ("relay.show", "openapi")
# What the document cannot say: that a cursor must come from the page before, which characters are printable, which
# plans the settings have.
NOT_SAID = ("cursor", "label", "plan")


async def test_the_document_is_served() -> None:
    """To everybody, as it is."""
    answer = await ask(without_registry().app, "GET", "/api/v1/openapi.json")
    assert (answer.status, answer.fields["content-type"]) == (200, "application/json")
    assert answer.json == DOCUMENT
    assert DOCUMENT["openapi"] == "3.1.0"


async def test_every_route_is_in_the_document_and_the_other_way_round() -> None:
    """The root, which is a page for people, is the only exception; methods are the same too."""
    app = without_registry().app
    routes = {route.path for route in app.routes if isinstance(route, Route)}
    assert routes - {"/"} == set(DOCUMENT["paths"])
    for path, described in DOCUMENT["paths"].items():
        options = await ask(app, "OPTIONS", re.sub(r"[{}]", "", path))
        served = set(options.fields["allow"].split(", ")) - {"HEAD", "OPTIONS"}
        assert served == {method.upper() for method in described}
    named = [one["operationId"] for described in DOCUMENT["paths"].values() for one in described.values()]
    assert sorted(named) == sorted([one.id for one in OPERATIONS] + ["openapi"])


def test_the_document_explains_itself() -> None:
    """Each operation has a sentence; each says whether it needs a key, as the code does."""
    for one in OPERATIONS:
        described = DOCUMENT["paths"][PREFIX + one.path][one.method.lower()]
        assert described["summary"].endswith(".")
        assert described["security"] == ([{"key": []}] if one.rights else [])
        assert ("401" in described["responses"]) is bool(one.rights)


# ---- against a server


class Served:
    """A relay's API on a port of its own, in a thread, and requests with its operator's key."""

    def __init__(self, folder: Path) -> None:
        self.up = threading.Event()
        self.url = ""
        self.operator: Holder
        self.known: dict[str, list[str]] = {}
        self._folder = folder
        self._server: uvicorn.Server
        self._world: World

    def headers(self) -> dict[str, str]:
        """The operator's proof."""
        return {"Authorization": f"Bearer {self._world.proof(self.operator)}"}

    def run(self) -> None:
        """Serves until told to end."""
        asyncio.run(self._run())

    def end(self) -> None:
        """Tells it."""
        self._server.should_exit = True

    async def _run(self) -> None:
        async with world(self._folder) as at:
            self._world = at
            await self._furnish(at)
            config = uvicorn.Config(at.app, port=0, log_config=None, lifespan="off", access_log=False)
            self._server = uvicorn.Server(config)
            task = asyncio.create_task(self._server.serve())
            while not self._server.started and not task.done():
                await asyncio.sleep(0.01)
            self.url = f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"
            self.up.set()
            await task

    async def _furnish(self, at: World) -> None:
        """Things that exist, so that not every path leads nowhere."""
        self.operator = await at.operator()
        project, master = await at.project(self.operator, "one")
        children = [await at.signed(Kind.CHILD, master, project.id) for _ in range(3)]
        for name in ("a", "b", "c"):
            await at.registry.subdomains.reserve(actor(self.operator), name, project.id)
            at.live(name, project.id)
        await at.registry.signers.add(at.signer.kid, at.signer.public, "a")
        self.known = {
            "project": ["one", project.id, "none"],
            "key": [master.id, *(one.id for one in children), "none"],
            "name": ["a", "b", "c", "none"],
            "signer": [at.signer.kid, "none"],
        }


@contextmanager
def serving(folder: Path) -> Iterator[Served]:
    """A server while the block runs."""
    served = Served(folder)
    thread = threading.Thread(target=served.run)
    thread.start()
    try:
        assert served.up.wait(10)
        yield served
    finally:
        served.end()
        thread.join(10)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for all operations; they leave it usable for each other."""
    with serving(tmp_path_factory.mktemp("served")) as running:
        yield running


def operations() -> dict[str, Any]:
    """Every operation of the document, as schemathesis reads it."""
    schema = schemathesis.openapi.from_dict(json.loads(json.dumps(DOCUMENT)))
    found = {}
    for result in schema.get_all_operations():
        assert isinstance(result, Ok)
        operation = result.ok()
        found[operation.definition.raw["operationId"]] = operation
    return found


OPERATIONS_TO_TRY = operations()
# Which methods a path has is tested above; what the others mean needs a memory of earlier requests.
EXCLUDED = ("unsupported_method", "allow_header_conformance", "use_after_free", "ensure_resource_availability",
            "object_level_authorization", "missing_required_header", "ignored_auth")  # fmt: skip


@pytest.mark.chaos
@pytest.mark.parametrize(
    ("name", "mode"),
    [
        (name, mode)
        for name in OPERATIONS_TO_TRY
        for mode in GenerationMode
        if mode is GenerationMode.POSITIVE or name not in NOTHING_TO_GET_WRONG
    ],
    ids=str,
)
def test_answers_are_as_described(served: Served, name: str, mode: GenerationMode) -> None:
    """Status, type and shape; what the document does not permit is refused, and nothing is a server error."""
    operation = OPERATIONS_TO_TRY[name]
    checks = [CHECKS.get_one(one) for one in CHECKS.get_all_names() if one not in EXCLUDED]

    @settings(max_examples=EXAMPLES, derandomize=True, database=None, deadline=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(case=operation.as_strategy(generation_mode=mode), data=st.data())
    def requests(case: Any, data: st.DataObject) -> None:
        for parameter in case.path_parameters or {}:
            if mode is GenerationMode.POSITIVE and data.draw(st.booleans()):
                case.path_parameters[parameter] = data.draw(st.sampled_from(served.known[parameter]))
        response = case.call(base_url=served.url, headers=served.headers())
        unsaid = response.status_code == 422 and response.json().get("reason") in NOT_SAID
        excluded = [CHECKS.get_one("positive_data_acceptance")] if unsaid else []
        case.validate_response(response, checks=checks, excluded_checks=excluded)

    requests()
