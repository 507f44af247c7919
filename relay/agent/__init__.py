"""The agent: dials the relay, and speaks to the local service for it. Thin and alone: imports nothing of the server."""

from relay.agent.runner import run

__all__ = ["run"]
