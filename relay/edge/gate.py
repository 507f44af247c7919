"""Whether a visitor key or a password is good. The one gate of a node; answers from memory, never from the registry.

A key that was proven is not computed anew, but its end and its revocation are looked at each time.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping

from relay.edge.access import Password, Standing, Verdict
from relay.edge.passwords import Passwords
from relay.keys.errors import BadKey, Reason
from relay.keys.forms import Kind
from relay.keys.tokens import Grant, TokenVerifier

MOST_PROVEN = 4096
_UNKNOWN = "this is no visitor key of this relay"
_WORDS: dict[str, str] = {
    Reason.MISTYPED: "the visitor key is mistyped: its checksum does not fit",
    Reason.EXPIRED: "the visitor key has expired",
    Reason.NOT_YET: "the visitor key is not valid yet",
    Reason.RETIRED: "the visitor key was signed by a signing key that is retired",
    "revoked": "the visitor key was revoked",
    "elsewhere": "the visitor key is for another tunnel",
}


class VisitorGate:
    """See `Gate`. Without a verifier no key is good. `now` is the wall clock, in seconds since the epoch."""

    def __init__(
        self,
        verifier: TokenVerifier | None = None,
        revoked: Callable[[str], bool] = lambda key_id: False,
        now: Callable[[], float] = time.time,
        passwords: Passwords | None = None,
    ) -> None:
        self._verifier = verifier
        self._revoked = revoked
        self._now = now
        self._passwords = passwords or Passwords(time.monotonic)
        self._proven: OrderedDict[str, Grant] = OrderedDict()
        """By the text of the key; the one that was shown last stands last."""
        self._signers: Mapping[str, bytes] = {}
        """Whose signatures those are."""

    def visitor_key(self, text: str, name: str, project: str) -> Verdict:
        """See `Gate.visitor_key`."""
        try:
            grant = self._prove(text)
        except BadKey as error:
            return _refused(error.reason, error.key_id)
        if self._revoked(grant.key_id):
            return _refused("revoked", grant.key_id, grant.lineage)
        if self._now() >= grant.expires_at:
            return _refused(Reason.EXPIRED, grant.key_id, grant.lineage)
        # The name alone is not enough: another project may have it since the key was made.
        if (grant.tunnel, grant.project) != (name, project):
            return _refused("elsewhere", grant.key_id, grant.lineage)
        return Verdict(Standing.GOOD, grant.key_id, signer=grant.signer)

    def remembered(self, shown: Password) -> bool | None:
        """See `Gate.remembered`."""
        return self._passwords.remembered(shown.hash, shown.password)

    async def password(self, shown: Password, address: str) -> bool:
        """See `Gate.password`."""
        return await self._passwords.check(shown.hash, shown.password, address, shown.project)

    def _prove(self, text: str) -> Grant:
        """The grant of a key that this relay signed. Raises `BadKey`."""
        verifier, proven = self._verifier, self._proven
        if verifier is None:
            raise BadKey(Reason.SIGNER, _UNKNOWN)
        if verifier.signers != self._signers:  # a node whose signatures count no longer
            proven.clear()
            self._signers = dict(verifier.signers)
        grant = proven.get(text)
        if grant is None:
            grant = proven[text] = verifier.verify(text, Kind.VISITOR, self._now())
            if len(proven) > MOST_PROVEN:
                proven.popitem(last=False)
        else:
            proven.move_to_end(text)
        return grant


def _refused(code: str, key_id: str, lineage: tuple[str, ...] = ()) -> Verdict:
    standing = Standing.ELSEWHERE if code == "elsewhere" else Standing.BAD
    return Verdict(standing, key_id, _WORDS.get(code, _UNKNOWN), str(code), lineage)
