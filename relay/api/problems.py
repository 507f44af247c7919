"""How the API says no: problem details (RFC 9457), one sentence with the cause and one with the next step.

Nothing that was sent comes back unless it is short and plain, and never a key: `quoted` sees to that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from http import HTTPStatus
from typing import Any

from pydantic import ValidationError
from starlette.responses import JSONResponse, Response

from relay.keys.errors import BadKey, Reason
from relay.keys.forms import find_keys, shown
from relay.registry.errors import Conflict, NotFound, Refused, RegistryError

RETRY_AFTER = 1
MEDIA_TYPE = "application/problem+json"
_PLAIN_MEMBER = re.compile(r"[A-Za-z0-9_.-]{1,40}")


class Problem(Exception):
    """An answer that is not the one that was asked for. `status` is HTTP's, `code` is for programs.

    `reason` is "", or tells apart for programs what has one `code`.
    """

    def __init__(self, status: int, code: str, detail: str, next_action: str, **headers: str) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.next_action = next_action
        self.reason = ""
        self.headers: Mapping[str, str] = {name.replace("_", "-"): value for name, value in headers.items()}


def answer_to(problem: Problem) -> Response:
    """The response that tells it."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        "code": problem.code,
        "next_action": problem.next_action,
    }
    if problem.reason:
        body["reason"] = problem.reason
    return JSONResponse(body, problem.status, headers=dict(problem.headers), media_type=MEDIA_TYPE)


def quoted(text: str) -> str:
    """What somebody sent, fit to be repeated: no key, nothing but what can be seen, at most 80 characters."""
    for _, key in list(find_keys(text)):
        text = text.replace(key, shown(key))
    return repr(text if len(text) <= 80 else text[:77] + "...")


# ---- the problems, one function each


def unauthorized(detail: str, next_action: str, reason: str = "", *, presented: bool = True) -> Problem:
    """No key, or none that is valid."""
    challenge = 'Bearer error="invalid_token"' if presented else "Bearer"
    problem = Problem(401, "unauthorized", detail, next_action, WWW_Authenticate=challenge)
    problem.reason = reason
    return problem


def bad_key(error: BadKey) -> Problem:
    """A key that the relay cannot accept."""
    following = _AFTER_BAD_KEY.get(error.reason, "Use a key of this relay.")
    return unauthorized(str(error), following, error.reason.value)


_AFTER_BAD_KEY = {
    Reason.MISTYPED: "Copy the key again, whole.",
    Reason.SIGNATURE: "Use a key of this relay.",
    Reason.RETIRED: "Mint a new key.",
    Reason.AUDIENCE: "Call the relay by its own name, or have its operator add this one with --audience.",
    Reason.EXPIRED: "Sign the request anew, or mint a new key; if neither helps, correct this machine's clock.",
    Reason.NOT_YET: "Correct this machine's clock.",
    Reason.LIFE: "Sign the request for an hour at most.",
}


def forbidden(detail: str, next_action: str = "Ask for it with a key that may do this.") -> Problem:
    """A valid key that may not do this."""
    return Problem(403, "forbidden", detail, next_action)


def cross_origin() -> Problem:
    """A web page of another origin asks, through somebody's browser."""
    return Problem(
        403, "cross_origin", "The API does not answer web pages.", "Call it from a program, without an Origin header."
    )


def not_found(what: str, named: str) -> Problem:
    """The same words whether it does not exist or is another project's."""
    detail = f"There is no {what} {quoted(named)} that this key may see."
    return Problem(404, "not_found", detail, "Look at the list for what there is.")


def no_path(path: str) -> Problem:
    """Nothing is served under this path."""
    return Problem(404, "not_found", f"There is no {quoted(path)} here.", "See /api/v1/openapi.json for what there is.")


def wrong_method(method: str, allow: str) -> Problem:
    """The path is right, the method is not."""
    detail = f"{quoted(method)} is not served under this path."
    return Problem(405, "method_not_allowed", detail, f"Use one of: {allow}.", Allow=allow)


def conflict(detail: str, next_action: str) -> Problem:
    """It cannot be done as things stand."""
    return Problem(409, "conflict", detail, next_action)


def too_large(most: int) -> Problem:
    """A body that nothing here needs."""
    return Problem(413, "too_large", f"The body has more than {most} bytes.", "Send less.")


def wrong_type() -> Problem:
    """A body that does not say it is JSON."""
    return Problem(
        415, "unsupported_media_type", "The body is not said to be JSON.", "Send Content-Type: application/json."
    )


def invalid(detail: str, next_action: str = "Correct it and send it again; see /api/v1/openapi.json.") -> Problem:
    """What was sent is not what is taken here."""
    return Problem(422, "invalid", detail, next_action)


def unavailable(detail: str) -> Problem:
    """The registry does not answer: nothing was changed, as far as the relay knows."""
    return Problem(503, "unavailable", detail, "Try again shortly.", Retry_After=str(RETRY_AFTER))


def broken() -> Problem:
    """A defect of the relay."""
    return Problem(500, "internal", "The relay made a mistake.", "Tell its operator, whose log has the details.")


# ---- from others' errors


_CHOICES = ("master", "child", "visitor")


def from_validation(error: ValidationError, where: str, *, chosen: bool = False) -> Problem:
    """The first thing that is wrong, by name; `where` is "body" or "query".

    `chosen`: names begin with that of the shape that was chosen among several.
    """
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    names = [str(part) for part in first["loc"][chosen:]]
    plain = all(_PLAIN_MEMBER.fullmatch(name) for name in names)
    member = f"The member {'.'.join(names)!r} of the {where}" if names and plain else f"A member of the {where}"
    kind = first["type"]
    if kind == "json_invalid":
        return invalid(f"The {where} is not JSON.")
    if kind.startswith("union_tag"):
        return invalid(f"The member 'kind' of the {where} should be one of: {', '.join(_CHOICES)}.")
    if kind == "extra_forbidden":
        return invalid(f"{member} is unknown here.")
    if kind == "missing":
        return invalid(f"{member} is missing.")
    if not names:
        return invalid(f"The {where} is not an object as it is taken here.")
    said = str(first["msg"]).removeprefix("Value error, ").rstrip(".")
    return invalid(f"{member} is wrong: {said[:1].lower()}{said[1:]}.")


_INVALID = frozenset(("cursor", "expiry", "expiry_later", "kind", "label", "name_form", "project_name", "scope_wider"))


def from_registry(error: RegistryError) -> Problem:
    """What the registry refused, as an answer."""
    if isinstance(error, NotFound):
        return Problem(404, "not_found", str(error), "Look at the list for what there is.")
    if not isinstance(error, Refused):
        return unavailable(str(error))
    if error.code == "name_taken" or isinstance(error, Conflict):
        problem = conflict(str(error), "Choose another name, or look who has this one.")
    elif error.code == "too_many":
        problem = conflict(str(error), "Release names that are no longer needed.")
    elif error.code in _INVALID:
        problem = invalid(str(error))
    else:
        problem = forbidden(str(error))
    problem.reason = error.code
    return problem


@lru_cache(maxsize=64)
def turned_away(status: HTTPStatus, code: str, said: str, seconds: int) -> bytes:
    """A problem as a whole HTTP/1.1 answer, for a connection that gets no other."""
    body = {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": said, "code": code}
    body["next_action"] = f"Try again in {seconds} s."
    text = json.dumps(body).encode()
    return (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/problem+json\r\n"
        f"Content-Length: {len(text)}\r\nRetry-After: {seconds}\r\nConnection: close\r\n\r\n"
    ).encode() + text
