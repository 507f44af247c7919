"""`relay.yaml`: what its members mean, and which files it speaks of. A mistake names file, line and member.

Secrets stand in files of their own, which the file names, relative to its own place; the environment is not filled in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import TypeVar

from relay.agent.addresses import AddressNotAllowed, AddressPolicy
from relay.agent.config import DEFAULT_LINKS, MOST_LINKS
from relay.agent.targets import EXAMPLES, Target, TargetError, parse_target
from relay.cli.access_options import MOST, check_size, read_fields, read_users
from relay.cli.errors import Mistake
from relay.cli.options import label_of
from relay.cli.output import harmless, warn
from relay.cli.secretfiles import is_special, placed
from relay.cli.yamlfile import Part, read_yaml
from relay.exchange.heads import Fields
from relay.settings.kinds import ADDRESS, Address
from relay.wire.access import AccessRules
from relay.wire.hello import MAX_NAMES
from relay.wire.limits import MOST_RATE, TunnelLimits

DEFAULT_FILE = "relay.yaml"
MEMBERS = ("relay", "project", "key_file", "links", "metrics", "tunnels", "allow_upstream")
OF_A_TUNNEL = (
    "target",
    "private",
    "basic_auth_file",
    "upstream_header_file",
    "preserve_host",
    "rate",
    "rate_per_address",
)
MOST_NETWORKS = 64
NO_LIMITS = TunnelLimits()
_TUNNELS = "a mapping of names to local services, such as   mcp-me: 3000"
_TUNNEL = "a local service, for example 3000, or a mapping with target: and what else it needs"
_PROJECT = "a project's name or id, for example project: mcp-server"
_FILE = "the name of a file, for example"

T = TypeVar("T")
Mark = tuple[int, int, int, int]
"""When a file was written, and anything of it changed, as who may read it (ns), its inode and size; 0 without one."""


@dataclass(frozen=True, slots=True)
class OneTunnel:
    """A tunnel of the file."""

    name: str
    target: Target
    rules: AccessRules | None = None
    upstream: Fields = field(default_factory=list, repr=False)
    preserve_host: bool = False
    limits: TunnelLimits = NO_LIMITS


@dataclass(frozen=True, slots=True)
class TunnelFile:
    """What a file says. `relay`, `project` and `key_file` come with the place where they stand."""

    tunnels: tuple[OneTunnel, ...]
    relay: tuple[str, str] | None = None
    project: tuple[str, str] | None = None
    key_file: tuple[Path, str] | None = None
    links: int = DEFAULT_LINKS
    metrics: tuple[str, int] | None = None
    allow_upstream: tuple[IPv4Network | IPv6Network, ...] = ()


class TunnelReader:
    """Reads one file, as often as it changes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files: dict[Path, Mark] = {}
        """The file and those that it names, as they were just before they were read."""
        self._hashed: dict[Path, tuple[bytes, tuple[tuple[str, str], ...]]] = {}

    def read(self) -> TunnelFile:
        """Raises `Mistake`. Blocks while passwords are hashed that were not before."""
        self.files = {self.path: mark(self.path)}
        whole = read_yaml(self.path)
        members = whole.members("a mapping of members, such as tunnels:", MEMBERS)
        if "tunnels" not in members:
            raise whole.mistake("has no tunnels: write tunnels: and below it a line such as   mcp-me: 3000")
        networks = tuple(_networks(members["allow_upstream"])) if "allow_upstream" in members else ()
        tunnels = tuple(self._tunnels(members["tunnels"], AddressPolicy(networks)))
        access = {one.name: one.rules for one in tunnels if one.rules is not None}
        limits = {one.name: one.limits for one in tunnels if one.limits != NO_LIMITS}
        try:
            check_size([one.name for one in tunnels], access, limits)
        except Mistake as mistake:
            raise Mistake(f"{members['tunnels'].place}: {mistake}") from None
        relay = members.get("relay")
        return TunnelFile(
            tunnels,
            relay=None if relay is None else (relay.text(f"the relay's address, {_for('relay')}"), relay.place),
            project=_read(members, "project", lambda part: (part.text(_PROJECT), part.place)),
            key_file=_read(members, "key_file", lambda part: (self._file(part, "child.key"), part.place)),
            links=_read(members, "links", _links) or DEFAULT_LINKS,
            metrics=_read(members, "metrics", _metrics),
            allow_upstream=networks,
        )

    def _tunnels(self, part: Part, policy: AddressPolicy) -> list[OneTunnel]:
        named = part.members(_TUNNELS)
        if not named:
            raise part.mistake(f"must be {_TUNNELS}")
        if len(named) > MAX_NAMES:
            raise part.mistake(
                f"has {len(named)} tunnels, and one agent opens at most {MAX_NAMES}: put the rest into another file, "
                "for another agent"
            )
        found: dict[str, OneTunnel] = {}
        for name, value in named.items():
            label = label_of(name, f"{value.file}:{value.line}: the name of a tunnel")
            if label in found:
                raise value.mistake(f"is the name {label} once more; leave one out")
            found[label] = self._tunnel(label, value, policy)
        return list(found.values())

    def _tunnel(self, name: str, part: Part, policy: AddressPolicy) -> OneTunnel:
        if part.is_scalar():
            return OneTunnel(name, _target(part, policy, _TUNNEL))
        members = part.members(_TUNNEL, OF_A_TUNNEL)
        if "target" not in members:
            raise part.mistake("has no target: write target: 3000, say")
        users = _read(members, "basic_auth_file", self._users) or ()
        private = _read(members, "private", lambda part: part.flag("true or false, for example private: true"))
        fields = members.get("upstream_header_file")
        upstream = [] if fields is None else read_fields(self._file(fields, "fields.txt"), fields.place)
        rules = AccessRules(bool(private), users) if private or users else None
        if fields is not None and rules is None:
            warn(
                f"{fields.place}: this tunnel is open to everybody, and these fields let them in at the local service: "
                "ask visitors for something with private or basic_auth_file."
            )
        keep = _read(members, "preserve_host", lambda part: part.flag("true or false, for example preserve_host: true"))
        rates = (_read(members, member, _rate) for member in ("rate", "rate_per_address"))
        target = _target(members["target"], policy, f"a port, HOST:PORT or a URL, for example {EXAMPLES}")
        return OneTunnel(name, target, rules, upstream, bool(keep), TunnelLimits(*rates))

    def _users(self, part: Part) -> tuple[tuple[str, str], ...]:
        """Users with hashes of their passwords, which are made once for a file that stays the same: a hash is another
        one each time, and visitors' passwords would have to be checked again.
        """
        path = self._file(part, "people.txt")
        try:
            with path.open("rb") as file:
                digest = hashlib.sha256(file.read(MOST + 1)).digest()
        except OSError:
            digest = b""
        known = self._hashed.get(path)
        if known is None or not digest or known[0] != digest:
            known = self._hashed[path] = digest, tuple(read_users(path, part.place))
        return known[1]

    def _file(self, part: Part, example: str) -> Path:
        member = part.name.rpartition(".")[2]
        named = part.text(f"{_FILE} {member}: {example}")
        try:
            path = self.path.parent / placed(Path(named))
        except Mistake as mistake:
            raise Mistake(f"{part.place}: {mistake}") from None
        self.files.setdefault(path, mark(path))
        if is_special(path):
            raise part.mistake(f"must be the name of a regular file, but {path} is none")
        return path


