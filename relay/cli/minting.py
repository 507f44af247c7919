"""Where an agent's keys come from: the child key that was given, or children that a master or operator key mints.

Whether a name may be moved to the agent's project is the relay's to decide; here is only who asks.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from relay.agent.config import Exit, FixedKey, KeyRefused, KeySource, MintedKey
from relay.cli.errors import Mistake, Refusal
from relay.cli.keyring import Key, own_keys
from relay.cli.output import harmless
from relay.keys.forms import Kind
from relay.keys.scopes import MAX_PATTERNS

if TYPE_CHECKING:
    from relay.cli.client import Client

MOST_LABEL = 100


def key_source(
    relay: str, key: Key, project: str | None, names: tuple[str, ...], environment: Mapping[str, str]
) -> KeySource:
    """For an agent that claims `names`. Raises `Mistake` for a key that opens no tunnel."""
    if key.kind is Kind.VISITOR:
        raise Mistake(
            f"What {key.origin} holds is a visitor key, which lets a visitor in and opens no tunnel: "
            "give a child, master or operator key."
        )
    if key.kind is Kind.CHILD:
        if project is not None:
            raise Mistake(
                f"What {key.origin} holds is a child key, which belongs to its project already: leave --project out, "
                "or give a master key in its place (RELAY_MASTER_KEY, --key-file)."
            )
        return FixedKey(key.text)
    from relay.cli.client import Client

    return Minter(Client(relay, key), project, names, environment)


class Minter:
    """A `KeySource` that is a `Claimant` too: asks the relay's API for child keys, never wider than the agent needs.

    Without `project` it is a master key's own, or the relay's default for an operator key.
    """

    def __init__(
        self, client: Client, project: str | None, names: tuple[str, ...], environment: Mapping[str, str]
    ) -> None:
        self._client = client
        self._project = project
        self._names = names
        self._environment = environment

    def fresh(self) -> MintedKey:
        """See `KeySource.fresh`."""
        wish: dict[str, object] = {"kind": "child", "label": harmless(socket.gethostname())[:MOST_LABEL]}
        if self._project is not None:
            wish["project"] = self._project
        if len(self._names) <= MAX_PATTERNS:  # with more names, a key as wide as its parent
            wish["scope"] = {"names": list(self._names)}
        try:
            made = self._client.post("keys", body=wish)
        except Mistake as mistake:
            raise _refused(mistake) from None
        key = made.get("key") or {}
        try:
            issued, expires = (datetime.fromisoformat(key[when]).timestamp() for when in ("created_at", "expires_at"))
        except (KeyError, TypeError, ValueError):
            issued = expires = 0.0
        text = made.get("text")
        if not isinstance(text, str) or not text or not issued < expires:
            raise KeyRefused("The relay's API gave no child key: is this agent older or newer?", True, Exit.KEY_REFUSED)
        return MintedKey(text, issued, expires, renewable=True)

    def claim_for_login(self, names: tuple[str, ...]) -> bool:
        """See `Claimant.claim_for_login`: names that this user's login reserved for another project of its own."""
        moved = False
        try:
            project = self._project or self._client.get("whoami").get("project") or "default"
            for client in self._logins():
                for name in names:
                    moved = _move(client, name, str(project)) or moved
                if moved:
                    break
        except Mistake as mistake:
            raise _refused(mistake) from None
        return moved

    def _logins(self) -> Iterator[Client]:
        """Every operator key of this user: the one in use, then those that it holds whatever this shell was told."""
        from relay.cli.client import Client

        seen = {self._client.key.text}
        if self._client.key.kind is Kind.OPERATOR:
            yield self._client
        for key in own_keys(self._environment, self._client.relay):
            if key.kind is Kind.OPERATOR and key.text not in seen:
                seen.add(key.text)
                yield Client(self._client.relay, key)


def _move(client: Client, name: str, project: str) -> bool:
    try:
        client.post("subdomains", name, "move", body={"project": project})
    except Refusal:
        return False  # the relay's own refusal of the name says more
    return True


def _refused(mistake: Mistake) -> KeyRefused:
    final = isinstance(mistake, Refusal)
    return KeyRefused(str(mistake), final, Exit.KEY_REFUSED if final else Exit.UNEXPECTED)
