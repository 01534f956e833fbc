"""OpenSearch's `sparse_vector` field: approximate search of learned sparse vectors by SEISMIC.

The field takes whole numbers as terms. It keeps 16 bits of a number and one byte of a weight. Up to version 3.8,
OpenSearch reads numbers from 32,768 on as negative. A vocabulary of 250,000 tokens does not fit into this range. So a
term's number is a hash of its name: the same in every process and for every writer. Several terms may share a number.

Shared numbers only make the choice of candidates less sharp. The same request scores all candidates again with the
field of the exact search, which has every term by name. A candidate that shares only a number with the query scores 0
there and is not a hit.

The exact field also answers two other kinds of searches. Searches with a filter, because the `sparse_vector` field
applies a filter only to its best documents. And searches that give fewer candidates than were asked for: either no
more documents match, or documents were lost. OpenSearch 3.6 loses many documents of a segment that was merged from
segments with deleted documents.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from zlib import crc32

from hybridsearch.adapters.lucene.wire.connection import Json

MEMBER = "rough"
"""Name of the field with the rough vectors: by retriever, the largest weight for each number of a term.

The field is indexed but not stored, because `vectors` has all weights."""

_NUMBERS = 1 << 15
_CEILING = 16.0  # the largest query weight that one byte holds, unless the mapping changes it
_TIMES, _SPARE, _MOST = 2, 50, 10_000  # candidates for k hits


@lru_cache(maxsize=1 << 18)
def number_of(name: str) -> str:
    """The number that stands for an encoded term, in decimal digits.

    >>> number_of("wing"), number_of("flow")
    ('1348', '22128')
    """
    return str(crc32(name.encode()) % _NUMBERS)


def rough_vector(weights: Mapping[str, float]) -> dict[str, float]:
    """The largest weight of each number. `weights` has encoded terms as keys.

    >>> rough_vector({"wing": 2.0})
    {'1348': 2.0}
    """
    rough: dict[str, float] = {}
    for name, weight in weights.items():
        number = number_of(name)
        if weight > rough.get(number, 0.0):
            rough[number] = weight
    return rough


def candidates(k: int) -> int:
    """How many candidates are scored again to find the best `k` documents.

    >>> candidates(10)
    70
    """
    return min(_TIMES * k + _SPARE, max(k, _MOST))


def field(n_postings: int | None, approximate_threshold: int | None) -> Json:
    """The mapping of a retriever's rough vectors. None means the default of the engine."""
    given = {"n_postings": n_postings, "approximate_threshold": approximate_threshold}
    parameters = {name: value for name, value in given.items() if value is not None}
    return {"type": "sparse_vector", "method": {"name": "seismic", "parameters": parameters}}


def search(
    retriever: str, weights: Mapping[str, float], k: int, clause: Json, query_cut: int, heap_factor: float
) -> dict[str, Json]:
    """The query and the rescoring of a search for `k` documents.

    `weights` has encoded terms as keys. `clause` is the exact query, which scores the candidates.
    """
    number = candidates(k)
    scale = _CEILING / max(weights.values())
    tokens = rough_vector({name: weight * scale for name, weight in weights.items()})
    parameters = {"k": number, "top_n": query_cut, "heap_factor": heap_factor}
    rough = {f"{MEMBER}.{retriever}": {"query_tokens": tokens, "method_parameters": parameters}}
    scoring = {"rescore_query": clause, "query_weight": 0.0, "rescore_query_weight": 1.0}
    return {
        "query": {"neural_sparse": rough},
        "rescore": {"window_size": number, "query": scoring},
        "track_total_hits": True,
    }
