"""A relay's API as far as a command can tell: a real HTTP server whose answers are written down before."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

BASE = "/api/v1"


@dataclass(frozen=True, slots=True)
class Request:
    """What came in; `body` is read JSON."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any

    @property
    def bearer(self) -> str:
        """What stood behind `Bearer`."""
        return self.headers["Authorization"].removeprefix("Bearer ")


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes out. A `body` of bytes is sent as it is, else as JSON."""

    status: int = 200
    body: Any = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)


Say = Answer | Callable[[Request], Answer]


def problem(status: int, detail: str = "It cannot be.", next_action: str = "Try otherwise.", **more: Any) -> Answer:
    """Problem details."""
    return Answer(status, {"type": "about:blank", "status": status, "detail": detail, "next_action": next_action}, more)


class FakeRelay:
    """Answers what `on` has written down, in turn, the last one for ever; remembers what it was asked."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.asked: list[Request] = []
        self._answers: dict[str, list[Say]] = {}
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def handle_all(self) -> None:
                fake._handle(self)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_all

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """As agents and commands name it."""
        return f"ws://127.0.0.1:{self.port}"

    def on(self, call: str, *answers: Say | Any) -> None:
        """`call` is like "POST /keys"; an answer that is none yet is the body of a good one."""
        self._answers[call] = [one if isinstance(one, Answer) or callable(one) else Answer(body=one) for one in answers]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        url = urlsplit(handler.path)
        length = int(handler.headers.get("Content-Length") or 0)
        sent = handler.rfile.read(length)
        request = Request(
            handler.command,
            url.path.removeprefix(BASE),
            dict(parse_qsl(url.query)),
            dict(handler.headers.items()),
            json.loads(sent) if sent else None,
        )
        self.asked.append(request)
        queue = self._answers.get(f"{request.method} {request.path}", [problem(404, "There is no such thing.")])
        say = queue.pop(0) if len(queue) > 1 else queue[0]
        answer = say if isinstance(say, Answer) else say(request)
        body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        handler.send_response_only(answer.status)
        if "Date" not in answer.headers:
            handler.send_header("Date", handler.date_time_string())
        for name, value in {"Content-Length": str(len(body)), **answer.headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)
