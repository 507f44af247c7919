"""What the relay says on standard error: a thread of its own writes it, so that nobody waits for whoever reads it.

What is more than it takes is dropped and counted. Requests are noted when they are over and formatted later, a few at a
time, in turns of the loop in which nobody waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import queue
import select
import threading
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial

from relay.edge.account import Account
from relay.node.accesslines import FORMATS, Record, record_of, stamp
from relay.node.rounds import Rounds

# Texts that wait for the thread, each of up to `AT_ONCE` lines of the access log.
MOST_TEXTS = 64
# Requests that wait to be formatted.
MOST_RECORDS = 4096
FLUSH_EVERY = 0.1
AT_ONCE = 64
# At the end: how long a reader may take for what is left.
FLUSHED_WITHIN = 1.0


class Writer:
    """Writes texts to a descriptor, in a thread that ends with the process, whatever its reader does."""

    def __init__(self, descriptor: int) -> None:
        self.dropped = 0
        """Texts that nobody will read."""
        self._descriptor = descriptor
        self._texts: queue.Queue[str | None] = queue.Queue(MOST_TEXTS)
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def say(self, text: str) -> bool:
        """Writes `text` soon. False: it was dropped."""
        try:
            self._texts.put_nowait(text)
        except queue.Full:
            self.dropped += 1
            return False
        return True

    def close(self, within: float) -> None:
        """Waits until all is written, for at most `within` seconds."""
        with contextlib.suppress(queue.Full):
            self._texts.put(None, timeout=within)
            self._thread.join(within)

    def _run(self) -> None:
        while (text := self._texts.get()) is not None:
            data = memoryview(text.encode("utf-8", "backslashreplace"))
            with contextlib.suppress(OSError):  # nobody reads any more, or the disk is full: there is nowhere to say it
                while data:
                    try:
                        data = data[os.write(self._descriptor, data) :]
                    except BlockingIOError:  # who shares the descriptor may have made it so
                        select.select((), (self._descriptor,), ())


class _Handler(logging.Handler):
    """Records of the standard library's logging, to a writer."""

    def __init__(self, writer: Writer) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        try:
            self._writer.say(self.format(record) + "\n")
        except Exception:
            self.handleError(record)


class _Text(logging.Formatter):
    """For people, with the time as in the access log."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """See `logging.Formatter`."""
        return stamp(record.created)


class _Json(logging.Formatter):
    """A line of JSON; a traceback is a member of it."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        line: dict[str, object] = {
            "time": stamp(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


_FORMATTERS: dict[str, Callable[[], logging.Formatter]] = {
    "console": partial(_Text, "%(asctime)s %(levelname)s %(name)s: %(message)s"),
    "json": _Json,
}


@contextlib.contextmanager
def logging_to(descriptor: int, level: str, form: str) -> Iterator[Writer]:
    """All that is logged goes there, until the end; `form` is a name of `FORMATS`."""
    writer = Writer(descriptor)
    handler = _Handler(writer)
    handler.setFormatter(_FORMATTERS[form]())
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(level.upper())
    try:
        yield writer
    finally:
        root.removeHandler(handler)
        root.setLevel(before)
        writer.close(FLUSHED_WITHIN)


class AccessLog:
    """One line for each exchange. Called with it when it is over."""

    def __init__(self, writer: Writer, form: str, with_query: bool, now: Callable[[], float]) -> None:
        self.dropped = 0
        """Requests of which no line tells."""
        self._writer = writer
        self._format = FORMATS[form]
        self._with_query = with_query
        self._now = now
        self._records: deque[Record] = deque()
        self._rounds = Rounds(FLUSH_EVERY)

    def __call__(self, account: Account) -> None:
        """Notes an exchange that is over."""
        if len(self._records) < MOST_RECORDS:
            self._records.append(record_of(account, self._now(), self._with_query))
        else:
            self.dropped += 1

    async def run(self) -> None:
        """Writes until `finish`."""
        async for _ in self._rounds:
            while self._records:
                self._flush_some()
                await asyncio.sleep(0)

    def finish(self) -> None:
        """Nothing new comes any more: `run` writes what is left, and ends."""
        self._rounds.finish()

    def _flush_some(self) -> None:
        records = [self._records.popleft() for _ in range(min(AT_ONCE, len(self._records)))]
        if not self._writer.say("".join([self._format(record) for record in records])):
            self.dropped += len(records)
