"""A seeded TCP fault proxy between a port of its own on 127.0.0.1 and an upstream.

    async with FaultProxy(upstream_port, seed=1, delay=0.05) as proxy:
        connect to proxy.port; await proxy.cut()

This room owns the listener and knows which connections there are. What happens to their bytes is `delayline`'s, to
their ends `faultpair`'s; the methods a test calls are `faultcontrols`'. As its own process, so that it does not
compete with the test's event loop: `python -m tests.support.faults --upstream HOST:PORT --delay 0.05` (see
`faultprocess`). Only the kernel's handshake is not delayed: a connect succeeds at once, its first bytes take theirs.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any, Unpack

from tests.support.delayline import Path, Swallow
from tests.support.faultcontrols import FaultControls, How, Settings
from tests.support.faultpair import Pair, reset_socket


class FaultProxy(FaultControls):
    """The proxy in this process; `settings` hold for both directions until `set` changes one.

    `socket_buffer` fixes the kernel's receive buffers (bytes): with a rate, what waits there is part of the path.
    """

    def __init__(
        self,
        upstream_port: int,
        *,
        upstream_host: str = "127.0.0.1",
        seed: int = 1,
        socket_buffer: int | None = None,
        **settings: Unpack[Settings],
    ) -> None:
        self.seed = seed
        self.up = Path(**settings)
        self.down = Path(**settings)
        self.open_pairs: dict[int, Pair] = {}
        self._upstream = (upstream_host, upstream_port)
        self._socket_buffer = socket_buffer
        self._listener: socket.socket | None = None
        self._listening = False
        self._swallow_new: tuple[str, Swallow] = ("none", "no")
        self._black_hole: list[socket.socket] = []
        self._opening: set[asyncio.Task[None]] = set()
        self._taken = 0
        self._unreachable = 0

    async def __aenter__(self) -> FaultProxy:
        self._bind(0)
        self._listen()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Reset what is open and give the port back."""
        self._unlisten()
        for task in self._opening:
            task.cancel()
        await asyncio.gather(*self._opening, return_exceptions=True)
        self._empty_black_hole()
        for pair in list(self.open_pairs.values()):
            pair.cut("rst")
            pair.client.reset()
            pair.upstream.reset()
        for _turn in range(100):
            if not self.open_pairs:
                break
            await asyncio.sleep(0)

    def _bind(self, port: int) -> None:
        """Own the port; nothing answers on it before `_listen`, so that connects are refused."""
        listener = socket.socket()
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self._socket_buffer is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._socket_buffer)
        listener.bind(("127.0.0.1", port))
        self._listener = listener
        self.port = listener.getsockname()[1]

    def _listen(self) -> None:
        assert self._listener is not None
        self._listener.listen(4096)
        self._listening = True
        asyncio.get_running_loop().add_reader(self._listener, self._take)

    def _unlisten(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
        self._listener = None
        self._listening = False

    def _take(self) -> None:
        assert self._listener is not None
        for _ in range(64):
            try:
                taken, _address = self._listener.accept()
            except OSError:
                return
            taken.setblocking(False)
            self._taken += 1
            if self._swallow_new[0] in ("up", "both"):
                self._black_hole.append(taken)
                continue
            task = asyncio.create_task(self._open(taken, self._taken))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _open(self, taken: socket.socket, number: int) -> None:
        loop = asyncio.get_running_loop()
        pair = Pair(self.up, self.down, f"{self.seed}/{number}", lambda: self._forget(number))
        pair.swallow(*self._swallow_new)
        upstream = socket.socket()
        try:
            upstream.setblocking(False)
            if self._socket_buffer is not None:
                upstream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._socket_buffer)
            await loop.sock_connect(upstream, self._upstream)
        except BaseException as error:
            upstream.close()
            reset_socket(taken)
            if not isinstance(error, OSError):
                raise
            self._unreachable += 1
            return
        self.open_pairs[number] = pair
        await loop.connect_accepted_socket(lambda: pair.client, taken)
        await loop.create_connection(lambda: pair.upstream, sock=upstream)

    def _forget(self, number: int) -> None:
        self.open_pairs.pop(number, None)

    def _empty_black_hole(self) -> None:
        while self._black_hole:
            reset_socket(self._black_hole.pop())

    # ---- the commands of FaultControls ---------------------------------------------------------------------------

    async def _do(self, command: str, arguments: dict[str, Any]) -> Any:
        carry_out = getattr(self, f"_do_{command}", None)
        if carry_out is None:
            raise ValueError(f"no such command: {command}")
        return carry_out(**arguments)

    def _paths(self, direction: str) -> list[Path]:
        chosen = {"up": [self.up], "down": [self.down], "both": [self.up, self.down]}
        if direction not in chosen:
            raise ValueError(f"direction is up, down or both, not {direction!r}")
        return chosen[direction]

    def _chosen(self, pair: int | None) -> list[Pair]:
        return [each for number, each in list(self.open_pairs.items()) if pair is None or number == pair]

    def _do_set(self, direction: str, settings: dict[str, Any]) -> None:
        if unknown := set(settings) - set(Settings.__annotations__):
            raise ValueError(f"no such setting: {', '.join(sorted(unknown))}")
        for path in self._paths(direction):
            for name, value in settings.items():
                setattr(path, name, value)

    def _do_cut(self, how: How, pair: int | None) -> int:
        chosen = self._chosen(pair)
        for each in chosen:
            each.cut(how)
        return len(chosen)

    def _do_cut_after(self, count: int | None, direction: str, how: How) -> None:
        for path in self._paths(direction):
            path.cut_count, path.cut_how = count, how

    def _do_refuse(self) -> None:
        if self._listening:
            self._unlisten()
            self._bind(self.port)

    def _do_accept(self) -> None:
        if not self._listening:
            self._listen()

    def _do_swallow(self, direction: str, drop: bool, new: bool, pair: int | None) -> None:
        if direction != "none":
            self._paths(direction)
        mode: Swallow = "drop" if drop else "stall"
        if pair is None:
            self._swallow_new = (direction, mode) if new else ("none", "no")
            if direction == "none":
                self._empty_black_hole()
        for each in self._chosen(pair):
            each.swallow(direction, mode)

    def _do_corrupt(self, direction: str, after: int, every: int) -> None:
        for path in self._paths(direction):
            path.corrupt_after, path.corrupt_every = after, every

    def _do_pairs(self) -> list[int]:
        return sorted(self.open_pairs)

    def _do_stats(self) -> dict[str, int]:
        return {
            "connections": self._taken,
            "open": len(self.open_pairs) + len(self._black_hole),
            "unreachable": self._unreachable,
            "read_up": self.up.read,
            "read_down": self.down.read,
            "written_up": self.up.written,
            "written_down": self.down.written,
            "swallowed": self.up.swallowed + self.down.swallowed,
        }


if __name__ == "__main__":
    from tests.support.faultprocess import main

    main()
