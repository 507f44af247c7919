"""The controls of a fault proxy: one set of methods, whether the proxy runs in this process or in its own.

This room names the faults and their units; it refuses to know how they are done. Each method becomes one command
(a name and JSON-able arguments), which `FaultProxy` carries out and `FaultProcess` sends to the process that does.
"up" is from the connecting side to the upstream, "down" the other way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypedDict, Unpack

Direction = Literal["up", "down", "both"]
How = Literal["rst", "fin"]


class Settings(TypedDict, total=False):
    """The conditions of one direction that can be given at the start and changed at any time."""

    delay: float
    """One-way delay in seconds."""
    jitter: float
    """Added to the delay, uniformly from 0 to this many seconds; order is kept."""
    rate: float
    """Bytes per second of the path, shared by all connections; 0 is unlimited."""
    dribble: int
    """Write pieces of 1 to this many bytes, one a turn of the loop; 0 is off."""
    capacity: int
    """Bytes that may wait in one connection's direction while it has a delay; then the sender is held back."""


@dataclass(frozen=True, slots=True)
class Stats:
    """What went through so far: connections taken, those open now, bytes read and written in each direction."""

    connections: int
    open: int
    unreachable: int
    read_up: int
    read_down: int
    written_up: int
    written_down: int
    swallowed: int


class FaultControls:
    """The methods shared by `FaultProxy` and `FaultProcess`."""

    port: int
    """Where to connect, on 127.0.0.1."""

    async def _do(self, command: str, arguments: dict[str, Any]) -> Any:
        """Carry out one command; raises ValueError for one that makes no sense."""
        raise AssertionError(f"{type(self).__name__} carries out no commands")

    async def set(self, direction: Direction = "both", **settings: Unpack[Settings]) -> None:
        """Change conditions for open and new connections; what is already under way keeps its due time."""
        await self._do("set", {"direction": direction, "settings": dict(settings)})

    async def cut(self, how: How = "rst", pair: int | None = None) -> int:
        """End the open connections now (or one, by number), both sides, dropping what is under way; tells how many."""
        return int(await self._do("cut", {"how": how, "pair": pair}))

    async def cut_after(self, count: int | None, direction: Literal["up", "down"] = "down", how: How = "rst") -> None:
        """Cut each connection once `count` bytes were written in that direction; None takes the order back."""
        await self._do("cut_after", {"count": count, "direction": direction, "how": how})

    async def refuse(self) -> None:
        """Close the listener: the port stays ours, connects to it are refused, open connections live on."""
        await self._do("refuse", {})

    async def accept(self) -> None:
        """Open the listener again, on the same port."""
        await self._do("accept", {})

    async def swallow(
        self, direction: Direction | Literal["none"], *, drop: bool = True, new: bool = True, pair: int | None = None
    ) -> None:
        """Half-open: forward nothing in that direction, no end either, while both sockets stay open.

        `drop` reads and forgets; without it nothing is read and the sender's buffers fill. `new` includes connections
        to come, which are then taken but never reach the upstream. "none" forwards again whatever comes from now on.
        """
        await self._do("swallow", {"direction": direction, "drop": drop, "new": new, "pair": pair})

    async def corrupt(self, direction: Direction = "down", *, after: int = 0, every: int = 4096) -> None:
        """Flip a seeded bit about once in `every` bytes, beyond the first `after` of a connection; every=0 stops."""
        await self._do("corrupt", {"direction": direction, "after": after, "every": every})

    async def stats(self) -> Stats:
        """The counts so far."""
        return Stats(**await self._do("stats", {}))

    async def pairs(self) -> list[int]:
        """Numbers of the open connections, oldest first, as `cut` and `swallow` take them."""
        return list(await self._do("pairs", {}))
