"""Other tunnels, measured where their programs are on the PATH: how each is started, and its public port.

Routing by `Host` is used where a rival has it (frp, piko); the others forward plain TCP, one port for each origin.
Encryption between agent and relay is off where it can be, as it is for the relay on one machine.
"""

from __future__ import annotations

import dataclasses

from bench.nginxconf import SMALL
from bench.place import Door, Place, Unavailable, answers, free_ports, program
from bench.systems import Running, System, Together
from tests.support.processes import DOMAIN

BORE_CONTROL_PORT = 7835  # fixed in bore
_QUIET = {"RUST_LOG": "error"}


async def _frp(place: Place) -> Running:
    server, client = program("frps"), program("frpc")
    bind, public = free_ports(2)
    serving = place.directory / "frps.toml"
    serving.write_text(
        f'bindAddr = "127.0.0.1"\nbindPort = {bind}\nproxyBindAddr = "127.0.0.1"\nvhostHTTPPort = {public}\n'
        'log.level = "error"\n'
    )
    relay = await place.run([server, "-c", str(serving)], "frps")
    text = f'serverAddr = "127.0.0.1"\nserverPort = {await place.reach(bind)}\n'
    text += 'log.level = "error"\ntransport.tls.enable = false\n'
    for name, port in (("s", place.static), ("l", place.live)):
        text += f'[[proxies]]\nname = "{name}"\ntype = "http"\nlocalIP = "127.0.0.1"\nlocalPort = {port}\n'
        text += f'customDomains = ["{name}.{DOMAIN}"]\n'
    configured = place.directory / "frpc.toml"
    configured.write_text(text)
    agent = await place.run([client, "-c", str(configured)], "frpc")
    return Running("frp", Door(public, f"s.{DOMAIN}"), Door(public, f"l.{DOMAIN}"), relay, agent)


async def _piko(place: Place) -> Running:
    piko = program("piko")
    public, upstream, admin, gossip, own = free_ports(5)
    argv = [piko, "server", "--log.level", "error"]
    for what, port in (("proxy", public), ("upstream", upstream), ("admin", admin), ("gossip", gossip)):
        argv += [f"--{what}.bind-addr", f"127.0.0.1:{port}"]
    relay = await place.run(argv, "piko server")
    text = "listeners:\n"
    for name, port in (("s", place.static), ("l", place.live)):
        text += f"  - endpoint_id: {name}\n    addr: 127.0.0.1:{port}\n    access_log: false\n    timeout: 600s\n"
    text += f"connect:\n  url: http://127.0.0.1:{await place.reach(upstream)}\n"
    text += f"server:\n  bind_addr: 127.0.0.1:{own}\nlog:\n  level: error\n"
    configured = place.directory / "piko.yaml"
    configured.write_text(text)
    agent = await place.run([piko, "agent", "start", "--config.path", str(configured)], "piko agent")
    return Running("piko", Door(public, f"s.{DOMAIN}"), Door(public, f"l.{DOMAIN}"), relay, agent)


async def _chisel(place: Place) -> Running:
    chisel = program("chisel")
    control, static, live = free_ports(3)
    relay = await place.run([chisel, "server", "--reverse", "--host", "127.0.0.1", "--port", str(control)], "chisel")
    ways = [f"R:127.0.0.1:{static}:127.0.0.1:{place.static}", f"R:127.0.0.1:{live}:127.0.0.1:{place.live}"]
    agent = await place.run(
        [chisel, "client", f"http://127.0.0.1:{await place.reach(control)}", *ways], "chisel client"
    )
    return Running("chisel", Door(static), Door(live), relay, agent)


async def _rathole(place: Place) -> Running:
    rathole = program("rathole")
    control, static, live = free_ports(3)
    serving, configured = place.directory / "server.toml", place.directory / "client.toml"
    text = f'[server]\nbind_addr = "127.0.0.1:{control}"\ndefault_token = "bench"\n'
    for name, port in (("static", static), ("live", live)):
        text += f'[server.services.{name}]\nbind_addr = "127.0.0.1:{port}"\n'
    serving.write_text(text)
    relay = await place.run([rathole, "--server", str(serving)], "rathole", _QUIET)
    text = f'[client]\nremote_addr = "127.0.0.1:{await place.reach(control)}"\ndefault_token = "bench"\n'
    for name, port in (("static", place.static), ("live", place.live)):
        text += f'[client.services.{name}]\nlocal_addr = "127.0.0.1:{port}"\n'
    configured.write_text(text)
    agent = await place.run([rathole, "--client", str(configured)], "rathole client", _QUIET)
    return Running("rathole", Door(static), Door(live), relay, agent)


async def _bore(place: Place) -> Running:
    bore = program("bore")
    static, live = free_ports(2)
    low, high = sorted((static, live))
    relay = await place.run(
        [bore, "server", "--min-port", str(low), "--max-port", str(high), "--bind-addr", "127.0.0.1"], "bore", _QUIET
    )
    argv = [bore, "local", "--to", "127.0.0.1"]
    agent = await place.run([*argv, str(place.static), "--port", str(static)], "bore client", _QUIET)
    second = await place.run([*argv, str(place.live), "--port", str(live)], "bore client", _QUIET)
    if relay.returncode is not None:
        raise Unavailable(f"bore's port {BORE_CONTROL_PORT} is in use")
    return Running("bore", Door(static), Door(live), relay, Together(agent, second))


def _rival(system: System) -> System:
    start = system.start

    async def checked(place: Place) -> Running:
        running = await start(place)
        await answers(running.static, SMALL)
        return running

    return dataclasses.replace(system, start=checked, rival=True)


_BYTES_ONLY = (
    "it copies the bytes of a TCP port: it reads no request, routes none by name, and adds, checks or refuses nothing"
)
_COMPILED = "it is compiled"

RIVALS = tuple(
    _rival(system)
    for system in (
        System("frp", "frps and frpc, HTTP proxies by domain, without TLS", _frp, ("frps", "-v"), spares=_COMPILED),
        System("piko", "piko server and agent, HTTP endpoints", _piko, ("piko", "--version"), spares=_COMPILED),
        System("chisel", "reverse ports, always over SSH", _chisel, ("chisel", "--version"), spares=_BYTES_ONLY),
        System(
            "rathole", "plain TCP, one port for each service", _rathole, ("rathole", "--version"), spares=_BYTES_ONLY
        ),
        System(
            "bore",
            "plain TCP, one port and one client for each service",
            _bore,
            ("bore", "--version"),
            delayable=False,
            spares=_BYTES_ONLY,
        ),
    )
)
