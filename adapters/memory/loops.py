"""The search loops: those of `plain` at first, and those of `kernels` as soon as they are compiled and worth it.

A process begins with NumPy, and `hybridsearch.compiled` tells when it is worth it to read the compiled code, or to
compile it. Both find the same hits with the same scores. A short process neither reads nor compiles.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hybridsearch.adapters.memory import plain
from hybridsearch.adapters.memory.codes import CodedQueries, Codes
from hybridsearch.adapters.memory.impacts import CODED, SMALL, Impacts
from hybridsearch.adapters.memory.postings import read_only
from hybridsearch.compiled import Fetcher, Loops

T = TypeVar("T")

LOOPS = Loops(
    "hybridsearch.adapters.memory.kernels",
    "search",
    "NumPy",
    (
        *("kernels.py", "block_kernels.py", "value_kernels.py", "impacts.py", "dense_kernels.py", "token_kernels.py"),
        *("plain.py", "tiles.py", "prefetch.py"),
    ),
)

_fetcher = Fetcher(LOOPS, patience=1.0)


def prepare(impacts: Impacts, columns: NDArray[np.int64], queries: int) -> bool:
    """Make the codes of the terms of a search if that is worth it. Returns whether all terms have codes.

    Making the codes of a term takes as long as tens of searches without them. So they are made at the second search of
    a term, or at the first search with several queries. Small indexes are as fast without codes.
    """
    kernels = _fetcher.kernels
    if kernels is None or impacts.documents <= SMALL:
        return False
    if len(fresh := columns[impacts.searches[columns] < CODED]):
        again = fresh[impacts.searches[fresh] > 0] if queries == 1 else fresh
        impacts.searches[fresh] = 1
        if len(again):
            kernels.encode(
                *(impacts.indptr, impacts.rows, impacts.values, again),
                *(impacts.places, impacts.begins, impacts.ids, impacts.codes, impacts.steps, impacts.common),
            )
            impacts.searches[again] = CODED
        return len(again) == len(fresh)
    return True


def top_k(
    impacts: Impacts,
    coded: bool,
    columns: NDArray[np.int64],
    weights: NDArray[np.float32],
    idf: NDArray[np.float64],
    starts: NDArray[np.int64],
    order: NDArray[np.int32],
    allowed: NDArray[np.bool_],
    owners: NDArray[np.int32],
    first_query: int,
    last_query: int,
    first: int,
    last: int,
    k: int,
    shared: NDArray[np.int64],
    out_rows: NDArray[np.int32],
    out_scores: NDArray[np.float32],
    out_counts: NDArray[np.int64],
) -> None:
    """The best `k` documents of [first, last) for each of the queries [first_query, last_query), best first.

    The arguments are those of `kernels.top_k`. `coded` is what `prepare` has returned: without codes, all scores are
    summed exactly at once.
    """

    def answer(query: int) -> None:
        a, b = starts[query : query + 2].tolist()
        own = weights[a:b]
        if len(idf):
            with np.errstate(over="ignore"):
                own = (own * np.where(columns[a:b] >= 0, idf[columns[a:b]], 0.0)).astype(np.float32)
        out_counts[query] = _counted(
            plain.top_k,
            *(impacts.indptr, impacts.rows, impacts.values, columns[a:b], own, order, allowed, owners),
            *(first, last, out_rows[query], out_scores[query]),
        )

    while _fetcher.kernels is None and first_query < last_query:
        answer(first_query)
        first_query += 1
    if first_query == last_query or _fetcher.kernels is None:
        return
    if not coded:
        _fetcher.kernels.top_k_by_values(
            *(impacts.indptr, impacts.rows, impacts.values, columns, weights, idf, starts, order, allowed, owners),
            *(first_query, last_query, first, last, k, out_rows, out_scores, out_counts),
        )
        return
    _fetcher.kernels.top_k(
        *(impacts.indptr, impacts.rows, impacts.values, impacts.places, impacts.begins, impacts.ids, impacts.codes),
        *(impacts.steps, impacts.common, columns, weights, idf, starts, order, allowed, owners),
        *(first_query, last_query, first, last, k, shared, out_rows, out_scores, out_counts),
    )
    for query in range(first_query, last_query):
        if out_counts[query] < 0:  # float32 sums could overflow
            answer(query)


def score_rows(
    indptr: NDArray[np.int64],
    rows: NDArray[np.int32],
    values: NDArray[np.float32],
    columns: NDArray[np.int64],
    weights: NDArray[np.float32],
    wanted: NDArray[np.int64],
) -> NDArray[np.float32]:
    """The scores of the `wanted` rows, which are ascending. They are float32 sums in the order of the query's terms."""
    out = np.empty(len(wanted), dtype=np.float32)
    weights, wanted = (
        np.array(weights, np.float32),
        np.array(wanted, np.int64),
    )  # the compiled loop needs arrays that can be written
    arguments = (indptr, rows, values, columns, weights, wanted, out)
    if _fetcher.kernels is not None:
        _fetcher.kernels.score_rows(*arguments)
    else:
        _counted(plain.score_rows, *arguments)
    return out


