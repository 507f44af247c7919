"""A relay's signing key and the visitor keys that it signs, for tests of the gate and of what stands behind it."""

from __future__ import annotations

from relay.edge.gate import VisitorGate
from relay.keys.forms import Kind
from relay.keys.scopes import Scope
from relay.keys.tokens import Grant, SigningKey, TokenVerifier, new_id
from tests.support.clock import ManualClock

DOMAIN = "tunnels.localhost"


class Keyring:
    """One relay, its clock and what it has revoked."""

    def __init__(self) -> None:
        self.signing = SigningKey.generate()
        self.clock = ManualClock(1_800_000_000.0)
        self.revoked: set[str] = set()
        self.verifier = TokenVerifier(DOMAIN, {self.signing.kid: self.signing.public})
        self.proven = 0
        """How many keys had their signature checked."""
        verify = self.verifier.verify

        def counted(text: str, kind: Kind, now: float) -> Grant:
            self.proven += 1
            return verify(text, kind, now)

        self.verifier.verify = counted  # type: ignore[method-assign]
        self.gate = VisitorGate(self.verifier, self.revoked.__contains__, self.clock)

    def grant(self, *, tunnel: str = "demo", project: str = "default", life: float = 3600.0) -> Grant:
        """What a new visitor key says."""
        now = self.clock()
        key_id = new_id(Kind.VISITOR)
        return Grant(Kind.VISITOR, key_id, project, (), Scope((tunnel,)), now, now + life, tunnel)

    def sign(self, grant: Grant) -> str:
        """The text of the key."""
        return self.signing.sign(grant, DOMAIN)
