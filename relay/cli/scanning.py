"""`relay keys scan`: finds our keys in files, and says which of them still live. Never shows one.

Reads regular files only, each whole and at most 10 MiB; what is compressed (the objects of git, archives) is not
opened, so a history comes through standard input.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from relay.cli.errors import FOUND, Mistake, Refusal
from relay.cli.options import Asked, command
from relay.cli.output import Lines, harmless, say_json, warn
from relay.cli.tables import many, table
from relay.keys.forms import NOT_A_KEY, find_keys, kind_of, shown

MOST = 10 * 1024 * 1024
NOT_ASKED = "not asked"
UNKNOWN = "unknown"
_LIVE = {"valid", NOT_ASKED}


@dataclass(frozen=True, slots=True)
class Found:
    """A key in a file. `line` is counted from 1."""

    place: str
    line: int
    id: str


def scan(
    asked: Asked,
    path: Annotated[list[str], typer.Argument(help="Files and directories; - is standard input.", metavar="PATH…")],
    *,
    offline: Annotated[
        bool, typer.Option("--offline", help="Ask no relay which of them live.", metavar="", show_default=False)
    ] = False,
) -> None:
    """Look for keys in files, and say which are still alive. The keys are not shown.

    Ends with 1 if a living one was found (with --offline: any). What is
    compressed is not opened; a history is read like this:

      git log -p --all | relay keys scan -
    """
    found = [one for each in path for one in in_path(each)]
    states = dict.fromkeys((one.id for one in found), NOT_ASKED)
    if found and not offline:
        states = _ask(asked, states)
    rows = [(f"{one.place}:{one.line}", kind_of(one.id), one.id, states[one.id]) for one in found]
    if asked.as_json:
        say_json(
            [
                {"place": one.place, "line": one.line, "kind": kind_of(one.id), "id": one.id, "state": states[one.id]}
                for one in found
            ]
        )
    else:
        table(("PLACE", "KIND", "KEY", "STATE"), rows, none="No key found.")
        live = sum(state in _LIVE for state in states.values())
        if live:
            doubt = " (perhaps: nobody was asked)" if offline else ""
            Lines().say(f"{many(live, 'living key')}{doubt}. Revoke with: relay keys revoke KEY --cascade")
    if any(state in _LIVE for state in states.values()):
        raise typer.Exit(FOUND)


def _ask(asked: Asked, ids: dict[str, str]) -> dict[str, str]:
    try:
        client = asked.client()
    except Mistake as mistake:
        raise Mistake(f"{mistake} With --offline nobody is asked.", mistake.code) from None
    states: dict[str, str] = {}
    for key_id in ids:
        try:
            states[key_id] = harmless(client.get("keys", key_id).get("state") or UNKNOWN)
        except Refusal as refusal:
            if refusal.status != 404:
                raise
            states[key_id] = UNKNOWN
    return states


# ---------------------------------------------------------------------------------------------------- files


def in_path(path: str) -> Iterator[Found]:
    """The keys in a file, in all files below a directory, or in standard input. Raises `Mistake` for no such path."""
    if path == "-":
        line = 1
        for piece in iter(lambda: sys.stdin.buffer.readline(MOST), b""):
            yield from in_text(piece.decode("latin-1"), "standard input", line)
            line += piece.endswith(b"\n")
        return
    if not os.path.exists(path):
        raise Mistake(f"There is no {harmless(path)}: give files or directories that exist, or - for standard input.")
    if not os.path.isdir(path):
        yield from _in_file(Path(path))
        return

    def unread(error: OSError) -> None:
        warn(f"Skipped {error.filename}: {error.strerror}.")

    for directory, directories, files in os.walk(path, onerror=unread):
        directories.sort()
        for name in sorted(files):
            file = Path(directory, name)
            if not file.is_symlink():
                yield from _in_file(file)


def _in_file(file: Path) -> Iterator[Found]:
    try:
        found = os.stat(file)
        if not stat.S_ISREG(found.st_mode):
            return
        if found.st_size > MOST:
            warn(f"Skipped {file}: larger than {MOST >> 20} MiB.")
            return
        with open(file, "rb") as opened:
            content = opened.read(MOST)
    except OSError as error:
        warn(f"Skipped {file}: {error.strerror}.")
        return
    wide = content[:2] in (b"\xff\xfe", b"\xfe\xff")
    yield from in_text(content.decode("utf-16" if wide else "latin-1", "replace"), str(file))


def in_text(text: str, place: str, line: int = 1) -> Iterator[Found]:
    """The keys in a text that begins with this line of its place."""
    at = 0
    for offset, key in find_keys(text):
        key_id = shown(key)
        if key_id == NOT_A_KEY:
            continue
        line += text.count("\n", at, offset)
        at = offset
        yield Found(place, line, key_id)


def add(group: typer.Typer) -> None:
    """Adds the command to `relay keys`."""
    command(group)(scan)
