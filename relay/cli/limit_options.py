"""Limits on the command line: the options that ask for them, and the words for limits and for what was used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

import typer

from relay.cli.errors import Mistake
from relay.cli.output import harmless, size
from relay.cli.tables import cell, when
from relay.settings.amounts import bandwidth_of, told_bandwidth, told_size

Tunnels = Annotated[int | None, typer.Option("--tunnels", help="At most so many tunnels at once.", metavar="N")]
Rate = Annotated[int | None, typer.Option("--rate", help="At most so many requests a second.", metavar="N")]
Bandwidth = Annotated[
    str | None,
    typer.Option("--bandwidth", help="At most so much a second each way, such as '10 Mbit/s'.", metavar="AMOUNT"),
]
Streams = Annotated[int | None, typer.Option("--streams", help="At most so many requests at once.", metavar="N")]
Body = Annotated[
    str | None, typer.Option("--body", help="At most so many bytes in a request, such as 10MiB.", metavar="BYTES")
]
Requests = Annotated[int | None, typer.Option("--requests", help="At most so many requests a month.", metavar="N")]
Bytes = Annotated[
    str | None, typer.Option("--bytes", help="At most so many bytes a month, both ways together.", metavar="BYTES")
]

# What a limit is called where it is told, and how its amount is.
_TOLD: Mapping[str, tuple[str, Callable[[int], str]]] = {
    "tunnels": ("tunnels", str),
    "streams": ("requests at once", str),
    "rate": ("requests a second", str),
    "bandwidth": ("bandwidth each way", told_bandwidth),
    "body": ("bytes in a request", told_size),
    "monthly_requests": ("requests a month", str),
    "monthly_bytes": ("bytes a month", told_size),
}
COLUMNS = tuple(name.upper() for name, _ in _TOLD.values())


def read_bandwidth(text: str | None) -> int | None:
    """What `--bandwidth` said, in bytes a second. Raises `Mistake`."""
    if text is None:
        return None
    try:
        return bandwidth_of(text)
    except ValueError:
        raise Mistake(
            "--bandwidth must be an amount a second, for example --bandwidth '10 Mbit/s' or --bandwidth 1MiB/s, "
            f"but it is {harmless(text)!r}."
        ) from None


def limit_cells(limits: Mapping[str, Any]) -> list[str]:
    """Limits under `COLUMNS`, empty where there is none."""
    return [_told(member, limits.get(member)) for member in _TOLD]


def limit_facts(limits: Mapping[str, Any], effective: Mapping[str, Any] | None = None) -> list[tuple[str, str]]:
    """Each limit with its name. Where another one holds in effect, from a key or a plan above, it is that which is told
    first.
    """
    found = []
    for member, (name, _) in _TOLD.items():
        own, holds = _told(member, limits.get(member)), _told(member, (effective or limits).get(member))
        if own == holds:
            found.append((name, own))
        else:
            found.append((name, f"{holds} (of a key or plan above; its own: {own or 'none'})"))
    return found


def _told(member: str, amount: object) -> str:
    if not isinstance(amount, int):  # whatever a relay of another age says
        return cell(amount)
    return _TOLD[member][1](amount)


# ---- what was used


def amount_cells(used: Mapping[str, Any]) -> list[str]:
    """Requests, bytes in, bytes out, what is left."""
    return [cell(used.get("requests")), size(used.get("bytes_in")), size(used.get("bytes_out")), left_of(used)]


def usage_facts(used: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    """A month of a key."""
    if not used:
        return
    requests, inward, outward, left = amount_cells(used)
    yield f"used in {cell(used.get('month'))}", f"{requests} requests, {inward} in, {outward} out"
    yield "left", f"{left}, until {when(used.get('ends_at'))}"


def left_of(used: Mapping[str, Any]) -> str:
    """`18766 requests, 4.2 GB`."""
    left = used.get("left") or {}
    words = []
    if left.get("requests") is not None:
        words.append(f"{cell(left['requests'])} requests")
    if left.get("bytes") is not None:
        words.append(size(left["bytes"]))
    return ", ".join(words) or "no limit"
