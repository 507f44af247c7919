"""The shapes of what the API takes: bodies and queries. Members that are not here are refused.

Strict: a number is no text, and nothing is guessed. The OpenAPI document is made from these classes.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, RootModel, StringConstraints

from relay.keys import scopes
from relay.keys.forms import Kind, read_public

DAY = 86_400
YEAR = 365 * DAY
MOST_ITEMS = 500
_MOST_NUMBER = 2**53 - 1
LABEL = f"^{scopes.LABEL.pattern}$"
PROJECT = r"^[0-9A-Za-z_-]{1,64}$"
# A label in which up to three * stand for any run of characters.
_PATTERN = (
    r"^([a-z0-9]([a-z0-9-]*[a-z0-9])?"
    r"|([a-z0-9][a-z0-9-]*)?\*([a-z0-9-]*\*){0,2}([a-z0-9-]*[a-z0-9])?)$"
)


def _a_public_key(text: str) -> str:
    try:
        read_public(text)
    except ValueError:
        raise ValueError("should be the 32 bytes of an Ed25519 public key in base64url, without padding") from None
    return text


def _digits(value: Any) -> Any:  # noqa: ANN401 - as pydantic hands it over
    """Python's idea of a number in text is wider than the documented one: underscores, spaces, signs."""
    if isinstance(value, str):
        if not (value.isascii() and value.isdigit() and len(value) <= 16):
            raise ValueError("should be a whole number")
        return int(value)
    return value


def _whole(value: Any) -> Any:  # noqa: ANN401
    """To JSON Schema, 60.0 is an integer."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


PublicKey = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$"), AfterValidator(_a_public_key)
]
Name = Annotated[str, StringConstraints(pattern=LABEL, max_length=63)]
# A project's id or name.
ProjectRef = Annotated[str, StringConstraints(pattern=PROJECT)]
Label = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f-\x9f]*$", max_length=100)]
Pattern = Annotated[str, StringConstraints(pattern=_PATTERN, max_length=63)]
Limit = Annotated[int, Field(ge=1, le=MOST_ITEMS), BeforeValidator(_digits)]
Cursor = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z_=.~-]{1,256}$")]


class Taken(BaseModel):
    """What comes in."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


# ---- bodies


class NewMaster(Taken):
    """The public half of a master key; the private one stays with the command that made it."""

    public_key: PublicKey
    label: Label = ""


class NewProject(Taken):
    """A project with its first master key. Without `plan` it has the relay's default plan."""

    name: Name
    master: NewMaster
    plan: Name | None = None


class PlanWish(Taken):
    """Which plan a project gets; null: none of its own, so the relay's default plan."""

    plan: Name | None


Amount = Annotated[int, Field(ge=1, le=_MOST_NUMBER), BeforeValidator(_whole)]
Life = Annotated[int, Field(ge=1, le=10 * YEAR), BeforeValidator(_whole)]


class ScopeWish(Taken):
    """What a key may do. A member that is left out is as the parent's; null is no limit, where the parent has none."""

    names: Annotated[list[Pattern], Field(min_length=1, max_length=16)] | None = None
    tunnels: Amount | None = None
    rate: Amount | None = None
    bandwidth: Amount | None = None
    streams: Amount | None = None
    body: Amount | None = None
    monthly_requests: Amount | None = None
    monthly_bytes: Amount | None = None


class _AnyKeyWish(Taken):
    project: ProjectRef | None = None
    life: Life | None = None
    label: Label = ""


class MasterWish(_AnyKeyWish):
    """A master key, of which the relay gets the public half only. Without `life` (seconds) it does not expire."""

    kind: Literal["master"]
    public_key: PublicKey
    scope: ScopeWish | None = None


class ChildWish(_AnyKeyWish):
    """A child key. `life` is in seconds, a day unless it is said."""

    kind: Literal["child"]
    scope: ScopeWish | None = None


class VisitorWish(_AnyKeyWish):
    """A visitor key for one tunnel, which is its scope. `life` is in seconds, a day unless it is said."""

    kind: Literal["visitor"]
    tunnel: Name


class MintWish(RootModel[Annotated[MasterWish | ChildWish | VisitorWish, Field(discriminator="kind")]]):
    """A key to be minted."""

    model_config = ConfigDict(strict=True, frozen=True)


class RotateWish(Taken):
    """The public half of the next key; the present one stays valid for `overlap` seconds."""

    public_key: PublicKey
    overlap: Annotated[int, Field(ge=0, le=YEAR), BeforeValidator(_whole)] = DAY
    token_version: Annotated[int, Field(ge=0, le=2**31 - 1), BeforeValidator(_whole)] | None = None


class RevokeWish(Taken):
    """Whether all keys that were minted below it are revoked too."""

    cascade: bool = False


class ReserveWish(Taken):
    """For which project: the caller's own, or `default` for an operator, when left out."""

    project: ProjectRef | None = None


class MoveWish(Taken):
    """To which project."""

    project: ProjectRef


# ---- queries


class Paging(Taken):
    """A part of a list."""

    limit: Limit = 100
    cursor: Cursor | None = None


class OfProject(Paging):
    """A part of a list, of one project."""

    project: ProjectRef | None = None


class KeysQuery(OfProject):
    """Which keys."""

    kind: Annotated[Kind, Field(strict=False)] | None = None
    state: Literal["valid", "expired", "revoked", "retired"] | None = None


class UsageQuery(Taken):
    """Of which project (the caller's own, or all), and of which month, such as 2026-11 (this one)."""

    project: ProjectRef | None = None
    month: Annotated[str, StringConstraints(pattern=r"^20[0-9]{2}-(0[1-9]|1[0-2])$")] | None = None


class AuditQuery(Taken):
    """Which rows: those after this number."""

    after: Annotated[int, Field(ge=0, le=_MOST_NUMBER), BeforeValidator(_digits)] = 0
    limit: Limit = MOST_ITEMS


class NoQuery(Taken):
    """Nothing may be asked."""
