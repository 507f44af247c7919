"""A program that uses registries until it is killed: `python -m tests.registry.writer`, told what to do by lines.

Each order is carried out by a child process of its own, forked before there is any thread, so that tests can kill many
without waiting for as many starts. Answers are lines too. Orders, each followed by the database's address:

    write            mints keys for ever; a line with the id for each, once it is acknowledged
    revoke KEY N     revokes a tree and kills itself at its Nth step
    limited          writes until its limit for the size of files is reached, and goes on without the limit

The last answer to each is `killed` or `done`.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path

from sqlalchemy import event

from relay.keys.forms import Kind
from relay.registry import Action, Database, KeyFilter, Note, Registry, Unavailable
from tests.registry.world import a_key, actor


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


async def write(database: Database) -> None:
    registry = Registry(database, time.time)
    master = (await registry.keys.list(KeyFilter(kind=Kind.MASTER))).items[0]
    for _ in count():
        new = a_key(Kind.CHILD, parent_id=master.id, project_id=master.project_id, expires_at=time.time() + 1000)
        await registry.keys.mint(actor(master), new)
        say(new.id)


async def revoke(database: Database, key_id: str, step: int) -> None:
    left = step

    def die(*_: object) -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    for name in ("begin", "before_cursor_execute", "after_cursor_execute", "commit"):
        event.listen(database._writer.sync_engine, name, die)
    registry = Registry(database, time.time)
    await registry.keys.revoke(actor(await registry.keys.get(key_id)), key_id, True)


async def limited(database: Database, file: Path) -> None:
    registry = Registry(database, time.time)
    largest = max(one.stat().st_size for one in file.parent.iterdir())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest + 100_000, hard))
    note = Note(actor((await registry.keys.masters())[0]), Action.TUNNEL_OPEN, "a", details={"much": "x" * 1000})
    written, refused = 0, 0
    while refused < 3:
        try:
            await registry.audit.record([note] * 10)
            written += 10
        except Unavailable as error:
            refused += 1
            say(f"refused {written} {error}")
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    await registry.audit.record([note])
    say(f"written {written + 1}")


async def carry_out(url: str, order: list[str]) -> None:
    database = await Database.open(url)
    try:
        if order[0] == "write":
            await write(database)
        elif order[0] == "revoke":
            await revoke(database, order[1], int(order[2]))
        elif order[0] == "limited":
            await limited(database, Path(url.removeprefix("sqlite:///")))
    finally:
        await database.close()


def in_a_child(work: Callable[[], Awaitable[None]]) -> int:
    """Its exit status, as `os.waitpid` gives it. The first answer is its process id."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    say(f"pid {os.getpid()}")
    try:
        asyncio.run(carry_out_and_end(work))
    except BrokenPipeError:
        pass
    finally:
        os._exit(0)


async def carry_out_and_end(work: Callable[[], Awaitable[None]]) -> None:
    await work()


def main() -> None:
    for line in sys.stdin:
        *order, url = line.split()
        status = in_a_child(lambda url=url, order=order: carry_out(url, order))  # type: ignore[misc]
        say("killed" if os.WIFSIGNALED(status) else "done")


if __name__ == "__main__":
    main()
