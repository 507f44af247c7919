"""The agent: dials the relay, and speaks to the local service for it. Thin and alone: imports nothing of the server."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relay.agent.config import AgentSettings, Changes


def run(
    settings: AgentSettings,
    report: Callable[[dict[str, object]], None],
    changes: Changes | None = None,
    *,
    quiet: bool = False,
) -> int:
    """Runs an agent until a signal or a final refusal, by other settings whenever `changes` brings some. Blocks; the
    exit code (see `config.Exit`).

    `quiet`: of requests that went well, one after another, only the first is reported.
    """
    # Late: the command line imports this package for its settings, and most commands run no agent.
    from relay.agent.runner import run as run_agent

    return run_agent(settings, report, changes, quiet=quiet)
