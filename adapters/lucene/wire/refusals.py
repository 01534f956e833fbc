"""Turns the error answers of an engine into our errors. No message contains secrets."""

from __future__ import annotations

import contextlib
import re
import ssl

import orjson

from hybridsearch.adapters.lucene.wire.connection import Address, Answer, Json, short
from hybridsearch.adapters.lucene.wire.proxies import proxy_for
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
"""Types of errors that pass, whatever their status: a node is too busy, starts, or has just left the cluster."""


class NoAnswerError(BackendError):
    """The engine was not reached, or did not answer in time. The same call may succeed later."""


def no_answer(address: Address, error: BaseException, *, timeout: float, timed_out: bool) -> BackendError:
    """The error to raise if the client library raised an error instead of giving an answer."""
    causes = _causes(error)
    text = " ".join(str(cause) for cause in causes)
    if any(isinstance(cause, ssl.SSLError) for cause in causes) or "CERTIFICATE" in text.upper():
        if "CERTIFICATE_VERIFY_FAILED" in text or "certificate verify failed" in text:
            return BackendError(
                f"The certificate of {address.engine} at {address} is not trusted ({_certificate_problem(text)}): give "
                "the certificate file of its authority as ca_file or "
                f"HYBRIDSEARCH_{address.engine.upper()}_CA."
            )
        return BackendError(
            f"A TLS connection to {address.engine} at {address} failed ({short(causes[-1])}): if the server speaks "
            f"plain HTTP, write {address.engine.lower()}:// in place of {address.engine.lower()}+https://."
        )
    if "407 Proxy Authentication" in text:
        return _proxy_refused(address)
    if timed_out:
        return NoAnswerError(
            f"{address.engine} at {_asked(address, text)} did not answer within {timeout:g} seconds. It may be "
            f"overloaded, or the request needs a longer timeout.{_by_proxy(address)}"
        )
    hint = ""
    if address.scheme == "http" and re.search(r"closed connection|disconnected|reset|bad status", text, re.IGNORECASE):
        hint = f" If the server speaks TLS, write {address.engine.lower()}+https://."
    return NoAnswerError(
        f"{address.engine} at {address} cannot be reached ({short(causes[-1])}): check that it runs and that the host "
        f"and port are right.{hint}{_by_proxy(address)}"
    )


def refusal(address: Address, status: int, body: bytes | str | Json) -> HybridSearchError:
    """The error to raise for an answer that is not a success.

    Args:
        address: Address that was asked.
        status: HTTP status.
        body: Body of the answer, or its member `error`.
    """
    engine, index = address.engine, address.index
    type, reason = _type_and_reason(body)
    if address.auth == "aws" and status in (401, 403) and not type:
        return BackendError(
            f"AWS refused a request to {address} (HTTP {status}: {_told_by_aws(reason)}): check that the access policy "
            "of the domain or of the collection allows these credentials."
        )
    if status == 401:
        problem = "does not accept the credentials" if address.headers else "needs credentials, and none were given"
        return BackendError(
            f"{engine} at {address} {problem}: give user and password, or api_key, as arguments, in the URL, or as "
            f"HYBRIDSEARCH_{engine.upper()}_USER, _PASSWORD, _API_KEY."
        )
    blocked = type == "cluster_block_exception" and status != 503  # with 503, the cluster has no master or starts
    if blocked or "index read-only" in reason or "flood-stage watermark" in reason:
        return StorageError(
            f"The index {index!r} at {address} is read-only ({reason:.200}). If the disk is full, free some space, and "
            "the block goes away by itself. Otherwise set index.blocks.read_only_allow_delete and index.blocks.write "
            "to false."
        )
    if status == 403:
        return BackendError(
            f"The user has no permission for this on {engine} at {address} ({reason:.200}): give the user this "
            f"permission for the index {index!r}, or use another user."
        )
    if type == "index_not_found_exception":
        return IndexNotFoundError(f"There is no index {index!r} at {address}. It may have been deleted.")
    if type == "resource_already_exists_exception" or "already exists as alias" in reason:
        return IndexExistsError(
            f"There is already an index or alias {index!r} at {address}: choose another name, or open it."
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
            f"The major version of the installed client does not work with the {engine} server at {address}: install "
            f"the client of the server's major version (`pip install '{engine.lower()}<9'` for an 8.x server)."
        )
    if analyzer := re.search(r"analyzer \[([^\]]*)\] has not been configured", reason):
        return InvalidArgumentError(
            f"{engine} at {address} has no analyzer {analyzer[1]!r}. Every server has 'standard'. The analyzers of "
            "languages, such as 'english', are in the server's module analysis-common. An index template can define "
            "others."
        )
    if type in ("mapper_parsing_exception", "document_parsing_exception", "strict_dynamic_mapping_exception"):
        return BackendError(
            f"A document or mapping does not fit the index {index!r} at {address} ({reason:.300}): change the document "
            "or mapping, or index the documents again under another name."
        )
    if status == 407:
        return _proxy_refused(address)
    if status == 413:
        return BackendError(
            f"{engine} at {address} refused a request because it is too large: raise http.max_content_length in the "
            "server's configuration."
        )
    if status in (429, 502, 503, 504) or type in PASSING:
        return NoAnswerError(
            f"{engine} at {address} is overloaded or not ready (HTTP {status} {type}: {reason:.200}): try again later."
            f"{_by_proxy(address)}"
        )
    if not type:
        return BackendError(
            f"The server at {address} does not answer like {engine} (HTTP {status}: {reason[:80]!r}): check the host "
            f"and the port, and the path if the engine is behind a proxy.{_by_proxy(address)}"
        )
    return BackendError(f"{engine} at {address} refused a request (HTTP {status} {type}: {reason:.400}).")


