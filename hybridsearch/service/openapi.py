"""The description of the service in OpenAPI, with what pydantic and FastAPI cannot say."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from hybridsearch.service.answers import Problem
from hybridsearch.service.bodies import NDJSON
from hybridsearch.service.indexes import ServedIndex
from hybridsearch.service.models import COMPONENT, Json


def _operators(equal: list[str], ordered: list[str]) -> Json:
    """The operators of filters, for values of these types."""
    one, some = {"type": equal}, {"type": "array", "items": {"type": equal}}
    of_kinds: dict[tuple[str, ...], Json] = {
        ("$eq", "$ne", "$contains"): one,
        ("$gt", "$gte", "$lt", "$lte"): {"type": ordered},
    }
    of_kinds |= {("$in", "$nin"): some, ("$exists",): {"type": "boolean"}}
    return {
        "anyOf": [one, _OBJECT | {"properties": {name: kind for names, kind in of_kinds.items() for name in names}}]
    }


_OBJECT: Json = {"type": "object", "minProperties": 1, "additionalProperties": False}
_SCALAR: Json = {"type": ["string", "number", "boolean", "null"]}
_VALUE: Json = {"$ref": "#/components/schemas/MetadataValue"}
_FILTER: Json = {"$ref": "#/components/schemas/Filter"}
_SOME_FILTERS: Json = {"type": "array", "minItems": 1, "items": _FILTER}
_COMPONENTS: Json = {
    "Filter": _OBJECT
    | {
        "description": "Filter on metadata, title or id.",
        "examples": [{"year": {"$gte": 2020}, "language": "en"}, {"$or": [{"draft": True}, {"$not": {"year": 2020}}]}],
        "properties": {
            "$and": _SOME_FILTERS,
            "$or": _SOME_FILTERS,
            "$not": _FILTER,
            "id": _operators(["string", "null"], ["string"]),
        },
        "patternProperties": {"^[^$]": _operators(_SCALAR["type"], ["string", "number"])},
    },
    "Metadata": {
        "type": "object",
        "additionalProperties": _VALUE,
        "examples": [{"year": 2024, "tags": ["a", "b"]}],
    },
    "MetadataValue": {
        "anyOf": [
            _SCALAR,
            {"type": "array", "items": _VALUE},
            {"type": "object", "additionalProperties": _VALUE},
        ]
    },
}

STORED_BODY: Json = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"type": "array", "items": {"$ref": "#/components/schemas/DocumentBody"}},
                "example": [{"id": "a1", "text": "Charge it indoors.", "title": "Battery", "metadata": {"year": 2024}}],
            },
            NDJSON: {
                "schema": {"type": "string", "description": "A document in each line."},
                "example": '{"id": "a1", "text": "Charge it indoors."}\n{"id": "a2", "text": "Never when frozen."}\n',
            },
        },
    }
}
"""The body of a request that stores documents."""

_PROBLEMS = {
    400: "The request has a mistake.",
    401: "The service needs a token.",
    403: "The client may not do this.",
    404: "There is no such index or document.",
    408: "The documents did not come in time.",
    409: "The weights of the fusion leave out all retrievers, or the feedback fits none of them.",
    413: "The body is too large.",
    415: "The body has another type.",
    421: "The service has another name.",
    429: "The service has too many requests now.",
    503: "The index does not answer now.",
}


def returns(model: Any) -> Json:
    """The arguments of a route whose answers a model describes. Errors are problems."""
    return {"response_model": None, "responses": {200: {"model": model}}}


def describe(app: FastAPI, *, has_tokens: bool) -> None:
    """Let an app describe itself at `/openapi.json`, with the names of its indexes and retrievers.

    Args:
        app: The service.
        has_tokens: Whether clients need a token.
    """

    described: dict[str, list[str]] = {}  # what the schema that is kept names

    def made() -> Json:
        nonlocal described
        names = _retrievers_of(app)
        if app.openapi_schema is None or names != described:  # another index may be at a place now
            app.openapi_schema, described = _described(app, names, has_tokens), names
        return app.openapi_schema

    app.openapi = made  # type: ignore[method-assign]


def _retrievers_of(app: FastAPI) -> dict[str, list[str]]:
    """The names of the retrievers of each index."""
    indexes: Mapping[str, ServedIndex] = app.state.indexes
    return {name: list(served.search.retrievers) for name, served in indexes.items()}


def _described(app: FastAPI, names: Mapping[str, list[str]], has_tokens: bool) -> Json:
    about = "Search indexes by words and meaning, and store documents. Errors are problem documents of RFC 9457."
    version = metadata.version("hybridsearch")
    found = get_openapi(title="hybridsearch", version=version, description=about, routes=app.routes)
    found["paths"] = {path: of for path, of in found["paths"].items() if not path.startswith("/workbench")}
    schemas = found["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas |= _COMPONENTS | _of_retrievers(list(names.values()))
    schemas["Problem"] = Problem.model_json_schema()
    if has_tokens:
        found["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    for path, methods in found["paths"].items():
        for operation in methods.values():
            _complete(operation, list(names), secured=has_tokens and path.startswith("/v1"))
    described: Json = _with_references(found)
    return described


def _of_retrievers(of_indexes: list[list[str]]) -> Json:
    """The components that name retrievers. Weights are of the retrievers of one index."""
    names = list(dict.fromkeys(name for of_index in of_indexes for name in of_index))
    shared = [name for name in names if all(name in of_index for of_index in of_indexes)]
    numbers = {name: {"type": "number"} for name in names}
    weights = {name: {"type": "number", "minimum": 0, "exclusiveMaximum": 1e300} for name in names}
    return {
        "RetrieverName": {"type": "string", "enum": names},
        "Scores": {"type": "object", "properties": numbers, "additionalProperties": False},
        "Weights": {"type": "object", "properties": weights, "additionalProperties": False, "required": shared},
    }


def _complete(operation: Json, indexes: list[str], *, secured: bool) -> None:
    """Add to an operation what FastAPI does not know: the indexes, filters as JSON, problems and tokens."""
    for parameter in operation.get("parameters", []):
        if parameter["name"] == "index":
            parameter["schema"] = {"type": "string", "enum": indexes}
        elif parameter["name"] == "filter":
            del parameter["schema"]
            parameter["content"] = {"application/json": {"schema": _FILTER}}
        elif "anyOf" in parameter["schema"]:  # a parameter is left out, and never null
            parameter["schema"] = parameter["schema"]["anyOf"][0]
    operation["responses"].pop("422", None)
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    problems = {str(status): {"description": about, "content": content} for status, about in _PROBLEMS.items()}
    operation["responses"] |= problems
    if secured:
        operation["security"] = [{"token": []}]


def _with_references(value: Any) -> Any:
    """A description with references to components in place of their marks."""
    if isinstance(value, dict):
        if COMPONENT in value:
            return {"$ref": f"#/components/schemas/{value[COMPONENT]}"}
        return {key: _with_references(inner) for key, inner in value.items()}
    return [_with_references(inner) for inner in value] if isinstance(value, list) else value
