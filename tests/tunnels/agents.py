"""Agents of a few lines, for tests of the doorway and of what stands behind it: they speak in frames, over memory.

A `Knocker` says what a test tells it to say and answers pings, or not; nothing is served behind it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from relay.keys.scopes import Scope
from relay.limits.pacing import Pacer
from relay.mux.carrier import ROOM
from relay.mux.session import SessionOptions
from relay.tunnels.admission import Principal
from relay.tunnels.doorway import Doorway, DoorwayOptions
from relay.tunnels.hold import HoldBounds
from relay.tunnels.hub import Hub
from relay.tunnels.metering import Metering
from relay.wire import frames
from relay.wire.frames import encode
from relay.wire.hello import (
    Hello,
    Refused,
    Renew,
    Welcome,
    decode_refused,
    decode_welcome,
    encode_hello,
    encode_renew,
)
from tests.mux.ends import RawPeer, settle
from tests.support.carriers import MemoryCarrier, pair
from tests.support.framing import decode


class Keys:
    """`Admission` by a table: key -> project. Remembers what it was asked; waits when told to."""

    def __init__(self, **projects: str) -> None:
        self.projects = {"good": "default", **projects}
        self.asked: list[str] = []
        self.fail: Exception | None = None
        self.second_thought: Refused | None = None
        self.told: list[tuple[str, str]] = []
        """(key, code) of refusals that it heard of."""
        self.scope = Scope()

    async def admit(self, hello: Hello, address: str) -> Principal | Refused:
        return self._judge(hello.key)

    async def renew(self, principal: Principal, key: str, names: tuple[str, ...], address: str) -> Principal | Refused:
        return self._judge(key)

    def last_word(self, principal: Principal, names: tuple[str, ...]) -> Refused | None:
        return self.second_thought

    def refused(self, principal: Principal, names: tuple[str, ...], address: str, refused: Refused) -> None:
        self.told.append((principal.key_id, refused.code))

    def _judge(self, key: str) -> Principal | Refused:
        self.asked.append(key)
        if self.fail is not None:
            raise self.fail
        project = self.projects.get(key)
        if project is None:
            return Refused("bad_key", "No such key.")
        return Principal(project, f"id of {key}", scope=self.scope)


def a_metering(plans: Mapping[str, Scope] | None = None) -> Metering:
    """Of a node whose projects have these plans, or none, in January 1970."""
    known = {} if plans is None else plans

    def time() -> float:
        return asyncio.get_running_loop().time()

    pacer = Pacer(time, lambda delay, call: asyncio.get_running_loop().call_later(delay, call))
    return Metering(lambda project: known.get(project, Scope()), pacer, time, time)


class House:
    """A hub behind a doorway, and what the hub reported."""

    def __init__(self, keys: Keys | None = None, hold: HoldBounds | None = None, **options: Any) -> None:
        self.reports: list[tuple[str, tuple[str, ...]]] = []
        self.plans: dict[str, Scope] = {}
        self.kind: type[Knocker] = Knocker
        self.metering = a_metering(self.plans)
        self.hub = Hub(hold or HoldBounds(), self.metering, lambda event, names, _: self.reports.append((event, names)))
        self.keys = keys or Keys()
        self.doorway = Doorway(
            self.hub,
            self.keys,
            DoorwayOptions(
                lambda name: f"http://{name}.tunnels.localhost:8080",
                SessionOptions(opener=True),
                relay="test/1",
                **options,
            ),
        )

    def knock(self, address: str = "192.0.2.1") -> Knocker:
        """A connection that has not said anything yet."""
        relays, agents = pair()
        relays.owner = self.doorway.welcome_carrier(relays, address)
        return self.kind(agents)

    async def agent(self, *names: str, **hello: Any) -> Knocker:
        """A connection that has said hello."""
        knocker = self.knock()
        await knocker.hello(*names, **hello)
        return knocker


class Knocker(RawPeer):
    """An agent's end of one link."""

    def __init__(self, carrier: MemoryCarrier) -> None:
        super().__init__(carrier)
        self.answers = True

    def on_message(self, message: memoryview) -> None:
        super().on_message(message)
        for kind, _, payload in decode(message):
            if kind == frames.PING and self.answers:
                self.carrier.send(bytearray(ROOM) + encode(frames.PONG, 0, bytes(payload)))

    async def hello(
        self,
        *names: str,
        instance: str = "a",
        slot: int = 0,
        generation: int = 1,
        key: str = "good",
        versions: tuple[int, ...] = (1,),
        **rules: Any,
    ) -> None:
        """Says hello, and lets the answer come; `rules` are the hello's `access` and `limits`."""
        said = Hello(instance, slot, generation, key, names or ("demo",), versions, **rules)
        await self.send(encode(frames.HELLO, 0, encode_hello(said)))

    async def renew(self, key: str) -> None:
        """Shows another key."""
        await self.send(encode(frames.RENEW, 0, encode_renew(Renew(key))))

    def _bodies(self, *kinds: int) -> list[bytes]:
        return [payload for kind, _, payload in self.frames if kind in kinds]

    @property
    def welcome(self) -> Welcome | None:
        """The relay's first WELCOME."""
        return next(map(decode_welcome, self._bodies(frames.WELCOME)), None)

    @property
    def renewed(self) -> list[Welcome]:
        """Every RENEWED."""
        return list(map(decode_welcome, self._bodies(frames.RENEWED)))

    @property
    def refused(self) -> Refused | None:
        """The relay's last REFUSED."""
        bodies = self._bodies(frames.REFUSED)
        return decode_refused(bodies[-1]) if bodies else None

    @property
    def refused_as(self) -> tuple[str, float | None]:
        """(code, retry after) of that."""
        assert self.refused is not None, self.kinds()
        return self.refused.code, self.refused.retry_after

    async def leave(self) -> None:
        """The connection breaks."""
        self.carrier.abort()
        await settle()
