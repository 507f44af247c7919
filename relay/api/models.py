"""The shapes of what the API answers. The OpenAPI document is made from these classes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from relay.keys.forms import Kind

Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class Given(BaseModel):
    """What goes out."""

    # What makes a model ready takes time and memory: each is made so when it is first of use.
    model_config = ConfigDict(
        extra="forbid", frozen=True, json_schema_serialization_defaults_required=True, defer_build=True
    )


class Hello(Given):
    """What answers here. `time` is the relay's clock."""

    name: str
    version: str
    domain: str
    public_url: str
    time: Moment


class Plan(Given):
    """Limits under a name. The `default` plan is that of every project that was given none."""

    name: str
    default: bool
    limits: Limits


class Plans(Given):
    """All of them."""

    items: list[Plan]


class Project(Given):
    """A project. Without a `plan` of its own, its `limits` are those of the default plan."""

    id: str
    name: str
    plan: str | None
    limits: Limits
    created_at: Moment
    created_by: str
    deleted_at: Moment | None


class Limits(Given):
    """What may be used; null is no limit. `rate` is in requests, `bandwidth` in bytes (each way) per second.

    `tunnels` and `streams` are those at one time, `body` is in bytes of a request, `monthly_bytes` both ways together.
    """

    tunnels: int | None
    rate: int | None
    bandwidth: int | None
    streams: int | None
    body: int | None
    monthly_requests: int | None
    monthly_bytes: int | None


class Scope(Limits):
    """What a key may do: which names it may claim, and how much of everything."""

    names: list[str]


class Key(Given):
    """A key, without its secret: nobody but its holder has that."""

    id: str
    kind: Kind
    project: str | None
    project_name: str | None
    parent: str | None
    label: str
    scope: Scope
    tunnel: str | None
    public_key: str | None
    created_at: Moment
    expires_at: Moment | None
    revoked_at: Moment | None
    revoked_by: str | None
    state: Literal["valid", "expired", "revoked", "retired"]
    """Retired: it was signed by a key of the relay's that counts no longer."""
    token_version: int
    successor: str | None
    last_used_at: Moment | None
    last_used_from: str | None


class Left(Given):
    """What may still be used until the month ends; null is without end, or of a month that is over."""

    requests: int | None
    bytes: int | None


class Amounts(Given):
    """What was used in a month. `bytes_in` came from visitors, `bytes_out` went to them."""

    requests: int
    bytes_in: int
    bytes_out: int
    left: Left


class KeyMonth(Amounts):
    """This month of a key. A key that replaced another one goes on where that one was."""

    month: str
    ends_at: Moment


class KeyDetails(Key):
    """A key, the limits that it has in effect (the least of its own and those above it), and what it has used."""

    effective: Limits
    usage: KeyMonth | None
    """Null for a key below which nothing is counted: an operator's, or a visitor's."""


class ProjectUsage(Amounts):
    """What a project used in a month."""

    project: str
    project_name: str | None
    plan: str | None
    limits: Limits


class KeyUsage(Amounts):
    """What a key used in a month, with all below it. Its limits and what is left are the least of its own and above."""

    key: str
    kind: Kind
    label: str
    project: str
    project_name: str | None
    limits: Limits


class Usage(Given):
    """A month. Projects and keys that used nothing are left out, and so are many: those with fewest requests."""

    month: str
    ends_at: Moment
    projects: list[ProjectUsage]
    keys: list[KeyUsage]
    more: bool
    """Whether others used something too."""


class Projects(Given):
    """A part of the list of projects."""

    items: list[Project]
    next_cursor: str | None


class CreatedProject(Given):
    """A new project and its master key."""

    project: Project
    master: Key


class Keys(Given):
    """A part of the list of keys."""

    items: list[Key]
    next_cursor: str | None


class Minted(Given):
    """A new key. `text` is the key itself, said only now; null for a master key, which the relay never had."""

    key: Key
    text: Annotated[str | None, Field(repr=False)]


class Rotated(Given):
    """The newest key of the line, whether it is new, and the one before."""

    key: Key
    rotated: bool
    old: Key


class Revoked(Given):
    """How many keys were revoked by this, and how many below them live on."""

    operator: int
    master: int
    child: int
    visitor: int
    remaining: int


class Subdomain(Given):
    """A reserved name. `login` is the key that reserved it."""

    name: str
    url: str
    project: str
    project_name: str | None
    reserved_at: Moment
    released_at: Moment | None
    login: str


class Subdomains(Given):
    """A part of the list of names."""

    items: list[Subdomain]
    next_cursor: str | None


class Tunnel(Given):
    """A name that is alive on this node."""

    name: str
    url: str
    project: str
    project_name: str | None
    key_id: str
    links: int
    since: Moment
    streams: int
    private: bool


class Tunnels(Given):
    """A part of the list of tunnels."""

    items: list[Tunnel]
    next_cursor: str | None


class AuditEntry(Given):
    """One row of the audit, and the hash that chains it to the one before."""

    row: dict[str, Any]
    hash: str


class AuditRows(Given):
    """Rows in order; `next` is what to ask for `after`, null at the end."""

    items: list[AuditEntry]
    next: int | None


class AuditHead(Given):
    """The end of the chain, signed now."""

    head: dict[str, Any]


class Signer(Given):
    """The public half of a key that a node signs with. What it signed counts no longer once it is retired."""

    kid: str
    public_key: str
    node: str
    created_at: Moment
    retired_at: Moment | None


class Signers(Given):
    """All of them."""

    items: list[Signer]


class RetiredSigner(Given):
    """A signing key that counts no longer, and whether that is so only since now."""

    kid: str
    retired: bool


class ProblemDetails(Given):
    """RFC 9457, with a code for programs and the next step for people."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=False)

    type: str
    title: str
    status: int
    detail: str
    code: str
    next_action: str
    reason: str = ""
    """Tells apart what has one code; left out where there is nothing to tell apart."""
