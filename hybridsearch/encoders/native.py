"""BM25 of OpenSearch and Elasticsearch, over texts that the engine analyses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from hybridsearch.arguments import number
from hybridsearch.backends import Fingerprint, RetrieverSchema
from hybridsearch.encoders import Place
from hybridsearch.encoders.bm25 import BM25
from hybridsearch.encoders.tokens import LANGUAGES
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.registry import name_of
from hybridsearch.vectors import SparseVectors, TextQuery, Vocabulary


class NativeBM25:
    """BM25 of OpenSearch or Elasticsearch, with the engine's analyzer, index and scores.

    Use it if other programs search the same index, or if you need an analyzer that only the engine has. `BM25` gives
    the same ranking on every engine. `NativeBM25` has no `fields`, because the engine reads title and text as one text.
    In an index with passages, the engine reads the title with each passage, but not the headings above it.

    Args:
        analyzer: Name of an analyzer of the engine, such as `"standard"` or `"english"`. If the server does not have
            it, the index cannot be made.
        k1: Number that decides how slowly the weight grows with repetitions of a term, at least 0.
        b: Strength of the correction for long documents, from 0 (none) to 1 (full).

    Raises:
        InvalidArgumentError: An argument is outside its range.

    >>> NativeBM25("english").encode_queries(["separated flow"])
    [TextQuery(text='separated flow')]
    """

    def __init__(self, analyzer: str = "standard", *, k1: float = 1.2, b: float = 0.75) -> None:
        if not isinstance(analyzer, str) or not analyzer.strip():
            raise InvalidArgumentError(f"analyzer is the name of an analyzer of the engine, not {analyzer!r:.80}.")
        k1, b = float(number("k1", k1, least=0)), float(number("b", b, least=0, most=1))
        self._arguments: dict[str, Any] = {"analyzer": analyzer, "k1": k1, "b": b}

    def encode_documents(self, texts: Sequence[str], *, show_progress_bar: bool = False) -> SparseVectors:
        """Make vectors without terms, because the engine reads the texts of the documents."""
        starts = np.zeros(len(texts) + 1, dtype=np.int32)
        nothing = np.empty(0, dtype=np.float32), np.empty(0, dtype=np.int32), starts
        return SparseVectors(csr_array(nothing, shape=(len(texts), 0)), Vocabulary([]))

    def encode_queries(self, texts: Sequence[str]) -> list[TextQuery]:
        """Wrap each text as a `TextQuery`, because the engine analyses it."""
        return [TextQuery(text) for text in texts]

    def locate(
        self, texts: Sequence[str], terms: Sequence[Mapping[str, float]], *, models: bool = True
    ) -> list[list[Place]]:
        """Find the words of a query by the rules of `BM25`, because the engine does not say which words matched.

        The rules are those of `BM25(None)` for the analyzer `"standard"`, and those of the language for an analyzer
        with the name of a language. For other analyzers nothing is found.

        Args:
            texts: Texts of documents.
            terms: Text of the query as the only term, for each text.
            models: Ignored, because no model runs.

        Returns:
            The places in each text, in order.

        >>> NativeBM25("english").locate(["Wings in a flow"], [{"the wing": 1.0}])
        [[Place(start=0, end=5, term='wing')]]
        """
        analyzer = self._arguments["analyzer"]
        if analyzer != "standard" and analyzer not in LANGUAGES:
            return [[] for _ in texts]
        rules = BM25(None if analyzer == "standard" else analyzer)
        queries = rules.encode_queries([" ".join(of_text) for of_text in terms])
        return rules.locate(texts, [dict.fromkeys(query.terms, 1.0) for query in queries])

    def fingerprint(self) -> Fingerprint:
        """Name the analyzer and the parameters that the scores depend on."""
        return Fingerprint("native", self._arguments)

    def schema(self) -> RetrieverSchema:
        """Describe the retriever for the index.

        A subclass that is not registered has no arguments, so that `hs.open` never takes `NativeBM25` for it.
        """
        name = name_of("encoder", type(self))
        encoder = None if name is None else {"type": name, **self._arguments}
        return RetrieverSchema("text", self.fingerprint(), encoder, weighting=self._arguments)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self._arguments.items())})"
