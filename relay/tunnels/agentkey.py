"""Admission by one agent key, from the settings or made at first start. The only key that exists so far."""

from __future__ import annotations

import hashlib
import hmac

from relay.tunnels.admission import Principal, refuse_reserved
from relay.wire.hello import Hello, Refused

_BAD_KEY = Refused("bad_key", "The relay does not know this key. Give the agent the relay's agent key (--key-file).")


class AgentKeyAdmission:
    """Whoever shows the key may claim any name that is not reserved."""

    def __init__(self, key: str) -> None:
        self._digest = _digest(key)

    async def admit(self, hello: Hello) -> Principal | Refused:
        """See `Admission.admit`."""
        if not hmac.compare_digest(self._digest, _digest(hello.key)):
            return _BAD_KEY
        return refuse_reserved(hello.names) or Principal("default", "agent-key")

    async def renew(self, principal: Principal, key: str, names: tuple[str, ...]) -> Principal | Refused:
        """See `Admission.renew`."""
        return principal if hmac.compare_digest(self._digest, _digest(key)) else _BAD_KEY


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
