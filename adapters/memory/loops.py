"""The search loops: those of `plain` at first, and those of `kernels` as soon as they are compiled and worth it.

Reading compiled code takes as long as thousands of searches of a small index. Compiling takes as long as a hundred
thousand searches. So a process begins with NumPy. When its searches have taken `PATIENCE` seconds of processor time, a
thread reads the compiled code. If there is none, another process compiles it, and this process goes on with NumPy. Both
find the same hits with the same scores. A short process neither reads nor compiles.
"""

from __future__ import annotations

import atexit
import logging
import os
import subprocess
import threading
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hybridsearch.adapters.memory import compiled, plain
from hybridsearch.adapters.memory.codes import CodedQueries, Codes
from hybridsearch.adapters.memory.impacts import CODED, SMALL, Impacts
from hybridsearch.adapters.memory.postings import read_only
from hybridsearch.errors import HybridSearchError

log = logging.getLogger(__name__)

T = TypeVar("T")

PATIENCE = 1.0
"""The seconds of processor time that NumPy's loops may take before the compiled loops are read."""


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
    _fetcher.kernels = compiled.load() or compiled.make()


def _counted(loop: Callable[..., T], *arguments: Any) -> T:
    """Call a loop of `plain`. Start reading the compiled loops when these calls have taken long."""
    started = time.thread_time()
    found = loop(*arguments)
    _fetcher.spent += time.thread_time() - started
    if _fetcher.spent > PATIENCE:
        _fetcher.go_on()
    return found


_ALL = np.empty(0, dtype=np.bool_)
_NO_OWNERS = np.empty(0, dtype=np.int32)


class _Fetcher:
    """Reads or compiles the compiled loops. Each call of `go_on` takes one step, and does not wait.

    Attributes:
        kernels: Module with the compiled loops. None until it can be used.
        spent: Seconds of processor time that the loops of `plain` have taken.
    """

    def __init__(self) -> None:
        self.kernels: ModuleType | None = None
        self.spent = 0.0
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._over = bool(os.environ.get("NUMBA_DISABLE_JIT", "0").strip("0"))

    def go_on(self) -> None:
        if self._over or not self._lock.acquire(blocking=False):
            return
        try:
            if not (self._thread and self._thread.is_alive()) and not (self._child and self._child.poll() is None):
                self._thread = threading.Thread(target=self._fetch, name="hybridsearch-loops")
                self._thread.start()  # at the end of the process, Python waits for it, a second at most
        except RuntimeError:  # the process is ending, or cannot start more threads
            self._over = True
        finally:
            self._lock.release()

    def _fetch(self) -> None:
        try:
            self.kernels = compiled.load()
            if self.kernels is None and self._child is None:
                log.info(
                    "Compiling the search loops in the background. Until then, searches use NumPy: the hits are the "
                    "same, but it takes longer."
                )
                self._child = compiled.make_elsewhere()
                return
            if self.kernels is None:
                log.warning(
                    "The search loops could not be compiled, so searches go on with NumPy: try `hybridsearch warmup`."
                )
        except HybridSearchError as error:
            log.warning("Searches of large indexes stay several times slower. The hits are the same. %s", error)
        except Exception as error:  # a compiler may raise any error, and NumPy can search
            log.warning("The compiled search loops cannot be used, so searches go on with NumPy (%r).", error)
        self._over = True

    def settle(self) -> None:
        """Before a fork, wait for an import that the thread has begun. The new process would wait for it forever."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def forget(self) -> None:
        """After a fork, forget the lock and the thread of the parent."""
        self._lock, self._thread = threading.Lock(), None

    def leave(self) -> None:
        """At the end of the process, let the compiling process go on, for later processes."""
        if self._child is not None and self._child.poll() is None:
            self._child.returncode = 0  # without this, Python warns about a child that is still running


_fetcher = _Fetcher()
atexit.register(_fetcher.leave)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_fetcher.settle, after_in_child=_fetcher.forget)
