"""The scripted run of a 2.x client that negotiates by itself: no session where the server speaks the 2026 protocol.

There a call is one POST, cancelling is leaving its stream, and changes come on a stream of their own. Against an older
server the same client falls back to the handshake, which a wrong answer from anything in between would break.
"""

from __future__ import annotations

from typing import Any

import anyio
from scenario import PATIENCE, Callbacks, Run


async def listen(run: Run, client: Any, idle: float) -> None:
    """A listen stream that stays silent, then delivers a change."""
    async with client.listen(tools_list_changed=True) as changes:
        await anyio.sleep(idle)
        await run.call(client, "change_tools")
        with anyio.fail_after(PATIENCE):
            async for change in changes:
                run.log.add("heard", type(change).__name__)
                break


async def negotiated(run: Run, idle: float) -> None:
    """The whole script."""
    callbacks = Callbacks()
    async with run.sdk.negotiate(run.endpoint, callbacks) as (client, seen):
        modern = client.protocol_version >= "2026"
        run.log.add("negotiated", {"version": client.protocol_version, "session": bool(seen.session)})
        await run.step_tools(client)
        await run.step_progress(client)
        await run.step_cancel(client)
        if modern:
            await run.call(client, "ask_in_rounds", question="Who are you?")
            await listen(run, client, idle)
        else:
            await run.call(client, "ask_person", question="Who are you?")
        run.log.add("asked", callbacks.asked)
