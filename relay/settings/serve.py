"""Every setting of the relay, once: name, type, default and help. Where values come from is in `sources`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from relay.keys.scopes import Scope
from relay.settings.amounts import MIB
from relay.settings.kinds import (
    ADDRESS,
    DATABASE,
    DIRECTORY,
    DOMAIN,
    FILE,
    HOSTS,
    NETWORKS,
    PLAN,
    PUBLIC_URL,
    SECONDS,
    SECONDS_OR_NONE,
    SWITCH,
    Address,
    Kind,
    Network,
    choice,
    count,
    seconds,
    size,
)
from relay.settings.plans import BUILT_IN

PREFIX = "RELAY_"
KEY_FILE_NAME = "operator.key"
DATABASE_NAME = "relay.db"


def default_data(environment: Mapping[str, str], platform: str = sys.platform) -> Path:
    """The directory for what the relay keeps, in the user's own state directory."""
    if platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "relay"
    if platform == "win32" and environment.get("LOCALAPPDATA"):
        return Path(environment["LOCALAPPDATA"]) / "relay"
    state = environment.get("XDG_STATE_HOME", "")
    # The XDG specification: a relative path in such a variable is to be ignored.
    return (Path(state) if Path(state).is_absolute() else Path.home() / ".local" / "state") / "relay"


def _about(kind: Kind, text: str) -> dict[str, object]:
    return {"kind": kind, "help": text}


