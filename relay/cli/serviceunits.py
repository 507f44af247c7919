"""What a service manager is given to run an agent by: a unit of systemd, a property list of launchd. Holds no secret.

A service has nothing of the environment of whoever installs it, so all that it needs stands in the file of its tunnels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MARK = "Written by: relay service install"
"""Stands in whatever this wrote, so that nobody else's is replaced or removed."""
GRACE = 45
"""Seconds that the agent has to end; open requests may take 30 of them."""
RESTART = 10
FINAL = (2, 3, 5, 6, 7)
"""Exit codes after which another start would end in the same way (docs/agent.md)."""
CREDENTIAL = "agent-key"

# As in deploy/systemd/relay-agent.service, where what each is for can be looked up.
SANDBOX = """\
UMask=0077
CapabilityBoundingSet=
AmbientCapabilities=
NoNewPrivileges=yes
ProtectSystem=strict
PrivateTmp=yes
PrivateDevices=yes
PrivateUsers=yes
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
ProtectProc=invisible
ProcSubset=pid
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RemoveIPC=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM
"""


@dataclass(frozen=True, slots=True)
class Service:
    """An agent that is to run by itself."""

    name: str
    program: tuple[str, ...]
    """What `relay` is called by, with absolute paths."""
    file: Path
    """Of its tunnels, absolute."""
    system: bool = False
    """Of the machine, not of one user."""
    user: str = ""
    """Whose it runs as, of a machine's service; empty: a user of its own, made when it starts."""
    key_file: Path | None = None
    """Of a service with a user of its own: what root alone can read, handed over as a credential."""

    @property
    def command(self) -> tuple[str, ...]:
        """What is run."""
        return (*self.program, "start", "--file", str(self.file), "--quiet")


def systemd_unit(service: Service) -> str:
    """A whole unit file."""
    return "\n".join(_unit(service)) + "\n"


def _unit(service: Service) -> Iterator[str]:
    yield f"# {MARK}"
    yield "[Unit]"
    yield f"Description=Relay agent: the tunnels of {_escaped(str(service.file))}"
    if service.system:
        yield "Wants=network-online.target"
        yield "After=network-online.target"
    yield ""
    yield "[Service]"
    yield "Type=exec"
    words = [_quoted(word) for word in service.command]
    if service.key_file is not None:
        words += ["--key-file", f"%d/{CREDENTIAL}"]
        yield f"LoadCredential={CREDENTIAL}:{_escaped(str(service.key_file))}"
    yield f"ExecStart={' '.join(words)}"
    yield "ExecReload=/bin/kill -HUP $MAINPID"
    yield "Restart=always"
    yield f"RestartSec={RESTART}"
    yield f"RestartPreventExitStatus={' '.join(map(str, FINAL))}"
    yield f"TimeoutStopSec={GRACE}"
    if service.system:
        yield f"User={service.user}" if service.user else "DynamicUser=yes"
        yield f"ProtectHome={'read-only' if service.user else 'yes'}"
        yield from SANDBOX.splitlines()
    else:
        yield "NoNewPrivileges=yes"
    yield ""
    yield "[Install]"
    yield f"WantedBy={'multi-user.target' if service.system else 'default.target'}"


def _escaped(text: str) -> str:
    """Without what systemd would take for a specifier."""
    return text.replace("%", "%%")


def _quoted(word: str) -> str:
    """One word of a command line, as systemd.service(5) reads it."""
    word = _escaped(word).replace("$", "$$")
    if re.fullmatch(r"[\w@%+=:,./$-]+", word, re.ASCII):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


def launchd_plist(service: Service, log: Path) -> bytes:
    """A whole property list; launchd writes what the agent says to `log`."""
    import plistlib

    told: dict[str, object] = {
        "Label": service.name,
        "ProgramArguments": list(service.command),
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": RESTART,
        "ExitTimeOut": GRACE,
        "ProcessType": "Background",
        "WorkingDirectory": str(service.file.parent),
        "StandardOutPath": str(log),
        "StandardErrorPath": str(log),
        "Umask": 0o077,
    }
    if service.system and service.user:
        told["UserName"] = service.user
    text = plistlib.dumps(told, sort_keys=False)
    head, _, rest = text.partition(b"<plist")
    return head + f"<!-- {MARK} -->\n".encode() + b"<plist" + rest
