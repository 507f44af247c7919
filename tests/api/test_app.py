"""What holds for every request to the API, and what a browser or a script sees that comes to the wrong door."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from relay.api import internal
from relay.api.operations import OPERATIONS, PREFIX
from relay.keys.forms import Kind
from relay.keys.private import PrivateKey
from relay.registry import Limits
from relay.telemetry.families import gauge
from tests.api.world import ask, without_registry, world

PATHS = sorted({PREFIX + one.path.replace("{", "").replace("}", "") for one in OPERATIONS} | {f"{PREFIX}/openapi.json"})


async def test_the_agents_door_says_what_it_is() -> None:
    """A person who opens it in a browser reads what to type."""
    answer = await ask(without_registry().app, "GET", "/")
    assert answer.status == 200
    assert b"relay http 3000" in answer.body


@pytest.mark.parametrize("path", ["/api/v1/none", "/agent/v1", "/favicon.ico", "/api/v1/", "/api/v2/keys"])
async def test_anything_else_is_a_problem_document(path: str) -> None:
    """RFC 9457, with the path that was asked for."""
    answer = await ask(without_registry().app, "GET", path)
    assert (answer.status, answer.fields["content-type"]) == (404, "application/problem+json")
    assert path in answer.json["detail"]
    assert answer.json["code"] == "not_found"


async def test_a_key_in_a_path_is_not_repeated() -> None:
    """Nor is what no terminal should be shown."""
    key = PrivateKey.generate(Kind.MASTER)
    answer = await ask(without_registry().app, "GET", f"/{key.text}/%1B[2J")
    assert answer.status == 404
    assert key.id in answer.json["detail"]
    assert key.text[-49:] not in answer.body.decode()
    assert "\x1b" not in answer.json["detail"]


@pytest.mark.parametrize("path", PATHS)
async def test_every_path_knows_its_methods(path: str) -> None:
    """OPTIONS lists them; any other is 405 with the same list, whoever asks."""
    app = without_registry().app
    options = await ask(app, "OPTIONS", path)
    assert (options.status, options.body) == (204, b"")
    allowed = options.fields["allow"].split(", ")
    declared = {one.method for one in OPERATIONS if PREFIX + one.path.replace("{", "").replace("}", "") == path}
    assert set(allowed) - {"HEAD", "OPTIONS"} == (declared or {"GET"})
    for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW"} - set(allowed):
        answer = await ask(app, method, path)
        assert answer.status == 405
        assert answer.fields["allow"] == options.fields["allow"]
        if method != "HEAD":
            assert answer.json["code"] == "method_not_allowed"
    assert (await ask(app, "POST", "/")).status == 405


@pytest.mark.parametrize(
    "fields",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "https://relay.example"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"sec_fetch_site": "Cross-Site "},
    ],
)
@pytest.mark.parametrize("method", ["GET", "OPTIONS", "POST"])
async def test_web_pages_are_refused(method: str, fields: dict[str, Any]) -> None:
    """Before the key is looked at, on every path of the API, also a preflight; no field permits another origin."""
    for path in ("/api/v1", "/api/v1/whoami", "/api/v1/keys", "/api/v1/openapi.json", "/api/none"):
        answer = await ask(without_registry().app, method, path, authorization="Bearer x", **fields)
        assert (answer.status, answer.json["code"]) == (403, "cross_origin")
        assert not [name for name in answer.fields if name.startswith("access-control")]


async def test_what_a_browser_says_of_its_own_accord_is_no_reason() -> None:
    """An address typed by hand is answered."""
    for site in ("none", "same-origin"):
        assert (await ask(without_registry().app, "GET", "/api/v1", sec_fetch_site=site)).status == 200


async def test_who_answers_here() -> None:
    """Without a key: name, version, domain, clock."""
    answer = await ask(without_registry().app, "GET", "/api/v1")
    assert answer.json == {
        "name": "tunnel-relay",
        "version": "1.2.3",
        "domain": "tunnels.example",
        "public_url": "https://tunnels.example",
        "time": "2027-01-15T08:00:00.250000Z",
    }


async def test_nothing_is_stored_anywhere() -> None:
    """Answers, refusals and the page at the root may be kept by nobody; a HEAD has the fields of a GET and no body."""
    for path, status in (
        ("/", 200),
        ("/api/v1", 200),
        ("/api/v1/openapi.json", 200),
        ("/none", 404),
        ("/api/v1/keys", 401),
    ):
        got = await ask(without_registry().app, "GET", path)
        head = await ask(without_registry().app, "HEAD", path)
        assert got.status == head.status == status
        assert got.fields["cache-control"] == head.fields["cache-control"] == "no-store"
        assert got.fields["x-content-type-options"] == "nosniff"
        assert head.body == b""
        assert head.fields["content-length"] == got.fields["content-length"] == str(len(got.body))


# ---- bodies and queries


BODIES: list[tuple[Any, str]] = [
    (b"{", "not JSON"),
    (b'{"name": "\xff"}', "not JSON"),
    (b'{"name": "a"', "not JSON"),
    (b"[]", "not an object"),
    (b"7", "not an object"),
    (b"", "'name' of the body is missing"),
    ({"name": "a"}, "'master' of the body is missing"),
    ({"name": "a", "master": {}}, "'master.public_key' of the body is missing"),
    ({"name": "a", "master": {"public_key": "A" * 43}, "owner": "x"}, "'owner' of the body is unknown"),
    ({"name": "a", "master": {"public_key": "A" * 43}, "plan": "A b"}, "'plan' of the body is wrong"),
    ({"name": "a", "master": {"public_key": "A" * 43}, "plan": "x"}, "no plan 'x'; there are: small."),
    ({"name": "a", "master": {"public_key": "A" * 43, "x": 1}}, "'master.x' of the body is unknown"),
    ({"name": "a", "master": {"public_key": "A" * 42}}, "'master.public_key' of the body is wrong"),
    ({"name": "a", "master": {"public_key": "A" * 42 + "B"}}, "'master.public_key' of the body is wrong"),
    ({"name": "a", "master": {"public_key": "A" * 42 + "="}}, "'master.public_key' of the body is wrong"),
    ({"name": "A", "master": {"public_key": "A" * 43}}, "'name' of the body is wrong"),
    ({"name": 7, "master": {"public_key": "A" * 43}}, "'name' of the body is wrong"),
    ({"name": "a", "master": {"public_key": "A" * 43, "label": "a\nb"}}, "'master.label' of the body is wrong"),
    ({"name": "a", "master": {"public_key": "A" * 43, "label": "a" * 101}}, "'master.label' of the body is wrong"),
]


async def test_a_body_that_is_not_taken(tmp_path: Path) -> None:
    """One sentence that names the member; nothing happens."""
    async with world(tmp_path) as at:
        operator = await at.operator()
        for body, said in BODIES:
            answer = await at.ask(operator, "POST", "/projects", body)
            assert (answer.status, answer.json["code"]) == (422, "invalid"), body
            assert said in answer.json["detail"], body
        assert (await at.ask(operator, "GET", "/projects")).json["items"] == []


async def test_what_was_sent_is_not_repeated(tmp_path: Path) -> None:
    """A secret in the wrong place, as the name of a member or as its value, is in no answer."""
    async with world(tmp_path) as at:
        operator = await at.operator()
        assert operator.private is not None
        secret = operator.private.text
        for body in ({secret: 1}, {"name": secret}, {"name": "a", "master": {"public_key": secret}}):
            answer = await at.ask(operator, "POST", "/projects", body)
            assert answer.status == 422
            assert secret not in answer.body.decode()
        for path in (f"/keys?{secret}=1", f"/keys?project={secret}", f"/keys/{secret}", f"/projects/{secret}"):
            answer = await at.ask(operator, "GET", path)
            assert answer.status in (404, 422)
            assert secret not in answer.body.decode()


async def test_a_body_is_bounded_and_says_what_it_is(tmp_path: Path) -> None:
    """413 beyond 64 KiB, 415 when it claims to be no JSON; a charset does not matter."""
    async with world(tmp_path) as at:
        operator = await at.operator()
        assert (await at.ask(operator, "POST", "/projects", b" " * 65537)).json["code"] == "too_large"
        answer = await at.ask(
            operator, "POST", "/projects", b"name=a", content_type="application/x-www-form-urlencoded"
        )
        assert (answer.status, answer.json["code"]) == (415, "unsupported_media_type")
        said = "Application/JSON; charset=utf-8"
        assert (await at.ask(operator, "POST", "/projects", {"name": "a"}, content_type=said)).status == 422


async def test_a_body_that_breaks_off_is_no_defect(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever leaves in the middle writes nothing into the log, and changes nothing."""
    async with world(tmp_path) as at:
        operator = await at.operator()

        async def gone() -> dict[str, Any]:
            return {"type": "http.disconnect"}

        async def cut(scope: Any, receive: Any, send: Any) -> None:
            await at.app(scope, gone, send)

        bearer = f"Bearer {at.proof(operator)}"
        assert (await ask(cut, "POST", f"{PREFIX}/projects", {}, authorization=bearer)).status == 400
        assert caplog.records == []


