"""How the commands ask a relay: what is sent, what of the answer is believed, and the sentence for each failure."""

from __future__ import annotations

import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from relay.cli import client as client_room
from relay.cli.client import Client
from relay.cli.errors import Mistake, Refusal, Unavailable
from relay.cli.keyring import Key
from relay.keys.forms import Kind
from relay.keys.private import PrivateKey
from relay.keys.requests import verify_request
from tests.cli.fakerelay import Answer, FakeRelay, Request, problem
from tests.cli.keytexts import private, signed


@pytest.fixture
def fake() -> Iterator[FakeRelay]:
    relay = FakeRelay()
    yield relay
    relay.close()


def master(text: str) -> Key:
    return Key(text, "MTK_MASTER", Kind.MASTER)


def test_a_request_is_signed_for_this_relay_and_a_minute(fake: FakeRelay) -> None:
    """What arrives proves the key to the host that was dialled, for 60 s, once; the key itself is nowhere in it."""
    text = private()
    client, before = Client(fake.url, master(text)), time.time()
    fake.on("GET /whoami", {"id": "x"})
    assert client.get("whoami") == {"id": "x"}
    client.get("whoami")
    first, second = (request.bearer for request in fake.asked)
    public = PrivateKey.parse(text).public
    assert verify_request(first, public, {"127.0.0.1"}, before + 50) == client.key.id
    with pytest.raises(Exception, match="expired"):
        verify_request(first, public, {"127.0.0.1"}, time.time() + 91)
    assert first != second
    assert not any(text[20:] in value for value in fake.asked[0].headers.values())
    assert fake.asked[0].headers["User-Agent"].startswith("relay/")


def test_a_child_key_is_sent_as_it_is(fake: FakeRelay) -> None:
    """It is a token already."""
    text = signed()
    fake.on("GET /whoami", {})
    Client(fake.url, Key(text, "RELAY_KEY", Kind.CHILD)).get("whoami")
    assert fake.asked[0].bearer == text


def test_what_is_asked(fake: FakeRelay) -> None:
    """Parts of a path and values of a query cannot become anything else; bodies are JSON."""
    client = Client(fake.url, master(private()))
    for call in ("GET /keys/a%2Fb%3Fc", "PUT /subdomains/x", "DELETE /projects/p"):
        fake.on(call, Answer(204, b"") if call.startswith("DELETE") else {})
    client.get("keys", "a/b?c", state="x&y=1", left_out=None)
    client.put("subdomains", "x", body={"project": "wörld"})
    assert client.delete("projects", "p") == {}
    assert [(one.method, one.path, one.query, one.body) for one in fake.asked] == [
        ("GET", "/keys/a%2Fb%3Fc", {"state": "x&y=1"}, None),
        ("PUT", "/subdomains/x", {}, {"project": "wörld"}),
        ("DELETE", "/projects/p", {}, None),
    ]


def test_pages_are_followed_to_their_end(fake: FakeRelay) -> None:
    """Every page is asked for with the cursor of the one before; a cursor that stands still ends it."""
    client = Client(fake.url, master(private()))
    fake.on("GET /keys", {"items": [{"n": 1}], "next_cursor": "a"}, {"items": [{"n": 2}], "next_cursor": None})
    assert [one["n"] for one in client.items("keys", kind="child")] == [1, 2]
    assert [one.query for one in fake.asked] == [{"kind": "child"}, {"kind": "child", "cursor": "a"}]
    fake.on("GET /keys", {"items": [{"n": 1}], "next_cursor": "a"})
    assert len(list(client.items("keys"))) == 2


@pytest.mark.parametrize("page", [{"items": 1}, {"items": [1]}, {}, [1]])
def test_a_page_that_is_none(fake: FakeRelay, page: object) -> None:
    """An answer of another shape is a sentence, not a traceback."""
    fake.on("GET /keys", Answer(body=page))
    with pytest.raises(Unavailable, match="is not a relay's API"):
        list(Client(fake.url, master(private())).items("keys"))


# ---------------------------------------------------------------------------------------------------- clocks


