"""`relay health` in the list of commands. `relay.health` does it, and has answered before this is loaded."""

from __future__ import annotations

from typing import Annotated

import typer

from relay.health import main


def health(
    address: Annotated[
        str | None,
        typer.Argument(
            help="The internal listener's. [RELAY_INTERNAL, else RELAY_METRICS]",
            metavar="HOST:PORT",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Ask a relay or an agent whether it takes visitors: 0 if it does, else 1 and why.

    For health checks. What is asked is /readyz of the internal listener of a
    relay (its --internal), or of an agent (its --metrics).

    Example:

      relay health 127.0.0.1:9090
    """
    raise typer.Exit(main([] if address is None else [address]))
