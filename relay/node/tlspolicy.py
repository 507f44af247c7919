"""Which TLS is spoken: Mozilla's "intermediate", guideline 6.0 (TLS 1.2 and 1.3, the client's choice of forward-secret
AEAD ciphers and of groups, hybrid with ML-KEM where OpenSSL knows it). No certificate and no socket is known here.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import ssl

# TLS 1.3 has its own three, which are all allowed.
CIPHERS = (
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
)
GROUPS = ("X25519", "P-256", "P-384")
HYBRID = "X25519MLKEM768"
HYBRID_SINCE = (3, 5)
PROTOCOL = "http/1.1"


def server_context() -> ssl.SSLContext:
    """A context for a server, still without a certificate."""
    groups = ":".join((HYBRID, *GROUPS) if ssl.OPENSSL_VERSION_INFO >= HYBRID_SINCE else GROUPS)
    if not hasattr(ssl.SSLContext, "set_groups"):  # Python 3.15
        _choose_groups_for_all(groups)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if hasattr(context, "set_groups"):
        context.set_groups(groups)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(":".join(CIPHERS))
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols([PROTOCOL])
    return context


@functools.cache
def _choose_groups_for_all(groups: str) -> bool:
    """Tells OpenSSL which groups any context has that is made from here on, in this process; whether it listened.

    Python names one group or all to a context. This is what OPENSSL_CONF does, through the same public functions; where
    they are not to be had (OpenSSL without its symbols), contexts keep OpenSSL's defaults: the same groups and more.
    """
    import _ssl

    lines = (
        "relay = all",
        "[all]",
        "ssl_conf = parts",
        "[parts]",
        "system_default = chosen",
        "[chosen]",
        f"Groups = {groups}",
    )
    text = "\n".join((*lines, "")).encode()
    pointer = ctypes.c_void_p
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(_ssl.__file__)
        library.NCONF_new.restype, library.NCONF_new.argtypes = pointer, [pointer]
        library.NCONF_free.restype, library.NCONF_free.argtypes = None, [pointer]
        library.BIO_new_mem_buf.restype = pointer
        library.BIO_new_mem_buf.argtypes = [ctypes.c_char_p, ctypes.c_int]
        library.BIO_free.argtypes = [pointer]
        library.NCONF_load_bio.argtypes = [pointer, pointer, pointer]
        library.CONF_modules_load.argtypes = [pointer, ctypes.c_char_p, ctypes.c_ulong]
        conf, bio = library.NCONF_new(None), library.BIO_new_mem_buf(text, len(text))
        if not conf or not bio:
            return False
        try:
            read = int(library.NCONF_load_bio(conf, bio, None))
            return read > 0 and int(library.CONF_modules_load(conf, b"relay", 0)) > 0
        finally:
            library.BIO_free(bio)
            library.NCONF_free(conf)
    return False
