"""What the relay must reach, and what it should: one list, all of it data.

Every figure is a ratio within one run where it can be, so that a slower machine judges no differently.
"""

from __future__ import annotations

from bench.judge import Target, added_delay, added_time, against_nginx, between, peak, single
from bench.reasons import of_bytes, of_memory, of_requests, of_time, told
from bench.results import Results

KIB, MIB = 1024.0, 1024.0**2
ROUND_TRIP = 0.1
_NEAR_BULK = ("down-1", "up-1", "down-8", "up-8", "beside-full")
_FAR_BULK = ("far-down", "far-up", "far-beside")
_IMPORTED = "the interpreter and the imported libraries"
_WINDOWS = told("what the windows let be under way is held once in each process")

TARGETS: tuple[Target, ...] = (
    *(
        Target(
            f"small GET, {number} connections: requests/s, share of nginx's",
            against_nginx(f"small-{number}", "rate"),
            0.55,
            0.75,
            at_least=True,
            why=of_requests(f"small-{number}"),
        )
        for number in (32, 256)
    ),
    Target(
        "small GET, 32 connections, each request another: requests/s, share of nginx's",
        against_nginx("varied-32", "rate"),
        0.55,
        0.75,
        at_least=True,
        why=of_requests("varied-32", "and here no head was seen before"),
    ),
    Target(
        "CPU of the relay per small request, against nginx's",
        against_nginx("small-32", "relay_cpu"),
        1.5,
        1.0,
        why=of_requests("small-32"),
    ),
    Target(
        "CPU of the agent per small request, against nginx's",
        against_nginx("small-32", "agent_cpu", "relay_cpu"),
        1.4,
        0.9,
        why=of_requests("small-32"),
    ),
    Target(
        "small GET, 1 connection: time added to direct, against nginx's addition",
        added_time,
        4.0,
        2.5,
        why=of_time(
            "small-1",
            "p50",
            "two processes more must be woken each way, and with one request under way nothing is shared; medians",
        ),
    ),
    Target(
        "one stream down: bytes/s, share of nginx's",
        against_nginx("down-1", "rate"),
        0.5,
        0.75,
        at_least=True,
        why=of_bytes("down-1"),
    ),
    Target(
        "one stream up: bytes/s, share of nginx's",
        against_nginx("up-1", "rate"),
        0.5,
        0.8,
        at_least=True,
        why=of_bytes("up-1", "what an agent gets is also framed as WebSocket demands"),
    ),
    Target(
        "8 streams down: bytes/s, share of nginx's",
        against_nginx("down-8", "rate"),
        0.45,
        0.7,
        at_least=True,
        why=of_bytes("down-8"),
    ),
    *(
        Target(
            f"CPU of the {side} per GiB {way}, against nginx's",
            against_nginx(f"{way}-1", f"{side}_cpu", "relay_cpu"),
            needed,
            wanted,
            why=of_bytes(f"{way}-1"),
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
            why=_WINDOWS,
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
        why=of_memory("idle", _IMPORTED, MIB, "MiB"),
    ),
    Target(
        "idle resident memory of the agent",
        single("idle", "agent_memory", MIB),
        48,
        32,
        unit="MiB",
        why=of_memory("idle", _IMPORTED, MIB, "MiB"),
    ),
    Target(
        "p99 of a small GET beside a bulk stream held at 100 MB/s, against its idle p99",
        between(("beside-held", "p99"), ("probe", "p99")),
        2.5,
        1.5,
        why=of_time("beside-held", "p99", "a small request waits for the frame that is being handled, and for a core"),
    ),
    Target(
        "p99 of a small GET beside a bulk stream at full speed, against its idle p99",
        between(("beside-full", "p99"), ("probe", "p99")),
        12,
        5,
        why=of_time("beside-full", "p99", "a small request waits for the frame that is being handled, and for a core"),
    ),
    Target(
        "bulk at full speed beside small GETs: bytes/s, share of nginx's",
        against_nginx("beside-full", "bulk"),
        0.4,
        0.4,
        at_least=True,
        why=of_bytes("down-1"),
    ),
    *(
        Target(
            f"one idle event stream: memory of the {side}",
            single("idle-streams", f"{side}_memory", KIB),
            needed,
            wanted,
            unit="KiB",
            why=of_memory("idle-streams", "a transport, a protocol object and a stream with its queues", KIB, "KiB"),
        )
        for side, needed, wanted in (("relay", 20, 12), ("agent", 8, 4))
    ),
    Target(
        "one idle tunnel, a further agent with one link: memory of the relay",
        single("idle-agents", "relay_memory", KIB),
        64,
        32,
        unit="KiB",
        why=of_memory(
            "idle-agents", "a connection with its read buffer, a session and a row of each table", KIB, "KiB"
        ),
    ),
    Target(
        "one idle tunnel, a further name of a known agent: memory of the relay",
        single("idle-names", "relay_memory", KIB),
        4,
        2,
        unit="KiB",
        why=of_memory("idle-names", "a name is a row of a table", KIB, "KiB"),
    ),
    Target(
        "server-sent events at 100/s: median delay added to direct, against nginx's addition",
        added_delay,
        3.4,
        2.0,
        why=of_time("events", "p50", "two processes more must be woken for each event; medians"),
    ),
    *(
        Target(
            f"100 ms: one stream {way}, sustained, share of the same path without the delay",
            between((f"far-{way}", "sustained"), (f"path-{way}", "sustained")),
            0.8,
            0.95,
            at_least=True,
            why=told("the window is bounded, and so is the kernel's send buffer of one connection"),
        )
        for way in ("down", "up")
    ),
    Target(
        "100 ms: p99 of a small GET beside that bulk, in round trips",
        single("far-beside", "p99", ROUND_TRIP),
        1.5,
        1.15,
        why=told("what waits in the path stands in front of every small answer on the same link"),
    ),
    Target(
        "100 ms: small GET, 32 connections, share of plain TCP through the same delay",
        between(("far-small-32", "rate"), ("far-small-32", "rate"), "direct"),
        0.95,
        1.0,
        at_least=True,
        why=told("the relay's own time is added to each round trip"),
    ),
    Target(
        "CPU of the relay per request with 1,000 tunnels, against 1",
        between(("registered-1000", "relay_cpu"), ("registered-1", "relay_cpu")),
        1.1,
        1.0,
        why=told("a longer table of names, and the pings of more links"),
    ),
    Target(
        "WebSocket echo, 128-byte messages, 32 connections: messages/s, share of nginx's",
        against_nginx("echo", "rate"),
        0.5,
        0.75,
        at_least=True,
        why=of_requests("echo", unit="message"),
    ),
)


def lines(results: Results) -> list[str]:
    """Every target as one line of text, for a terminal."""
    said: list[str] = []
    for target in TARGETS:
        verdict = target.verdict(results)
        limits = f"needed {target.limit(target.needed)}, wanted {target.limit(target.wanted)}"
        word = verdict.upper() if verdict == "missed" else verdict
        said.append(f"{word:<13} {target.show(target.value(results)):>9}  {target.what} ({limits})")
    return said