def bound(
    codes: Codes,
    norms: NDArray[np.float32],
    allowed: NDArray[np.bool_] | None,
    owners: NDArray[np.int32] | None,
    queries: CodedQueries,
    first: int,
    last: int,
    uppers: NDArray[np.float32],
    floors: NDArray[np.float32],
) -> None:
    """Bounds of the dense scores of the rows [first, last), as in `dense_kernels.bound`. None allows all rows."""
    arguments = (
        *(read_only(codes.values), read_only(codes.scales), read_only(codes.residuals), read_only(norms)),
        *(read_only(_ALL if allowed is None else allowed), read_only(_NO_OWNERS if owners is None else owners)),
        *(queries.values, queries.factors, first, last, uppers, floors),
    )
    if _fetcher.kernels is not None:
        _fetcher.kernels.bound(*arguments)
    else:
        _counted(plain.bound, *arguments)


def approximate(
    array: NDArray[np.float32], rows: NDArray[np.int64], query: NDArray[np.float64], euclidean: bool
) -> NDArray[np.float64]:
    """Inner products of some rows and a query, or minus the squares of their distances, summed in any order."""
    array, out = read_only(array), np.empty(len(rows), dtype=np.float64)
    loop = plain.approximate if _fetcher.kernels is None else _fetcher.kernels.approximate
    loop(array, rows, query, euclidean, out)
    return out


def most_similar(
    tokens: NDArray[np.float16],
    starts: NDArray[np.int64],
    rows: NDArray[np.int64],
    query: NDArray[np.float32],
    first: int,
    last: int,
    tops: NDArray[np.float32],
    seconds: NDArray[np.float32],
    places: NDArray[np.int32],
) -> None:
    """The most similar vectors of the texts `rows[first:last]`, as in `token_kernels.most_similar`."""
    bits = read_only(read_only(tokens).view(np.uint16))
    arguments = (bits, read_only(starts), rows, query, first, last, tops, seconds, places)
    if _fetcher.kernels is not None:
        _fetcher.kernels.most_similar(*arguments)
    else:
        _counted(plain.most_similar, *arguments)


def warm_up() -> None:
    """Read the compiled loops now, or compile them, which takes about 25 seconds.

    Raises:
        StorageError: No folder can keep the compiled loops.
    """
    _fetcher.warm_up()


def _counted(loop: Callable[..., T], *arguments: Any) -> T:
    """Call a loop of `plain`. Start reading the compiled loops when these calls have taken long."""
    started = time.thread_time()
    found = loop(*arguments)
    _fetcher.spend(time.thread_time() - started)
    return found


_ALL = np.empty(0, dtype=np.bool_)
_NO_OWNERS = np.empty(0, dtype=np.int32)