@pytest.mark.parametrize("skew", [-7200.0, 7200.0])
def test_a_wrong_clock_is_corrected_once(fake: FakeRelay, skew: float, capsys: pytest.CaptureFixture[str]) -> None:
    """Refused, signed anew by the relay's clock, done; later requests begin with it, and the developer is told once."""
    text = private()
    public = PrivateKey.parse(text).public

    def answer(request: Request) -> Answer:
        now = time.time() + skew
        try:
            verify_request(request.bearer, public, {"127.0.0.1"}, now)
        except Exception:
            return problem(401, "The request has expired.", Date=formatdate(now, usegmt=True))
        return Answer()

    client = Client(fake.url, master(text))
    fake.on("GET /whoami", answer)
    client.get("whoami")
    assert len(fake.asked) == 2
    client.get("whoami")
    assert len(fake.asked) == 3
    said = capsys.readouterr().err
    assert re.search(rf"clock is 7[12]\d\d seconds {'behind' if skew > 0 else 'ahead of'} the relay's", said)
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("kind", "date"),
    [
        (Kind.MASTER, lambda: formatdate(usegmt=True)),
        (Kind.MASTER, lambda: "yesterday"),
        (Kind.CHILD, lambda: formatdate(time.time() + 7200, usegmt=True)),
    ],
    ids=["right", "none", "far"],
)
def test_a_refusal_that_no_clock_explains(fake: FakeRelay, kind: Kind, date: Callable[[], str]) -> None:
    """With the same time here and there, without a time, or with a key that has no clock, it is asked once only."""
    fake.on("GET /whoami", problem(401, "No.", Date=date()))
    with pytest.raises(Refusal):
        Client(fake.url, Key(private() if kind is Kind.MASTER else signed(), "RELAY_KEY", kind)).get("whoami")
    assert len(fake.asked) == 1


def test_a_relay_that_has_no_time_of_its_own_is_asked_twice_at_most(fake: FakeRelay) -> None:
    """A refusal after the correction is the last word."""
    fake.on("GET /whoami", problem(401, "No.", Date=formatdate(time.time() + 7200, usegmt=True)))
    with pytest.raises(Refusal):
        Client(fake.url, master(private())).get("whoami")
    assert len(fake.asked) == 2


# ---------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [(401, Refusal, 3), (403, Refusal, 3), (404, Refusal, 4), (409, Refusal, 4), (422, Refusal, 4)]
    + [(status, Unavailable, 8) for status in (408, 429, 500, 503)],
)
def test_problem_details_become_a_sentence(fake: FakeRelay, status: int, kind: type[Mistake], code: int) -> None:
    """Cause and next step, harmless where they go to, with the exit code that docs/commands.md says."""
    fake.on("GET /whoami", problem(status, "It cannot be", "Try otherwise"))
    with pytest.raises(kind) as said:
        Client(fake.url, master(private())).get("whoami")
    assert "It cannot be. Try otherwise." in str(said.value)
    assert said.value.code == code
    assert ("MTK_MASTER" in str(said.value)) == (status in {401, 403})


def test_a_refused_child_key_says_what_it_is_for(fake: FakeRelay) -> None:
    """Somebody has RELAY_KEY set, which stands before the master key."""
    fake.on("GET /keys", problem(403, "A child key may not."))
    with pytest.raises(Refusal, match=r"that of RELAY_KEY\. A child key opens tunnels; .* give a master"):
        Client(fake.url, Key(signed(), "RELAY_KEY", Kind.CHILD)).get("keys")


def test_what_the_relay_says_cannot_steer_a_terminal(fake: FakeRelay) -> None:
    """Escapes are shown, and nobody is flooded."""
    fake.on("GET /keys", problem(404, "\x1b[2J" + "x" * 100_000))
    with pytest.raises(Refusal) as said:
        Client(fake.url, master(private())).get("keys")
    assert "\x1b" not in str(said.value)
    assert len(str(said.value)) < 1000


