"""What the errors of Qdrant and its client mean, in one sentence each; secrets are in none of them."""

from __future__ import annotations

import json
import re
import sqlite3
from dataclasses import dataclass, field

import httpx
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from hybridsearch.adapters.qdrant.place import API_KEY, Place
from hybridsearch.errors import (
    BackendError,
    HybridSearchError,
    IndexExistsError,
    IndexLockedError,
    IndexNotFoundError,
    StorageError,
)

_AT_FAULT = frozenset({400, 413, 422})


class RefusedError(BackendError):
    """The request itself is at fault: a document in it, its length (`too_large`), or the index that it is for."""

    too_large = False


@dataclass(frozen=True, slots=True)
class Refusals:
    """Attributes:
    place: that is asked.
    key: shown by no sentence.
    timeout: seconds for one request.
    """

    place: Place
    key: str | None = field(repr=False)
    timeout: float

    def sentence(self, error: Exception, *, first: bool = False) -> HybridSearchError | None:
        """What `error` means for a user; None for what is no error of Qdrant or of its client.

        `first` is whether this is the answer to the first request, for the version.
        """
        where = f"Qdrant at {self.place.shown}"
        if first and _foreign(error):
            return BackendError(
                f"What answers at {self.place.shown} does not speak like Qdrant: check host and port, and the path if "
                "it is behind a proxy."
            )
        if isinstance(error, UnexpectedResponse):
            return self._response(error, where)
        if isinstance(error, ResourceExhaustedResponse):
            return BackendError(f"The {where} is overloaded, and several attempts did not help: try again later.")
        source = error.source if isinstance(error, ResponseHandlingException) else error
        if isinstance(source, httpx.TimeoutException):
            return BackendError(
                f"The {where} did not answer within {self.timeout:g} seconds: raise `timeout`, or lower its load."
            )
        if isinstance(source, httpx.TransportError):
            text = self._safe(str(source))
            if "CERTIFICATE" in text.upper() or "SSL" in text.upper():
                return BackendError(
                    f"The TLS connection to {where} failed ({text}): give `ca_file` for a private certificate "
                    "authority, and qdrant+https:// only for a server with TLS."
                )
            return BackendError(f"The {where} cannot be reached ({text}): is it running, and is the URL right?")
        if isinstance(source, RuntimeError) and "already accessed" in str(source):
            return IndexLockedError(
                f"Another process uses the embedded Qdrant in {self.place.folder}: close it there, or run a server."
            )
        if isinstance(source, RuntimeError) and "closed" in str(source):
            return BackendError("The index was closed: open it again to use it.")
        if isinstance(source, OSError) and self.place.url is not None:
            return BackendError(f"The {where} cannot be reached ({self._safe(str(source))}): is this machine in order?")
        if isinstance(source, OSError | sqlite3.Error):
            return StorageError(f"The embedded Qdrant in {self.place.folder} cannot be read or written: {source}.")
        if isinstance(source, ValueError | KeyError) and "not found" in str(source):
            return IndexNotFoundError(f"There is no index at {self.place.shown} any more.")
        if isinstance(error, ApiException | ValueError):
            return BackendError(f"The {where} did not understand the request or its answer: {self._safe(str(source))}.")
        return None

    def _response(self, error: UnexpectedResponse, where: str) -> HybridSearchError:
        said = self._safe(_said(error))
        if error.status_code in (401, 403):
            given = "refused the API key" if self.key else "asks for an API key"
            return BackendError(
                f"The {where} {given} ({said}): give `api_key` or set {API_KEY}; to write, a key needs write access."
            )
        if error.status_code == 404:
            return IndexNotFoundError(f"There is no index at {self.place.shown} ({said}).")
        if error.status_code == 409:
            return IndexExistsError(f"There is an index at {self.place.shown} already.")
        if re.search(r"no space|disk|read.?only", said, re.IGNORECASE):
            return StorageError(f"The {where} cannot write: {said}.")
        refused = RefusedError if error.status_code in _AT_FAULT else BackendError
        translated = refused(f"The {where} refused the request with status {error.status_code}: {said}.")
        if isinstance(translated, RefusedError):
            translated.too_large = error.status_code == 413 or "larger than allowed" in said
        return translated

    def _safe(self, text: str) -> str:
        return text.replace(self.key, "***") if self.key else text


def passes(error: Exception, *, writes: bool) -> bool:
    """Whether the same request may succeed a moment later. What `writes`, by ids, may come twice."""
    if isinstance(error, UnexpectedResponse):
        return error.status_code in (429, 502, 503, 504)
    if isinstance(error, ResponseHandlingException):
        late = isinstance(error.source, httpx.TimeoutException)
        return isinstance(error.source, httpx.TransportError) and (not late or writes)
    return isinstance(error, ResourceExhaustedResponse)


def _foreign(error: Exception) -> bool:
    """Whether this answer to the first request, for the version, is none of Qdrant's."""
    if isinstance(error, UnexpectedResponse):
        return error.status_code in (400, 404, 405)
    return isinstance(error, ValueError) or (
        isinstance(error, ResponseHandlingException) and isinstance(error.source, ValueError)
    )


def _said(error: UnexpectedResponse) -> str:
    """The server's own words."""
    try:
        data = json.loads(error.content)
        return str(data["status"]["error"]).rstrip(".")[:500]
    except (ValueError, KeyError, TypeError):
        return (error.content.decode("utf-8", "replace").strip() or error.reason_phrase)[:200]
