"""No secret shows where it does not belong: canaries are planted wherever one enters, and searched for everywhere else.

One relay, which logs all that it can, with an agent that has a private tunnel and mints its own key. What they and all
commands say, also when they fail, what anybody on the machine can see of them, what they answer to strangers, and what
they keep.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from relay.wire.hello import Hello, Refused
from tests.support.child import eventually
from tests.support.databases import Postgres, postgres, postgres_template, sqlite_template
from tests.support.keys import make_private, operator_of, request_token, text_of
from tests.support.longer import CHAOS
from tests.support.processes import DOMAIN, AgentProcess
from tests.support.rawhttp import RawClient, RawServer, Request, ok
from tests.system.canaries import (
    AUTHORIZATION,
    BASIC,
    COOKIE,
    DATABASE,
    PASSWORD,
    UPSTREAM,
    Canaries,
    Scene,
    Talkative,
    with_defects,
)
from tests.system.commands import Commands
from tests.system.handagent import HandAgent

__all__ = ["postgres", "postgres_template", "sqlite_template"]

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def echo(request: Request) -> bytes:
    """The local service: it has got the credential that was for it, and answers without it."""
    known = request.head.all("authorization") == [b"Bearer " + UPSTREAM.encode()]
    return ok(b"welcome" if known else b"who are you?")


def written(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    """Started once for all tests here; after them it is searched."""
    folder = tmp_path_factory.mktemp("canaries")
    canaries = Canaries()
    async with contextlib.AsyncExitStack() as stack:
        local = await stack.enter_async_context(RawServer(echo))
        env = {"RELAY_DEBUG": "1", "DEFECT": "inside", "RELAY_ACCESS_LOG": "on"}
        relay = Talkative(folder / "data", args=["--log-level", "debug"], env=env)
        with_defects(relay)
        await stack.enter_async_context(relay)
        canaries.plant("the operator key", operator_of(relay.data))
        canaries.plant("the signing key", (relay.data / "signing.key").read_text().strip())
        canaries.plant("a child key", relay.key_file.read_text().strip())
        for secret in (PASSWORD, UPSTREAM, AUTHORIZATION, COOKIE, DATABASE):
            canaries.plant(secret, secret)
        master = await relay.api.create_project("one")
        options = ["--private", "--basic-auth-file", written(folder / "people", f"ann:{PASSWORD}\n")]
        options += ["--upstream-header-file", written(folder / "fields", f"Authorization: Bearer {UPSTREAM}\n")]
        agent = AgentProcess(
            local.port,
            relay_port=relay.agents_port,
            key_file=None,
            subdomain="private",
            args=[*options, "--project", "one"],
            env={"MTK_MASTER": canaries.plant("a master key", master.key), **env},
        )
        with_defects(agent)
        await stack.enter_async_context(agent)
        await agent.established()
        environment = {"RELAY_URL": f"ws://127.0.0.1:{relay.agents_port}"}
        commands = await stack.enter_async_context(Commands(canaries, folder, environment))
        scene = Scene(canaries, relay, agent, commands, folder, master)
        yield scene
        await scene.search_everywhere()


# ---- commands


async def test_commands(scene: Scene) -> None:
    """Each shows a new key once, on standard output, and no other ever; an export of the audit has none."""
    run, folder = scene.commands.run, scene.folder
    assert (await run("login", stdin=scene.relay.api.key)).code == 0
    held = json.loads((folder / ".config/relay/login.json").read_text())
    assert held["key"] == scene.relay.api.key
    await run("projects", "create", "two", shows="a project's master key")
    minted = run("keys", "mint", "--project", "two", shows="a minted child key")
    visitor = run("keys", "mint", "--visitor", "private", "--project", "one", "--key-out", str(folder / "visitor.key"))
    rotated = run("keys", "rotate", scene.master.id, "--json", shows="a rotated master key")
    assert [one.code for one in await asyncio.gather(minted, visitor, rotated)] == [0, 0, 0]
    scene.canaries.plant("a minted visitor key", (folder / "visitor.key").read_text().strip())
    child = await scene.master.mint(label="to be revoked")
    scene.canaries.plant("a revoked child key", child)
    (folder / "found").write_text(f"key = {child}\n{scene.master.key}\n")
    rest = await asyncio.gather(
        run("keys", "list", "--json"),
        run("whoami", RELAY_KEY=child),
        run("keys", "scan", str(folder / "found"), "--json"),
        run("audit", "export", "--out", str(folder / "export")),
        run("audit", "list", "--json"),
        run("tunnels", "list"),
    )
    assert [one.code for one in rest] == [0, 0, 1, 0, 0, 0]
    scene.canaries.heard("the exported audit", (folder / "export").read_bytes())
    assert (await run("keys", "revoke", child)).code == 0  # the one command that takes a whole key
    assert (await run("logout")).code == 0
    scene.search()


async def test_commands_that_fail(scene: Scene) -> None:
    """No key in their one sentence, nor in a traceback."""
    run, key = scene.commands.run, scene.master.key
    typed = key[:-1] + ("0" if key[-1] != "0" else "1")
    nowhere = "ws://127.0.0.1:9"
    results = await asyncio.gather(
        run("projects", "list", RELAY_KEY=typed),
        run("projects", "list", "--key-file", written(scene.folder / "typed", typed), RELAY_DEBUG="1"),
        run("login", stdin=f"{key} and more"),
        run("keys", "show", key),
        run("keys", "list", RELAY_MASTER_KEY=key, RELAY_URL=nowhere, RELAY_DEBUG="1"),
        run("projects", "list", RELAY_MASTER_KEY=key),
        run("keys", "mint", "--project", "nobody", "--subdomain", "a b", RELAY_MASTER_KEY=key),
        run("http", "1", "--key-file", str(scene.folder / "people")),
        run("http", "1", "--basic-auth-file", written(scene.folder / "wrong", f"ann {PASSWORD}\n"), RELAY_KEY=key),
        run("http", "1", "--upstream-header-file", written(scene.folder / "bad", f"{UPSTREAM}\n"), RELAY_KEY=key),
        run("http", "1", RELAY_KEY=scene.relay.key_file.read_text().strip()[:-1] + "?"),
    )
    assert [one.code for one in results] == [2, 2, 2, 2, 8, 3, 2, 2, 2, 2, 2], [one.err for one in results]
    assert all(one.err for one in results)
    scene.search()


async def test_commands_with_a_defect(scene: Scene) -> None:
    """One sentence, or with RELAY_DEBUG a traceback; what objects say of themselves is no secret."""
    options = ["--basic-auth-file", str(scene.folder / "people"), "--private"]
    options += ["--upstream-header-file", str(scene.folder / "fields")]
    keys = {"MTK_MASTER": scene.master.key, "RELAY_DATABASE_URL": f"postgresql://relay:{DATABASE}@127.0.0.1:9/relay"}
    for debug in ("", "1"):
        each = (("http", "1", *options), ("serve",), ("keys", "list"))
        for words in each:
            env = {"RELAY_DEBUG": debug, "DEFECT": "start", **keys}
            one = await scene.commands.run(*words, module="tests.system.defects", **env)
            assert one.code == 1
            assert "forced: (" in one.err
            assert ("Traceback" in one.err) is bool(debug)
    scene.search()


# ---- the database's password


@pytest.mark.chaos
@pytest.mark.skipif(not CHAOS, reason="the short version is the test below")
async def test_the_password_of_a_database_in_use(scene: Scene, postgres: Postgres, postgres_template: str) -> None:
    """A relay that uses it, also when the database goes away, and commands."""
    with postgres.database(postgres_template) as url:
        password = urlsplit(url).password
        with_password = url if password else url.replace("postgres@", f"postgres:{DATABASE}@")
        assert with_password != url or password
        scene.canaries.plant("the database's password", password or DATABASE)
        env = {"RELAY_DATABASE_URL": with_password, "RELAY_DEBUG": "1"}
        async with Talkative(args=["--log-level", "debug"], env=env) as relay:
            postgres.away(url)
            try:
                status, answer = await relay.api.ask("POST", "/keys", {"kind": "child"})
                assert status == 503
                scene.canaries.heard("an answer without a database", json.dumps(answer))
                await eventually(lambda: "the registry is away" in relay.stderr)
            finally:
                postgres.back(url)
            scene.hear("a relay with PostgreSQL", relay)
        in_file = ("--database-url-file", written(scene.folder / "url", with_password))
        run, data = scene.commands.run, str(scene.folder / "elsewhere")
        assert (await run("db", "current", *in_file, "--data", data)).code == 0
        assert (await run("db", "backup", data, *in_file)).code != 0
    scene.search()


async def test_the_password_of_a_database_that_is_of_no_use(scene: Scene) -> None:
    """Nobody listens there, or it is no address of a database: in the environment, in a file, in the settings' file."""
    run, data = scene.commands.run, str(scene.folder / "elsewhere")
    nobody, wrong = f"postgresql://relay:{DATABASE}@127.0.0.1:9/relay", f"mysql://relay:{DATABASE}@127.0.0.1/relay"
    config = written(scene.folder / "config.toml", f'database_url = "{wrong}"\n')
    broken = written(scene.folder / "broken.toml", f'database_url = "{nobody}\n')
    listen = ("--public", "127.0.0.1:0", "--agents", "127.0.0.1:0", "--data", data)
    results = await asyncio.gather(
        run("db", "current", RELAY_DATABASE_URL=nobody, RELAY_DEBUG="1"),
        run("db", "upgrade", RELAY_DATABASE_URL=wrong),
        run("serve", *listen, "--log-level", "debug", RELAY_DATABASE_URL=nobody, RELAY_DEBUG="1"),
        run("serve", *listen, RELAY_DATABASE_URL=nobody.replace("5", "\x07")),
        run("serve", *listen, "--config", config),
        run("serve", *listen, "--config", broken),
        run("serve", *listen, "--database-url-file", written(scene.folder / "two", f"{nobody}\n{nobody}\n")),
    )
    assert all(one.code and one.err for one in results), results
    scene.search()


