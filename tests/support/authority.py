"""A certificate authority of a test's own, and what it issues: PEM files as an operator has them."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, slots=True)
class Files:
    """A certificate and its key."""

    cert: Path
    key: Path

    @property
    def flags(self) -> list[str]:
        """For `relay serve`."""
        return ["--tls-cert", str(self.cert), "--tls-key", str(self.key)]


class Authority:
    """Its own certificate is the file `ca`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._key: PrivateKey = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "A test's own authority")])
        built = _builder(self._name, self._name, self._key, 30).add_extension(x509.BasicConstraints(True, 0), True)
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        self._cert = built.add_extension(usage, True).sign(self._key, hashes.SHA256())
        self.ca = folder / "ca.pem"
        self.ca.write_bytes(self._cert.public_bytes(Encoding.PEM))

    def issue(self, *names: str, days: float = 30, key: PrivateKey | None = None, into: Files | None = None) -> Files:
        """A certificate for host names that ends in so many days, in new files or in the place of others."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0])])
        built = _builder(subject, self._name, key, days)
        built = built.add_extension(x509.SubjectAlternativeName([x509.DNSName(one) for one in names]), False)
        built = built.add_extension(x509.BasicConstraints(False, None), True)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._cert.public_key())  # type: ignore[arg-type]
        built = built.add_extension(issuer, False)
        built = built.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
        signed = built.sign(self._key, hashes.SHA256())
        number = len(list(self.folder.glob("*.key")))
        files = into or Files(self.folder / f"{number}.pem", self.folder / f"{number}.key")
        _replace(files.key, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        _replace(files.cert, signed.public_bytes(Encoding.PEM))
        return files

    def trusting(self) -> ssl.SSLContext:
        """A visitor's context that trusts this authority and nobody else."""
        return ssl.create_default_context(cafile=str(self.ca))


def _builder(subject: x509.Name, issuer: x509.Name, key: PrivateKey, days: float) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    ends = now + timedelta(days=days)
    built = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    built = built.serial_number(x509.random_serial_number())
    built = built.not_valid_before(min(now, ends) - timedelta(days=1)).not_valid_after(ends)
    return built.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)


def _replace(path: Path, data: bytes) -> None:
    """At once, as who renews certificates does."""
    beside = path.with_name(path.name + ".new")
    beside.touch(mode=0o600)
    beside.write_bytes(data)
    beside.replace(path)