# ------------------------------------------------------------------------------------------------ the settings


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeSettings:
    """What `relay serve` was told. Times are in seconds, sizes in bytes."""

    domain: str = field(
        default="tunnels.localhost", metadata=_about(DOMAIN, "Tunnels are the names directly below this domain.")
    )
    public: Address = field(default=Address("127.0.0.1", 8080), metadata=_about(ADDRESS, "Where visitors connect."))
    agents: Address = field(default=Address("127.0.0.1", 8081), metadata=_about(ADDRESS, "Where agents connect."))
    internal: Address | None = field(
        default=None,
        metadata=_about(
            ADDRESS, "Where /livez, /readyz, /metrics and /ask are served. Off unless set; never publish it."
        ),
    )
    data: Path = field(
        default_factory=lambda: default_data(os.environ),
        metadata=_about(DIRECTORY, "Where the relay keeps its files: database, operator key, signing key."),
    )
    public_url: str | None = field(
        default=None,
        metadata=_about(
            PUBLIC_URL,
            "Scheme and port of printed addresses. http://DOMAIN:PORT under .localhost, else https://DOMAIN; with "
            "--tls-cert https://DOMAIN:PORT.",
        ),
    )
    tls_cert: Path | None = field(
        default=None,
        metadata=_about(
            FILE,
            "A certificate with its chain (PEM) for DOMAIN and *.DOMAIN: both listeners speak TLS by themselves. "
            "Read again when it changes.",
        ),
    )
    tls_key: Path | None = field(default=None, metadata=_about(FILE, "The private key (PEM) of that certificate."))
    database_url: str | None = field(
        default=None,
        repr=False,
        metadata=_about(DATABASE, "The registry's database. A SQLite file DATA/relay.db unless set."),
    )
    database_url_file: Path | None = field(
        default=None, metadata=_about(FILE, "A file that holds the URL of the registry's database.")
    )
    audience: tuple[str, ...] = field(
        default=(),
        metadata=_about(
            HOSTS, "Other names or addresses by which commands reach this relay; they sign their requests for it."
        ),
    )
    quarantine: float = field(
        default=7 * 86400.0,
        metadata=_about(SECONDS_OR_NONE, "How long a subdomain that a project gave up stays closed to other projects."),
    )
    trusted_proxies: tuple[Network, ...] = field(
        default=(),
        metadata=_about(
            NETWORKS, "Proxies in front, whose X-Forwarded-* count. Needed unless on loopback or with --tls-cert."
        ),
    )
    head_timeout: float = field(
        default=10.0, metadata=_about(SECONDS, "A visitor's request head must be complete after this.")
    )
    idle_timeout: float = field(
        default=60.0,
        metadata=_about(SECONDS, "How long a request body, or a connection between requests, may be silent."),
    )
    response_head_timeout: float = field(
        default=300.0, metadata=_about(SECONDS, "How long the local service may take until its response head.")
    )
    hold: float = field(
        default=10.0,
        metadata=_about(SECONDS_OR_NONE, "How long a request waits for an agent that just dropped; 0: not at all."),
    )
    hold_most: int = field(
        default=1000, metadata=_about(count(0, 1_000_000, 1000), "Requests that may wait so at once, in all.")
    )
    ping_interval: float = field(
        default=5.0, metadata=_about(seconds(0.05, 3600), "How often each agent link is pinged.")
    )
    grace: float = field(
        default=30.0, metadata=_about(SECONDS_OR_NONE, "After SIGTERM: how long running exchanges may go on.")
    )
    max_connections: int = field(
        default=10_000, metadata=_about(count(1, 1_000_000, 10_000), "Visitors' connections at once.")
    )
    max_connections_per_address: int = field(
        default=1024,
        metadata=_about(
            count(1, 1_000_000, 1024),
            "Of these from one address (IPv6: one network of /64); proxies that are trusted: any.",
        ),
    )
    max_agent_connections: int = field(
        default=4096,
        metadata=_about(count(1, 1_000_000, 4096), "Connections of agents and commands at once, admitted or not."),
    )
    max_agent_connections_per_address: int = field(
        default=2048, metadata=_about(count(1, 1_000_000, 2048), "Of these from one address, counted likewise.")
    )
    memory_budget: int | None = field(
        default=None,
        metadata=_about(
            size(64 * MIB, 1024 * 1024 * MIB),
            "Resident memory that the relay keeps below. Three quarters of what the machine or its container has.",
        ),
    )
    metrics_tunnels: int = field(
        default=0,
        metadata=_about(count(0, 10_000, 100), "Tunnels with metrics of their own; further ones are counted together."),
    )
    max_streams: int = field(
        default=4096, metadata=_about(count(1, 1_000_000, 4096), "Exchanges at once on one agent link.")
    )
    session_window: int = field(
        default=64 * MIB,
        metadata=_about(size(MIB, 64 * MIB), "Most bytes under way on one agent link, towards the relay."),
    )
    default_plan: str | None = field(
        default=None, metadata=_about(PLAN, "The plan of every project that was given none. No limits unless set.")
    )
    plans: Mapping[str, Scope] = field(default_factory=lambda: BUILT_IN)
    """By name. They are tables of the settings file, so they have neither flag nor variable."""
    log_level: str = field(
        default="warning", metadata=_about(choice("debug", "info", "warning", "error"), "How much is logged to stderr.")
    )
    log_format: str = field(
        default="console", metadata=_about(choice("console", "json"), "What a line of the log looks like.")
    )
    access_log: bool = field(default=True, metadata=_about(SWITCH, "Log a line for each request that is over."))
    access_log_query: bool = field(
        default=False, metadata=_about(SWITCH, "Log the query of a request, too. It may hold secrets.")
    )

    @property
    def key_file(self) -> Path:
        """The file that holds the operator key once the relay has made one."""
        return self.data / KEY_FILE_NAME

    @property
    def database(self) -> str:
        """The URL of the registry's database. It may hold a password."""
        return self.database_url or f"sqlite:///{self.data / DATABASE_NAME}"

    @property
    def audiences(self) -> frozenset[str]:
        """Host names and addresses that a key's request may be meant for: this relay's own."""
        own = {self.domain, "localhost", "127.0.0.1", "::1", self.agents.host}
        return frozenset(own.union(self.audience))

    def base_url(self, port: int) -> str:
        """Public address of the domain itself; `port` is the one that the public listener really has."""
        if self.public_url is not None:
            return self.public_url
        if self.tls_cert is not None:
            return f"https://{self.domain}" + (f":{port}" if port != 443 else "")
        if self.domain == "localhost" or self.domain.endswith(".localhost"):
            return f"http://{self.domain}" + (f":{port}" if port != 80 else "")
        return f"https://{self.domain}"

    def url_of(self, subdomain: str, port: int) -> str:
        """Public address of a tunnel, without a path."""
        return self.base_url(port).replace("://", f"://{subdomain}.", 1)


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as the sources name it."""

    name: str
    kind: Kind
    help: str
    default: str
    """As a person would write it; empty where there is none."""

    @classmethod
    def of(cls, one: Field[Any]) -> Setting:
        value = one.default if isinstance(one.default, str | int | float | Address) else ""
        if isinstance(value, bool):
            shown = "on" if value else "off"
        elif isinstance(value, float):
            shown = f"{value:g}"
        elif isinstance(value, int) and value and value % MIB == 0:
            shown = f"{value // MIB}MiB"
        else:
            shown = str(value)
        return cls(one.name, one.metadata["kind"], one.metadata["help"], shown)

    @property
    def flag(self) -> str | None:
        """None for a secret: arguments of a process are there for everybody to see."""
        return None if self.kind is DATABASE else "--" + self.name.replace("_", "-")

    @property
    def environment(self) -> str:
        return PREFIX + self.name.upper()


SETTINGS: tuple[Setting, ...] = tuple(Setting.of(one) for one in fields(ServeSettings) if one.metadata)
