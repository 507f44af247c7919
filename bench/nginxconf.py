"""nginx as the origin and as the reference proxy: its configuration as text. One process each.

The proxy has what a good single hop has: keep-alive connections to the origin, HTTP/1.1, and nginx's own defaults for
answers of known length, except that nothing goes to a disk. The live door is not buffered, as nginx's users set it for
event streams and uploads. At the static door that would halve nginx's bytes per second, and flatter all others.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

SMALL = "/small"
ENDLESS = 16 * 2**30
BULK_SIZES = (ENDLESS, *(mib * 2**20 for mib in (1024, 256, 128, 32)))
SMALL_BODY = "0123456789abcdef" * 8

_FRAME = """\
daemon off;
master_process off;
worker_processes 1;
worker_rlimit_nofile 16384;
pid {directory}/nginx-{name}.pid;
error_log stderr error;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 600s;
    client_body_temp_path {directory}/{name}-body;
    proxy_temp_path {directory}/{name}-proxy;
    fastcgi_temp_path {directory}/{name}-fastcgi;
    uwsgi_temp_path {directory}/{name}-uwsgi;
    scgi_temp_path {directory}/{name}-scgi;
    types {{ }}
    default_type application/octet-stream;
    {rest}
}}
"""

_ORIGIN = """\
sendfile on;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location = {small} {{ return 200 "{body}"; }}
        location /bulk/ {{ alias {files}/; }}
    }}
"""

_PROXY = """\
client_max_body_size 0;
    proxy_http_version 1.1;
    proxy_max_temp_file_size 0;
    proxy_read_timeout 600s;
    proxy_set_header Host $proxy_host;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    map $http_upgrade $hop {{ default upgrade; "" ""; }}
"""

_DOOR = """\
    upstream {name} {{ server 127.0.0.1:{to}; keepalive 512; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://{name};
            {how}
            proxy_set_header Connection $hop;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Host $proxy_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }}
    }}
"""


_UNBUFFERED = "proxy_buffering off; proxy_request_buffering off;"


def bulk_path(size: int) -> str:
    """The path of a file of this size, one of BULK_SIZES; 0 for one that no load reads to its end."""
    assert (size or ENDLESS) in BULK_SIZES
    return f"/bulk/{size or ENDLESS}"


def bulk_files(directory: Path) -> Path:
    """Makes the large files, sparse: nothing is stored. Their folder."""
    folder = directory / "bulk"
    folder.mkdir()
    for size in BULK_SIZES:
        with (folder / str(size)).open("wb") as file:
            file.truncate(size)
    return folder


def origin(directory: Path, port: int, files: Path) -> str:
    """A server of one small answer and of large files."""
    rest = _ORIGIN.format(port=port, small=SMALL, body=SMALL_BODY, files=files)
    return _FRAME.format(directory=directory, name="origin", rest=rest)


def proxy(directory: Path, doors: Mapping[str, tuple[int, int]]) -> str:
    """A reverse proxy: for each name the port it listens on and the port it forwards to; `live` is not buffered."""
    rest = _PROXY.format()
    for name, (port, to) in doors.items():
        rest += _DOOR.format(name=name, port=port, to=to, how=_UNBUFFERED if name == "live" else "")
    return _FRAME.format(directory=directory, name="proxy", rest=rest)


def argv(program: str, directory: Path, name: str, text: str) -> list[str]:
    """Writes the configuration; the command line that runs nginx on it."""
    path = directory / f"nginx-{name}.conf"
    path.write_text(text)
    return [program, "-e", "stderr", "-p", str(directory), "-c", str(path)]