@pytest.mark.parametrize(
    "answer",
    [
        Answer(502, b"<html>Bad gateway</html>"),
        Answer(200, b"<html>Hello</html>"),
        Answer(200, b"[" * 100_000),
        Answer(404, b""),
        Answer(401, b"[]"),
        Answer(200, b"x" * 2048),
        Answer(101, b""),
    ],
)
def test_what_is_no_relay(fake: FakeRelay, answer: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another server, a proxy whose relay is away: one sentence that says to look at --relay, exit code 8."""
    monkeypatch.setattr(client_room, "TIMEOUT", 0.5)
    fake.on("GET /whoami", answer)
    with pytest.raises(Unavailable, match="--relay") as said:
        Client(fake.url, master(private())).get("whoami")
    assert said.value.code == 8


def test_an_answer_without_end(fake: FakeRelay, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more is read than any answer needs."""
    monkeypatch.setattr(client_room, "MOST_BYTES", 1024)
    fake.on("GET /whoami", Answer(200, b'{"x": "' + b"x" * 2048 + b'"}'))
    with pytest.raises(Unavailable, match="answered with more than"):
        Client(fake.url, master(private())).get("whoami")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(fake: FakeRelay, status: int) -> None:
    """The key goes to the address that was given and to no other."""
    fake.on("GET /whoami", Answer(status, b"", {"Location": f"http://127.0.0.1:{fake.port}/api/v1/elsewhere"}))
    with pytest.raises(Unavailable, match="leads elsewhere"):
        Client(fake.url, Key(signed(), "RELAY_KEY", Kind.CHILD)).get("whoami")
    assert len(fake.asked) == 1


# ---------------------------------------------------------------------------------------------------- the way


def test_nobody_listens() -> None:
    """Refused connections, and for a change no doubt whether it was done: nothing was sent."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(Unavailable, match=r"cannot be reached \(connection refused\)") as said:
        Client(f"ws://127.0.0.1:{port}", master(private())).post("keys", body={})
    assert "not known" not in str(said.value)


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait has an end; after a change was sent, that it may have been done is said."""
    monkeypatch.setattr(client_room, "TIMEOUT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = Client(f"ws://127.0.0.1:{silent.getsockname()[1]}", master(private()))
        with pytest.raises(Unavailable, match=r"no answer within 0\.1 seconds") as said:
            client.get("whoami")
        assert "not known" not in str(said.value)
        with pytest.raises(Unavailable, match="is not known: look before you try again"):
            client.post("keys", body={})


def test_something_that_speaks_no_http(fake: FakeRelay) -> None:
    """Bytes that are no HTTP are said to be none."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)

        def speak() -> None:
            peer, _ = server.accept()
            with peer:
                peer.recv(65536)
                peer.sendall(b"220 smtp.example ready\r\n")

        thread = threading.Thread(target=speak)
        thread.start()
        with pytest.raises(Unavailable, match="does not speak HTTP"):
            Client(f"ws://127.0.0.1:{server.getsockname()[1]}", master(private())).get("whoami")
        thread.join()


def test_this_machine_is_reached_without_a_proxy(fake: FakeRelay, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the environment never sees what goes to loopback in the clear."""
    fake.on("GET /whoami", {})
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    Client(fake.url, master(private())).get("whoami")
    assert len(fake.asked) == 1


def test_another_machine_is_reached_through_the_proxy(fake: FakeRelay, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy that the environment names is asked for everything else."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{fake.port}")
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{fake.port}")
    fake.on("GET /whoami", {"id": "through"})
    assert Client("ws://relay.example:8081", master(private())).get("whoami") == {"id": "through"}
    assert fake.asked[0].headers["Host"] == "relay.example:8081"


def certificate(folder: Path) -> Path:
    """A self-signed one for localhost, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)
        .sign(key, hashes.SHA256())
    )
    file = folder / "localhost.pem"
    file.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + built.public_bytes(Encoding.PEM)
    )
    return file


def test_certificates_are_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is asked of a relay whose certificate nobody vouches for; SSL_CERT_FILE names who else may vouch."""
    file = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    relay = FakeRelay(context)
    relay.on("POST /keys", {"id": "x"})
    try:
        address = f"wss://localhost:{relay.port}"
        with pytest.raises(Unavailable, match=r"its certificate is not valid: self-signed") as said:
            Client(address, master(private())).post("keys", body={})
        assert "not known" not in str(said.value)
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        assert Client(address, master(private())).post("keys", body={}) == {"id": "x"}
        assert len(relay.asked) == 1
    finally:
        relay.close()
