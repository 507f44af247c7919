"""The compose file as a project of its own name, ports and network: up, down, and what is done with it in between.

Knows `docker compose` and nothing of the product. Images are built once, with the host's network, since an engine need
not give builds another way to the package index.
"""

from __future__ import annotations

import functools
import json
import os
import random
import secrets
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]
IMAGE, DEMO_IMAGE = "localhost/relay-compose-test", "localhost/relay-compose-test-demo"
COMPILED_IMAGE = "localhost/relay-compose-test-compiled"
DOMAIN = "tunnels.localhost"
UP_WITHIN = 180.0
DESCRIPTORS = 65536


class EngineError(AssertionError):
    """A command of docker's failed; carries what it said."""


def docker(*words: str, given: bytes | None = None, timeout: float = 60.0, env: Mapping[str, str] | None = None) -> str:
    """What a command printed. Raises `EngineError`."""
    return docker_bytes(*words, given=given, timeout=timeout, env=env).decode()


def docker_bytes(
    *words: str, given: bytes | None = None, timeout: float = 60.0, env: Mapping[str, str] | None = None
) -> bytes:
    """The same, as it came."""
    done = subprocess.run(
        ["docker", *words], input=given or b"", capture_output=True, timeout=timeout, env=env, cwd=ROOT
    )
    if done.returncode:
        said = (done.stdout + done.stderr).decode(errors="replace")
        raise EngineError(f"docker {' '.join(words)} ended with {done.returncode}:\n{said[-4000:]}")
    return done.stdout


def inspect(container: str) -> dict[str, Any]:
    """All that the engine knows of a container or an image."""
    (found,) = json.loads(docker("inspect", container))
    assert isinstance(found, dict)
    return found


@functools.cache
def descriptors() -> int:
    """How many a container may have: an engine that is no service of the system may be bounded itself."""
    base = docker("image", "inspect", "-f", "{{.Id}}", IMAGE).strip()
    said = docker("run", "--rm", "--entrypoint", "python", base, "-c", "import resource as r; print(r.getrlimit(7)[1])")
    return min(DESCRIPTORS, int(said))


def build(*services: str, image: str = IMAGE, **variables: str) -> None:
    """Images as the compose file says, by default both; with these variables, as `.env` sets them."""
    words = ["compose", "--env-file", os.devnull, "-f", "docker-compose.yaml", "-f", "tests/compose/network.yaml"]
    env = clean() | {"RELAY_IMAGE": image, "RELAY_DEMO_IMAGE": DEMO_IMAGE, **variables}
    docker(*words, "--profile", "demo", "build", *(services or ("relay", "demo-server")), timeout=900, env=env)


def clean() -> dict[str, str]:
    """This process's environment without what would steer compose or the product."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("RELAY_", "COMPOSE_", "ACME_"))}


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("0.0.0.0", 0))
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()


@dataclass(slots=True)
class Stack:
    """A project. As a context it ends with everything that it made, volumes too."""

    profiles: Sequence[str] = ()
    extra: Mapping[str, str] = field(default_factory=dict)
    name: str = field(default_factory=lambda: f"relay-test-{secrets.token_hex(3)}")
    env: dict[str, str] = field(default_factory=dict)
    http: int = 0
    https: int = 0
    internal: int = 0
    prometheus: int = 0

    def __post_init__(self) -> None:
        self.http, self.https, self.internal, self.prometheus, grafana = free_ports(5)
        self.env = clean() | {
            "RELAY_IMAGE": IMAGE,
            "RELAY_DEMO_IMAGE": DEMO_IMAGE,
            "RELAY_HTTP_PORT": str(self.http),
            "RELAY_HTTPS_PORT": str(self.https),
            "RELAY_INTERNAL_PORT": str(self.internal),
            "RELAY_NETWORK": f"10.{random.randrange(128, 255)}.{random.randrange(256)}",
            "RELAY_DESCRIPTORS": str(descriptors()),
            "PROMETHEUS_PORT": str(self.prometheus),
            "GRAFANA_PORT": str(grafana),
            **self.extra,
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note(self("logs", "--no-color", "--tail", "40"))
        self.down()

    def __call__(self, *words: str, given: bytes | None = None, timeout: float = 60.0) -> str:
        """`docker compose` of this project."""
        return docker(*self._words(*words), given=given, timeout=timeout, env=self.env)

    def bytes(self, *words: str, given: bytes | None = None, timeout: float = 60.0) -> bytes:
        """The same, as it came."""
        return docker_bytes(*self._words(*words), given=given, timeout=timeout, env=self.env)

    def _words(self, *words: str) -> list[str]:
        profiles = [word for one in self.profiles for word in ("--profile", one)]
        return ["compose", "--env-file", os.devnull, "-p", self.name, "-f", "docker-compose.yaml", *profiles, *words]

    def up(self, *services: str, wait: bool = True) -> None:
        """Starts the services, all by default, and waits until they are healthy."""
        self("up", "-d", "--no-build", *(["--wait"] if wait else []), *services, timeout=UP_WITHIN)

    def down(self) -> None:
        """Ends everything."""
        words = ["compose", "--env-file", os.devnull, "-p", self.name, "-f", "docker-compose.yaml", "--profile", "*"]
        docker(*words, "down", "-v", "--remove-orphans", "-t", "3", timeout=120, env=self.env)

    def relay(self, *words: str, timeout: float = 30.0) -> str:
        """A command in the relay's container, as an operator gives it."""
        return self("exec", "-T", "relay", "relay", *words, timeout=timeout)

    def json(self, *words: str) -> Any:
        """The same, for its JSON."""
        return json.loads(self.relay(*words, "--json"))

    def container(self, service: str) -> dict[str, Any]:
        """What the engine knows of a service's container."""
        return inspect(self("ps", "-aq", service).strip())

    def authority(self, folder: Path) -> Path:
        """The certificate of Caddy's own authority, in a file."""
        file = folder / f"{self.name}.crt"
        file.write_text(self("exec", "-T", "caddy", "cat", "/data/caddy/pki/authorities/local/root.crt"))
        return file

    def certificates(self) -> set[str]:
        """The names that Caddy has a certificate for."""
        found = self("exec", "-T", "caddy", "find", "/data/caddy/certificates", "-name", "*.crt").split()
        return {Path(one).stem for one in found}
