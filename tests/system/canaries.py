"""Secrets that are planted in a test, and everything that was said and kept meanwhile, searched for them.

A secret is found in whatever form it may have slipped out: as it is, cut in half, in base64, in hexadecimal, escaped.
Keys are found by the patterns of docs/keys.md too, also those that nobody planted.
"""

from __future__ import annotations

import asyncio
import base64
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from tests.support.child import ROOT, clean_environment

_KEYS = re.compile(
    rb"mtk_(?:operator|master)_[0-9A-Za-z]{12}_[0-9A-Za-z]{20,}"
    rb"|mtk_(?:child|visitor)_eyJ[0-9A-Za-z_-]+\.eyJ[0-9A-Za-z_-]+"
)
DEADLINE = 60.0


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


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that has ended."""

    code: int
    out: str
    err: str


@dataclass
class Commands:
    """Commands of one user, whose words are heard."""

    canaries: Canaries
    home: Path
    environment: Mapping[str, str]

    async def run(self, *words: str, stdin: str = "", program: str = "", shows: str = "", **env: str) -> Ran:
        """Runs `relay WORDS`, or a program of Python that does. `shows`: its standard output is meant to hold a key,
        which is planted under this name.
        """
        environment = {"HOME": str(self.home), "XDG_CONFIG_HOME": str(self.home / ".config"), **self.environment}
        start = ["-c", program] if program else ["-m", "relay"]
        process = await asyncio.create_subprocess_exec(
            sys.executable, *start, *words,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env=clean_environment({**environment, **env}), cwd=ROOT,
        )  # fmt: skip
        try:
            async with asyncio.timeout(DEADLINE):
                out, err = await process.communicate(stdin.encode())
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        name = f"relay {words[0] if words else ''} {words[1] if len(words) > 1 else ''}"
        ran = Ran(process.returncode or 0, out.decode(), err.decode())
        self.canaries.heard(f"standard error of {name}", err)
        if shows:
            keys = re.findall(r"mtk_[a-z]+_[0-9A-Za-z_.-]{30,}", ran.out)
            assert len(keys) == 1, (ran.out, ran.err)
            self.canaries.plant(shows, keys[0])
            out = ran.out.replace(keys[0], "(shown once)").encode()
        self.canaries.heard(f"standard output of {name}", out)
        return ran