# ---- the relay's answers, and its log


def heads(scene: Scene, visitor: str) -> Iterator[tuple[str, bytes, int]]:
    """(head, body, status) of requests to the public listener with secrets in them."""
    cookie = f"Cookie: session={COOKIE}\r\nAuthorization: Bearer {AUTHORIZATION}"
    private, nobody = f"Host: private.{DOMAIN}", f"Host: nobody.{DOMAIN}"
    yield f"GET /?key={scene.master.key} HTTP/1.1\r\n{nobody}\r\n{cookie}", b"", 404
    yield f"GET / HTTP/1.1\r\n{nobody}\r\n{cookie}\r\nAccept: text/html", b"", 404
    rpc = json.dumps({"jsonrpc": "2.0", "id": 7, "method": "initialize", "params": {"token": AUTHORIZATION}}).encode()
    yield f"POST / HTTP/1.1\r\n{private}\r\n{cookie}\r\nContent-Type: application/json", rpc, 401
    for html in ("", "\r\nAccept: text/html"):
        yield f"GET / HTTP/1.1\r\n{private}\r\n{cookie}{html}", b"", 401
        for key in (scene.master.key, visitor[:-1], f"{visitor}x", scene.relay.api.key):
            yield f"GET / HTTP/1.1\r\n{private}\r\nAuthorization: Bearer {key}{html}", b"", 401
    yield f"GET / HTTP/1.1\r\n{private}\r\nAuthorization: Bearer {visitor}", b"", 200
    yield f"GET / HTTP/1.1\r\n{private}\r\n{BASIC}\r\nCookie: session={COOKIE}", b"", 200
    yield f"GET / HTTP/1.1\r\n{private}\r\n{BASIC}\r\n{cookie}", b"", 400
    yield f"GET / HTTP/1.1\r\n{private}\r\n{private}\r\n{cookie}", b"", 400
    yield f"GET / HTTP/1.1\r\nHost: a_b?\r\n{cookie}", b"", 400
    yield f"GET / HTTP/1.1\r\n{private}\r\n{cookie}\r\nX: " + AUTHORIZATION * 1500, b"", 431
    yield f"GET / HTTP/2.0\r\n{private}\r\n{cookie}", b"", 400
    yield f"BREW / HTTP/1.1\r\n{private}\r\n{cookie}", b"", 501
    yield f"GET / HTTP/1.1\r\n{private}\r\n{cookie}\r\n{AUTHORIZATION}", b"", 400


