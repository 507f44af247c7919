"""Keys that nodes sign with, over HTTP: all of them are told, and one is retired before the answer says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay.keys.tokens import SigningKey
from relay.registry import Unavailable
from tests.api.world import actor, b64, world


async def test_a_signer_is_retired(tmp_path: Path) -> None:
    """The node has learned it by then; a second time nothing happens. The list goes on naming it, since it signed."""
    async with world(tmp_path) as at:
        operator = await at.operator()
        stolen = SigningKey.generate()
        for key, node in ((stolen, "a"), (at.signer, "b")):
            await at.registry.signers.add(key.kid, key.public, node)
            at.clock.advance(1)
        before = (await at.ask(operator, "GET", "/signers")).json["items"]
        assert before[0] == {
            "kid": stolen.kid, "public_key": b64(stolen.public), "node": "a",
            "created_at": "2027-01-15T08:00:00.250000Z", "retired_at": None,
        }  # fmt: skip
        for retired in (True, False):
            answer = await at.ask(operator, "DELETE", f"/signers/{stolen.kid}")
            assert (answer.status, answer.json) == (200, {"kid": stolen.kid, "retired": retired})
            assert [one.kid for one in at.signers if one.retired_at is not None] == [stolen.kid]
            at.clock.advance(1)
        after = (await at.ask(operator, "GET", "/signers")).json["items"]
        assert after == [{**before[0], "retired_at": "2027-01-15T08:00:02.250000Z"}, before[1]]
        [row] = [row for row, _ in await at.registry.audit.read() if row.action == "signer.retire"]
        assert (row.actor, row.subject) == (operator.id, stolen.kid)


@pytest.mark.parametrize("kid", ["node_000000000000", "node_", "x", "node_00000000000%00", "node_000000000000%0A"])
async def test_one_that_does_not_exist(tmp_path: Path, kid: str) -> None:
    """404, and nothing has happened."""
    async with world(tmp_path) as at:
        operator = await at.operator()
        before = await at.registry.audit.head()
        answer = await at.ask(operator, "DELETE", f"/signers/{kid}")
        assert (answer.status, answer.json["code"]) == (404, "not_found")
        assert await at.registry.audit.head() == before


async def test_without_a_signing_key_nothing_is_minted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a node has none it says so, to be asked again; and it signs no head of the audit."""

    def none() -> SigningKey:
        raise Unavailable("The signing key of this node was retired.")

    async with world(tmp_path) as at:
        operator = await at.operator()
        await at.registry.projects.default(actor(operator))
        before = await at.registry.audit.head()
        monkeypatch.setattr(at, "key", none)
        for method, path, body in (("POST", "/keys", {"kind": "child"}), ("GET", "/audit/head", None)):
            answer = await at.ask(operator, method, path, body)
            assert (answer.status, answer.json["code"]) == (503, "unavailable")
            assert "retired" in answer.json["detail"]
        assert await at.registry.audit.head() == before
