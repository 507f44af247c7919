"""The OpenAPI 3.1 document, made from the operations and the models; nothing is written twice."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import cache
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from relay.api.models import Given, ProblemDetails
from relay.api.operations import NAME, OPERATIONS, PREFIX, Operation
from relay.api.problems import MEDIA_TYPE
from relay.api.signers import KID
from relay.api.wishes import LABEL, PROJECT, NoQuery, Taken

PATH = "/openapi.json"
_REF = "#/components/schemas/{model}"
_IN_PATH = re.compile(r"\{(\w+)\}")
_PARAMETERS = {
    "project": ("The id or the name of a project.", PROJECT),
    "key": ("The public id of a key.", r"^mtk_(operator|master|child|visitor)_[0-9A-Za-z]{12}$"),
    "name": ("A subdomain.", LABEL),
    "signer": ("The id of a signing key.", KID),
}
_OPEN = (403, 405, 422, 500)
_WITH_KEY = (401, 403, 405, 422, 500, 503)
_WITH_BODY = (409, 413, 415)


@cache
def written(version: str) -> bytes:
    """The document as it is sent; made when it is first asked for, so that no start waits for it."""
    return json.dumps(document(version)).encode()


def document(version: str) -> dict[str, Any]:
    """The whole document, as JSON takes it."""
    schemas = _schemas()
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(PREFIX + operation.path, {})[operation.method.lower()] = _operation(operation, schemas)
    paths[PREFIX + PATH] = {"get": _itself()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": NAME,
            "version": version,
            "description": "The relay's own API, served where agents connect and never on a tunnel's host.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A JWT that an operator or master key signed for this request, or a child key.",
                }
            },
        },
    }


def _itself() -> dict[str, Any]:
    good = {"description": "OK", "content": {"application/json": {"schema": {"type": "object"}}}}
    problems = {str(status): _problem(status) for status in _OPEN}
    return {
        "operationId": "openapi",
        "summary": "This document.",
        "tags": ["openapi"],
        "responses": {"200": good} | problems,
        "security": [],
    }


def _schemas() -> dict[str, Any]:
    queries: set[type[Taken]] = {one.query for one in OPERATIONS}
    taken: list[type[BaseModel]] = [one.body for one in OPERATIONS if one.body is not None] + sorted(queries, key=_name)
    given: list[type[Given]] = [one.answer for one in OPERATIONS if one.answer is not None] + [ProblemDetails]
    wanted: list[Any] = [(model, "validation") for model in dict.fromkeys(taken)]
    wanted += [(model, "serialization") for model in dict.fromkeys(given)]
    _, definitions = models_json_schema(wanted, ref_template=_REF)
    schemas: dict[str, Any] = definitions["$defs"]
    return schemas


def _name(model: type[BaseModel]) -> str:
    return model.__name__


def _operation(operation: Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.id,
        "summary": operation.summary,
        "tags": [operation.id.partition(".")[0]],
        "parameters": [*_path_parameters(operation), *_query_parameters(operation.query, schemas)],
        "responses": _responses(operation),
        "security": [{"key": []}] if operation.rights else [],
    }
    if operation.body is not None:
        described["requestBody"] = {
            "required": any(field.is_required() for field in operation.body.model_fields.values()),
            "content": {"application/json": {"schema": _ref(operation.body)}},
        }
    return described


def _path_parameters(operation: Operation) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": _PARAMETERS[name][0],
            "schema": {"type": "string", "pattern": _PARAMETERS[name][1]},
        }
        for name in _IN_PATH.findall(operation.path)
    ]


def _query_parameters(query: type[Taken], schemas: dict[str, Any]) -> list[dict[str, Any]]:
    if query is NoQuery:
        return []
    properties: dict[str, Any] = schemas[query.__name__]["properties"]
    return [
        {"name": name, "in": "query", "required": False, "schema": _never_null(schema)}
        for name, schema in properties.items()
    ]


def _never_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A query has no null: what is left out is not there."""
    choices = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
    plain = {key: value for key, value in schema.items() if key not in ("anyOf", "title", "default")}
    if len(choices) == 1:
        return {**plain, **choices[0]}
    return plain if schema.get("default") is None else {**plain, "default": schema["default"]}


def _responses(operation: Operation) -> dict[str, Any]:
    good: dict[str, Any] = {"description": HTTPStatus(operation.status).phrase}
    if operation.answer is not None:
        good["content"] = {"application/json": {"schema": _ref(operation.answer)}}
    statuses: Iterable[int] = _WITH_KEY if operation.rights else _OPEN
    if operation.body is not None:
        statuses = (*statuses, *_WITH_BODY)
    if operation.rights and (_IN_PATH.search(operation.path) or operation.body or operation.query is not NoQuery):
        statuses = (*statuses, 404)
    return {str(operation.status): good} | {str(status): _problem(status) for status in sorted(set(statuses))}


def _problem(status: int) -> dict[str, Any]:
    return {
        "description": HTTPStatus(status).phrase,
        "content": {MEDIA_TYPE: {"schema": {"$ref": _REF.format(model=ProblemDetails.__name__)}}},
    }


def _ref(model: type[BaseModel]) -> dict[str, Any]:
    return {"$ref": _REF.format(model=model.__name__)}
