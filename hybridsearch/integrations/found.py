"""What a framework's own document says of a hit: its text, and how it was found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, get_args

from hybridsearch.arguments import one_of
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.hits import Hit

Content: TypeAlias = Literal["passage", "document"]
"""Text of a document that a search found: its best passage (the whole text if there are no passages), or all of it."""


def text_of(hit: Hit, content: Content) -> str:
    """The text of a hit."""
    best = hit.passage if content == "passage" else None
    return hit.document.text if best is None else best.text


def metadata_of(hit: Hit, details: str | None) -> dict[str, Any]:
    """The metadata and the title of a hit, and under the name `details` how it was found.

    Raises:
        InvalidArgumentError: The metadata has a field of this name.
    """
    metadata = with_title(hit.document.to_dict())
    if details is None:
        return metadata
    check_free(hit.id, metadata, details)
    return {**metadata, details: how_found(hit)}


def check_free(id: str, metadata: Mapping[str, Any], details: str) -> None:
    """Raises InvalidArgumentError if the metadata of a document has the field `details` already."""
    if details in metadata:
        raise InvalidArgumentError(
            f"Document {id!r:.80} has the metadata field {details!r}, so it cannot also say there how it was found: "
            "give another name, such as details='found', or details=None."
        )


def check_form(content: object, details: object) -> None:
    """Raises InvalidArgumentError unless `content` and `details` are allowed."""
    one_of("content", content, get_args(Content))
    if details is not None and (not isinstance(details, str) or not details):
        raise InvalidArgumentError(f"details is the name of a metadata field, or None, not {details!r:.80}.")


def with_title(document: dict[str, Any]) -> dict[str, Any]:
    """The metadata of `Document.to_dict`, with the title if it is not empty and the metadata has no field `title`."""
    metadata: dict[str, Any] = document["metadata"]
    return {"title": document["title"], **metadata} if document["title"] else metadata


def how_found(hit: Hit) -> dict[str, Any]:
    """Rank, score, each retriever's rank and score, and the span and pages of the best passage, as JSON holds them."""
    shown = hit.to_dict()
    kept = {name: shown[name] for name in ("rank", "score", "fused_score", "reranker_score", "retrievers")}
    if best := shown.get("passages"):
        kept["passage"] = {name: value for name, value in best[0].items() if name in ("start", "end", "pages")}
    return kept
