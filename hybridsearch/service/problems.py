"""Errors as problem documents (RFC 9457): which error has which status, and what its answer says."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from itertools import islice
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from hybridsearch.arguments import shown
from hybridsearch.errors import (
    BulkIndexError,
    DocumentError,
    FilterError,
    HybridSearchError,
    InvalidArgumentError,
    NoRetrieverError,
)
from hybridsearch.messages import not_known, redacted

_log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"

LATER = "The index does not answer now. Try again later."
"""What a client is told about failures of engines, models and files. The log has the reason."""

_OF_CLIENT = (FilterError, InvalidArgumentError, DocumentError, BulkIndexError)
_RETRY_AFTER = {"Retry-After": "1"}

_ALLOWED = {
    "missing": "{where} is missing.",
    "extra_forbidden": "{where} is not known.",
    "string_type": "{where} is {input}, but it must be a string.",
    "int_type": "{where} is {input}, but it must be a whole number.",
    "int_parsing": "{where} is {input}, but it must be a whole number.",
    "float_parsing": "{where} is {input}, but it must be a number.",
    "bool_parsing": "{where} is {input}, but it must be true or false.",
    "int_from_float": "{where} is {input}, but it must be a whole number.",
    "float_type": "{where} is {input}, but it must be a number.",
    "bool_type": "{where} is {input}, but it must be true or false.",
    "list_type": "{where} is {input}, but it must be a list.",
    "dict_type": "{where} is {input}, but it must be an object.",
    "model_type": "{where} is {input}, but it must be an object.",
    "model_attributes_type": "{where} is {input}, but it must be an object.",
    "literal_error": "{where} is {input}, but it must be one of {expected}.",
    "greater_than_equal": "{where} is {input}, but it must be at least {ge}.",
    "greater_than": "{where} is {input}, but it must be above {gt}.",
    "less_than_equal": "{where} is {input}, but it must be at most {le}.",
    "string_too_long": "{where} has too many characters: at most {max_length} are allowed.",
    "string_too_short": "{where} must not be empty.",
    "string_pattern_mismatch": "{where} is {input}, but it must match the pattern {pattern}.",
    "too_long": "{where} has too many entries: at most {max_length} are allowed.",
    "too_short": "{where} must not be empty.",
}
"""Sentences for the errors of pydantic, by its names for them."""


class Refusal(HTTPException):
    """A request that is refused.

    Args:
        status: Status of HTTP.
        kind: Kind of the problem, such as `"unknown-index"`.
        detail: Sentence for the client.
    """

    def __init__(self, status: int, kind: str, detail: str) -> None:
        super().__init__(status, detail)
        self.kind = kind


class Problem(JSONResponse):
    """The answer to a request that failed. The log shows its kind.

    Args:
        status: Status of HTTP.
        kind: Kind of the problem, for the member `type`.
        detail: Sentence for the client.
        headers: Headers of the answer.
        **more: Other members of the document.
    """

    media_type = MEDIA_TYPE

    def __init__(
        self, status: int, kind: str, detail: str, headers: Mapping[str, str] | None = None, **more: Any
    ) -> None:
        content = {
            "type": f"urn:hybridsearch:error:{kind}",
            "title": HTTPStatus(status).phrase,
            "status": status,
            "detail": detail,
            **more,
        }
        super().__init__(content, status, headers)
        self.kind = kind

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        scope.setdefault("state", {})["problem"] = self.kind
        await super().__call__(scope, receive, send)


def problem_of(error: Exception, **more: Any) -> Problem:
    """The answer for an error. A client is told about its own mistakes. Other failures are logged.

    Args:
        error: The error.
        **more: Other members of the document.
    """
    if isinstance(error, _OF_CLIENT):
        return Problem(409 if isinstance(error, NoRetrieverError) else 400, _kind(error), redacted(error), **more)
    if isinstance(error, HybridSearchError):
        _log.error("A request failed: %s", redacted(error))
        return Problem(503, _kind(error), LATER, _RETRY_AFTER, **more)
    _log.error("A request failed", exc_info=error)
    return Problem(500, "failed", "The service has failed. Its log has the reason.", **more)


def install(app: FastAPI) -> None:
    """Let an app answer errors with problem documents. The guard does so for unexpected errors."""

    @app.exception_handler(HybridSearchError)
    async def failed(_: Request, error: Exception) -> Problem:
        return problem_of(error)

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Problem:
        if isinstance(error, Refusal):
            return Problem(error.status_code, error.kind, error.detail, error.headers)
        of_router = {
            404: ("unknown-address", "There is nothing at this address."),
            405: ("unknown-method", f"This address does not take {request.method}."),
        }
        kind, detail = of_router.get(error.status_code, ("invalid-argument", error.detail))
        headers = {"Allow": _methods_of(request)} if error.status_code == 405 else error.headers
        return Problem(error.status_code, kind, detail, headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Problem:
        sentences = dict.fromkeys(map(_sentence, islice(_nearest(error), 3)))
        of_document = request.method == "PUT" and error.errors()[0]["loc"][0] == "body"  # only documents are put
        return Problem(400, "document" if of_document else "invalid-argument", " ".join(sentences))


def _methods_of(request: Request) -> str:
    """The methods that an address takes, for the header `Allow`. The router names those of one route only."""
    routes: Sequence[APIRoute] = [
        route for route in request.app.state.routes if route.path_regex.match(request.scope["path"])
    ]
    nearest = min(routes, key=lambda route: len(route.param_convertors)).path_format
    return ", ".join(
        sorted({method for route in routes if route.path_format == nearest for method in route.methods or ()})
    )


def _kind(error: HybridSearchError) -> str:
    """The class of an error in words: `InvalidArgumentError` is "invalid-argument".

    Of a class that an adapter or a user made, it is the class of `hybridsearch.errors` that is documented.
    """
    documented = next(one for one in type(error).__mro__ if one.__module__ == HybridSearchError.__module__)
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", documented.__name__.removesuffix("Error")).lower()


def _nearest(error: RequestValidationError) -> Iterator[Mapping[str, Any]]:
    """The errors of a request, without those of a kind that a value may have, but has not.

    If a value may have several kinds, pydantic gives the errors of each. Those further inside are of the kind that
    fits best, and of errors at the same place the first is told.
    """
    found: dict[tuple[str | int, ...], Mapping[str, Any]] = {}
    for one in error.errors():
        place = _in_body(one, error.body)
        found.setdefault(place, {**one, "loc": place})
    for place, one in found.items():
        if not any(len(other) > len(place) and other[: len(place)] == place for other in found):
            yield one


def _in_body(error: Mapping[str, Any], body: Any) -> tuple[str | int, ...]:
    """The place of an error, without the names that pydantic has for the kinds of a value."""
    source, *parts = error["loc"]
    if source != "body" or body is None:
        return tuple(error["loc"])
    place = [source]
    for number, part in enumerate(parts, 1):
        if isinstance(body, dict) and part == body.get("type") and number < len(parts):
            continue
        if (isinstance(body, dict) and part in body) or (isinstance(body, list) and isinstance(part, int)):
            body = body[part]
            place.append(part)
        elif number == len(parts) and error["type"] == "missing":
            place.append(part)
    return tuple(place)


def _sentence(error: Mapping[str, Any]) -> str:
    """The sentence for one error of pydantic."""
    where = _where(error["loc"])
    known = error.get("ctx", {}).get("known")
    if known:
        return f"{where} {not_known(str(error['loc'][-1]), known, 'members')}"
    form = _ALLOWED.get(error["type"])
    if form is None:
        return f"{where}: {error['msg']}."
    return form.format(where=where, input=shown(error.get("input")), **error.get("ctx", {}))


def _where(place: Sequence[str | int]) -> str:
    """The place of a value in a request, such as `boost[0].weight`."""
    source, *parts = place
    if not parts:
        return f"The {source}"
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).lstrip(".")
