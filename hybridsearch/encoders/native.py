"""BM25 as the engine itself computes it, over texts that it analyses itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from hybridsearch.arguments import number
from hybridsearch.backends import Fingerprint, RetrieverSchema
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.vectors import SparseVectors, TextQuery, Vocabulary


class NativeBM25:
    """The lexical retriever of OpenSearch or Elasticsearch: its analyzer, its index, its scores.

    Use it where other programs search the same index, or for an analyzer that only the engine has. `BM25` instead gives
    the same ranking on every engine.

    Args:
        analyzer: of the engine, such as "standard" or "english"; one that the server lacks is an error at creation.
        k1, b: as of `hybridsearch.weighting.BM25Weighting`.

    Raises:
        InvalidArgumentError: an argument is outside its range.

    >>> NativeBM25("english").encode_queries(["separated flow"])
    [TextQuery(text='separated flow')]
    """

    def __init__(self, analyzer: str = "standard", *, k1: float = 1.2, b: float = 0.75) -> None:
        if not isinstance(analyzer, str) or not analyzer.strip():
            raise InvalidArgumentError(f"analyzer is the name of an analyzer of the engine, not {analyzer!r:.80}.")
        k1, b = float(number("k1", k1, least=0)), float(number("b", b, least=0, most=1))
        self._arguments: dict[str, Any] = {"analyzer": analyzer, "k1": k1, "b": b}

    def encode_documents(self, texts: Sequence[str], *, show_progress_bar: bool = False) -> SparseVectors:
        """Vectors without a term: the engine reads the documents themselves."""
        starts = np.zeros(len(texts) + 1, dtype=np.int32)
        nothing = np.empty(0, dtype=np.float32), np.empty(0, dtype=np.int32), starts
        return SparseVectors(csr_array(nothing, shape=(len(texts), 0)), Vocabulary([]))

    def encode_queries(self, texts: Sequence[str]) -> list[TextQuery]:
        """The texts as they are."""
        return [TextQuery(text) for text in texts]

    def fingerprint(self) -> Fingerprint:
        """The analyzer and the parameters."""
        return Fingerprint("native", self._arguments)

    def schema(self) -> RetrieverSchema:
        """What an index remembers."""
        return RetrieverSchema(
            "text", self.fingerprint(), encoder={"type": "native", **self._arguments}, weighting=self._arguments
        )

    def __repr__(self) -> str:
        return f"NativeBM25({', '.join(f'{name}={value!r}' for name, value in self._arguments.items())})"
