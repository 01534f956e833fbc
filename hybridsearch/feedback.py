"""Pseudo-relevance feedback: the first documents of a retriever change the query, and the retriever searches again.

`RM3` is for BM25, and `Rocchio` for dense and sparse vectors. `hybridsearch.expanding` reads the documents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hybridsearch.arguments import number, shown, whole_number
from hybridsearch.backends import Backend, Counted, RetrieverSchema
from hybridsearch.errors import BackendError, InvalidArgumentError, NoRetrieverError
from hybridsearch.vectors import DenseVectors, QueryVector, SparseQuery, SparseVectors, Vectors

_SHOWN = 20
"""Number of added terms in the text of an explanation."""

Weights: TypeAlias = Mapping[str, float]
"""Weights by term."""


@dataclass(frozen=True, slots=True)
class Expansion:
    """What feedback did to a query of one retriever.

    Attributes:
        method: The feedback, as text.
        documents: Ids of the feedback documents with their scores of the first pass, best first.
        terms: Terms that feedback added to the query, with their weights in the new query, the largest first. Terms
            that the query had before are left out. Empty for a dense retriever.
        passages: Span of the passage that was read of each feedback document, by id. Empty if whole documents were
            read.
    """

    method: str
    documents: Mapping[str, float]
    terms: Weights = field(default_factory=dict)
    passages: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Convert the expansion to a dict that JSON can hold."""
        spans = {"passages": {id: list(span) for id, span in self.passages.items()}} if self.passages else {}
        return {"method": self.method, "documents": dict(self.documents), "terms": dict(self.terms), **spans}

    def lines(self) -> list[str]:
        """Describe the expansion in one or two lines of text."""
        name, read = self.method.partition("(")[0], ", ".join(self.documents)
        added = ", ".join(f"{term} {weight:.3f}" for term, weight in list(self.terms.items())[:_SHOWN])
        more = f" and {len(self.terms) - _SHOWN:,} more" if len(self.terms) > _SHOWN else ""
        return [f"feedback by {name} from {read}", *([f"terms from feedback: {added}{more}"] if added else [])]


@dataclass(frozen=True, slots=True)
class RM3:
    """Pseudo-relevance feedback for BM25: terms that are frequent in the first documents are added to the query.

    The weight of a term t in the new query is w * q(t) + (1 - w) * r(t), where w is `original`. q(t) is the share of t
    in the query. r(t) is the share of t in the relevance model, which is made in three steps:

    1. Each of the first `documents` gives its `terms` most frequent terms, with their shares of these frequencies.
    2. The shares are multiplied by the score of the document, and summed over the documents.
    3. The `terms` terms with the largest sums are kept.

    Only terms of 2 to 20 letters and digits are taken, and only if at most `max_share` of all documents have them. If
    terms have equal frequencies or sums, those that sort first are taken. If no term is left, the query stays as it
    is. The weights of the new query sum to 1, so its scores are smaller than those of a search without feedback.

    From Lavrenko and Croft, "Relevance-based language models" (SIGIR 2001), and Abdul-Jaleel et al., "UMass at TREC
    2004: Novelty and HARD". The three steps, the limits and the defaults are those of Anserini, which takes only the
    letters a to z.

    Args:
        documents: Number of first documents that are read (`fb_docs` in Pyserini).
        terms: Number of terms of a document, and of the relevance model (`fb_terms` in Pyserini).
        original: Weight of the original query, from 0 to 1 (`original_query_weight` in Pyserini).
        max_share: Largest share of all documents that may have a term, from 0 to 1. 1 for no limit. In an index of few
            documents, 0.1 leaves few terms.
        retriever: Name of the retriever. None for each BM25 retriever that is asked.

    Raises:
        InvalidArgumentError: An argument is not allowed.

    >>> RM3().model([{"wing": 3, "flow": 1}, {"wing": 1, "heat": 1}], [2.0, 1.0])
    {'wing': 0.6666666666666666, 'flow': 0.16666666666666666, 'heat': 0.16666666666666666}
    """

    documents: int = 10
    terms: int = 10
    original: float = 0.5
    max_share: float = 0.1
    retriever: str | None = None

    name: ClassVar[str] = "rm3"

    def __post_init__(self) -> None:
        whole_number("The documents of RM3", self.documents)
        whole_number("The terms of RM3", self.terms)
        _check_number(self, "original", most=1)
        _check_number(self, "max_share", most=1)

    def fits(self, retriever: RetrieverSchema) -> bool:
        """Whether a retriever is BM25."""
        return retriever.kind == "lexical" and retriever.fingerprint.name == "bm25"

    def model(self, documents: Sequence[Weights], scores: Sequence[float]) -> dict[str, float]:
        """Estimate the relevance model from feedback documents. The limits on terms are not applied.

        Args:
            documents: Frequencies of the terms of each document.
            scores: Scores of the documents in the first pass.

        Returns:
            At most `terms` terms with their shares, the largest first. The shares sum to 1.
        """
        sums: dict[str, float] = {}
        for document, score in zip(documents, scores, strict=True):
            frequent = largest(document, self.terms)
            total = sum(frequent.values())
            for term, frequency in frequent.items():
                sums[term] = sums.get(term, 0.0) + frequency / total * score
        return _shares(largest(sums, self.terms))

    def expand(self, query: QueryVector, documents: Sequence[Weights], scores: Sequence[float]) -> QueryVector:
        """Make the new query, from documents as `model` takes them."""
        model, counts = self.model(documents, scores), weights_of(query)
        if not model or not any(counts.values()):
            return query
        return _mixed(self.original, _shares(counts), 1 - self.original, model)


