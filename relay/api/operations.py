"""The one list of what the API does. Routes and the OpenAPI document are made from it, so neither can lag behind."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pydantic import BaseModel

from relay.api import audit, keys, minting, models, projects, signers, subdomains, tunnels, usage, wishes
from relay.api.call import Call, Reply
from relay.api.models import Given
from relay.api.rights import Right
from relay.api.wishes import Taken
from relay.keys.times import text_of

PREFIX = "/api/v1"
NAME = "tunnel-relay"

Handler = Callable[[Call], Awaitable[Reply]]


@dataclass(frozen=True, slots=True)
class Operation:
    """One method on one path (below `PREFIX`). Without `rights` no key is needed."""

    id: str
    method: str
    path: str
    handler: Handler
    rights: tuple[Right, ...] = ()
    """Any of these lets a caller try; the handler looks closer."""
    body: type[BaseModel] | None = None
    query: type[Taken] = wishes.NoQuery
    answer: type[Given] | None = None
    """None: no content."""
    status: int = 200

    @property
    def summary(self) -> str:
        """The first line of what the handler says it does."""
        return (self.handler.__doc__ or "").strip().partition("\n")[0]


async def _hello(call: Call) -> Reply:
    """What this relay is, and its clock."""
    office = call.office
    return Reply(
        models.Hello(
            name=NAME,
            version=office.version,
            domain=office.issuer,
            public_url=office.base_url,
            time=text_of(office.now()),
        )
    )


_MINTING = (Right.KEYS_MINT_MASTER, Right.KEYS_MINT_CHILD, Right.KEYS_MINT_VISITOR)

OPERATIONS = (
    Operation("relay.show", "GET", "", _hello, answer=models.Hello),
    Operation("whoami", "GET", "/whoami", keys.whoami, (Right.WHOAMI,), answer=models.Key),
    Operation(
        "projects.create", "POST", "/projects", projects.create, (Right.PROJECTS_CREATE,),
        body=wishes.NewProject, answer=models.CreatedProject, status=201,
    ),
    Operation(
        "projects.list", "GET", "/projects", projects.page, (Right.PROJECTS_LIST,),
        query=wishes.Paging, answer=models.Projects,
    ),
    Operation(
        "projects.show", "GET", "/projects/{project}", projects.show, (Right.PROJECTS_SHOW,), answer=models.Project
    ),
    Operation(
        "projects.plan", "PATCH", "/projects/{project}", projects.give_plan, (Right.PROJECTS_PLAN,),
        body=wishes.PlanWish, answer=models.Project,
    ),
    Operation(
        "projects.delete", "DELETE", "/projects/{project}", projects.delete, (Right.PROJECTS_DELETE,),
        answer=models.Revoked,
    ),
    Operation("plans.list", "GET", "/plans", projects.plans, (Right.PLANS_LIST,), answer=models.Plans),
    Operation(
        "usage.show", "GET", "/usage", usage.show, (Right.USAGE_SHOW,), query=wishes.UsageQuery, answer=models.Usage
    ),
    Operation(
        "keys.mint", "POST", "/keys", minting.mint, _MINTING, body=wishes.MintWish, answer=models.Minted, status=201
    ),
    Operation("keys.list", "GET", "/keys", keys.page, (Right.KEYS_LIST,), query=wishes.KeysQuery, answer=models.Keys),
    Operation("keys.show", "GET", "/keys/{key}", keys.show, (Right.KEYS_SHOW,), answer=models.KeyDetails),
    Operation(
        "keys.rotate", "POST", "/keys/{key}/rotate", keys.rotate, (Right.KEYS_ROTATE,),
        body=wishes.RotateWish, answer=models.Rotated,
    ),
    Operation(
        "keys.revoke", "POST", "/keys/{key}/revoke", keys.revoke, (Right.KEYS_REVOKE,),
        body=wishes.RevokeWish, answer=models.Revoked,
    ),
    Operation(
        "subdomains.list", "GET", "/subdomains", subdomains.page, (Right.SUBDOMAINS_LIST,),
        query=wishes.OfProject, answer=models.Subdomains,
    ),
    Operation(
        "subdomains.reserve", "PUT", "/subdomains/{name}", subdomains.reserve, (Right.SUBDOMAINS_RESERVE,),
        body=wishes.ReserveWish, answer=models.Subdomain,
    ),
    Operation(
        "subdomains.release", "DELETE", "/subdomains/{name}", subdomains.release, (Right.SUBDOMAINS_RELEASE,),
        status=204,
    ),
    Operation(
        "subdomains.move", "POST", "/subdomains/{name}/move", subdomains.move, (Right.SUBDOMAINS_MOVE,),
        body=wishes.MoveWish, answer=models.Subdomain,
    ),
    Operation(
        "tunnels.list", "GET", "/tunnels", tunnels.page, (Right.TUNNELS_LIST,),
        query=wishes.OfProject, answer=models.Tunnels,
    ),
    Operation("tunnels.close", "DELETE", "/tunnels/{name}", tunnels.close, (Right.TUNNELS_CLOSE,), status=204),
    Operation(
        "audit.list", "GET", "/audit", audit.page, (Right.AUDIT_LIST,), query=wishes.AuditQuery, answer=models.AuditRows
    ),
    Operation("audit.head", "GET", "/audit/head", audit.head, (Right.AUDIT_HEAD,), answer=models.AuditHead),
    Operation("signers.list", "GET", "/signers", signers.page, (Right.SIGNERS_LIST,), answer=models.Signers),
    Operation(
        "signers.retire", "DELETE", "/signers/{signer}", signers.retire, (Right.SIGNERS_RETIRE,),
        answer=models.RetiredSigner,
    ),
)  # fmt: skip
