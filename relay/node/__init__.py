"""Where parts are joined and run: one node. Only here and in `cli` are settings read."""

from relay.node.serve import run

__all__ = ["run"]
