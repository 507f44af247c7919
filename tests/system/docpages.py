"""The commands that pages show in blocks: found, given real ids and names for the examples, and run.

They run in this process, with pipes, redirections and `$(…)` made by hand, since a hundred interpreters would take a
minute; a real shell is the tutorial's. `relay serve`, `http` and `start` run for long; they and `relay doctor` are left
to other tests.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from relay.cli import main
from tests.support.keys import Api, operator_of
from tests.support.processes import RelayProcess
from tests.system.forger import id_of

OURS = {"relay", "mytunnel"}
TOOLS = {"cp", "mv", "rm", "git", "curl", "export"}
# Of other programs: those of Docker are run by tests/compose, those of clients are parsed by tests/house.
LEFT_OUT = {"pip", "docker", "claude", "printf"}
SOURCE = {("git", "clone"), ("git", "pull"), ("git", "checkout")}
LONG = {"serve", "http", "start", "doctor"}
# A block with one of these handles the relay's own files, or its schema: the page says to stop the relay before.
WHILE_STOPPED = ("mv ", "rm ", "relay db downgrade ")
CODES: dict[tuple[str, ...], int] = {("keys", "scan"): 1}  # it finds living keys: those of the other commands
EXAMPLE = re.compile(r"mtk_(operator|master|child|visitor)_(?:[0-9A-Za-z]{12}|…)(?![0-9A-Za-z_])")
DIRECTORY, BACKUPS = "/var/lib/relay", "/var/backups"


# ---- reading the pages


@dataclass(frozen=True, slots=True)
class Block:
    """Commands that stand together: under which heading, the how manyeth there, and their lines."""

    heading: str
    number: int
    lines: tuple[str, ...]


def words_of(line: str) -> list[str]:
    """The words of a line without the variables set for it alone."""
    words = shlex.split(line)
    while words and re.match(r"[A-Z_]+=", words[0]):
        del words[0]
    return words


def blocks(text: str) -> Iterator[Block]:
    """The blocks of commands of a page. A line among commands that is none of those known here fails the test."""
    heading, numbers = "", dict[str, int]()
    for part in re.finditer(r"^#+ ([^\n]+)$|^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        if part[1]:
            heading = part[1]
            continue
        shown = (part[3] or "").replace("\\\n", " ")
        lines = [re.sub(r"\s+# .*$", "", line) for line in shown.splitlines() if line]
        if part[2] or not re.match(r"[a-z]|[A-Z_]+=", shown):  # of another language, or what something printed
            assert not re.search(r"^(relay|mytunnel) ", shown, re.MULTILINE), shown
            continue
        assert {words_of(line)[0] for line in lines} <= OURS | TOOLS | LEFT_OUT, lines
        numbers[heading] = numbers.get(heading, 0) + 1
        yield Block(heading, numbers[heading], tuple(lines))


def is_run(line: str) -> bool:
    """Whether a line is run here."""
    words = words_of(line)
    of_another = words[0] in LEFT_OUT or tuple(words[:2]) in SOURCE
    return not of_another and not (words[0] in OURS and words[1] in LONG)


def of_compose(line: str) -> bool:
    """Whether a line is one of Docker Compose."""
    return words_of(line)[:2] == ["docker", "compose"]


def handles_files(lines: list[str]) -> bool:
    """Whether these are for a relay that is stopped."""
    return any(line.startswith(WHILE_STOPPED) for line in lines)


# ---- running them


class Host:
    """The machine of one relay, which is stopped and started."""

    def __init__(self, data: Path) -> None:
        self.relay = RelayProcess(data)

    @contextlib.asynccontextmanager
    async def stopped(self) -> AsyncIterator[None]:
        """Meanwhile the relay is not running."""
        before = self.relay
        await before.stop()
        try:
            yield
        finally:
            self.relay = RelayProcess(before.data, ports=before.ports)
            await self.relay.start()


@dataclass
class Desk:
    """Where a page is read: a directory, an environment, and a project with its keys."""

    host: Host
    folder: Path
    project: str
    master: Api
    environment: dict[str, str]
    keys: dict[str, str] = field(default_factory=dict)
    """Whole keys by the id that the page uses for them."""
    created: int = 0

    @property
    def api(self) -> Api:
        """As the operator whose key lies in the data directory now."""
        return Api(self.host.relay.agents_port, operator_of(self.host.relay.data))

    async def state(self, example: str) -> str:
        """Of the key that the page calls so."""
        return str((await self.api.do("GET", f"/keys/{public_id(self.keys[example])}"))["state"])

    async def real(self, line: str) -> str:
        """The line with this relay's own ids, names, addresses and directories."""
        for found in EXAMPLE.finditer(line):
            if found[0] not in self.keys:
                self.keys[found[0]] = await self._make(found[1])
        whole = re.match(r"export ", line) is not None
        line = EXAMPLE.sub(lambda found: self.keys[found[0]] if whole else public_id(self.keys[found[0]]), line)
        if "projects create" in line:
            self.created += 1
            line = line.replace("mcp-server", f"{self.project}-{self.created}")
        port = self.host.relay.agents_port
        examples = {
            "wss://tunnels.example.com": f"ws://127.0.0.1:{port}",
            "https://tunnels.example.com": f"http://127.0.0.1:{port}",
            "http://127.0.0.1:8081": f"http://127.0.0.1:{port}",
            "127.0.0.1:9090": f"127.0.0.1:{self.host.relay.internal_port}",
            "postgresql://relay:PASSWORD@db/relay": f"sqlite:///{self.folder}/other.db",
            DIRECTORY: str(self.host.relay.data),
            BACKUPS: str(self.folder / "backups"),
            "mcp-server": self.project,
            "mcp-me": f"mcp-me-{self.project}",
        }
        line = re.sub("|".join(map(re.escape, examples)), lambda found: examples[found[0]], line)
        if "node_" in line:
            kid = (await self.api.do("GET", "/audit/head"))["head"]["kid"]
            line = re.sub(r"node_[0-9A-Za-z]{12}", kid, line)
        return line

    async def _make(self, kind: str) -> str:
        if kind == "operator":
            return self.api.key
        if kind == "master":
            return (await self.api.mint_master(self.project)).key
        wish = {"tunnel": f"mcp-me-{self.project}"} if kind == "visitor" else {}
        return await self.master.mint(kind, **wish)

    async def run(self, line: str, given: bytes = b"") -> str:
        """What a line prints. Its exit code is the one expected."""
        if " | " in line:
            first, _, line = line.partition(" | ")
            given = (await self.run(first)).encode()
        if "login" in line:  # without a file it asks
            line, _, file = line.partition(" < ")
            given = Path(file or "master.key").read_bytes()
        if inner := re.search(r"\$\((.+?)\)", line):
            line = line.replace(inner[0], (await self.run(inner[1])).strip())
        variables = dict(re.findall(r"([A-Z_]+)=(\S+)", line.partition("relay ")[0]))
        words = words_of(line)
        if words[0] == "export":
            self.environment |= dict(word.split("=", 1) for word in words[1:])
            return ""
        if words[0] in OURS:
            code, said = await asyncio.to_thread(call, words[1:], self.environment | variables, given)
            assert code == CODES.get(tuple(words[1:3]), 0), f"{line}\n{said}"
            return said
        done = await asyncio.to_thread(subprocess.run, words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        if words[0] == "curl":
            assert "type" not in json.loads(done.stdout), done.stdout  # a problem has one
        return done.stdout


def public_id(key: str) -> str:
    """Of a whole key."""
    return key.rpartition("_")[0] if key.startswith(("mtk_operator_", "mtk_master_")) else id_of(key)


def call(words: list[str], environment: dict[str, str], given: bytes) -> tuple[int, str]:
    """Exit code of `relay`, and what it printed."""
    said, before = io.StringIO(), os.environ.copy()
    stdin, sys.stdin = sys.stdin, io.TextIOWrapper(io.BytesIO(given))
    os.environ.update(environment)
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), pytest.raises(SystemExit) as end:
            main(words)
    finally:
        sys.stdin = stdin
        os.environ.clear()
        os.environ.update(before)
    assert isinstance(end.value.code, int)
    return end.value.code, said.getvalue()