QUERIES = [
    ("limit=0", "'limit'"),
    ("limit=501", "'limit'"),
    ("limit=1_0", "'limit'"),
    ("limit=+5", "'limit'"),
    ("limit=5.0", "'limit'"),
    ("limit=%D9%A5", "'limit'"),
    ("limit=", "'limit'"),
    ("limit=5&limit=6", "twice"),
    ("limits=5", "'limits' of the query is unknown"),
    ("kind=admin", "'kind'"),
    ("state=dead", "'state'"),
    ("cursor=%00", "'cursor'"),
    ("cursor=nonsense", "cursor"),
    ("cursor=WzEsMl0", "cursor"),
    ("project=%00", "'project'"),
]


async def test_a_query_that_is_not_taken(tmp_path: Path) -> None:
    """Also a misspelled one: a filter that is passed over would show more than was asked for."""
    async with world(tmp_path) as at:
        operator = await at.operator()
        for query, said in QUERIES:
            answer = await at.ask(operator, "GET", f"/keys?{query}")
            assert (answer.status, answer.json["code"]) == (422, "invalid"), query
            assert said in answer.json["detail"], query


# ---- when something else is wrong


async def test_a_registry_that_is_busy(tmp_path: Path) -> None:
    """503 with a time to come back, and nothing was made."""
    async with world(tmp_path, Limits(lock=0.05)) as at:
        operator = await at.operator()
        other = sqlite3.connect(tmp_path / "relay.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        body = {"name": "a", "master": {"public_key": "A" * 43}}
        answer = await at.ask(operator, "POST", "/projects", body)
        other.close()
        assert (answer.status, answer.json["code"], answer.fields["retry-after"]) == (503, "unavailable", "1")
        assert (await at.ask(operator, "POST", "/projects", body)).status == 201


async def test_a_defect_tells_the_log_where_and_nobody_what(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """500 without a word of what was sent; the log has the place, not the text of the error."""
    async with world(tmp_path) as at:
        operator = await at.operator()

        async def broken(key_id: str) -> None:
            raise ValueError("".join(("can", "ary")))

        monkeypatch.setattr(at.registry.keys, "get", broken)
        with caplog.at_level(logging.ERROR):
            answer = await at.ask(operator, "GET", "/whoami")
        assert (answer.status, answer.json["code"]) == (500, "internal")
        assert "canary" not in answer.body.decode() + caplog.text
        assert "ValueError at GET /whoami" in caplog.text
        assert "in broken" in caplog.text


# ---- the internal listener


class Held(Collector):
    """One number."""

    def __init__(self) -> None:
        self.held = 0

    def collect(self) -> Iterator[Metric]:
        yield gauge("relay_requests_held", "Requests that wait for an agent.", self.held)


class Inside:
    """The internal application over a number and reasons."""

    def __init__(self) -> None:
        self.numbers = Held()
        self.reasons: list[str] = []
        self.app = internal.build_app(self.numbers, lambda: self.reasons, lambda host: host == "demo.tunnels.localhost")

    async def get(self, path: str) -> tuple[int, bytes]:
        """Status and body."""
        answer = await ask(self.app, "GET", path)
        return answer.status, answer.body


async def test_alive_and_ready() -> None:
    """A relay that should not be given work is alive and not ready, and says why, a reason a line."""
    inside = Inside()
    assert await inside.get("/livez") == (200, b"ok\n")
    assert await inside.get("/readyz") == (200, b"ok\n")
    inside.reasons = ["draining", "memory is short"]
    assert (await inside.get("/livez"))[0] == 200
    assert await inside.get("/readyz") == (503, b"draining\nmemory is short\n")


@pytest.mark.parametrize(
    ("query", "status"),
    [("domain=demo.tunnels.localhost", 200), ("domain=other.tunnels.localhost", 404), ("domain=", 404), ("", 404)],
)
async def test_whether_a_name_deserves_a_certificate(query: str, status: int) -> None:
    """Only what is known does."""
    assert (await Inside().get(f"/ask?{query}"))[0] == status


async def test_metrics_are_read_when_asked() -> None:
    """The numbers of this moment, in the exposition format, with help for people; the process' own beside them."""
    inside = Inside()
    answer = await ask(inside.app, "GET", "/metrics")
    assert answer.status == 200
    assert answer.fields["content-type"].startswith("text/plain; version=0.0.4")
    assert b"# HELP relay_requests_held Requests" in answer.body
    assert b"\nrelay_requests_held 0.0\n" in answer.body
    assert b"\nprocess_start_time_seconds " in answer.body
    inside.numbers.held = 5
    assert b"\nrelay_requests_held 5.0\n" in (await inside.get("/metrics"))[1]


async def test_nothing_else_is_inside() -> None:
    """No page of the framework's own either."""
    for path in ("/", "/docs", "/metrics/x", "/livez/"):
        assert (await Inside().get(path))[0] in (307, 404)


async def test_a_slow_body_does_not_outlive_its_key(tmp_path: Path) -> None:
    """A key that is revoked while its request is still on the way is refused when the rest of it comes."""
    async with world(tmp_path) as at:
        operator = await at.operator()
        project, master = await at.project(operator, "one")

        async def late(scope: Any, receive: Any, send: Any) -> None:
            async def body() -> Any:
                revoked = await at.ask(operator, "POST", f"/keys/{master.id}/revoke", {})
                assert revoked.json["master"] in (0, 1)
                return await receive()

            await at.app(scope, body, send)

        bearer = f"Bearer {at.proof(master)}"
        answer = await ask(late, "PUT", f"{PREFIX}/subdomains/slow", {}, authorization=bearer)
        assert (answer.status, answer.json["reason"]) == (401, "revoked")
        assert (await at.registry.subdomains.list(project.id)).items == ()