def mark(path: Path) -> Mark:
    """By which it is seen that a file is another one than before."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0, 0, 0
    return found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_size


def _read(members: dict[str, Part], name: str, read: Callable[[Part], T]) -> T | None:
    part = members.get(name)
    return None if part is None else read(part)


def _for(member: str) -> str:
    return f"for example {member}: wss://tunnels.example.com"


def _links(part: Part) -> int:
    return part.number(1, MOST_LINKS, f"a number from 1 to {MOST_LINKS}, for example links: 2")


def _metrics(part: Part) -> tuple[str, int]:
    form = "HOST:PORT, for example metrics: 127.0.0.1:9091"
    try:
        address = ADDRESS.parse(part.text(form))
    except ValueError:
        raise part.wrong(form) from None
    assert isinstance(address, Address)
    return address.host, address.port


def _rate(part: Part) -> int:
    member = part.name.rpartition(".")[2]
    return part.number(1, MOST_RATE, f"a number of requests a second, 1 to {MOST_RATE}, for example {member}: 20")


def _target(part: Part, policy: AddressPolicy, form: str) -> Target:
    text = part.text(form)
    try:
        target = parse_target(text)
    except TargetError as error:
        raise Mistake(f"{part.place}: {harmless(error)}") from None
    try:
        policy.check(target.host)
    except AddressNotAllowed as error:
        if target.host.replace(".", "").isdigit() or ":" in target.host:  # else a name, resolved at each connection
            raise _forbidden(part, target, str(error)) from None
    return target


def _forbidden(part: Part, target: Target, said: str) -> Mistake:
    if "--allow-upstream" not in said:
        return Mistake(f"{part.place}: {said}")
    return part.mistake(
        f"is {target.host}, which is neither a loopback nor a private address: to allow it, write "
        f"allow_upstream: [{ip_network(target.host)}] at the top of the file"
    )


def _networks(part: Part) -> list[IPv4Network | IPv6Network]:
    form = "a list of networks in CIDR form, for example allow_upstream: [203.0.113.0/24]"
    found: list[IPv4Network | IPv6Network] = []
    for one in part.items(form):
        if len(found) == MOST_NETWORKS:
            raise part.mistake(f"has more than {MOST_NETWORKS} networks; leave some out, or join them")
        text = one.text("a network in CIDR form, for example 203.0.113.0/24")
        try:
            found.append(ip_network(text))
        except ValueError:
            raise one.wrong("a network in CIDR form, for example 203.0.113.0/24") from None
    return found
