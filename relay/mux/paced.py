"""A protocol that reads bulk data at the pace of whoever takes it, and lets others have their turn in between."""

from __future__ import annotations

import asyncio

from relay.mux.compiling import mypyc_attr
from relay.mux.inbox import TURN_BYTES


@mypyc_attr(allow_interpreted_subclasses=True)
class Paced:
    """Pauses and resumes `_transport`, which the class below it sets; on one that is closing both are nothing."""

    paused = False
    """Whether whoever takes the bytes said so: a rest is not a pause."""
    _turn = TURN_BYTES
    _transport: asyncio.Transport

    def pause(self) -> None:
        """Reads no more for now."""
        if not self.paused and not self._transport.is_closing():
            self.paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Reads again."""
        if self.paused and not self._transport.is_closing():
            self.paused = False
            self._transport.resume_reading()

    def rest_after(self, size: int) -> None:
        """So many bytes were read; when that was enough for one turn of the event loop, others come first."""
        self._turn -= size
        if self._turn <= 0:
            self._turn = TURN_BYTES
            if not self.paused and not self._transport.is_closing():
                self._transport.pause_reading()
                asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        if not self.paused and not self._transport.is_closing():
            self._transport.resume_reading()
