"""Secrets that are planted in a test, and everything that was said and kept meanwhile, searched for them.

A secret is found in whatever form it may have slipped out: as it is, cut in half, in base64, in hexadecimal, escaped.
Keys are found by the patterns of docs/keys.md too, also those that nobody planted.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import psutil

from tests.support.child import Child
from tests.support.keys import Api
from tests.support.processes import AgentProcess, RelayProcess
from tests.support.rawhttp import exchange

if TYPE_CHECKING:
    from tests.system.commands import Commands

_KEYS = re.compile(
    rb"mtk_(?:operator|master)_[0-9A-Za-z]{12}_[0-9A-Za-z]{20,}"
    rb"|mtk_(?:child|visitor)_eyJ[0-9A-Za-z_-]+\.eyJ[0-9A-Za-z_-]+"
)


def _forms(text: str) -> Iterator[tuple[str, bytes]]:
    """How the text may look elsewhere."""
    raw = text.encode()
    half = len(raw) // 2
    yield "as it is", raw
    if len(raw) >= 32:
        yield "its first half", raw[:half]
        yield "its second half", raw[half:]
    yield "escaped", quote(text, safe="").encode()
    yield "as Python writes it", text.encode("unicode_escape")
    yield "in hexadecimal", raw.hex().encode()
    for shift in range(3):  # wherever it stands in what was encoded
        encoded = base64.b64encode(b"\0" * shift + raw)[4 if shift else 0 : len(raw) // 3 * 4]
        yield "in base64", encoded
        yield "in base64", encoded.replace(b"+", b"-").replace(b"/", b"_")


def core(key: str) -> str:
    """What is secret of a key: not its id, and not the claims of a token, which the audit has too."""
    return key.split(".")[2] if "." in key else key.split("_")[3]


@dataclass
class Canaries:
    """The secrets, and what is searched."""

    secrets: dict[str, str] = field(default_factory=dict)
    said: list[tuple[str, bytes]] = field(default_factory=list)
    """Where something was said, or is kept, and what."""

    def plant(self, name: str, text: str) -> str:
        """This is a secret from now on; the text itself."""
        self.secrets[name] = core(text) if text.startswith("mtk_") else text
        return text

    def heard(self, where: str, what: str | bytes) -> None:
        """This was said there."""
        self.said.append((where, what.encode() if isinstance(what, str) else what))

    def found(self) -> list[str]:
        """Each place with the secret that it gives away."""
        wanted = [(name, form, raw) for name, text in self.secrets.items() for form, raw in _forms(text)]
        found = [f"{where}: {name}, {form}" for where, what in self.said for name, form, raw in wanted if raw in what]
        return found + [f"{where}: a key" for where, what in self.said if _KEYS.search(what)]


# ---- a scene

PASSWORD, UPSTREAM = "canary-sesame-4711", "canary-upstream-c0ffee"
AUTHORIZATION, COOKIE = "canary-authorization-8f3a", "canary-cookie-77b1"
DATABASE = "canary-database-p4ss"
BASIC = "Authorization: Basic " + base64.b64encode(f"ann:{PASSWORD}".encode()).decode()
SECRET_FILES = {"operator.key", "signing.key", "child.key"}
"""What is meant to hold a secret, in the relay's directory; the last is the tests' own."""


class Talkative(RelayProcess):
    """A relay that logs all that it can, every line of which is kept."""

    stderr_lines = 1_000_000


def with_defects(process: Child) -> None:
    """The same, but with defects inside, which are as good as not there until something asks for one."""
    at = process.argv.index("-m")
    process.argv = (*process.argv[: at + 1], "tests.system.defects", *process.argv[at + 2 :])


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

    def search(self) -> None:
        """Looks through what was heard, and finds nothing."""
        assert self.canaries.found() == []
        self.canaries.said.clear()

    async def search_everywhere(self) -> None:
        """What relay and agent told anybody since they began, and what the relay keeps."""
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
            if file.is_file() and file.name not in SECRET_FILES:  # and no socket, which nobody can read
                canaries.heard(f"the file {file.name}", file.read_bytes())
        self.search()
