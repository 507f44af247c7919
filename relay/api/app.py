"""The API on the agent listener: from the list of operations to an ASGI application.

The order in which a request is judged is decided here, once for all operations: does it come from a web page, is the
method right, is it whole, whose key is it, may such a key ask this at all, is it well formed; only then does a handler
see it.
"""

from __future__ import annotations

import logging
import traceback
from collections import defaultdict
from collections.abc import Sequence

from pydantic import BaseModel, RootModel, ValidationError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from relay.api import openapi, problems
from relay.api.authenticate import authenticate, refusal_of
from relay.api.call import Call, Reply, forbidden
from relay.api.office import Office
from relay.api.operations import OPERATIONS, PREFIX, Operation
from relay.api.problems import Problem, answer_to
from relay.api.rights import Caller, Reach, reach
from relay.api.wishes import Taken
from relay.exchange.headers import address_of
from relay.registry.errors import RegistryError

MOST_BODY = 64 * 1024
_HERE = "This is where agents connect to this relay: relay http 3000 --relay URL-OF-THIS-LISTENER\n"
_HEADERS = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]
_OWN_SITES = ("", "none", "same-origin")
_LOGGER = logging.getLogger("relay.api")


class _Front:
    """What holds for every answer: never stored, no body to HEAD, none at all to a web page of another origin."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS]
            elif message["type"] == "http.response.body" and scope["method"] == "HEAD":
                message = {**message, "body": b""}
            await send(message)

        request = Request(scope)
        foreign = request.headers.get("sec-fetch-site", "").strip().lower() not in _OWN_SITES
        if (foreign or "origin" in request.headers) and scope["path"].startswith("/api"):
            await answer_to(problems.cross_origin())(scope, receive, answer)
        else:
            await self._app(scope, receive, answer)


class _Place:
    """All operations on one path, as an ASGI application."""

    def __init__(self, office: Office, operations: Sequence[Operation]) -> None:
        self._office = office
        self._path = operations[0].path
        self._operations = {one.method: one for one in operations}
        methods = {*self._operations, "OPTIONS"} | ({"HEAD"} if "GET" in self._operations else set())
        self._allow = ", ".join(sorted(methods))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._answer(Request(scope, receive))
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        try:
            return await self._serve(request)
        except Problem as problem:
            return answer_to(problem)
        except RegistryError as error:
            return answer_to(problems.from_registry(error))
        except ClientDisconnect:  # in the middle of its body; nobody reads this
            return Response(status_code=400)
        except Exception as error:
            # Where, not what: the text of an unforeseen error may hold what was sent.
            where = "".join(traceback.format_tb(error.__traceback__))
            _LOGGER.error("%s at %s %s\n%s", type(error).__name__, request.method, self._path, where)
            return answer_to(problems.broken())

    async def _serve(self, request: Request) -> Response:
        if request.method == "OPTIONS":
            return Response(status_code=204, headers={"Allow": self._allow})
        operation = self._operations.get("GET" if request.method == "HEAD" else request.method)
        if operation is None:
            raise problems.wrong_method(request.method, self._allow)
        # The key is judged once the request is whole: a slow body must not outlive the key's revocation.
        body = b"" if operation.body is None else await _read(request)
        caller = await self._caller(request, operation)
        said: dict[type[BaseModel], BaseModel] = {operation.query: _query(request, operation.query)}
        if operation.body is not None:
            said[operation.body] = _understood(request, body, operation.body)
        reply = await operation.handler(Call(self._office, caller, request.path_params, said))
        if reply.body is None:
            return Response(status_code=reply.status)
        content = reply.body if isinstance(reply.body, bytes) else reply.body.model_dump_json()
        return Response(content, reply.status, media_type="application/json")

    async def _caller(self, request: Request, operation: Operation) -> Caller | None:
        if not operation.rights:
            return None
        peer = request.client.host if request.client is not None else "unknown"
        address = address_of(peer, ",".join(request.headers.getlist("x-forwarded-for")), self._office.trusts)
        caller = await authenticate(self._office, request.headers.getlist("authorization"), address)
        if all(reach(caller, right) is Reach.NOTHING for right in operation.rights):
            problem = forbidden(caller, operation.rights[0])
            self._office.refused(refusal_of(caller, problem, operation.id))
            raise problem
        return caller


def _query(request: Request, model: type[Taken]) -> Taken:
    pairs = request.query_params.multi_items()
    values = dict(pairs)
    if len(values) != len(pairs):
        raise problems.invalid("A member of the query stands there twice.")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise problems.from_validation(error, "query") from None


async def _read(request: Request) -> bytes:
    """The body, or more of it than may be sent."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST_BODY:
            break
    return body


def _understood(request: Request, body: bytes, model: type[BaseModel]) -> BaseModel:
    if len(body) > MOST_BODY:
        raise problems.too_large(MOST_BODY)
    said = request.headers.get("content-type")
    if body and said is not None and said.partition(";")[0].strip().lower() != "application/json":
        raise problems.wrong_type()
    try:
        return model.model_validate_json(body or b"{}")
    except ValidationError as error:
        raise problems.from_validation(error, "body", chosen=issubclass(model, RootModel)) from None


async def _root(request: Request) -> Response:
    return PlainTextResponse(_HERE)


async def _not_found(request: Request, error: Exception) -> Response:
    return answer_to(problems.no_path(request.url.path))


async def _wrong_method(request: Request, error: Exception) -> Response:
    return answer_to(problems.wrong_method(request.method, "GET, HEAD"))


def build_app(office: Office) -> Starlette:
    """The ASGI application behind the agents' door."""

    async def document(call: Call) -> Reply:
        return Reply(openapi.written(office.version))

    by_path: dict[str, list[Operation]] = defaultdict(list)
    for operation in (Operation("openapi", "GET", openapi.PATH, document), *OPERATIONS):
        by_path[operation.path].append(operation)
    app = Starlette(
        routes=[
            Route("/", _root),
            *(Route(PREFIX + path, _Place(office, operations)) for path, operations in by_path.items()),
        ],
        exception_handlers={404: _not_found, 405: _wrong_method},
        middleware=[Middleware(_Front)],
    )
    app.router.redirect_slashes = False
    return app
