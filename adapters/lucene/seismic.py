"""OpenSearch's `sparse_vector` field: approximate search of learned sparse vectors by SEISMIC.

The field takes whole numbers for terms. It keeps 16 bits of them, one byte of a weight, and up to OpenSearch 3.8 it
takes numbers from 32,768 on for negative ones. No numbering of a vocabulary of 250,000 tokens fits, so none is kept:
a term's number is a hash of its name, the same in every process and for every writer, and several terms may share
one. That only blurs which documents are candidates. All of them are scored again in the same request, by the field of
the exact search, which has every term by name; a candidate that shares no more than a number with the query scores 0
there, and is no hit. The exact field answers searches with a filter, too: this one would apply it to its best
documents only. And it answers those for which there are fewer candidates than were asked for: either no more
documents match, or they were lost, as OpenSearch 3.6 loses many of a segment that was merged from others with deleted
documents.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from zlib import crc32

from hybridsearch.adapters.lucene.wire.connection import Json

MEMBER = "rough"
"""Of a document on its way into the index, and the field: by retriever, the heaviest weight by number of a term. It is
left out of what is stored, as `vectors` has it all."""

_NUMBERS = 1 << 15
_CEILING = 16.0  # of a query's weights in one byte, where the mapping says nothing else
_TIMES, _SPARE, _MOST = 2, 50, 10_000  # candidates for k hits


@lru_cache(maxsize=1 << 18)
def number_of(name: str) -> str:
    """The number of an encoded term, in decimal digits.

    >>> number_of("wing"), number_of("flow")
    ('1348', '22128')
    """
    return str(crc32(name.encode()) % _NUMBERS)


def rough_vector(weights: Mapping[str, float]) -> dict[str, float]:
    """The heaviest weight of each number, from weights by encoded term.

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
    """How many documents are scored again for the best `k` of them.

    >>> candidates(10)
    70
    """
    return min(_TIMES * k + _SPARE, max(k, _MOST))


def field(n_postings: int | None, approximate_threshold: int | None) -> Json:
    """The mapping of a retriever's rough vectors; None is the engine's default."""
    given = {"n_postings": n_postings, "approximate_threshold": approximate_threshold}
    parameters = {name: value for name, value in given.items() if value is not None}
    return {"type": "sparse_vector", "method": {"name": "seismic", "parameters": parameters}}


def search(
    retriever: str, weights: Mapping[str, float], k: int, clause: Json, query_cut: int, heap_factor: float
) -> dict[str, Json]:
    """The query and rescoring of a search for `k` documents by weights, by encoded term, that `clause` scores."""
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
