"""The operator's side, on the machine itself: files, keys, certificate, database, limits, versions. Nothing is changed.

Every function blocks, and gives findings as tuples for `Examination.note`.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import ssl
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from urllib.parse import quote

from relay import __version__
from relay.cli.doctoring.errors import Trouble
from relay.cli.doctoring.findings import FAIL, OK, WARN
from relay.cli.output import duration, harmless
from relay.keys.errors import BadKey
from relay.keys.private import PrivateKey
from relay.node.certificatefiles import BadPair, read_pair
from relay.node.keyfiles import SIGNING_NAME
from relay.node.memory import granted
from relay.node.pressure import budget_of
from relay.registry import migrate
from relay.registry.dialects import Place
from relay.registry.errors import RegistryError
from relay.settings import ServeSettings
from relay.settings.amounts import MIB, told_size

Found = tuple[str, str, str]
"""Level, message, next step."""
DISK_LEAST, DISK_LOW = 100 * MIB, 1024 * MIB
MEMORY_LOW = 192 * MIB
SLOW_DATABASE = 0.25
"""Seconds for one question."""
SQLITE_LEAST = (3, 35)
# Beside connections: listeners, database, files.
OTHER_DESCRIPTORS = 256


def data(directory: Path) -> Iterator[Found]:
    """The data directory. Raises `Trouble` if there is none."""
    try:
        about = directory.stat()
    except OSError as error:
        raise Trouble(
            f"{directory} cannot be looked at: {error.strerror}",
            "Start the relay once, which makes it; or say where it is with RELAY_DATA",
        ) from None
    if not stat.S_ISDIR(about.st_mode):
        raise Trouble(f"{directory} is no directory", "Say where the relay's directory is with RELAY_DATA")
    if about.st_uid != os.geteuid() and os.geteuid() != 0:
        yield FAIL, f"{directory} belongs to another user", "Run this, and the relay, as the user that it belongs to"
    elif not os.access(directory, os.W_OK | os.X_OK):
        yield FAIL, f"{directory} cannot be written to", f"Give it to the relay's user: chown USER {directory}"
    elif about.st_mode & 0o077:
        mode = f"{stat.S_IMODE(about.st_mode):03o}"
        yield WARN, f"{directory} is open to other users (mode {mode})", f"Close it: chmod 700 {directory}"
    else:
        yield OK, f"{directory} is there, and the relay's own", ""


def disk(directory: Path) -> Found:
    """Room for the database."""
    free = shutil.disk_usage(directory).free
    said = f"{told_size(free // MIB * MIB)} are free for {directory}"
    if free < DISK_LEAST:
        return FAIL, said, "Make room: without it the registry cannot be written"
    return (WARN, said, "Make room before the registry needs it") if free < DISK_LOW else (OK, said, "")


def keys(settings: ServeSettings) -> Iterator[Found]:
    """The two secrets in the data directory; only an id is shown."""
    for path, what in ((settings.key_file, "operator key"), (settings.data / SIGNING_NAME, "signing key")):
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
            text = path.read_text(encoding="ascii", errors="replace").strip()
        except FileNotFoundError:
            yield WARN, f"There is no {what} in {path}", "The relay makes one at its next start"
            continue
        except OSError as error:
            yield FAIL, f"The {what} in {path} cannot be read: {error.strerror}", "Run this as the relay's user"
            continue
        if mode & 0o077:
            yield WARN, f"The {what} in {path} is open to other users (mode {mode:03o})", f"Close it: chmod 600 {path}"
        elif path == settings.key_file:
            yield _operator_key(path, text)
        else:
            yield OK, f"The {what} is in {path}, for its owner alone", ""


def _operator_key(path: Path, text: str) -> Found:
    try:
        return OK, f"The operator key {PrivateKey.parse(text).id} is in {path}, for its owner alone", ""
    except BadKey:
        return (
            FAIL,
            f"What {path} holds is no key",
            "Put the old file back, or remove it: a new one is made at the start",
        )


def pair(settings: ServeSettings) -> Iterator[Found]:
    """The relay's own certificate. Raises `Trouble` if it cannot be served."""
    if settings.tls_cert is None or settings.tls_key is None:
        return
    try:
        found = read_pair(settings.tls_cert, settings.tls_key, settings.domain, time.time())
    except BadPair as error:
        raise Trouble(str(error), "Until then the relay does not start, or serves the pair that it has read") from None
    for trouble in found.troubles:
        cause, _, step = trouble.partition(": ")
        yield WARN, cause, step
    if not found.troubles:
        until = time.strftime("%Y-%m-%d", time.gmtime(found.expires))
        yield OK, f"{settings.tls_cert} is for {settings.domain} and what is below, with its key, until {until}", ""