async def test_answers_to_visitors(scene: Scene) -> None:
    """The relay's own answers, of each kind and to each kind of caller, and what it and the agent log of them."""
    visitor = scene.canaries.plant("a visitor key", await scene.master.mint("visitor", tunnel="private"))
    for head, body, status in heads(scene, visitor):
        assert await scene.ask(scene.relay.public_port, head, body) == status, head
    scene.search()


async def test_answers_at_the_agents_listener(scene: Scene) -> None:
    """Keys in places where they do not belong, and requests that make no sense."""
    port, good = scene.relay.agents_port, request_token(scene.relay.api.key)
    child = scene.relay.key_file.read_text().strip()
    for key in (scene.master.key, scene.relay.api.key, child, f"{child}x"):
        told = [
            await scene.ask(port, f"{line} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {bearer}")
            for line, bearer in (
                ("GET /api/v1/whoami", f"Basic {key}"),
                ("GET /api/v1/projects", f"Bearer {key}"),
                (f"GET /api/v1/keys/{key}", f"Bearer {good}"),
                (f"GET /api/v1/keys?project={key}", f"Bearer {good}"),
                (f"GET /api/v1/keys?{key}=1", f"Bearer {good}"),
                (f"PUT /api/v1/subdomains/{key}", f"Bearer {good}"),
                (f"GET /api/v1/{key}?key={key}", f"Bearer {key}"),
                (f"BREW /{key}", f"Bearer {key}"),
                (f"GET /agent/v1?{key}", f"Bearer {key}"),
            )
        ]
        assert all(400 <= status < 500 for status in told), told
        for path, body in (
            ("projects", {"name": key, "master": {"public_key": key}}),
            ("keys", {"kind": "child", "scope": {"names": [key]}, key: key}),
            ("keys", [key]),
            (f"keys/{scene.master.id}/rotate", {"public_key": key}),
        ):
            head = f"POST /api/v1/{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {good}"
            assert await scene.ask(port, head, json.dumps(body).encode()) == 422
        async with HandAgent(port, Hello("i", 0, 1, key, ("private",))) as agent:
            if isinstance(agent.answer, Refused):
                scene.canaries.heard("the refusal of a hello", agent.answer.message)
    scene.search()


