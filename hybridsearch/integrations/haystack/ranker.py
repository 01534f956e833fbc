"""The ranker of Haystack that asks a reranker."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from haystack import Document, component, default_from_dict, default_to_dict

from hybridsearch.arguments import whole_number
from hybridsearch.documents import Document as StoredDocument
from hybridsearch.integrations.asking import reranked
from hybridsearch.integrations.haystack.parts import from_plain, to_plain
from hybridsearch.rerank import Reranker, check_reranker


@component
class HybridSearchRanker:
    """A Haystack ranker that gives documents the scores of a reranker.

    Args:
        reranker: Reranker, such as `hs.CrossEncoderReranker(...)`. It reads the content of a document, or what its
            template names. Its `blend` is the weight of the scores that the documents have.
        top_k: Number of documents to keep. None keeps all.

    >>> import numpy as np
    >>> class Shortest:
    ...     top_k = 10
    ...     def rerank(self, queries, documents):
    ...         return [np.array([-len(one.text) for one in of_query]) for of_query in documents]
    ...     def to_json(self):
    ...         return None
    >>> documents = [Document(content="a long text"), Document(content="a text")]
    >>> HybridSearchRanker(Shortest(), top_k=1).run("text", documents)["documents"][0].content
    'a text'
    """

    def __init__(self, reranker: Reranker, *, top_k: int | None = None) -> None:
        check_reranker(reranker)
        self.reranker = reranker
        self.top_k = None if top_k is None else whole_number("top_k", top_k)

    def to_dict(self) -> dict[str, Any]:
        """Describe the component by its arguments, as YAML holds them."""
        return default_to_dict(self, reranker=to_plain("reranker", self.reranker), top_k=self.top_k)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> HybridSearchRanker:
        """Make the component from what `to_dict` gave."""
        return default_from_dict(cls, {**data, "init_parameters": from_plain(data.get("init_parameters", {}))})

    @component.output_types(documents=list[Document])
    def run(self, query: str, documents: list[Document], top_k: int | None = None) -> dict[str, list[Document]]:
        """Order documents by the scores of the reranker.

        Args:
            query: Text of the query.
            documents: Documents, of which the first with each id is kept. They are not changed.
            top_k: Number of documents to keep in this call.

        Returns:
            `documents` with the scores of the reranker, best first.

        Raises:
            InvalidArgumentError: The reranker has a `blend`, and a document has no score.
            RetrieverError: The reranker failed.
            EncodingError: The reranker gave no finite number for a document.
        """
        first = list({one.id: one for one in reversed(documents)}.values())[::-1]
        stored = [StoredDocument(one.id, one.content or "", metadata=one.meta) for one in first]
        keep = self.top_k if top_k is None else whole_number("top_k", top_k)
        ranked = reranked(self.reranker, query, stored, [one.score for one in first])[:keep]
        return {"documents": [replace(first[number], score=score) for number, score in ranked]}

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query: str, documents: list[Document], top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """Order documents, as `run` does, without blocking the event loop."""
        found: dict[str, list[Document]] = await asyncio.to_thread(self.run, query, documents, top_k)
        return found
