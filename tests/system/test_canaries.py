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
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
import pytest_asyncio

from relay.wire.hello import Hello, Refused
from tests.support.child import Child, eventually
from tests.support.databases import Postgres, postgres, postgres_template, sqlite_template
from tests.support.keys import Api, operator_of, request_token
from tests.support.processes import DOMAIN, AgentProcess, RelayProcess
from tests.support.rawhttp import RawServer, Request, exchange, ok
from tests.system.canaries import Canaries, Commands
from tests.system.handagent import HandAgent

__all__ = ["postgres", "postgres_template", "sqlite_template"]

pytestmark = pytest.mark.asyncio(loop_scope="module")

PASSWORD, UPSTREAM = "canary-sesame-4711", "canary-upstream-c0ffee"
AUTHORIZATION, COOKIE = "canary-authorization-8f3a", "canary-cookie-77b1"
DATABASE = "canary-database-p4ss"
SECRET_FILES = {"operator.key", "signing.key", "child.key"}
"""What is meant to hold a secret, in the relay's directory; the last is the tests' own."""


class Talkative(RelayProcess):
    """A relay that logs all that it can, every line of which is kept."""

    stderr_lines = 1_000_000


@dataclass
class Scene:
    """All of it."""

    canaries: Canaries
    relay: RelayProcess
    agent: AgentProcess
    commands: Commands
    folder: Path
    master: Api

    async def ask(self, port: int, head: str, body: bytes = b"") -> int:
        """The status of a request whose answer is heard."""
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        response = await exchange(port, f"{head}\r\n{length}Connection: close\r\n\r\n".encode() + body, 15)
        self.canaries.heard(f"the answer to {head[:30]!r}", response.raw)
        return response.status

    def hear(self, name: str, process: Child) -> None:
        """What a process said, how it is called, and what it gives to those that it started."""
        told = [process.stderr, *process.lines, *map(json.dumps, process.events)]
        self.canaries.heard(f"what {name} said", "\n".join(told))
        itself = psutil.Process(process.pid)
        for one in [itself, *itself.children(recursive=True)]:
            self.canaries.heard(f"arguments of {name} and those it started", "\0".join([*one.cmdline(), one.name()]))
            if one != itself:
                self.canaries.heard(f"environment of what {name} started", json.dumps(one.environ()))

    async def search(self) -> None:
        """Looks everywhere, and finds nothing."""
        relay, canaries = self.relay, self.canaries
        for path in ("/metrics", "/livez", "/readyz", f"/ask?domain={self.master.key}"):
            await self.ask(relay.internal_port, f"GET {path} HTTP/1.1\r\nHost: x")
        after = 0
        while page := (await relay.api.do("GET", f"/audit?after={after}"))["items"]:
            canaries.heard("the audit", json.dumps(page))
            after = page[-1]["row"]["seq"]
        self.hear("the relay", relay)
        self.hear("the agent", self.agent)
        for file in relay.data.iterdir():
            if file.name not in SECRET_FILES:
                canaries.heard(f"the file {file.name}", file.read_bytes())
        assert canaries.found() == []
        canaries.said.clear()


async def echo(request: Request) -> bytes:
    """The local service: it has got the credential that was for it, and answers without it."""
    fields = request.headers if False else request.head.all("authorization")
    return ok(b"welcome" if fields == [b"Bearer " + UPSTREAM.encode()] else b"who are you?")


def written(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    """Started once for all tests here."""
    folder = tmp_path_factory.mktemp("canaries")
    canaries = Canaries()
    async with contextlib.AsyncExitStack() as stack:
        local = await stack.enter_async_context(RawServer(echo))
        relay = await stack.enter_async_context(Talkative(folder / "data", args=["--log-level", "debug"]))
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
            env={"MTK_MASTER": canaries.plant("a master key", master.key), "RELAY_DEBUG": "1"},
        )
        await stack.enter_async_context(agent)
        await agent.established()
        environment = {"RELAY_URL": f"ws://127.0.0.1:{relay.agents_port}"}
        yield Scene(canaries, relay, agent, Commands(canaries, folder, environment), folder, master)


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
    await scene.search()


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
    assert [one.code for one in results] == [2, 2, 2, 2, 8, 3, 4, 2, 2, 2, 2], [one.err for one in results]
    assert all(one.err for one in results)
    await scene.search()


FORCED = """
import sys
def fail(*things):
    raise RuntimeError(f"forced: {things!r}")
import relay.agent, relay.cli.client, relay.node
if sys.argv[1] == "serve":
    relay.node.run = fail
elif sys.argv[1] == "http":
    relay.agent.run = fail
else:
    relay.cli.client.Client._exchange = fail
import relay.cli
relay.cli.main(sys.argv[1:])
"""
"""A program that is `relay` with a defect: the error says all that the failing function was given."""


async def test_tracebacks_of_commands(scene: Scene) -> None:
    """What comes of a defect: one sentence, or with RELAY_DEBUG a traceback; what objects say of themselves is no secret."""
    options = ["--basic-auth-file", str(scene.folder / "people"), "--private"]
    options += ["--upstream-header-file", str(scene.folder / "fields")]
    for debug in ("", "1"):
        env = {"RELAY_DEBUG": debug}
        agent = await scene.commands.run("http", "1", *options, program=FORCED, MTK_MASTER=scene.master.key, **env)
        url = f"postgresql://relay:{DATABASE}@127.0.0.1:9/relay"
        serve = await scene.commands.run("serve", program=FORCED, RELAY_DATABASE_URL=url, **env)
        for one in (agent, serve):
            assert one.code == 1
            assert "forced: (" in one.err
            assert ("Traceback" in one.err) is bool(debug)
    await scene.search()
