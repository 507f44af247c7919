"""The image: small, without root and compilers, quick to start, content with a root it cannot write to; it drains."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import secrets
import time
from collections.abc import Iterator
from datetime import datetime

import pytest

from tests.compose.conftest import Told
from tests.compose.engine import IMAGE, EngineError, docker, inspect
from tests.compose.images import needed

pytestmark = [pytest.mark.compose, pytest.mark.timeout(300)]
MOST_ADDED = 90e6
START_WITHIN = 2.0
COMPILERS = "cc gcc g++ c++ clang tcc as ld cl rustc cargo go"
HARDENED = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--tmpfs", "/tmp")

# A local service that takes three seconds for 60 bytes, and a visitor who says when it has the first ten.
SLOW = """
import http.server, time
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "60")
        self.end_headers()
        for _ in range(6):
            self.wfile.write(b"0123456789")
            self.wfile.flush()
            time.sleep(0.5)
http.server.ThreadingHTTPServer(("127.0.0.1", 3000), Handler).serve_forever()
"""
VISITOR = """
import time, urllib.request
request = urllib.request.Request("http://127.0.0.1:8080/", headers={"Host": "t.tunnels.localhost"})
while True:
    try:
        answer = urllib.request.urlopen(request)
        break
    except OSError:
        time.sleep(0.1)
answer.read(10)
print("begun", flush=True)
print(10 + len(answer.read()), flush=True)
"""


@contextlib.contextmanager
def container(*words: str) -> Iterator[str]:
    """A container of the image, hardened as the compose file does it; its name. Removed with its volume at the end."""
    name = f"relay-test-{secrets.token_hex(3)}"
    docker("run", "-d", "--name", name, *HARDENED, "-e", "RELAY_INTERNAL=127.0.0.1:9090", *words)
    try:
        yield name
    finally:
        docker("rm", "-fv", name)


def ready(name: str, seconds: float = 20) -> None:
    """Waits until it says that it serves, and looks at its health then: a check each moment would slow its start."""
    end = time.monotonic() + seconds
    while "Relay for " not in docker("logs", name):
        assert time.monotonic() < end, docker("logs", name)
        time.sleep(0.3)
    assert docker("exec", name, "relay", "health") == "ready\n"


def when(text: str) -> float:
    """Seconds since the epoch of a time that the engine wrote."""
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d*Z$", r"\1+00:00", text)).timestamp()


def test_it_adds_little_to_its_base(told: Told) -> None:
    """Less than 90 MB."""
    (base,) = (one for one in needed() if one.startswith("python:"))
    sizes = [int(docker("image", "inspect", "-f", "{{.Size}}", one)) for one in (IMAGE, base)]
    told(f"image: {sizes[0] / 1e6:.1f} MB, of which {(sizes[0] - sizes[1]) / 1e6:.1f} MB are beyond {base}")
    assert sizes[0] - sizes[1] < MOST_ADDED


def test_no_compiler_is_in_it() -> None:
    """Nor can the relay's own environment install anything."""
    found = f"[name for name in '{COMPILERS}'.split() if shutil.which(name)]"
    program = f"import shutil, importlib.util; print({found}, importlib.util.find_spec('pip'))"
    assert docker("run", "--rm", "--entrypoint", "python", IMAGE, "-c", program) == "[] None\n"


def test_its_configuration() -> None:
    """No root, one volume, the signal that drains."""
    config = inspect(IMAGE)["Config"]
    assert config["User"] == "65532:65532"
    assert list(config["Volumes"]) == ["/data"]
    assert (config["Entrypoint"], config["Cmd"], config["StopSignal"]) == (["relay"], ["serve"], "SIGTERM")


def test_it_starts_quickly_and_without_root(told: Told) -> None:
    """Serving within two seconds of its start, by processes of one user, on a root that cannot be written to."""
    seconds: list[float] = []
    while len(seconds) < 3 and not (seconds and min(seconds) < START_WITHIN):  # others may use this machine too
        with container(IMAGE) as name:
            ready(name)
            serving = next(line for line in docker("logs", "-t", name).splitlines() if " Relay for " in line)
            seconds.append(when(serving.partition(" ")[0]) - when(inspect(name)["State"]["StartedAt"]))
            assert {line.split()[0] for line in docker("top", name, "-eo", "uid,pid").splitlines()[1:]} == {"65532"}
            with pytest.raises(EngineError, match=r"[Rr]ead-only"):
                docker("exec", "-u", "0", name, "python", "-c", "open('/etc/relay.test', 'w')")
    told(f"start of a container until it serves: {min(seconds):.2f} s, with a new database")
    assert min(seconds) < START_WITHIN


def test_the_same_image_is_an_agent() -> None:
    """The commands of an agent are there too; a mistake is one sentence and the exit code 2."""
    with container("-e", "RELAY_URL=http//nonsense", IMAGE, "http", "3000") as name:
        assert docker("wait", name) == "2\n"
    assert docker("run", "--rm", IMAGE, "--version").startswith("relay ")


def test_a_stop_lets_what_runs_finish(told: Told) -> None:
    """`docker stop` while an answer is half-way: the visitor gets all of it, the container ends with 0."""
    with container(IMAGE) as name:
        ready(name)
        docker("exec", "-d", name, "python", "-c", SLOW)
        docker("exec", "-d", name, "relay", "http", "3000", "--subdomain", "t")
        asyncio.run(drained(name, told))


async def drained(name: str, told: Told) -> None:
    """A visitor in the container, and a stop when it has a sixth of its answer."""
    beside = await asyncio.create_subprocess_exec(
        "docker", "run", "--rm", "-i", "--network", f"container:{name}", "--entrypoint", "python", IMAGE, "-c", VISITOR,
        stdout=-1, stderr=-1,
    )  # fmt: skip
    assert beside.stdout is not None
    assert await asyncio.wait_for(beside.stdout.readline(), 30) == b"begun\n"
    began = time.monotonic()
    stop = await asyncio.create_subprocess_exec("docker", "stop", "-t", "40", name, stdout=-1)
    out, err = await asyncio.wait_for(beside.communicate(), 30)
    assert out == b"60\n", err.decode()
    await stop.communicate()
    told(f"docker stop with an answer under way: {time.monotonic() - began:.1f} s, the answer whole, exit code 0")
    assert json.loads(docker("inspect", "-f", "{{json .State}}", name))["ExitCode"] == 0
