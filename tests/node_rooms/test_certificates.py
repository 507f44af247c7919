"""A certificate and its key: what is refused, what is warned of, and when another pair takes their place."""

from __future__ import annotations

import ssl
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from relay.node.certificatefiles import BadPair, read_pair
from relay.node.certificates import TICKETS_FOR, Certificates
from relay.node.errors import StartError
from relay.node.tlspolicy import server_context
from relay.settings import ServeSettings
from tests.support.authority import Authority, Files

DOMAIN = "tunnels.example.com"
BOTH = (DOMAIN, f"*.{DOMAIN}")
DAY = 86400.0


def troubles(files: Files) -> tuple[str, ...]:
    return read_pair(files.cert, files.key, DOMAIN, time.time()).troubles


def refusal(files: Files) -> str:
    with pytest.raises(BadPair) as caught:
        troubles(files)
    said = str(caught.value)
    assert said.endswith(".")
    assert "\n" not in said
    return said


def test_a_good_pair_has_no_trouble(tmp_path: Path) -> None:
    """Its end is that of the certificate."""
    files = Authority(tmp_path).issue(*BOTH, days=90)
    pair = read_pair(files.cert, files.key, DOMAIN, time.time())
    assert pair.troubles == ()
    assert pair.expires == pytest.approx(time.time() + 90 * DAY, abs=60)


def test_what_is_no_pair_is_refused(tmp_path: Path) -> None:
    """Each by a sentence of its own that names the file."""
    authority = Authority(tmp_path)
    one, other = authority.issue(*BOTH), authority.issue(*BOTH)
    weak = authority.issue(*BOTH, key=rsa.generate_private_key(65537, 1024))
    empty, gone = tmp_path / "empty", tmp_path / "gone"
    empty.touch()
    locked = tmp_path / "locked"
    how = (Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    locked.write_bytes(ec.generate_private_key(ec.SECP256R1()).private_bytes(*how))
    assert f"The key {other.key} (tls_key) is not that of" in refusal(Files(one.cert, other.key))
    assert "is too weak" in refusal(weak)
    assert f"The file {empty} (tls_cert) holds no certificate" in refusal(Files(empty, one.key))
    assert f"The file {empty} (tls_key) holds no private key" in refusal(Files(one.cert, empty))
    assert f"(tls_cert) {gone} cannot be read: No such file" in refusal(Files(gone, one.key))
    assert f"(tls_key) {gone} cannot be read: No such file" in refusal(Files(one.cert, gone))
    assert "locked by a passphrase" in refusal(Files(one.cert, locked))


def test_what_visitors_will_not_like_is_warned_of(tmp_path: Path) -> None:
    """It is served all the same: the operator may know why."""
    authority = Authority(tmp_path)
    assert "has expired on" in troubles(authority.issue(*BOTH, days=-1))[0]
    assert "expires on" in troubles(authority.issue(*BOTH, days=3))[0]
    assert f"is not for *.{DOMAIN}, and visitors of tunnels will not accept it" in troubles(authority.issue(DOMAIN))[0]
    assert f"is not for {DOMAIN}, and agents will not accept it" in troubles(authority.issue(f"*.{DOMAIN}"))[0]
    files = authority.issue(*BOTH)
    files.key.chmod(0o640)
    assert troubles(files) == (
        f"The key {files.key} can be read by others on this machine (mode 640): chmod 600 {files.key}.",
    )
    mixed = authority.issue(*BOTH)
    mixed.cert.write_bytes(mixed.cert.read_bytes() + files.cert.read_bytes())
    assert "are no chain" in troubles(mixed)[0]


def test_the_policy_is_mozillas_intermediate() -> None:
    """TLS 1.2 and up, forward-secret AEAD ciphers, the client's preference, nothing compressed or renegotiated."""
    context = server_context()
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert all(
        cipher["protocol"] == "TLSv1.3" or (cipher["name"].startswith("ECDHE-") and cipher["aead"])
        for cipher in context.get_ciphers()
    )
    assert context.options & ssl.OP_NO_COMPRESSION
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert not context.options & ssl.OP_CIPHER_SERVER_PREFERENCE


class Watched:
    """`Certificates` on two files, with a clock of its own."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder)
        self.files = self.authority.issue(*BOTH)
        self.said: list[dict[str, object]] = []
        self.now = time.time()
        settings = ServeSettings(domain=DOMAIN, data=folder, tls_cert=self.files.cert, tls_key=self.files.key)
        self.certificates = Certificates(settings, self.said.append, lambda: self.now)
        self.certificates.load()

    async def looks(self, times: int) -> ssl.SSLContext | None:
        for _ in range(times):
            await self.certificates.look()
        return self.certificates.context


async def test_another_pair_is_taken_up_once_it_is_settled(tmp_path: Path) -> None:
    """Two looks after it was written: between the two files of a pair nothing is read."""
    watched = Watched(tmp_path)
    first = watched.certificates.context
    assert await watched.looks(2) is first
    watched.authority.issue(*BOTH, days=60, into=watched.files)
    assert await watched.looks(1) is first
    assert await watched.looks(1) is not first
    assert watched.certificates.expires == pytest.approx(time.time() + 60 * DAY, abs=60)
    assert [one["event"] for one in watched.said] == ["certificate"]


async def test_a_pair_that_is_broken_replaces_nothing(tmp_path: Path) -> None:
    """It is told once, and the next good one is taken."""
    watched = Watched(tmp_path)
    first, expires = watched.certificates.context, watched.certificates.expires
    watched.files.cert.write_text("nothing")
    assert await watched.looks(4) is first
    assert watched.certificates.expires == expires
    assert [one["event"] for one in watched.said] == ["warning"]
    assert "is served on, until" in str(watched.said[0]["message"])
    watched.authority.issue(*BOTH, days=60, into=watched.files)
    assert await watched.looks(2) is not first
    watched.files.key.unlink()
    await watched.looks(3)
    assert "cannot be read" in str(watched.said[-1]["message"])


async def test_the_keys_of_tickets_do_not_grow_old(tmp_path: Path) -> None:
    """The same pair gets a new context now and then; nobody is told."""
    watched = Watched(tmp_path)
    first = watched.certificates.context
    watched.now += TICKETS_FOR
    assert await watched.looks(1) is not first
    assert watched.said == []


def test_a_start_with_a_broken_pair_fails(tmp_path: Path) -> None:
    """With the sentence about it; without a pair there is nothing to fail."""
    gone = ServeSettings(data=tmp_path, tls_cert=tmp_path / "a", tls_key=tmp_path / "b")
    with pytest.raises(StartError, match="cannot be read"):
        Certificates(gone, lambda event: None).load()
    without = Certificates(ServeSettings(data=tmp_path), lambda event: None)
    without.load()
    assert without.context is None
    assert without.expires is None
