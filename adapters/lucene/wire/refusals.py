"""What an engine's refusals mean, in one sentence each; secrets are in none of them."""

from __future__ import annotations

import re
import ssl

import orjson

from hybridsearch.adapters.lucene.wire.connection import Address, Answer, Json, short
from hybridsearch.errors import (
    BackendError,
    HybridSearchError,
    IndexExistsError,
    IndexNotFoundError,
    InvalidArgumentError,
    StorageError,
)

PASSING = frozenset(
    {
        "circuit_breaking_exception",
        "es_rejected_execution_exception",
        "no_shard_available_action_exception",
        "node_closed_exception",
        "node_disconnected_exception",
        "node_not_connected_exception",
        "process_cluster_event_timeout_exception",
        "rejected_execution_exception",
        "unavailable_shards_exception",
    }
)
"""Types of errors that pass, whatever their status: of nodes that are too busy, start, or have just gone."""


class NoAnswerError(BackendError):
    """The engine was not reached, or did not answer in time; the same call may succeed later."""


def no_answer(address: Address, error: BaseException, *, timeout: float, timed_out: bool) -> BackendError:
    """The sentence for an error of the client library, raised instead of an answer."""
    causes = _causes(error)
    text = " ".join(str(cause) for cause in causes)
    if any(isinstance(cause, ssl.SSLError) for cause in causes) or "CERTIFICATE" in text.upper():
        if "CERTIFICATE_VERIFY_FAILED" in text or "certificate verify failed" in text:
            return BackendError(
                f"The certificate of {address.engine} at {address} is not trusted ({_certificate_problem(text)}): name "
                f"its authority's file by ca_file or HYBRIDSEARCH_{address.engine.upper()}_CA."
            )
        return BackendError(
            f"No TLS connection to {address.engine} at {address} could be made ({short(causes[-1])}): if the server "
            f"speaks plain HTTP, write {address.engine.lower()}:// in place of {address.engine.lower()}+https://."
        )
    if timed_out:
        return NoAnswerError(
            f"{address.engine} at {address} did not answer within {timeout:g} seconds: it may be overloaded, or the "
            "timeout is too short for this request."
        )
    hint = ""
    if address.scheme == "http" and re.search(r"closed connection|disconnected|reset|bad status", text, re.IGNORECASE):
        hint = f" If it speaks TLS, write {address.engine.lower()}+https://."
    return NoAnswerError(
        f"{address.engine} at {address} cannot be reached ({short(causes[-1])}): check that it runs and that the host "
        f"and port are right.{hint}"
    )


