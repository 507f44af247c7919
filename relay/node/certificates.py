"""The certificate that both listeners show, and when another one takes its place: the files are looked at each second.

A pair that cannot be served never replaces one that can. What runs goes on with the certificate it began with.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from relay.node.certificatefiles import BadPair, Pair, read_pair
from relay.node.errors import StartError
from relay.settings import ServeSettings

LOOK_EVERY = 1.0
# The keys of session tickets are those of a context. Who steals one reads what was said under it: none lives long.
TICKETS_FOR = 12 * 3600.0

Seen = tuple[tuple[int, int, int], ...]
Report = Callable[[dict[str, object]], None]


class Certificates:
    """One node's. Without TLS there is nothing in it."""

    def __init__(self, settings: ServeSettings, report: Report, wall: Callable[[], float] = time.time) -> None:
        self.context: ssl.SSLContext | None = None
        """What the next connection is served by; None without TLS."""
        self.expires: float | None = None
        """Seconds since the epoch, the end of the certificate that is served; None without TLS."""
        self._files = (settings.tls_cert, settings.tls_key)
        self._domain = settings.domain
        self._report = report
        self._wall = wall
        self._made = 0.0
        self._loaded: Seen = ()
        self._seen: Seen = ()

    def load(self) -> None:
        """Reads the files for the first time, and warns of what visitors will not like. Blocks. Raises `StartError`."""
        if self._files[0] is None:
            return
        seen = self._look()
        try:
            self._take(self._read())
        except BadPair as error:
            raise StartError(str(error)) from None
        self._loaded = self._seen = seen

    async def watch(self) -> None:
        """Takes up what is put in the place of the files, for ever."""
        if self._files[0] is None:
            return
        while True:
            await asyncio.sleep(LOOK_EVERY)
            await self.look()

    async def look(self) -> None:
        """One look. What has changed since the last one is perhaps still being written: it is read at the next."""
        seen = await asyncio.to_thread(self._look)
        settled, self._seen = seen == self._seen, seen
        changed = settled and seen != self._loaded
        if not changed and self._wall() - self._made < TICKETS_FOR:
            return
        self._loaded = seen if changed else self._loaded
        try:
            pair = await asyncio.to_thread(self._read)
        except BadPair as error:
            self._made = self._wall()
            kept = "The certificate that was read before is served on, until " + _date(self.expires or 0.0)
            self._report({"event": "warning", "message": f"{error} {kept}."})
            return
        self._take(pair)
        if changed:
            self._report({"event": "certificate", "expires": self.expires, "until": _date(pair.expires)})

    def _read(self) -> Pair:
        cert, key = (path for path in self._files if path is not None)
        return read_pair(cert, key, self._domain, self._wall())

    def _take(self, pair: Pair) -> None:
        self.context, self.expires, self._made = pair.context, pair.expires, self._wall()
        for trouble in pair.troubles:
            self._report({"event": "warning", "message": trouble})

    def _look(self) -> Seen:
        """What tells a file from the one that was there before."""
        return tuple(_stamp(path) for path in self._files if path is not None)


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        about = path.stat()
    except OSError:
        return (0, 0, 0)
    return (about.st_mtime_ns, about.st_ino, about.st_size)


def _date(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M UTC")
