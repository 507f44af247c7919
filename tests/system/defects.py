"""`relay` with defects where secrets are at hand: the errors say all that the failing function was given.

The variable DEFECT says where: `start`, of a relay, an agent, a command; or `inside` of a relay or an agent that runs.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import relay.agent
import relay.agent.forwarder
import relay.api.app
import relay.cli
import relay.cli.client
import relay.edge.access
import relay.node
from relay.tunnels.keyadmission import KeyAdmission

MARK = "defect"


def _broken(real: Callable[..., Any], about: Callable[..., object]) -> Any:
    """The real thing, but for what is about a defect."""

    def call(*things: Any, **more: Any) -> Any:
        if MARK in str(about(*things)):
            raise RuntimeError(f"forced: {things!r}")
        return real(*things, **more)

    return call


def break_start() -> None:
    """Nothing begins."""
    everything = _broken(lambda: None, lambda *things: MARK)
    for place, name in ((relay.node, "run"), (relay.agent, "run"), (relay.cli.client.Client, "_send")):
        setattr(place, name, everything)


def break_inside() -> None:
    """What a hello, a request to the API or a visitor's request asks for by its name, path or key."""
    forwarder, app, access = relay.agent.forwarder, relay.api.app, relay.edge.access
    for place, name, about in (
        (KeyAdmission, "admit", lambda _self, hello, _address: hello.names),
        (app, "authenticate", lambda _office, fields, _address: fields),
        (access, "decide", lambda request, *_: request.target if b"relay" in request.target else ""),
        (forwarder.Forwarding, "__init__", lambda _self, _forwarder, _stream, prepared, *_: prepared.request.target),
    ):
        setattr(place, name, _broken(getattr(place, name), about))


if __name__ == "__main__":
    {"start": break_start, "inside": break_inside}[os.environ["DEFECT"]]()
    relay.cli.main()
