"""The end of a node: who is told first, who may finish, who is cut. Each step says why it comes where it does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from relay.edge.services import Attended, Services
from relay.node.assemble import Node
from relay.node.listeners import PublicListener

LOOK_EVERY = 0.05
# Close frames, and answers that were complete when the grace time ended, have so long to arrive; in a hurry less.
LEAVE_WITHIN = 3.0
HURRY_WITHIN = 0.3


class Departure:
    """One node's, once. The first of the listeners is the public one; `hurry` is set when nobody wants to wait any
    more. Grace is in seconds.
    """

    def __init__(self, node: Node, listeners: Sequence[PublicListener], hurry: asyncio.Event) -> None:
        self._node = node
        self._listeners = listeners
        self._services: Services = node.services
        self._hurry = hurry
        self._loop = asyncio.get_running_loop()

    def announce(self) -> None:
        """Every answer says from here on that it is the last of its connection: called in the turn of the loop that
        hears the signal, since requests that were read in it are answered before the rest begins.
        """
        self._services.draining = True

    async def stop(self, grace: float, lent: bool) -> None:
        """Nobody comes after this process, or nobody that it knows of. `lent`: see `Given`."""
        public = self._listeners[0]
        self._say_so()
        # Who has come in time is let in before the door is shut. A socket that others hold as well stays open there.
        if lent:
            public.let_go()
        else:
            await public.stop_accepting()
        await public.arrived()
        self.let_idle_go()
        await self._finish(grace)

    def give_away(self) -> list[tuple[int, bytes]]:
        """Another process accepts already: nobody is accepted here any more. Who waits for an agent may wait there, see
        `Attended.hand_over`.
        """
        for listener in self._listeners:
            listener.let_go()
        return self._services.hand_over_held()

    async def hand_over(self, grace: float) -> None:
        """Another process has taken over, or is left in its place."""
        for listener in self._listeners:
            listener.let_go()
            await listener.arrived()
        # Idle connections stay: their next request is answered, and with it they are told to end. Nobody has to guess
        # whether a request was heard.
        self._say_so()
        await self._finish(grace)

    def let_idle_go(self) -> None:
        """Nobody is waited for who has nothing under way."""
        self._services.stopping = True
        self._each(lambda visitor: visitor.shutdown())

    def _say_so(self) -> None:
        """Before anything else, so that balancers and agents with another address to go to move first."""
        self.announce()
        self._node.doorway.go_away("the relay stops")
        # Held requests would otherwise use up the grace time; their agents come back to the next process.
        self._node.hub.give_up()

    async def _finish(self, grace: float) -> None:
        services = self._services
        await self._until(lambda: not services.exchanges and not any(one.busy for one in services.visitors), grace)
        # Visitors before agents: an exchange that is cut must be cut as an abort, not as an answer about a lost agent;
        # and a close frame needs the link to reach the local service.
        self._each(lambda visitor: visitor.part())
        until = HURRY_WITHIN if self._hurry.is_set() else LEAVE_WITHIN
        await self._until(lambda: not services.exchanges and not services.visitors, until, HURRY_WITHIN)
        await self._node.doorway.aclose("the relay stops")

    def _each(self, tell: Callable[[Attended], None]) -> None:
        """A defect of one connection must not keep the others, nor the node, from their end."""
        for visitor in list(self._services.visitors):
            try:
                tell(visitor)
            except Exception as error:
                self._loop.call_exception_handler({"message": "a connection failed to end", "exception": error})
                visitor.cut()

    async def _until(self, done: Callable[[], bool], within: float, in_a_hurry: float = 0.0) -> None:
        """Until it is so, for so many seconds at the most; in a hurry for fewer."""
        end = self._loop.time() + within
        while not done() and (left := end - self._loop.time()) > 0:
            if self._hurry.is_set():
                end = min(end, self._loop.time() + in_a_hurry)
                await asyncio.sleep(min(LOOK_EVERY, left))
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(LOOK_EVERY, left)):
                    await self._hurry.wait()
