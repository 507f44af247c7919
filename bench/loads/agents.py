"""Many agents in one process, for what each costs the relay: `python -m bench.loads.agents --agents N --names M`.

Every agent has one link and M names, and forwards to the same local service. The names are `PREFIX-agent-name`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from pathlib import Path

import uvloop

from bench.loads.wire import LoadError, say
from relay.agent.config import AgentSettings, FixedKey
from relay.agent.runner import Agent
from relay.agent.targets import parse_target

AT_ONCE = 16  # fewer than the strangers that a relay takes from one address
PATIENCE = 60.0


def main() -> None:
    """Entry of `python -m bench.loads.agents`."""
    parser = argparse.ArgumentParser(description="Run many agents.")
    parser.add_argument("--agents", type=int, default=1)
    parser.add_argument("--names", type=int, default=1, help="of each agent")
    parser.add_argument("--prefix", default="n")
    parser.add_argument("--relay", required=True)
    parser.add_argument("--key-file", type=Path, required=True)
    parser.add_argument("--target", required=True)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(hold(parser.parse_args()))


async def hold(options: argparse.Namespace) -> None:
    """Starts them, a few at a time; says so; keeps them until stdin ends."""
    key = options.key_file.read_text().strip()
    target = parse_target(options.target)
    running: list[asyncio.Task[int]] = []
    gate = asyncio.Semaphore(AT_ONCE)

    async def start(number: int) -> None:
        names = [f"{options.prefix}-{number:x}-{name:x}" for name in range(options.names)]
        settings = AgentSettings(
            relay_url=options.relay, keys=FixedKey(key), tunnels=tuple((name, target) for name in names), links=1
        )
        up = asyncio.Event()

        def report(event: dict[str, object]) -> None:
            if event["event"] in ("established", "refused", "error"):
                if event["event"] != "established":
                    say("trouble", detail=str(event))
                up.set()

        async with gate:
            running.append(asyncio.create_task(Agent(settings, report, "bench").run()))
            await asyncio.wait_for(up.wait(), PATIENCE)

    try:
        await asyncio.gather(*(start(number) for number in range(options.agents)))
    except TimeoutError:
        raise LoadError("an agent was not welcomed in time") from None
    say("holding", agents=len(running), names=options.names)
    await asyncio.to_thread(sys.stdin.read)
    for task in running:
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*running, return_exceptions=True)
    say("result", agents=len(running))


if __name__ == "__main__":
    main()