def decode(address: Address, answer: Answer) -> Json:
    """The body of a successful answer. Raises the error of any other answer."""
    status, body = answer
    if not 200 <= status < 300:
        raise refusal(address, status, body)
    with contextlib.suppress(orjson.JSONDecodeError):
        if isinstance(found := orjson.loads(body), dict):
            return found
    raise refusal(address, status, body)


def _type_and_reason(body: bytes | str | Json) -> tuple[str, str]:
    """The type and the reason of the first cause that an error names. If it is not JSON: "" and the text."""
    if isinstance(body, bytes | str):
        text = body if isinstance(body, str) else body.decode("utf-8", "replace")
        try:
            body = orjson.loads(text)
        except orjson.JSONDecodeError:
            return "", text.strip()
        if isinstance(body, dict) and "error" not in body:
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
    # search_phase_execution_exception itself tells nothing.
    told = deepest if body.get("type") == "search_phase_execution_exception" else body
    cause = next((cause for cause in causes[1:] if cause.get("reason")), told)
    reasons = dict.fromkeys(str(part.get("reason") or "") for part in (cause, deepest))
    return str(cause.get("type", "")), "; ".join(filter(None, reasons))


def _proxy_refused(address: Address) -> BackendError:
    return BackendError(
        f"The proxy that {address.scheme.upper()}_PROXY names does not accept the credentials of the request (HTTP "
        "407): give its user and password in the URL of that variable, with special characters as %XX, or name "
        f"{address.hosts[0][0]} in NO_PROXY."
    )


def _by_proxy(address: Address) -> str:
    """A sentence about the proxy, if requests go by one."""
    if not any(proxy_for(address.scheme, *host) for host in address.hosts):
        return ""
    return f" The request went by the proxy that {address.scheme.upper()}_PROXY names."


def _told_by_aws(text: str) -> str:
    """The first sentence of a message of AWS. The rest may repeat the request, and with it the session token."""
    try:
        told = orjson.loads(text)
        text = str(told.get("message") or told.get("Message") or told) if isinstance(told, dict) else str(told)
    except orjson.JSONDecodeError:
        pass
    return text.partition("\n")[0][:200].strip(" .")


def _asked(address: Address, text: str) -> str:
    """The URL of the node that the text of an error names. If it names none, the URLs of all nodes."""
    named = [
        url
        for url, (host, port) in zip(address.urls, address.hosts, strict=True)
        if f"host='{host.strip('[]')}', port={port})" in text
    ]
    if named:
        return named[0]
    return f"one of {address}" if len(address.hosts) > 1 else str(address)


def _causes(error: BaseException) -> list[BaseException]:
    """The error, the errors in it, and the errors that caused it. The innermost error is the last."""
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
