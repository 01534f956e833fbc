"""How the integrations ask an index: by a text or by a vector, and how they pass on its notes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from hybridsearch.backends import RetrieverSchema
from hybridsearch.documents import Document
from hybridsearch.encoders import Encoder
from hybridsearch.errors import IndexNotFoundError, InvalidArgumentError
from hybridsearch.fusion import read_fusion
from hybridsearch.integrations.encoding import as_vectors
from hybridsearch.rerank import Reranker, blended, score_pairs
from hybridsearch.retrieval import Plan
from hybridsearch.search import HybridSearch, SearchOptions

A_VECTOR: Final = "(a vector)"
"""Text of a query that has no text, but a vector."""


def check_search(search: object) -> None:
    """Raises InvalidArgumentError unless the object is a `HybridSearch`."""
    if not isinstance(search, HybridSearch):
        raise InvalidArgumentError(f"search is a HybridSearch, such as hs.open(place), not {search!r:.80}.")


def check_options(options: Iterable[str], *own: str) -> None:
    """Raises InvalidArgumentError unless all names are options of `HybridSearch.search`.

    Args:
        options: The names.
        own: Options of the integration, which the message also names.
    """
    known = (*own, *SearchOptions.__annotations__)
    for name in options:
        if name not in known:
            raise InvalidArgumentError(f"{name!r:.80} is no option of a search. The options are {', '.join(known)}.")


def is_indexed(search: HybridSearch) -> bool:
    """Whether there is an index."""
    try:
        search.plan()
    except IndexNotFoundError:
        return False
    return True


def reading(search: HybridSearch, options: Mapping[str, Any], least: int) -> dict[str, Any]:
    """The options of a search that reads at least some documents from each retriever.

    Args:
        search: The index.
        options: Options of `HybridSearch.search`. If they have `candidates`, this number counts.
        least: Number of documents. The number of a tuned fusion, or else of the index, counts if it is larger.
    """
    if options.get("candidates") is not None:
        return dict(options)
    fusion = options.get("fusion")
    tuned = None if fusion is None else read_fusion(fusion, None)[1]
    return {**options, "candidates": max(search.candidates if tuned is None else tuned, least)}


def log_notes(log: logging.Logger, notes: Iterable[str]) -> None:
    """Log the notes of a search as warnings, because the documents of a framework have no place for them."""
    for note in notes:
        log.warning("%s", note)


def dense_retriever(search: HybridSearch, encoder: type) -> tuple[str, RetrieverSchema]:
    """The name and the description of the retriever that gets the vector of a query.

    Args:
        search: The index.
        encoder: Class of the framework's encoders. The first retriever with an encoder of this class is taken, or the
            first dense retriever if there is none.

    Raises:
        InvalidArgumentError: The index has no dense retriever.
    """
    schema = search.backend.open()
    known = {} if schema is None else schema.retrievers
    dense = [name for name in search.retrievers if name in known and known[name].kind == "dense"]
    own = [name for name in dense if isinstance(search.retrievers[name], encoder)]
    if not dense:
        raise InvalidArgumentError(
            f"The index has no dense retriever, so it has no vectors to compare: search by a text, or make the index "
            f"with {encoder.__name__} or hs.Dense."
        )
    name = (own or dense)[0]
    return name, known[name]


def plan_by_vector(
    search: HybridSearch, dense: tuple[str, RetrieverSchema], vector: Sequence[float], options: Mapping[str, Any]
) -> Plan:
    """A plan that asks a dense retriever alone, by a vector. The text of its query is `A_VECTOR`.

    Args:
        search: The index.
        dense: Name and description of the dense retriever.
        vector: Vector of the query.
        options: Arguments of `HybridSearch.plan`.

    Raises:
        InvalidArgumentError: Another retriever or a reranker is asked for, or the vector has a wrong length.
        EncodingError: The vector is not finite.
    """
    name, schema = dense
    asked = {"reranker": None, "retrievers": [name], **options}
    if asked["reranker"] is not None or list(asked["retrievers"]) != [name]:
        raise InvalidArgumentError(
            f"A search by vector asks the retriever {name!r} alone, without a reranker: leave out `retrievers` and "
            "`reranker`, or search by a text."
        )
    return with_vector(search.plan(**asked), name, schema, vector)


def with_vector(plan: Plan, name: str, schema: RetrieverSchema, vector: Sequence[float]) -> Plan:
    """A plan in which one dense retriever searches by a vector, whatever the text of the query is.

    Args:
        plan: Plan of a search.
        name: Name of the dense retriever.
        schema: Description of this retriever.
        vector: Vector of the query.

    Raises:
        InvalidArgumentError: The vector has another length than those of the retriever.
        EncodingError: The vector has NaN, infinity, or a number beyond float32.
    """
    if len(vector) != schema.dimensions:
        raise InvalidArgumentError(
            f"The vector of the query has {len(vector)} numbers, but the vectors of retriever {name!r} have "
            f"{schema.dimensions}: use the model that the index was made with."
        )
    encoder = plan.encoder
    given = cast(Encoder, _Given(as_vectors([vector], schema.metric or "cosine", "The caller")[0], encoder(name)))
    return replace(plan, encoder=lambda asked: given if asked == name else encoder(asked))


class _Given:
    """An encoder that gives one vector for each query, and is like another encoder in everything else."""

    def __init__(self, vector: NDArray[np.float32], other: Encoder) -> None:
        self._vector, self._other = vector, other

    def encode_queries(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        return [self._vector] * len(texts)

    def query_notes(self, texts: Sequence[str]) -> list[str]:
        return [""] * len(texts)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._other, name)


def reranked(
    reranker: Reranker, query: str, documents: Sequence[Document], before: Sequence[float | None]
) -> list[tuple[int, float]]:
    """The position and the score of each document, best first. The id decides between equal scores.

    Args:
        reranker: Reranker. Its `blend` is the weight of the scores before.
        query: Text of the query.
        documents: Documents to rerank.
        before: Score that each document has already. None if it has none.

    Raises:
        InvalidArgumentError: The reranker has a blend, and a document has no score yet.
    """
    scores = score_pairs(reranker, [query], [documents])[0].tolist() if documents else []
    if blend := getattr(reranker, "blend", 0.0):
        known = [score for score in before if score is not None]
        if len(known) < len(before):
            raise InvalidArgumentError(
                f"The reranker blends its scores with the scores before (blend={blend:g}), but a document has none: "
                "use a reranker without blend."
            )
        scores = blended(scores, known, blend)
    return sorted(enumerate(scores), key=lambda one: (-one[1], documents[one[0]].id))
