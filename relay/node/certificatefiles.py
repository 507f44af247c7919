"""What a certificate and its key must be to be served, and what about them is worth a warning. Reads files, keeps none.

Whatever is wrong is one sentence for the operator. Of the key nothing is ever shown.
"""

from __future__ import annotations

import os
import ssl
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from relay.node.tlspolicy import server_context

SOON = 14 * 86400.0
"""Seconds before the end of a certificate from which on a start warns of it."""
_PAIR = "give both as PEM files, for example --tls-cert fullchain.pem --tls-key privkey.pem"


class BadPair(Exception):
    """A certificate and a key that cannot be served; the text is one sentence."""


@dataclass(frozen=True, slots=True)
class Pair:
    """What was read."""

    context: ssl.SSLContext
    expires: float
    """Seconds since the epoch."""
    troubles: tuple[str, ...]
    """Sentences about what is served all the same."""


def read_pair(cert: Path, key: Path, domain: str, now: float) -> Pair:
    """Reads and judges both files; `now` is in seconds since the epoch. Blocks. Raises `BadPair`."""
    try:
        return _judged(cert, key, domain, now)
    except ValueError:  # a certificate of which a part cannot be read
        raise BadPair(f"The certificate {cert} (tls_cert) is not well-formed; {_PAIR}.") from None


def _judged(cert: Path, key: Path, domain: str, now: float) -> Pair:
    chain = _chain(cert)
    _refuse_unreadable_key(key)
    context = server_context()
    try:
        context.load_cert_chain(cert, key, password=lambda: "")
    except ssl.SSLError as error:
        raise BadPair(_why(error, cert, key)) from None
    except (OSError, ValueError) as error:
        raise BadPair(f"The certificate {cert} and its key {key} cannot be read ({error}); {_PAIR}.") from None
    found = (_dates(chain[0], cert, now), _order(chain, cert), _names(chain[0], cert, domain), _mode(key))
    return Pair(context, chain[0].not_valid_after_utc.timestamp(), tuple(filter(None, found)))


def _chain(cert: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(cert.read_bytes())
    except OSError as error:
        raise BadPair(f"The certificate (tls_cert) {cert} cannot be read: {error.strerror}; {_PAIR}.") from None
    except (ValueError, UnsupportedAlgorithm):
        raise BadPair(
            f"The file {cert} (tls_cert) holds no certificate in PEM form, lines that begin with "
            f"-----BEGIN CERTIFICATE-----; {_PAIR}."
        ) from None


def _refuse_unreadable_key(key: Path) -> None:
    """What OpenSSL would say in its own way."""
    try:
        text = key.read_bytes()
    except OSError as error:
        raise BadPair(f"The key (tls_key) {key} cannot be read: {error.strerror}; {_PAIR}.") from None
    if b"ENCRYPTED" in text:
        raise BadPair(
            f"The key {key} (tls_key) is locked by a passphrase, and nobody is there to type it: give one without, "
            "for example from openssl pkey -in locked.pem -out privkey.pem."
        )
    if b"PRIVATE KEY-----" not in text:
        raise BadPair(
            f"The file {key} (tls_key) holds no private key in PEM form, lines that begin with "
            f"-----BEGIN PRIVATE KEY-----; {_PAIR}."
        )


def _why(error: ssl.SSLError, cert: Path, key: Path) -> str:
    reason = error.reason or "unknown reason"
    if reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"):
        return (
            f"The key {key} (tls_key) is not that of the certificate {cert} (tls_cert): give two that belong together."
        )
    if reason.endswith("_TOO_SMALL") or reason.endswith("_TOO_WEAK"):
        return (
            f"The certificate {cert} (tls_cert) is too weak ({reason.replace('_', ' ').lower()}): "
            "get one with RSA of 2048 bits or more, or with P-256."
        )
    return f"The certificate {cert} and its key {key} cannot be used ({reason.replace('_', ' ').lower()}); {_PAIR}."


def _dates(leaf: x509.Certificate, cert: Path, now: float) -> str:
    begins, ends = leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
    if now < begins:
        return f"The certificate {cert} is valid only from {_day(begins)} on: until then nobody will accept it."
    if now >= ends:
        return f"The certificate {cert} has expired on {_day(ends)}: nobody accepts it, put a new one in its place."
    if ends - now < SOON:
        return f"The certificate {cert} expires on {_day(ends)}: put a new one in its place before then."
    return ""


def _order(chain: list[x509.Certificate], cert: Path) -> str:
    for one, issuer in pairwise(chain):
        try:
            one.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            return (
                f"The certificates in {cert} are no chain: each must be followed by the one of its issuer, "
                "beginning with that of this relay, or some clients will not accept it."
            )
    return ""


def _names(leaf: x509.Certificate, cert: Path, domain: str) -> str:
    names = names_of(leaf)
    missing = [one for one in (domain, f"*.{domain}") if one not in names]
    if not missing:
        return ""
    return (
        f"The certificate {cert} is not for {' and '.join(missing)}, and "
        f"{'agents' if missing == [domain] else 'visitors of tunnels'} will not accept it: get one for {domain} and "
        f"*.{domain}."
    )


def names_of(leaf: x509.Certificate) -> list[str]:
    """The host names a certificate is for, in lower case."""
    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    return [name.lower() for name in found.get_values_for_type(x509.DNSName)]


def _mode(key: Path) -> str:
    try:
        mode = stat.S_IMODE(os.stat(key).st_mode)
    except OSError:
        return ""
    handed = os.environ.get("CREDENTIALS_DIRECTORY")  # of systemd, whose files' group bits mean the service's own user
    if mode & 0o077 and not (handed and key.is_relative_to(handed)):
        return f"The key {key} can be read by others on this machine (mode {mode:03o}): chmod 600 {key}."
    return ""


def _day(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d")
