"""What OpenSearch and Elasticsearch do differently; fields are given by their full path."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from hybridsearch.adapters.lucene.wire.connection import Json, Transport
from hybridsearch.backends import Kind, RetrieverSchema, Schema
from hybridsearch.vectors import Metric

Search: TypeAlias = dict[str, Json]
"""The body of a search."""

_SMALLEST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, slots=True)
class Server:
    """What the engine has; None and empty where it does not tell whoever asks.

    Attributes:
        version: of the oldest node.
        plugins: that every node has.
    """

    version: tuple[int, ...] | None = None
    plugins: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return dotted(self.version or ())


def dotted(version: tuple[int, ...]) -> str:
    """As people write it."""
    return ".".join(map(str, version))


class Dialect(ABC):
    """One of the two engines: its client, how it stores vectors, and how it is asked for them."""

    @abstractmethod
    def make_transport(self) -> Transport:
        """The official client."""

    @abstractmethod
    def check_server(self, server: Server, schema: Schema) -> None:
        """Raise BackendError where the server lacks what an index of `schema` needs."""

    def settings(self, schema: Schema, server: Server) -> dict[str, Json]:
        """More settings of a new index."""
        return {}

    @abstractmethod
    def dense_field(self, retriever: RetrieverSchema) -> Json:
        """The mapping of a dense retriever's vectors."""

    @abstractmethod
    def sparse_field(self) -> Json:
        """The mapping of a lexical or sparse retriever's vectors."""

    def rough_fields(self, schema: Schema) -> dict[str, Json]:
        """The mappings of rough vectors by retriever, see `seismic`."""
        return {}

    @property
    @abstractmethod
    def approximate_dense(self) -> bool:
        """Whether dense searches may miss documents, so that ties at the cut are not looked at."""

    @property
    def approximate_sparse(self) -> bool:
        """Whether searches of learned sparse retrievers leave something out."""
        return False

    @abstractmethod
    def deepest_dense(self) -> int:
        """Most hits of one dense search; deeper ones are asked in parts."""

    @abstractmethod
    def dense_clause(
        self, path: str, retriever: RetrieverSchema, vector: NDArray[np.float32], k: int, filter: Json | None
    ) -> Json: ...

    @abstractmethod
    def sparse_clause(self, path: str, weights: Mapping[str, float], kind: Kind) -> Json:
        """Scores by the dot product with `weights` (by encoded term, above 0, at most MAX_WEIGHT)."""

    @abstractmethod
    def term_clause(self, path: str, term: str) -> Json:
        """Matches the documents that hold the encoded term."""

    def pipeline(self, kind: Kind) -> Search:
        """Further members of a search by score."""
        return {}

    @property
    def rough_sparse(self) -> bool:
        """Whether learned sparse searches without a filter may miss documents, so that ties are not looked at."""
        return False

    def rough_search(self, retriever: str, weights: Mapping[str, float], k: int, clause: Json) -> Search:
        """The members of such a search for `k` documents, which `clause` scores; it counts the candidates."""
        return {"query": clause}

    def similarity(self, metric: Metric, score: float) -> float:
        """The model's own similarity that a dense score stands for; both engines make scores the same way."""
        score = max(score, _SMALLEST)
        if metric == "cosine":
            return 2 * score - 1
        if metric == "dot":
            return score - 1 if score >= 1 else 1 - 1 / score
        return -float(np.sqrt(max(1 / score - 1, 0.0)))
