"""`relay health`: its line and exit code for each answer of an internal listener, and that it loads next to nothing."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from relay import health
from relay.health import address_of, main
from tests.cli.conftest import Command

ANSWERS = [
    (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n", 0, "ready\n"),
    (b"HTTP/1.1 503 Service Unavailable\r\n\r\ndraining\n", 1, "not ready: draining\n"),
    (b"HTTP/1.0 503 Service Unavailable\r\n\r\none\ntwo\n\x1b[31m", 1, "not ready: one two  [31m\n"),
    (b"HTTP/1.1 404 Not Found\r\n\r\n", 1, "not ready: HTTP 404\n"),
    (b"HTTP/1.1 200", 1, "not ready: what answers at 127.0.0.1:{port} does not speak HTTP\n"),
    (b"SSH-2.0-OpenSSH\r\n", 1, "not ready: what answers at 127.0.0.1:{port} does not speak HTTP\n"),
    (b"", 1, "not ready: what answers at 127.0.0.1:{port} does not speak HTTP\n"),
]


@contextmanager
def listener(answer: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """Answers one connection so, and keeps what it was asked."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                asked.append(connection.recv(4096))
                connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1], asked
        thread.join(5)


@pytest.mark.parametrize(("answer", "code", "said"), ANSWERS)
def test_each_answer(answer: bytes, code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """200 is 0, all else 1 with the reason that was given."""
    with listener(answer) as (port, asked):
        assert main([f"127.0.0.1:{port}"]) == code
    assert capsys.readouterr().out == said.format(port=port)
    assert asked[0].startswith(b"GET /readyz HTTP/1.0\r\n")


@pytest.mark.parametrize("name", ["RELAY_INTERNAL", "RELAY_METRICS"])
def test_the_address_of_the_environment(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a listener on every address this machine's own is asked; the relay's comes before the agent's."""
    with listener(ANSWERS[0][0]) as (port, _):
        environment = {name: f"0.0.0.0:{port}"}
        if name == "RELAY_INTERNAL":
            environment["RELAY_METRICS"] = "127.0.0.1:1"
        assert main([], environment) == 0
    assert capsys.readouterr().out == "ready\n"


def test_an_answer_that_never_ends(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Byte by byte it comes for ever; it is over when the time for the whole is."""
    monkeypatch.setattr(health, "WITHIN", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                while not over.wait(0.05):
                    connection.sendall(b"H")

        over, thread = threading.Event(), threading.Thread(target=serve, daemon=True)
        thread.start()
        began = time.monotonic()
        assert main([f"127.0.0.1:{server.getsockname()[1]}"]) == 1
        assert time.monotonic() - began < 5
        over.set()
        thread.join(5)
    assert "(no answer within 0.2 seconds)" in capsys.readouterr().out


@pytest.mark.parametrize("closing", [">&-", ">/dev/full"])
def test_a_line_that_cannot_be_written(closing: str) -> None:
    """The exit code is told all the same, and nothing else is said."""
    with listener(ANSWERS[0][0]) as (port, _):
        call = [sys.executable, "-m", "relay", "health", f"127.0.0.1:{port}"]
        done = subprocess.run(
            ["sh", "-c", f'exec "$@" {closing}', "sh", *call], capture_output=True, timeout=30, check=False
        )
    assert (done.returncode, done.stderr) == (0, b"")


def test_nobody_listens(capsys: pytest.CaptureFixture[str]) -> None:
    """Says so, with the address and why."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert main([f"127.0.0.1:{port}"]) == 1
    assert capsys.readouterr().out == f"not ready: nothing answers at 127.0.0.1:{port} (Connection refused)\n"


@pytest.mark.parametrize(
    ("words", "environment", "said"),
    [
        ([], {}, "Which listener? Give its address, or set RELAY_INTERNAL or RELAY_METRICS"),
        (["a:1", "b:2"], {}, "Which listener?"),
        (["nowhere"], {}, "What was given must be HOST:PORT or [IPV6]:PORT"),
        ([], {"RELAY_METRICS": "9090"}, "RELAY_METRICS must be HOST:PORT"),
    ],
)
def test_a_mistake(
    words: list[str], environment: dict[str, str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Is one sentence with the form and an example, and 2."""
    assert main(words, environment) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"relay: {said}")
    assert "for example relay health 127.0.0.1:9090" in err


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9090", ("127.0.0.1", 9090)),
        ("[::]:9090", ("::1", 9090)),
        ("relay:9090", ("relay", 9090)),
        ("127.0.0.1:0", None),
        ("127.0.0.1:70000", None),
        ("http://127.0.0.1:9090", None),
    ],
)
def test_addresses(text: str, address: tuple[str, int] | None) -> None:
    """Those of the settings; a port that is none is refused."""
    assert address_of(text) == address


def test_it_stands_among_the_commands(command: Command) -> None:
    """Its help does, and it does the same there."""
    assert "127.0.0.1:9090" in command("health", "--help").out
    assert command("health", "127.0.0.1:1").code == 1


def test_it_loads_next_to_nothing() -> None:
    """A health check runs every few seconds: neither the command line nor the agent is loaded for it."""
    program = (
        "import json, sys; sys.argv = ['relay', 'health', '127.0.0.1:1']\n"
        "import relay.__main__ as m\n"
        "try: m.main()\n"
        "except SystemExit: print(json.dumps(sorted(name for name in sys.modules if name.startswith('relay'))))\n"
    )
    argv = [sys.executable, "-c", program]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == ["relay", "relay.__main__", "relay.health"]
