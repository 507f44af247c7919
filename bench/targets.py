"""What the relay must reach, and what it should: one list, all of it data.

Every figure is a ratio within one run where it can be, so that a slower machine judges no differently.
"""

from __future__ import annotations

from bench.judge import Target, added_delay, added_time, against_nginx, between, peak, single
from bench.results import Results

KIB, MIB = 1024.0, 1024.0**2
ROUND_TRIP = 0.1
_NEAR_BULK = ("down-1", "up-1", "down-8", "up-8")
_FAR_BULK = ("far-down", "far-up")
_REQUEST = "each request is parsed, framed and answered by interpreters in two processes; nginx does it in one, in C"
_BYTES = "each byte is read and written by two processes where nginx needs one"

TARGETS: tuple[Target, ...] = (
    *(
        Target(
            f"small GET, {number} connections: requests/s, share of nginx's",
            against_nginx(f"small-{number}", "rate"),
            0.55,
            0.75,
            at_least=True,
            elsewhere="frp 0.10, piko 0.07, chisel 0.42, rathole 0.70",
            why=_REQUEST,
        )
        for number in (32, 256)
    ),
    Target(
        "small GET, 32 connections, each request another: requests/s, share of nginx's",
        against_nginx("varied-32", "rate"),
        0.55,
        0.75,
        at_least=True,
        why=_REQUEST + ", and here no head was seen before",
    ),
    Target(
        "CPU of the relay per small request, against nginx's",
        against_nginx("small-32", "relay_cpu"),
        1.5,
        1.0,
        elsewhere="frp 9×, piko 12×, chisel 1.8×, rathole 0.9×",
        why=_REQUEST,
    ),
    Target(
        "CPU of the agent per small request, against nginx's",
        against_nginx("small-32", "agent_cpu", "relay_cpu"),
        1.4,
        0.9,
        elsewhere="frp 9×, chisel 1.8×",
        why=_REQUEST,
    ),
    Target(
        "small GET, 1 connection: time added to direct, against nginx's addition",
        added_time,
        4.0,
        2.5,
        elsewhere="frp 5×, piko 11×, rathole 1.5×",
        why="two processes more must be woken in each direction, and with one request under way nothing is shared",
    ),
    Target(
        "one stream down: bytes/s, share of nginx's",
        against_nginx("down-1", "rate"),
        0.5,
        0.75,
        at_least=True,
        elsewhere="frp 0.30, piko 0.17, chisel 0.25, rathole 0.6",
        why=_BYTES,
    ),
    Target(
        "one stream up: bytes/s, share of nginx's",
        against_nginx("up-1", "rate"),
        0.5,
        0.8,
        at_least=True,
        elsewhere="frp 0.4, piko 0.45, chisel 0.45, rathole 0.9",
        why=_BYTES + "; what an agent sends and gets is also masked, as WebSocket demands",
    ),
    Target(
        "8 streams down: bytes/s, share of nginx's",
        against_nginx("down-8", "rate"),
        0.45,
        0.7,
        at_least=True,
        elsewhere="frp 0.3, piko 0.16, rathole 0.75",
        why=_BYTES,
    ),
    *(
        Target(
            f"CPU of the {side} per GiB {way}, against nginx's",
            against_nginx(f"{way}-1", f"{side}_cpu", "relay_cpu"),
            needed,
            wanted,
            elsewhere="frp 2.5× and 2.2×, piko 4.5× and 3.7×",
            why=_BYTES,
        )
        for side, needed, wanted in (("relay", 1.0, 0.7), ("agent", 1.5, 1.2))
        for way in ("down", "up")
    ),
    *(
        Target(
            f"memory of the {side} above idle in bulk{where}",
            peak(f"{side}_peak", names),
            needed,
            wanted,
            unit="MiB",
            elsewhere="frp 130 MB, sish 1.3 GB, wstunnel 550 MB in all",
            why="what the windows let be under way is held once in each process",
        )
        for names, where, needed, wanted in ((_NEAR_BULK, "", 48, 24), (_FAR_BULK, ", 100 ms", 96, 64))
        for side in ("relay", "agent")
    ),
    Target(
        "idle resident memory of the relay",
        single("idle", "relay_memory", MIB),
        96,
        64,
        unit="MiB",
        elsewhere="frp 24, piko 19, rathole 7",
        why="the interpreter and the imported libraries",
    ),
    Target(
        "idle resident memory of the agent",
        single("idle", "agent_memory", MIB),
        48,
        32,
        unit="MiB",
        elsewhere="frp 15, piko 18, rathole 7",
        why="the interpreter and the imported libraries",
    ),
    Target(
        "p99 of a small GET beside a bulk stream held at 100 MB/s, against its idle p99",
        between(("beside-held", "relay", "p99"), ("probe", "relay", "p99")),
        2.5,
        1.5,
        elsewhere="frp 1.4–3×, rathole 2.1×, chisel 4.7×, nginx 2.2×",
        why="a small request waits for the frame that is being handled, and for a core",
    ),
    Target(
        "p99 of a small GET beside a bulk stream at full speed, against its idle p99",
        between(("beside-full", "relay", "p99"), ("probe", "relay", "p99")),
        12,
        5,
        elsewhere="frp 11×, rathole 13×, chisel 33×, nginx 45×",
        why="a small request waits for the message that is being handled, and for a core",
    ),
    Target(
        "bulk at full speed beside small GETs: bytes/s, share of nginx's",
        against_nginx("beside-full", "bulk"),
        0.4,
        0.4,
        at_least=True,
        why=_BYTES,
    ),
    *(
        Target(
            f"one idle event stream: memory of the {side}",
            single("idle-streams", f"{side}_memory", KIB),
            needed,
            wanted,
            unit="KiB",
            elsewhere="frp 59 and 40, piko 70 and 70, rathole 17 and 18, nginx 14",
            why="a transport, a protocol object and a stream with its queues",
        )
        for side, needed, wanted in (("relay", 20, 12), ("agent", 8, 4))
    ),
    Target(
        "one idle tunnel, a further agent with one link: memory of the relay",
        single("idle-agents", "relay_memory", KIB),
        64,
        32,
        unit="KiB",
        elsewhere="frp 88, piko 44, wstunnel 24",
        why="the read buffer of the WebSocket is made for the first message",
    ),
    Target(
        "one idle tunnel, a further name of a known agent: memory of the relay",
        single("idle-names", "relay_memory", KIB),
        4,
        2,
        unit="KiB",
        elsewhere="frp 4–9, piko 44, wstunnel 26",
        why="a name is a row of a table",
    ),
    Target(
        "server-sent events at 100/s: median delay added to direct, against nginx's addition",
        added_delay,
        3.4,
        2.0,
        elsewhere="frp and piko 3.4×, rathole 1.6×, wstunnel 1.3×",
        why="two processes more must be woken for each event",
    ),
    *(
        Target(
            f"100 ms: one stream {way}, sustained, share of the same path without the delay",
            between((f"far-{way}", "relay", "sustained"), (f"path-{way}", "relay", "sustained")),
            0.8,
            0.95,
            at_least=True,
            elsewhere="frp 0.10, chisel 0.08, piko 0.01, rathole 0.7",
            why="the window is bounded, and so is the kernel's send buffer of one connection",
        )
        for way in ("down", "up")
    ),
    Target(
        "100 ms: p99 of a small GET beside that bulk, in round trips",
        single("far-beside", "p99", ROUND_TRIP),
        1.5,
        1.15,
        elsewhere="frp 1.1 (at 31 MB/s), rathole 1.5",
        why="what waits in the path stands in front of every small answer on the same link",
    ),
    Target(
        "100 ms: small GET, 32 connections, share of plain TCP through the same delay",
        between(("far-small-32", "relay", "rate"), ("far-small-32", "direct", "rate")),
        0.95,
        1.0,
        at_least=True,
        elsewhere="frp 1.0, rathole 0.95, wstunnel 0.2",
        why="the relay's own time is added to each round trip",
    ),
    Target(
        "CPU of the relay per request with 1,000 tunnels, against 1",
        between(("registered-1000", "relay", "relay_cpu"), ("registered-1", "relay", "relay_cpu")),
        1.1,
        1.0,
        why="a longer table of names, and the pings of more links",
    ),
    Target(
        "WebSocket echo, 128-byte messages, 32 connections: messages/s, share of nginx's",
        against_nginx("echo", "rate"),
        0.5,
        0.75,
        at_least=True,
        why="each message is a read, a frame and a write in two interpreters",
    ),
)


def lines(results: Results) -> list[str]:
    """Every target as one line of text, for a terminal."""
    said: list[str] = []
    for target in TARGETS:
        value, verdict = target.verdict(results)
        shown = "-" if value is None else f"{value:.{target.digits}f}{' ' + target.unit if target.unit else ''}"
        limits = f"needed {target.limit(target.needed)}, wanted {target.limit(target.wanted)}"
        said.append(f"{verdict.upper() if verdict == 'missed' else verdict:<13} {shown:>9}  {target.what} ({limits})")
    return said