def database(settings: ServeSettings) -> Iterator[Found]:
    """Whether it opens, with which schema, and how fast. Raises `Trouble`."""
    began = time.monotonic()
    try:
        place, revision, head = Place.of(settings.database), migrate.current(settings.database), migrate.known()[-1]
    except RegistryError as error:
        raise Trouble(
            str(error), "Look whether it runs and the address is right; what it holds is not touched"
        ) from None
    took = time.monotonic() - began
    kind = "SQLite" if place.dialect == "sqlite" else "PostgreSQL"
    if not revision:
        step = "The relay makes it at its next start" if kind == "SQLite" else "Make it: relay db upgrade"
        yield WARN, f"The {kind} database has no schema yet", step
        return
    if revision != head:
        yield FAIL, f"The {kind} database has the schema {revision}, and this version {head}", "Run: relay db upgrade"
        return
    if place.dialect == "sqlite":
        journal, took = _asked(place.path)
        if journal != "wal":
            yield (
                WARN,
                f"{place.path} keeps its journal as {journal}, not wal",
                "Is its file system a network's? Move it",
            )
    said = f"The {kind} database is at schema {revision}, and answers in {duration(took)}"
    slow = took > SLOW_DATABASE * (1 if kind == "SQLite" else 4)  # PostgreSQL's time is that of connecting
    yield (WARN, said, "That is slow: look at its disk, or the way there") if slow else (OK, said, "")


def _asked(path: Path) -> tuple[str, float]:
    try:
        base = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=2.0)
        try:
            journal = str(base.execute("PRAGMA journal_mode").fetchone()[0])
            began = time.monotonic()
            base.execute("SELECT count(*) FROM projects").fetchone()
            return journal, time.monotonic() - began
        finally:
            base.close()
    except sqlite3.Error as error:
        raise Trouble(f"{path} cannot be read: {harmless(error)}", "Look at its owner and mode") from None


def descriptors(settings: ServeSettings) -> Found:
    """Files that a process may have open; the relay takes as many as it is allowed."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    needed = settings.max_connections + settings.max_agent_connections + OTHER_DESCRIPTORS
    if hard == resource.RLIM_INFINITY or hard >= needed:
        return OK, "As many descriptors as the settings need may be open", ""
    return (
        WARN,
        f"{hard} descriptors may be open, and max_connections with max_agent_connections need {needed}",
        f"Raise the limit (systemd: LimitNOFILE={needed}; compose: ulimits), or lower the settings",
    )


def memory(settings: ServeSettings) -> Found:
    """What the relay keeps below."""
    there = granted()
    budget = budget_of(settings.memory_budget, there)
    if budget is None or there is None:
        return OK, "How much memory there is, is not known: nothing is kept below", ""
    said = f"The relay keeps below {told_size(budget // MIB * MIB)} of {told_size(there // MIB * MIB)}"
    if budget > there:
        return FAIL, said, "Set memory_budget below what the machine, or its container, has"
    return (WARN, said, "That is for few tunnels only: give more memory") if budget < MEMORY_LOW else (OK, said, "")


def versions() -> Found:
    """Of what the relay is made of."""
    packages = {name: metadata.version(name) for name in ("uvicorn", "picows", "sqlalchemy", "cryptography")}
    parts = [f"relay {__version__}", f"Python {sys.version.split()[0]}", ssl.OPENSSL_VERSION.partition("  ")[0]]
    parts += [f"SQLite {sqlite3.sqlite_version}", *(f"{name} {one}" for name, one in packages.items())]
    said = ", ".join(parts)
    rules: list[str] = []
    with suppress(metadata.PackageNotFoundError):  # run from its files
        rules = metadata.requires("tunnel-relay") or []
    wrong = [one for one in rules if not _fits(one, packages)]
    if wrong:
        return (
            FAIL,
            f"{said}; wanted is {wrong[0].partition(';')[0]}",
            "Install again: pip install 'tunnel-relay[server]'",
        )
    if sqlite3.sqlite_version_info < SQLITE_LEAST:
        return FAIL, said, f"SQLite must be {'.'.join(map(str, SQLITE_LEAST))} or newer"
    return OK, said, ""


def _fits(wanted: str, packages: dict[str, str]) -> bool:
    """Whether an installed package is within its upper bound, where it has one (`uvicorn<0.55,>=0.54; extra == …`)."""
    rule = wanted.partition(";")[0]
    for name, version in packages.items():
        bounds = rule.removeprefix(name).split(",") if rule.startswith(name) else []
        for bound in (one.strip("<") for one in bounds if one.startswith("<")):
            if _numbers(version) >= _numbers(bound):
                return False
    return True


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part.isdigit()]
