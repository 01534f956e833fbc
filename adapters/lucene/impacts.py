"""Sparse vectors of passages as texts, because OpenSearch searches a text in nested objects in about half the time.

OpenSearch adds a filter to a `rank_features` query in a nested query, so that only passages match. With a filter,
Lucene looks at one passage after the other. To a query for terms of a text in a nested object it adds no filter. Then
Lucene reads many passages at once.

The frequency of a term in the text stands for its weight: it is the upper 17 bits of the float32, as Lucene stores
features. A script turns the frequency back into the weight. So both fields give the same scores.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hybridsearch.adapters.lucene.wire.connection import Json

MEMBER = "impacts"
"""Field of a passage with the texts, by retriever.

The texts are indexed but not stored, because `vectors` has all weights."""

NAME = "hybridsearch_impacts"
"""Name of the analyzer, its filter, and the similarity."""

FIELD: Json = {"type": "text", "analyzer": NAME, "similarity": NAME, "norms": False, "index_options": "freqs"}
"""The mapping of a retriever's texts."""

ANALYSIS: Json = {
    "filter": {NAME: {"type": "delimited_term_freq", "delimiter": "."}},
    "analyzer": {NAME: {"type": "custom", "tokenizer": "whitespace", "filter": [NAME]}},
}
"""The analysis that reads `text`. An encoded term has no white space and no dot."""

_BITS = 15  # of a float32, which are left out
SIMILARITY: Json = {
    "type": "scripted",
    "script": {"source": f"return query.boost * Float.intBitsToFloat(((int) doc.freq) << {_BITS});"},
}
"""The similarity that scores by the dot product."""


def is_path(path: str) -> bool:
    """Whether the field at a path holds texts of impacts.

    >>> is_path("passages.impacts.bm25"), is_path("vectors.impacts")
    (True, False)
    """
    return f".{MEMBER}." in path


def text(weights: Mapping[str, float]) -> str:
    """The text of a passage. `weights` has encoded terms as keys, and float32 values of at least the smallest normal.

    >>> text({"wing": 1.0, "flow": 0.5})
    'wing.32512 flow.32256'
    """
    bits = np.fromiter(weights.values(), np.float32, len(weights)).view(np.uint32) >> np.uint32(_BITS)
    return " ".join([f"{name}.{frequency}" for name, frequency in zip(weights, bits.tolist(), strict=True)])


def clause(path: str, weights: Mapping[str, float]) -> Json:
    """The query that scores by the dot product with `weights`, which has encoded terms as keys."""
    terms = [{"term": {path: {"value": term, "boost": weight}}} for term, weight in weights.items()]
    return {"bool": {"should": terms}}