@pytest.mark.interpreted
async def test_defects(scene: Scene) -> None:
    """What relay and agent log of a defect where secrets are at hand, and answer, is no secret either; they go on."""
    relay, public = scene.relay, scene.relay.public_port
    key = relay.key_file.read_text().strip()
    async with HandAgent(relay.agents_port, Hello("j", 0, 1, key, ("defect",))) as broken:
        assert isinstance(broken.answer, Refused)
        assert broken.answer.code == "overloaded"
    head = f"GET /api/v1/whoami HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer defect-{AUTHORIZATION}"
    assert await scene.ask(relay.agents_port, head) == 500
    secrets = f"{BASIC}\r\nCookie: {COOKIE}\r\nConnection: close\r\n\r\n"
    for where in ("relay", "agent"):
        async with await RawClient.connect(public) as client:
            client.send(f"GET /defect-{where} HTTP/1.1\r\nHost: private.{DOMAIN}\r\n{secrets}".encode())
            scene.canaries.heard("what a visitor gets", (await client.rest())[0])
    await eventually(lambda: [one.stderr.count("forced: (") for one in (relay, scene.agent)] == [2, 1])
    assert await scene.ask(public, f"GET / HTTP/1.1\r\nHost: private.{DOMAIN}\r\n{BASIC}") == 200
    scene.search()


# ---- the search itself


async def test_the_search_finds_what_is_there() -> None:
    """Each secret, whole or in halves, plain or encoded, and keys that nobody planted."""
    canaries, (private, _) = Canaries(), make_private()
    key = text_of(f"mtk_master_{'a' * 12}", private)
    canaries.plant("master", key)
    canaries.plant("password", PASSWORD)
    encoded = base64.b64encode(f"user:{PASSWORD}".encode()).decode()
    for said in (key, f"x{key[30:]}", key[:50], repr(key), PASSWORD, encoded, PASSWORD.encode().hex()):
        canaries.said.clear()
        canaries.heard("there", f"It is {said}, is it not?")
        assert canaries.found(), said
    for said in ("mtk_master_aaaaaaaaaaaa", "ann:$argon2id$v=19$m=1,t=1,p=1$", "canary"):
        canaries.said.clear()
        canaries.heard("there", f"It is {said}, is it not?")
        assert canaries.found() == []
    canaries.heard("there", text_of("mtk_operator_bbbbbbbbbbbb", make_private()[0]))
    assert canaries.found() == ["there: a key"]