@dataclass(frozen=True, slots=True)
class Rocchio:
    """Pseudo-relevance feedback for dense and sparse vectors: the query moves towards the first documents.

    The vector of the new query is alpha * q + beta * d, where q is the vector of the query, and d the mean of the
    vectors of the first documents. If the metric is `"cosine"`, it then gets unit length.

    From Li et al., "Pseudo relevance feedback with deep language models and dense retrievers: successes and pitfalls"
    (TOIS 2023). `alpha` and `beta` are the defaults of Pyserini.

    Args:
        documents: Number of first documents that are read.
        alpha: Weight of the query, at least 0.
        beta: Weight of the mean of the documents, at least 0.
        retriever: Name of the retriever. None for each dense or sparse retriever that is asked.

    Raises:
        InvalidArgumentError: An argument is not allowed.

    >>> vector = Rocchio(alpha=0.5, beta=0.5).expand(np.float32([1, 0]), DenseVectors(np.float32([[0, 1]]), "dot"))
    >>> vector.tolist()
    [0.5, 0.5]
    """

    documents: int = 3
    alpha: float = 0.9
    beta: float = 0.1
    retriever: str | None = None

    name: ClassVar[str] = "rocchio"

    def __post_init__(self) -> None:
        whole_number("The documents of Rocchio", self.documents)
        _check_number(self, "alpha")
        _check_number(self, "beta")
        if not self.alpha and not self.beta:
            raise InvalidArgumentError("The alpha and the beta of Rocchio are both 0, so no query would be left.")

    def fits(self, retriever: RetrieverSchema) -> bool:
        """Whether a retriever has dense or sparse vectors."""
        return retriever.kind in ("dense", "sparse")

    def expand(self, query: QueryVector, documents: Vectors) -> QueryVector:
        """Make the vector of the new query.

        Args:
            query: Vector of the query.
            documents: Vectors of the feedback documents, at least one.
        """
        if isinstance(documents, DenseVectors):
            vector = self.alpha * np.asarray(query, dtype=np.float64)
            vector = vector + self.beta * documents.array.mean(axis=0, dtype=np.float64)
            length = float(np.linalg.norm(vector)) if documents.metric == "cosine" else 1.0
            moved: NDArray[np.float32] = (vector / (length or 1.0)).astype(np.float32)
            return moved
        if not isinstance(documents, SparseVectors):
            raise TypeError("Rocchio needs dense or sparse vectors.")  # `fits` says so before
        sums = np.asarray(documents.matrix.sum(axis=0, dtype=np.float64)) / len(documents)
        found = np.flatnonzero(sums)
        terms = [documents.vocabulary.terms[column] for column in found.tolist()]
        return _mixed(self.alpha, weights_of(query), self.beta, dict(zip(terms, sums[found].tolist(), strict=True)))


Feedback: TypeAlias = RM3 | Rocchio
"""A method of pseudo-relevance feedback."""

_METHODS: tuple[type[RM3] | type[Rocchio], ...] = (RM3, Rocchio)

NAMES = tuple(one.name for one in _METHODS)
"""Names of the methods in texts."""


@dataclass(frozen=True, slots=True)
class Planned:
    """Feedback of one retriever, whose arguments were checked.

    Attributes:
        method: The feedback.
        retriever: Description of the retriever.
    """

    method: Feedback
    retriever: RetrieverSchema