def refusal(address: Address, status: int, body: bytes | str | Json) -> HybridSearchError:
    """The sentence for an answer that is an error.

    Args:
        status: of HTTP.
        body: the answer, or its member `error`.
    """
    engine, index = address.engine, address.index
    type, reason = _type_and_reason(body)
    if status == 401:
        given = "are not accepted" if address.headers else "are needed, and none were given"
        return BackendError(
            f"{engine} at {address} says that credentials {given}: give user and password, or api_key, as arguments, "
            f"in the URL or as HYBRIDSEARCH_{engine.upper()}_USER, _PASSWORD, _API_KEY."
        )
    blocked = type == "cluster_block_exception" and status != 503  # with 503 it has no master, or starts
    if blocked or "index read-only" in reason or "flood-stage watermark" in reason:
        return StorageError(
            f"The index {index!r} at {address} is read-only ({reason:.200}): if the disk is full, free some space (the "
            "block goes away by itself), else set index.blocks.read_only_allow_delete and index.blocks.write to false."
        )
    if status == 403:
        return BackendError(
            f"The user that asks {engine} at {address} may not do this ({reason:.200}): give it that right on the "
            f"index {index!r}, or ask as another."
        )
    if type == "index_not_found_exception":
        return IndexNotFoundError(f"The index {index!r} at {address} is not there, or was deleted meanwhile.")
    if type == "resource_already_exists_exception" or "already exists as alias" in reason:
        return IndexExistsError(
            f"There is an index or alias {index!r} at {address} already: choose another name, or open it."
        )
    if type == "invalid_index_name_exception":
        return InvalidArgumentError(f"{engine} does not allow the index name {index!r}: {reason:.200}.")
    if "maxClauseCount" in reason or type in ("too_many_clauses", "too_many_nested_clauses"):
        return InvalidArgumentError(
            f"A query has more terms than {engine} at {address} allows ({reason:.100}): shorten it, or raise "
            "indices.query.bool.max_clause_count in the server's configuration."
        )
    if type == "media_type_header_exception" or "compatible-with" in reason:
        return BackendError(
            f"The installed client and the {engine} server at {address} are of major versions that do not talk: "
            f"install the client of the server's major version (`pip install '{engine.lower()}<9'` for an 8.x server)."
        )
    if analyzer := re.search(r"analyzer \[([^\]]*)\] has not been configured", reason):
        return InvalidArgumentError(
            f"{engine} at {address} has no analyzer {analyzer[1]!r}: 'standard' is on every server, and those of "
            "languages, such as 'english', are where its module analysis-common is."
        )
    if type in ("mapper_parsing_exception", "document_parsing_exception", "strict_dynamic_mapping_exception"):
        return BackendError(
            f"A document or mapping does not fit the index {index!r} at {address} ({reason:.300}): change what the "
            "reason names, or index the documents again under another name."
        )
    if status == 413:
        return BackendError(f"{engine} at {address} refused a request as too large: raise its http.max_content_length.")
    if status in (429, 502, 503, 504) or type in PASSING:
        return NoAnswerError(
            f"{engine} at {address} is overloaded or not ready (HTTP {status} {type}: {reason:.200}): try again later."
        )
    if not type:
        return BackendError(
            f"What answers at {address} does not speak like {engine} (HTTP {status}: {reason[:80]!r}): check host and "
            "port, and the path if it is behind a proxy."
        )
    return BackendError(f"{engine} at {address} refused a request (HTTP {status} {type}: {reason:.400}).")


def decode(address: Address, answer: Answer) -> Json:
    """The body of a good answer; raises the sentence of any other."""
    status, body = answer
    if not 200 <= status < 300:
        raise refusal(address, status, body)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise refusal(address, status, body) from None


def _type_and_reason(body: bytes | str | Json) -> tuple[str, str]:
    """Of the first cause that an error names; without JSON, ("", the text)."""
    if isinstance(body, bytes | str):
        text = body if isinstance(body, str) else body.decode("utf-8", "replace")
        try:
            body = orjson.loads(text)
        except orjson.JSONDecodeError:
            return "", text.strip()
        body = body.get("error", "") if isinstance(body, dict) else ""
    if not isinstance(body, dict):
        return "", str(body)
    causes = [body, *body.get("root_cause", [])]
    if "failed_shards" in body:
        causes += [shard.get("reason", {}) for shard in body["failed_shards"]]
    deepest = causes[-1]
    while isinstance(deepest.get("caused_by"), dict):
        deepest = deepest["caused_by"]
    told = deepest if body.get("type") == "search_phase_execution_exception" else body  # which says nothing by itself
    cause = next((cause for cause in causes[1:] if cause.get("reason")), told)
    reasons = dict.fromkeys(str(part.get("reason") or "") for part in (cause, deepest))
    return str(cause.get("type", "")), "; ".join(filter(None, reasons))


def _causes(error: BaseException) -> list[BaseException]:
    """The error, what it carries and what it came from, the innermost last."""
    found: list[BaseException] = []
    waiting: list[BaseException] = [error]
    while waiting:
        current = waiting.pop(0)
        if current in found:
            continue
        found.append(current)
        inner = [*current.args, *getattr(current, "errors", ()), current.__cause__, current.__context__]
        waiting += [part for part in inner if isinstance(part, BaseException)]
    return found


def _certificate_problem(text: str) -> str:
    match = re.search(r"certificate verify failed: ([^(\]]+)", text)
    return match[1].strip() if match else "certificate verify failed"
