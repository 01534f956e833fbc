"""What a framework's own document says of a hit: its text, and how it was found."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

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
    if details in metadata:
        raise InvalidArgumentError(
            f"Document {hit.id!r:.80} has the metadata field {details!r}, so it cannot also say there how it was "
            "found: give another name, such as details='found', or details=None."
        )
    return {**metadata, details: how_found(hit)}


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
