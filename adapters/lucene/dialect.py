"""The differences between OpenSearch and Elasticsearch. Every field is named by its full path."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hybridsearch.adapters.lucene.wire.connection import Json, Transport
from hybridsearch.adapters.lucene.wire.multisearch import Search
from hybridsearch.backends import Kind, RetrieverSchema, Schema
from hybridsearch.vectors import Metric

_SMALLEST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, slots=True)
class Server:
    """The version, the plugins and the modules of a server.

    Attributes:
        version: Version of the oldest node. None if the user has no permission to read it.
        plugins: Names of the plugins that every node has. Empty if the user has no permission to read them.
        modules: Names of the modules that every node has. Empty if the user has no permission to read them.
    """

    version: tuple[int, ...] | None = None
    plugins: frozenset[str] = frozenset()
    modules: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return dotted(self.version or ())


def dotted(version: tuple[int, ...]) -> str:
    """A version as people write it, such as 2.17."""
    return ".".join(map(str, version))


class Dialect(ABC):
    """What one of the two engines does differently: its client, its fields for vectors, and its queries.

    Attributes:
        impacts: Whether the sparse vectors of passages are found by the fields of `impacts`.
    """

    impacts: ClassVar[bool] = False

    @abstractmethod
    def make_transport(self) -> Transport:
        """The official client of the engine."""

    @abstractmethod
    def check_server(self, server: Server, schema: Schema) -> None:
        """Raise BackendError if the server lacks something that an index of `schema` needs."""

    def settings(self, schema: Schema, server: Server) -> dict[str, Json]:
        """Additional settings of a new index."""
        return {}

    @abstractmethod
    def dense_field(self, retriever: RetrieverSchema) -> Json:
        """The mapping of a dense retriever's vectors."""

    @abstractmethod
    def sparse_field(self) -> Json:
        """The mapping of a lexical or sparse retriever's vectors."""

    def rough_fields(self, schema: Schema) -> dict[str, Json]:
        """The mappings of rough vectors (see `seismic`), by retriever."""
        return {}

    @property
    @abstractmethod
    def approximate_dense(self) -> bool:
        """Whether dense searches may miss documents. If so, ties at the cut are not resolved."""

    @property
    def approximate_sparse(self) -> bool:
        """Whether searches of learned sparse retrievers may miss documents or terms."""
        return False

    @abstractmethod
    def deepest_dense(self) -> int:
        """The largest number of hits of one dense search. A deeper search is made in parts."""

    @abstractmethod
    def dense_clause(
        self,
        path: str,
        retriever: RetrieverSchema,
        vector: NDArray[np.float32],
        k: int,
        filter: Json | None,
    ) -> Json:
        """The query for the nearest `k` documents that `filter` lets through.

        If the retriever reads passages, this is the query within the `nested` query. The filter speaks of documents and
        may be left to the search around it.
        """

    @property
    @abstractmethod
    def least_candidates(self) -> int:
        """Least number of candidates that an approximate dense search keeps. 0 if it depends on the number of hits."""

    @abstractmethod
    def exact_clause(
        self, path: str, retriever: RetrieverSchema, vector: NDArray[np.float32], filter: Json | None = None
    ) -> Json:
        """The query that compares all vectors, of an index that `dense_clause` searches approximately.

        Its scores are those of `dense_clause`.
        """

    def scoring_clause(
        self, path: str, retriever: RetrieverSchema, vector: NDArray[np.float32], *, listed: bool
    ) -> Json | None:
        """The query that scores the passages of the documents that `dense_clause` finds. None if that scores them.

        `listed` tells whether each hit lists its passages.
        """
        return None

    @abstractmethod
    def sparse_clause(self, path: str, weights: Mapping[str, float], *, pruned: bool) -> Json:
        """The query that scores by the dot product with `weights`.

        `weights` has encoded terms as keys. Its values are above 0 and at most MAX_WEIGHT. `pruned` tells whether terms
        may be left out, if the index is searched that way.
        """

    @abstractmethod
    def term_clause(self, path: str, term: str) -> Json:
        """The query that matches the documents with this encoded term."""

    def pipeline(self, kind: Kind) -> Search:
        """Additional members of a search by score."""
        return {}

    @property
    def rough_sparse(self) -> bool:
        """Whether learned sparse searches without a filter use SEISMIC. If so, ties at the cut are not resolved."""
        return False

    def rough_search(self, retriever: str, weights: Mapping[str, float], k: int, clause: Json) -> Search:
        """The members of a SEISMIC search for `k` documents. `clause` scores them. The search counts the candidates."""
        return {"query": clause}

    @staticmethod
    def similarity(metric: Metric, score: float) -> float:
        """The similarity that a dense score of the engine stands for. Both engines compute scores the same way."""
        if metric == "cosine":
            return 2 * score - 1
        score = max(score, _SMALLEST)
        if metric == "dot":
            return score - 1 if score >= 1 else 1 - 1 / score
        return -float(np.sqrt(max(1 / score - 1, 0.0)))
