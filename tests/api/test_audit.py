"""The audit over HTTP: what it answers is an export that can be verified without the relay."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from relay.keys.chain import AuditRow, Head, Tampered, head_line, row_line, verify_export
from tests.api.world import world


async def test_an_export_is_put_together_from_pages(tmp_path: Path) -> None:
    """Rows page by page and the head, signed then, checked with the signers that the API names."""
    async with world(tmp_path) as at:
        operator = await at.operator()
        for number in range(4):
            await at.project(operator, f"p{number}")
        await at.registry.signers.add(at.signer.kid, at.signer.public, "a")
        head = Head.from_json((await at.ask(operator, "GET", "/audit/head")).json["head"])
        lines: list[str] = []
        after: int | None = 0
        while after is not None:
            page = (await at.ask(operator, "GET", f"/audit?after={after}&limit=3")).json
            assert len(page["items"]) <= 3
            lines += [row_line(AuditRow.from_json(one["row"]), one["hash"]) for one in page["items"]]
            after = page["next"]
        assert len(lines) == head.seq == 10
        signers = (await at.ask(operator, "GET", "/signers")).json["items"]
        keys = {one["kid"]: base64.urlsafe_b64decode(one["public_key"] + "=") for one in signers}
        assert keys == {at.signer.kid: at.signer.public}
        verified = verify_export([*lines, head_line(head)], keys)
        assert (verified.first, verified.last) == (1, head.seq)
        with pytest.raises(Tampered):
            verify_export([*lines[:-1], head_line(head)], keys)


async def test_the_end_of_the_audit(tmp_path: Path) -> None:
    """A page that ends with the last row says that nothing follows; beyond it there is nothing."""
    async with world(tmp_path) as at:
        operator = await at.operator()
        await at.operator()
        for query, count, following in (
            ("", 2, None),
            ("?limit=2", 2, None),
            ("?limit=1", 1, 1),
            ("?after=9", 0, None),
        ):
            page = (await at.ask(operator, "GET", f"/audit{query}")).json
            assert (len(page["items"]), page["next"]) == (count, following)
        for query in ("?after=-1", "?limit=501", "?after=99999999999999999", "?cursor=a"):
            assert (await at.ask(operator, "GET", f"/audit{query}")).status == 422
