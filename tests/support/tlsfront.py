"""What stands before a relay in the open: takes TLS off, with a certificate that a test makes and trusts itself."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.support.connectproxy import ConnectProxy


def certificate(folder: Path, host: str) -> Path:
    """A self-signed one, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    now = datetime.now(UTC)
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    built = built.serial_number(x509.random_serial_number())
    built = built.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    signed = built.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), False).sign(key, hashes.SHA256())
    file = folder / f"{host}.pem"
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(secret + signed.public_bytes(Encoding.PEM))
    return file


def end_at_once(wire: ssl.SSLSocket) -> None:
    """Says that it ends and closes, waiting for nobody (as nginx does)."""
    wire.settimeout(0)
    with contextlib.suppress(OSError):
        wire.unwrap()
    wire.close()


class Doorstep(ConnectProxy):
    """Before a port of this machine, on every address it has; `port` is where it takes connections."""

    def __init__(self, behind: int) -> None:
        super().__init__({})
        self.behind = behind
        self.host = "0.0.0.0"

    async def _asked_for(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
        return self.behind


class TlsFront(Doorstep):
    """By the certificate of a file, and for this machine only."""

    def __init__(self, behind: int, file: Path) -> None:
        super().__init__(behind)
        self.host = "127.0.0.1"
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(file)
