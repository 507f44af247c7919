"""Writes down what traffic leaves behind: audit rows of sessions, last uses of keys, signed heads of the audit.

In batches, behind traffic's back; what cannot be written now stays and is tried again. Heads go to a file, one a line,
for copies that whoever changes the database cannot reach.
"""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import IO

from relay.keys.chain import GENESIS, Head, Tampered, head_line, read_heads, sign_head
from relay.keys.times import text_of
from relay.keys.tokens import SigningKey
from relay.node.errors import StartError
from relay.node.rounds import Rounds
from relay.registry import Registry
from relay.registry.errors import NotAllowed, RegistryError
from relay.tunnels.journal import Journal

HEADS_NAME = "audit-heads.jsonl"
WRITE_EVERY = 1.0
HEAD_EVERY = 60.0
MOST_AT_ONCE = 500
_LOGGER = logging.getLogger("relay.audit")


class Uses:
    """When and from where keys were used last; the newest use of each key counts."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._uses: dict[str, tuple[float, str]] = {}

    def used(self, key_id: str, address: str) -> None:
        """Just now."""
        self._uses[key_id] = (self._now(), address)

    def __len__(self) -> int:
        return len(self._uses)

    def take(self, most: int) -> dict[str, tuple[float, str]]:
        """Some of those that were not taken before."""
        ids = list(itertools.islice(self._uses, most))
        return {key_id: self._uses.pop(key_id) for key_id in ids}

    def put_back(self, uses: dict[str, tuple[float, str]]) -> None:
        """They could not be written."""
        self._uses = {**uses, **self._uses}


class HeadsFile:
    """Appends a signed head whenever the audit has grown. Two processes may have it open, while one takes over."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last: Head | None = None
        self._read_to = 0

    def open(self) -> None:
        """Reads what an earlier process wrote. Raises `StartError`."""
        try:
            with self._path.open("r+b") as file:
                self._read_on(file)
        except FileNotFoundError:
            pass
        except (OSError, ValueError, Tampered) as error:
            raise StartError(
                f"The file {self._path} cannot be read as signed heads of the audit ({error}). "
                "Keep it elsewhere, find out who changed it, and start again without it."
            ) from None

    def extend(self, key: SigningKey, seq: int, hash: str, at: str) -> None:
        """Signs the audit's end with this key if it is a new one.

        Raises `OSError`, and `ValueError` or `Tampered` for what somebody else wrote there.
        """
        if not seq or (self._last is not None and self._last.seq >= seq):
            return
        with os.fdopen(os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600), "r+b") as file:
            self._read_on(file)
            last = self._last
            if last is not None and last.seq >= seq:
                return
            head = sign_head(key, seq, hash, at, GENESIS if last is None else last.digest)
            file.write(head_line(head).encode("ascii") + b"\n")
            file.flush()
            os.fsync(file.fileno())
            self._last, self._read_to = head, os.fstat(file.fileno()).st_size

    def _read_on(self, file: IO[bytes]) -> None:
        """Locks the file, and reads what was added since. Raises `OSError`, `ValueError`, `Tampered`."""
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_size < self._read_to:  # taken away, for a copy say: the chain goes on
            self._read_to = 0
        file.seek(self._read_to)
        for line in file:
            if not line.endswith(b"\n"):  # cut short by a crash: it was never a head
                file.truncate(self._read_to)
                break
            self._last = next(iter(read_heads([line.decode("ascii")])), self._last)
            self._read_to += len(line)


class Bookkeeper:
    """One per node. `now`: seconds since the epoch."""

    def __init__(
        self, registry: Registry, journal: Journal, uses: Uses, heads: HeadsFile, key: Callable[[], SigningKey]
    ) -> None:
        self._registry = registry
        self._journal = journal
        self._uses = uses
        self._heads = heads
        self._key = key
        self._troubled = False
        self._rounds = Rounds(WRITE_EVERY)

    async def run(self, now: Callable[[], float]) -> None:
        """Writes until `finish`; never cancelled, or nobody would know what has been written."""
        loop = asyncio.get_running_loop()
        head_at = loop.time()
        async for ended in self._rounds:
            await self._attempt(self.write())
            if ended or loop.time() - head_at >= HEAD_EVERY:
                head_at = loop.time()
                await self._attempt(self.sign(now()))

    @property
    def uses_waiting(self) -> int:
        """Keys whose last use is not written yet."""
        return len(self._uses)

    def finish(self) -> None:
        """Nothing new comes any more: `run` writes what is left, and ends."""
        self._journal.sum_up()
        self._rounds.finish()

    async def write(self) -> None:
        """All that waits. Raises `RegistryError`."""
        most = MOST_AT_ONCE
        while notes := self._journal.waiting(most):
            try:
                await self._registry.audit.record(notes)
            except NotAllowed as error:  # for what it holds, and so for ever: it must not keep the others back
                if len(notes) > 1:
                    most = len(notes) // 2
                    continue
                _LOGGER.error("a row of the audit is left out: %s: %s", notes[0].action, error)
            self._journal.written(len(notes))
            most = MOST_AT_ONCE
        while uses := self._uses.take(MOST_AT_ONCE):
            try:
                await self._registry.keys.touch(uses)
            except BaseException:
                self._uses.put_back(uses)
                raise

    async def sign(self, now: float) -> None:
        """A head for the audit's end. Raises `RegistryError`, `OSError`, `Tampered`."""
        seq, hash = await self._registry.audit.head()
        await asyncio.to_thread(self._heads.extend, self._key(), seq, hash, text_of(now))  # a disk may take its time

    async def _attempt(self, work: Awaitable[None]) -> None:
        try:
            await work
        except Exception as error:  # a defect here must not leave the audit unwritten for ever
            known = isinstance(error, RegistryError | OSError | Tampered)
            if not self._troubled and known:
                _LOGGER.error("the audit cannot be written now: %s", error)
            elif not self._troubled:
                asyncio.get_running_loop().call_exception_handler({"message": "the books failed", "exception": error})
            self._troubled = True
        else:
            self._troubled = False
