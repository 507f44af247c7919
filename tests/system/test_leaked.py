"""A copy of the database and the log gives nobody a way in: every value found in them is tried at every door.

The relay has had some life before: projects, keys of all kinds, agents, visitors, refusals, and keys in wrong places.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from relay.wire.access import AccessRules
from relay.wire.hello import Hello, Refused, Welcome
from tests.support.databases import Postgres, postgres, postgres_template, sqlite_template
from tests.support.keys import Api, make_private, request_token, text_of
from tests.support.longer import CHAOS
from tests.support.processes import DOMAIN, RelayProcess
from tests.support.rawhttp import exchange
from tests.system.canaries import Talkative
from tests.system.forger import child, forged_keys, id_of, parts_of, signing_secret
from tests.system.handagent import HandAgent
from tests.system.knocking import TRUSTING, Knocked, Knocker, hello_of, request_of
from tests.system.leaks import MOST_WORD, public_of, secrets_of, texts_of, values_of, words_of

__all__ = ["postgres", "postgres_template", "sqlite_template"]

TABLES = ("ledger", "projects", "keys", "subdomains", "audit", "signers", "usage")
LOUD = ["--log-level", "debug", *TRUSTING]
PRIVATE = "private"
LEAST_WORD = 4 if CHAOS else 12


@dataclass(frozen=True, slots=True)
class Life:
    """What there is to be stolen."""

    relay: RelayProcess
    master: Api
    child: str
    visitor: str

    @property
    def living(self) -> list[str]:
        """The key texts with which one gets in."""
        return [self.relay.api.key, self.master.key, self.child, self.visitor]


def visit(bearer: str, path: str = "/") -> bytes:
    """A request to the private tunnel."""
    return f"GET {path} HTTP/1.1\r\nHost: {PRIVATE}.{DOMAIN}\r\nAuthorization: Bearer {bearer}\r\n\r\n".encode()


async def live(relay: RelayProcess, stack: contextlib.AsyncExitStack) -> Life:
    """Some life, and everything done wrong with keys that people do wrong."""
    one, two = await relay.api.create_project("one"), await relay.api.create_project("two")
    key, other, gone, revoked = [await api.mint(label="a label") for api in (one, two, one, one)]
    visitor = await one.mint("visitor", tunnel=PRIVATE)
    second = await relay.api.mint_master("one")
    private, public = make_private()
    rotated = await one.do("POST", f"/keys/{one.id}/rotate", {"public_key": public})
    one = Api(relay.agents_port, text_of(rotated["key"]["id"], private))
    port, rules = relay.agents_port, {PRIVATE: AccessRules(True)}
    agent = await stack.enter_async_context(
        HandAgent(port, Hello("i", 0, 1, key, (PRIVATE,), access=rules), label="in")
    )
    assert isinstance(agent.answer, Welcome)
    await stack.enter_async_context(HandAgent(port, Hello("j", 0, 1, gone, ("gone",))))
    for dead in (id_of(gone), id_of(revoked), second.id):
        await relay.api.do("POST", f"/keys/{dead}/revoke", {"cascade": True})
    wrong = [*forged_keys(key, signing_secret(relay.data)).values(), revoked, visitor, one.key, relay.api.key, other]
    for number, shown in enumerate(wrong):
        async with HandAgent(port, Hello("k", 0, 1, shown, (PRIVATE,))).named(f"198.51.100.{number}") as refused:
            assert isinstance(refused.answer, Refused)
    await misplace(relay, [key, visitor, one.key, relay.api.key, revoked])
    return Life(relay, one, key, visitor)


async def misplace(relay: RelayProcess, keys: Sequence[str]) -> None:
    """Keys where they do not belong: none of these may remember them."""
    for key in keys:
        good = request_token(relay.api.key)
        for target, bearer, host, port in (
            ("/api/v1/whoami", key, "127.0.0.1", relay.agents_port),
            (f"/api/v1/keys/{key}", good, "127.0.0.1", relay.agents_port),
            (f"/api/v1/keys?project={key}", good, "127.0.0.1", relay.agents_port),
            (f"/{key}?key={key}", key, "127.0.0.1", relay.agents_port),
            (f"/?key={key}", key, f"nobody.{DOMAIN}", relay.public_port),
            (f"/?key={key}", f"x{key}", f"{PRIVATE}.{DOMAIN}", relay.public_port),
        ):
            head = (
                f"GET {target} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {bearer}\r\nConnection: close\r\n\r\n"
            )
            await exchange(port, head.encode())
        for path, body in (
            ("/projects", {"name": key, "master": {"public_key": key}}),
            ("/keys", {"kind": "child", "scope": {"names": [key]}}),
            ("/keys", {"kind": "master", "project": "one", "public_key": key}),
        ):
            status, _ = await relay.api.ask("POST", path, body)
            assert status == 422


@dataclass(frozen=True, slots=True)
class Loot:
    """What was copied."""

    values: Sequence[object]
    """Of the database, column by column."""
    raw: bytes
    """Files as they are, and the log."""

    def words(self) -> list[str]:
        """Every text that somebody could think to be a credential."""
        found = words_of(self.raw) | texts_of(self.values)
        long = [word for word in found if LEAST_WORD <= len(word) <= MOST_WORD]
        return sorted(word for word in long if word.isprintable() and word.isascii())

    def ids(self, *kinds: str) -> list[str]:
        """Public ids of keys of these kinds."""
        return sorted(text for text in texts_of(self.values) if re.match(rf"mtk_({'|'.join(kinds)})_", text))


async def steal(life: Life, values: list[object], folder: Path) -> Loot:
    """Copies while the relay runs."""
    relay = life.relay
    folder.mkdir()
    for file in relay.data.iterdir():
        # What no copy has is left out, and what is no file.
        if file.is_file() and file.name not in {"operator.key", "signing.key", relay.key_file.name}:
            shutil.copyfile(file, folder / file.name)
    raw = b"\n".join(file.read_bytes() for file in sorted(folder.iterdir()))
    log = [relay.stderr, *relay.lines, json.dumps(relay.events)]
    return Loot(values, raw + "\n".join(log).encode())


async def openings(loot: Loot, life: Life, knocker: Knocker) -> list[str]:
    """What in the loot opened something: as an agent, at the API, at the private tunnel."""
    words, port = loot.words(), life.relay.agents_port
    secrets = secrets_of(loot.values, words)
    # What looks like a secret and is no more than that is shown to the relay; any other would have a public key here.
    blobs = [bytes.fromhex(word) for word in words if re.fullmatch(r"[0-9a-f]{64}", word)]
    whole = secrets_of([*loot.values, *blobs], [word[:43] for word in words if 43 <= len(word) <= 49])
    header, claims = parts_of(life.child)  # no secret: the registry has all that they say
    tried = {
        "a child key": await told(knocker.hellos, port, [hello_of(word, name="loot") for word in words]),
        "a key at the API": await told(knocker.requests, port, [request_of(word) for word in words]),
        "a visitor key": await told(knocker.requests, life.relay.public_port, [visit(word) for word in words]),
        "the secret of a key": await told(knocker.requests, port, [request_of(one) for one in tokens(loot, whole)]),
        "the signing key": await told(
            knocker.hellos, port, [hello_of(child(header, claims, secret), name="loot") for secret in whole]
        ),
    }
    no = {"bad_key", "revoked", "expired", "401 unauthorized", "403 forbidden"}
    opened = [what for what, answers in tried.items() if not answers.keys() <= no]
    publics = {each for each in loot.values if isinstance(each, bytes)}
    return opened + ["a secret behind a public key"] * any(public_of(secret) in publics for secret in secrets)


async def told(knock: Callable[..., Awaitable[Knocked]], port: int, raw: Sequence[bytes]) -> Counter[str]:
    """How all of these were answered."""
    return (await knock(port, raw, len(raw), 10_000)).answers


def tokens(loot: Loot, secrets: Iterable[bytes]) -> list[str]:
    """Requests signed with these secrets for each operator and master key that there is."""
    private = [Ed25519PrivateKey.from_private_bytes(secret) for secret in secrets]
    keys = [text_of(key_id, each) for each in private for key_id in loot.ids("operator", "master")]
    return [request_token(key) for key in keys]


async def rob(relay: RelayProcess, rows: Callable[[], list[object]], folder: Path) -> None:
    """The whole test, on either database."""
    async with contextlib.AsyncExitStack() as stack:
        life, knocker = await live(relay, stack), await stack.enter_async_context(Knocker())
        async with asyncio.timeout(10):
            while not {"request.refused", "tunnel.close", "key.rotate"} <= set(texts_of(rows())):
                await asyncio.sleep(0.05)
        loot = await steal(life, rows(), folder)
        assert len(loot.words()) > 300
        assert len(loot.ids("master")) >= 4
        assert await openings(loot, life, knocker) == []
        # What a thief would find if one of the keys were there, or the signing key.
        known = [each for each in loot.values if isinstance(each, bytes) or each in loot.ids("operator", "master")]
        for text, doors in (
            (life.child, {"a child key", "a key at the API"}),
            (life.visitor, {"a visitor key"}),
            (life.master.key, {"the secret of a key", "a secret behind a public key"}),
            (relay.api.key, {"the secret of a key", "a secret behind a public key"}),
            (signing_secret(relay.data).hex(), {"the signing key", "a secret behind a public key"}),
        ):
            planted = Loot(known, f'log {{"k": "{text}"}}'.encode())
            assert set(await openings(planted, life, knocker)) == doors


async def test_nothing_in_a_sqlite_file_and_the_log_opens_anything(tmp_path: Path) -> None:
    """Copied with its write-ahead log while the relay runs, and logging all that it can."""
    async with Talkative(tmp_path / "data", args=LOUD) as relay:
        await rob(relay, lambda: list(values_of(relay.data / "relay.db")), tmp_path / "copy")


@pytest.mark.chaos
@pytest.mark.skipif(not CHAOS, reason="the short version is the test above")
async def test_nothing_in_a_dump_of_postgresql_opens_anything(
    postgres: Postgres, postgres_template: str, tmp_path: Path
) -> None:
    """Every column of every row."""
    with postgres.database(postgres_template) as url:
        name = urlsplit(url).path[1:]

        def rows() -> list[object]:
            tables = [postgres.run(f"SELECT * FROM {table}", database=name) for table in TABLES]
            return [value for table in tables for row in table for value in row.values()]

        env = {"RELAY_DATABASE_URL": url}
        async with Talkative(tmp_path / "data", args=LOUD, env=env) as relay:
            await rob(relay, rows, tmp_path / "copy")
