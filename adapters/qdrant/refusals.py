"""Turns the errors of Qdrant and its client into our errors. No message contains secrets."""

from __future__ import annotations

import errno
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
_PROTECTED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_ADVICE = " Qdrant writes there even if you only search: allow it, or copy the folder to where you may write."


class RefusedError(BackendError):
    """The server refused a request because of the request itself.

    The cause is a document in it, its length (`too_large`), or the index that it names.
    """

    too_large = False


@dataclass(frozen=True, slots=True)
class Refusals:
    """Translates errors of one Qdrant.

    Attributes:
        place: Place of the collection.
        key: API key. No message shows it.
        timeout: Seconds to wait for the answer to one request.
    """

    place: Place
    key: str | None = field(repr=False)
    timeout: float

    def sentence(self, error: Exception, *, first: bool = False) -> HybridSearchError | None:
        """The error to raise for `error`. None if `error` does not come from Qdrant or its client.

        `first` tells whether the request was the first one, which asks for the version.
        """
        where = f"Qdrant at {self.place.shown}"
        if first and _foreign(error):
            return BackendError(
                f"The server at {self.place.shown} does not answer like Qdrant: check the host and the port, and the "
                "path if Qdrant is behind a proxy."
            )
        if isinstance(error, UnexpectedResponse):
            return self._response(error, where)
        if isinstance(error, ResourceExhaustedResponse):
            return BackendError(f"{where} is overloaded and refused several attempts: try again later.")
        source = error.source if isinstance(error, ResponseHandlingException) else error
        if isinstance(source, httpx.TimeoutException):
            return BackendError(
                f"{where} did not answer within {self.timeout:g} seconds: raise `timeout`, or send fewer requests."
            )
        if isinstance(source, httpx.TransportError):
            text = self._safe(str(source))
            if "CERTIFICATE" in text.upper() or "SSL" in text.upper():
                return BackendError(
                    f"The TLS connection to {where} failed ({text}): give `ca_file` for a private certificate "
                    "authority, and qdrant+https:// only for a server with TLS."
                )
            return BackendError(
                f"{where} cannot be reached ({text}): check that it runs and that the host and port are right."
            )
        if isinstance(source, RuntimeError) and "already accessed" in str(source):
            return IndexLockedError(
                f"Another process uses the embedded Qdrant in {self.place.folder}: close it there, or run a Qdrant "
                "server."
            )
        if isinstance(source, RuntimeError) and "closed" in str(source):
            return BackendError("The index was closed: open it again to use it.")
        if isinstance(source, OSError) and self.place.url is not None:
            return BackendError(
                f"{where} cannot be reached ({self._safe(str(source))}): check the network of this machine."
            )
        if isinstance(source, OSError | sqlite3.Error):
            protected = isinstance(source, OSError) and source.errno in _PROTECTED
            return StorageError(
                f"The embedded Qdrant in {self.place.folder} cannot be read or written: {source}."
                f"{_ADVICE if protected or 'readonly' in str(source) else ''}"
            )
        if isinstance(source, ValueError | KeyError) and "not found" in str(source):
            return IndexNotFoundError(f"There is no index at {self.place.shown} any more.")
        if isinstance(error, ApiException | ValueError):
            return BackendError(
                f"{where} or its client did not understand a request or an answer: {self._safe(str(source))}."
            )
        return None

    def _response(self, error: UnexpectedResponse, where: str) -> HybridSearchError:
        said = self._safe(_said(error))
        if error.status_code in (401, 403):
            problem = "refused the API key" if self.key else "needs an API key"
            return BackendError(
                f"{where} {problem} ({said}): give `api_key`, or set {API_KEY}. Writing needs a key with write access."
            )
        if error.status_code == 404:
            return IndexNotFoundError(f"There is no index at {self.place.shown} ({said}).")
        if error.status_code == 409:
            return IndexExistsError(f"There is already an index at {self.place.shown}: choose another name.")
        if re.search(r"no space|disk|read.?only", said, re.IGNORECASE):
            return StorageError(f"{where} cannot write: {said}.")
        refused = RefusedError if error.status_code in _AT_FAULT else BackendError
        translated = refused(f"{where} refused a request (HTTP {error.status_code}): {said}.")
        if isinstance(translated, RefusedError):
            translated.too_large = error.status_code == 413 or "larger than allowed" in said
        return translated

    def _safe(self, text: str) -> str:
        return text.replace(self.key, "***") if self.key else text


def passes(error: Exception, *, writes: bool) -> bool:
    """Whether the same request may succeed a moment later. A request that `writes` may be made twice."""
    if isinstance(error, UnexpectedResponse):
        return error.status_code in (429, 502, 503, 504)
    if isinstance(error, ResponseHandlingException):
        late = isinstance(error.source, httpx.TimeoutException)
        return isinstance(error.source, httpx.TransportError) and (not late or writes)
    return isinstance(error, ResourceExhaustedResponse)


def _foreign(error: Exception) -> bool:
    """Whether this answer to the first request, for the version, does not come from Qdrant."""
    if isinstance(error, UnexpectedResponse):
        return error.status_code in (400, 404, 405)
    return isinstance(error, ValueError) or (
        isinstance(error, ResponseHandlingException) and isinstance(error.source, ValueError)
    )


def _said(error: UnexpectedResponse) -> str:
    """The message of the server."""
    try:
        data = json.loads(error.content)
        return str(data["status"]["error"]).rstrip(".")[:500]
    except (ValueError, KeyError, TypeError):
        return (error.content.decode("utf-8", "replace").strip() or error.reason_phrase)[:200]
