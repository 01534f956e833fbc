"""Errors as problem documents (RFC 9457): which error has which status, and what its answer says."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from itertools import islice
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from hybridsearch.arguments import shown
from hybridsearch.errors import BulkIndexError, DocumentError, FilterError, HybridSearchError, InvalidArgumentError
from hybridsearch.hits import Results
from hybridsearch.messages import redacted

_log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"

LATER = "The index does not answer now. Try again later."
"""What a client is told about failures of engines, models and files. The log has the reason."""

UNHEARD = "The retriever did not answer."
"""What a client is told about the failure of an optional retriever."""

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


def problem(
    status: int, detail: str, kind: str | None = None, headers: Mapping[str, str] | None = None, **more: Any
) -> JSONResponse:
    """Make the answer for a request that failed.

    Args:
        status: Status of HTTP.
        detail: Sentence for the client.
        kind: Kind of the problem, for the member `type`. None if the status says enough.
        headers: Headers of the answer.
        **more: Other members of the document.

    Returns:
        The answer, of the type `application/problem+json`.
    """
    content = {
        "type": "about:blank" if kind is None else f"urn:hybridsearch:error:{kind}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        **more,
    }
    return JSONResponse(content, status, dict(headers or {}), media_type=MEDIA_TYPE)


def problem_of(error: Exception, **more: Any) -> JSONResponse:
    """The answer for an error. A client is told about its own mistakes. Other failures are logged.

    Args:
        error: The error.
        **more: Other members of the document.
    """
    if isinstance(error, _OF_CLIENT):
        return problem(400, redacted(error), _kind(error), **more)
    if isinstance(error, HybridSearchError):
        _log.error("A request failed: %s", redacted(error))
        return problem(503, LATER, _kind(error), _RETRY_AFTER, **more)
    _log.error("A request failed", exc_info=error)
    return problem(500, "The service has failed. Its log has the reason.", **more)


def notes_of(results: Results) -> list[str]:
    """The notes of results for a client. They do not say why an optional retriever failed.

    The reason may have the address of an engine or the path of a model.
    """
    notes = list(results.notes)
    for name, reason in results.failures.items():
        notes = [note.replace(f"Without {name}: {reason}", f"Without {name}: {UNHEARD}") for note in notes]
    return notes


def install(app: FastAPI) -> None:
    """Let an app answer errors with problem documents. The guard does so for unexpected errors."""

    @app.exception_handler(HybridSearchError)
    async def failed(_: Request, error: Exception) -> JSONResponse:
        return problem_of(error)

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        detail = error.detail
        if detail == HTTPStatus(error.status_code).phrase:  # of the router
            known = {404: "There is nothing at this address.", 405: f"This address does not take {request.method}."}
            detail = known.get(error.status_code, detail)
        return problem(error.status_code, detail, headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        sentences = dict.fromkeys(map(_sentence, islice(error.errors(), 3)))
        return problem(400, " ".join(sentences), "invalid-argument")


def _kind(error: Exception) -> str:
    """The class of an error in words: `InvalidArgumentError` is "invalid-argument"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", type(error).__name__.removesuffix("Error")).lower()


def _sentence(error: Mapping[str, Any]) -> str:
    """The sentence for one error of pydantic."""
    where = _where(error["loc"])
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