def read_feedback(text: str) -> Feedback:
    """Make feedback from its name, with or without the number of feedback documents.

    Raises:
        InvalidArgumentError: The name is unknown, or the number is not a whole number of at least 1.

    >>> read_feedback("rm3").terms, read_feedback("rocchio:5").documents
    (10, 5)
    """
    name, colon, count = text.strip().partition(":")
    made = next((one for one in _METHODS if one.name == name), None)
    if made is None or (colon and not (count.isascii() and count.isdigit() and int(count))):
        raise InvalidArgumentError(
            f"Feedback is {' or '.join(NAMES)}, also with a number of documents as in rm3:20, not {text!r:.80}."
        )
    return made(documents=int(count)) if colon else made()


def check_feedback(
    feedback: Feedback | Sequence[Feedback] | None,
    names: Sequence[str],
    retrievers: Mapping[str, RetrieverSchema],
    backend: Backend,
) -> dict[str, Planned]:
    """The feedback of each retriever in `names`, by the retriever's name.

    Raises:
        InvalidArgumentError: An argument is no feedback, no retriever fits it, or two belong to one retriever.
        BackendError: RM3 is asked for, and the engine does not count the documents that have a term.
    """
    if feedback is None:
        return {}
    given = list(feedback) if isinstance(feedback, Sequence) and not isinstance(feedback, str) else [feedback]
    planned: dict[str, Planned] = {}
    for one in given:
        if not isinstance(one, _METHODS):
            raise InvalidArgumentError(
                f"feedback is an object such as hs.RM3() or hs.Rocchio(), or a list of them, not {shown(one)}."
            )
        for name in _fitting(one, names, retrievers):
            if name in planned:
                raise InvalidArgumentError(f"There are two feedbacks for the retriever {name!r}: leave one out.")
            planned[name] = Planned(one, retrievers[name])
        if isinstance(one, RM3) and one.max_share < 1 and not isinstance(backend, Counted):
            raise BackendError(
                "The engine does not count the documents that have a term, and RM3 needs this to leave out frequent "
                "terms: give RM3(max_share=1), or choose another engine."
            )
    return planned


def _fitting(one: Feedback, names: Sequence[str], retrievers: Mapping[str, RetrieverSchema]) -> list[str]:
    """The names of the retrievers that get the feedback."""
    if one.retriever is not None and one.retriever not in names:
        raise NoRetrieverError(
            f"The feedback names the retriever {one.retriever!r:.80}, which is not asked. The retrievers are "
            f"{', '.join(map(repr, names))}."
        )
    asked = names if one.retriever is None else [one.retriever]
    fitting = [name for name in asked if one.fits(retrievers[name])]
    if not fitting:
        needed = "BM25" if isinstance(one, RM3) else "dense and sparse retrievers"
        found = ", ".join(f"{name!r} is {_described(retrievers[name])}" for name in asked)
        raise NoRetrieverError(
            f"{type(one).__name__} is feedback for {needed}, but {found}: ask another retriever too, or leave it out."
        )
    return fitting


def _described(retriever: RetrieverSchema) -> str:
    if retriever.kind == "text":
        return "analysed by the engine, so its terms are not known here"
    return f"a {retriever.kind} retriever of the encoder {retriever.fingerprint.name!r}"


def _check_number(method: Feedback, name: str, most: float | None = None) -> None:
    """Make an attribute a float of at least 0."""
    checked = number(f"The {name} of {type(method).__name__}", getattr(method, name), least=0, most=most)
    object.__setattr__(method, name, float(checked))


def weights_of(query: QueryVector) -> dict[str, float]:
    """The weights of a query by term. Empty for a query without terms."""
    return dict(zip(query.terms, query.weights.tolist(), strict=True)) if isinstance(query, SparseQuery) else {}


def largest(weights: Weights, most: int) -> dict[str, float]:
    """The terms with the largest weights, in this order. Equal weights are ordered by term."""
    return dict(sorted(weights.items(), key=lambda item: (-item[1], item[0]))[:most])


def _shares(weights: Weights) -> dict[str, float]:
    total = sum(weights.values())
    return {term: weight / total for term, weight in weights.items()}


def _mixed(weight: float, one: Weights, other_weight: float, other: Weights) -> SparseQuery:
    """The weighted sum of two vectors: the terms of `one` in their order, then those of `other`, the largest first."""
    sums = {term: weight * value + other_weight * other.get(term, 0.0) for term, value in one.items()}
    added = {term: other_weight * value for term, value in other.items() if term not in one}
    sums = {term: value for term, value in (sums | largest(added, len(added))).items() if value}
    return SparseQuery(tuple(sums), np.fromiter(sums.values(), np.float32, len(sums)))
