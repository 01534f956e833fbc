"""What systems cost: time of each stage without any cache, index size, encoding speed, sparsity."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from hybridsearch.backends import Described
from hybridsearch.documents import Document
from hybridsearch.encoders import Encoder, encode
from hybridsearch.encoders.cache import no_cache
from hybridsearch.evaluation.pipeline import SystemPlan
from hybridsearch.evaluation.results import LATENCY_TOP_K, Cost, Histogram, Sparsity, Timing
from hybridsearch.evaluation.samples import spread
from hybridsearch.evaluation.stages import Stages, identity_of, reordered
from hybridsearch.progress import progress_bar
from hybridsearch.search import HybridSearch
from hybridsearch.vectors import QueryVector, SparseQuery, SparseVectors, Vectors

T = TypeVar("T")

SECONDS = 20.0
"""Seconds after which no more queries are asked to measure a slow system, if `FEWEST` have been asked."""

FEWEST = 5
"""Number of queries that are always asked."""

SCANNED = 50_000
"""Number of documents, at most, whose vectors are read to measure the sparsity of a retriever."""

ENCODED = 1024
"""Number of documents, at most, that are encoded to measure the speed of a retriever."""


@dataclass(frozen=True, slots=True)
class Rate:
    """The speed of encoding.

    Attributes:
        documents_per_second: Number of documents that are encoded in a second.
    """

    documents_per_second: float


@dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds of each query whose time was measured, in order. A stage that the system lacks is empty.

    Attributes:
        search: Milliseconds of searching.
        fuse: Milliseconds of merging the rankings.
        rerank: Milliseconds of reranking.
        total: Milliseconds of all stages together.
        at: Time of the measurement, in UTC, to the minute.
        load: Load of the machine, as in `Cost`.
    """

    search: tuple[float, ...] = ()
    fuse: tuple[float, ...] = ()
    rerank: tuple[float, ...] = ()
    total: tuple[float, ...] = ()
    at: str = field(default_factory=lambda: f"{datetime.now(UTC):%Y-%m-%d %H:%M}")
    load: float = 0.0


def measure_costs(
    plans: Sequence[SystemPlan], stages: Stages, queries: int, time_again: bool = False
) -> dict[str, Cost]:
    """The costs of each system by name. The time is measured on `queries` queries, spread over all of them.

    The encoding time is measured once for each retriever. So systems with the same retrievers have the same encoding
    time. All other times are measured for each system. `stages` keeps the times. Nothing is measured twice unless
    `time_again` is true.
    """
    plans = [plan for plan in plans if isinstance(plan.source, HybridSearch) or plan.kind in ("fused", "reranked")]
    plans = [plan for plan in plans if not plan.oracle]
    costs: dict[str, Cost] = {}
    sample = spread(list(stages.queries), queries)
    encoders = _Encoders(stages, sample, time_again)
    with progress_bar("Timing", range(len(plans)), stages.show, "systems") as advance:
        for plan in plans if sample else ():
            costs[plan.name] = _with_index_facts(_timed(plan, stages, sample, encoders), plan, stages, time_again)
            advance(1)
    return costs


def measure_sparsity(documents: Iterable[SparseVectors], queries: Sequence[SparseQuery]) -> Sparsity:
    """Count active dimensions and FLOPS of sparse vectors (see `Sparsity`).

    >>> from scipy.sparse import csr_array
    >>> from hybridsearch.vectors import Vocabulary
    >>> matrix = csr_array(np.array([[1, 2, 0], [0, 3, 0]], dtype=np.float32))
    >>> query = SparseQuery(("b", "c"), np.ones(2, dtype=np.float32))
    >>> found = measure_sparsity([SparseVectors(matrix, Vocabulary(["a", "b", "c"]))], [query])
    >>> found.documents_mean, found.queries_mean, found.flops
    (1.5, 2.0, 1.0)
    """
    lengths: list[int] = []
    with_term: Counter[str] = Counter()
    for vectors in documents:
        active = vectors.matrix.data != 0
        rows = np.repeat(np.arange(len(vectors)), np.diff(vectors.matrix.indptr))
        lengths.extend(np.bincount(rows[active], minlength=len(vectors)).tolist())
        columns, counts = np.unique(vectors.matrix.indices[active], return_counts=True)
        terms = [vectors.vocabulary.terms[column] for column in columns.tolist()]
        with_term.update(dict(zip(terms, counts.tolist(), strict=True)))
    active_terms = [
        [term for term, weight in zip(query.terms, query.weights.tolist(), strict=True) if weight] for query in queries
    ]
    products = sum(with_term[term] for of_query in active_terms for term in of_query)
    return Sparsity(
        documents_mean=float(np.mean(lengths)) if lengths else 0.0,
        queries_mean=float(np.mean([len(terms) for terms in active_terms])) if queries else 0.0,
        flops=products / max(1, len(lengths) * len(queries)),
        documents_histogram=histogram(lengths),
        queries_histogram=histogram([len(terms) for terms in active_terms]),
    )


def histogram(counts: ArrayLike, bins: int = 24) -> Histogram:
    """The histogram of whole numbers, in bins of equal whole width from 0.

    >>> histogram([0, 1, 1, 5], bins=3)
    Histogram(edges=(0.0, 2.0, 4.0, 6.0), counts=(3, 0, 1))
    """
    values = np.asarray(counts, dtype=np.int64)
    high = int(values.max(initial=0)) + 1
    width = -(-high // bins)
    edges = np.arange(0, -(-high // width) + 1) * width
    return Histogram(tuple(edges.astype(float).tolist()), tuple(np.histogram(values, edges)[0].tolist()))


class _Encoders:
    """Encoding times and vectors of each query of the sample, by index and retriever."""

    def __init__(self, stages: Stages, sample: Sequence[str], time_again: bool) -> None:
        self._stages, self.time_again = stages, time_again
        self._texts = [stages.queries[query] for query in sample]
        self._vectors: dict[tuple[int, str], list[QueryVector]] = {}

    def times(self, search: HybridSearch, name: str) -> Times:
        identity = ["queries", *_this_machine(), *identity_of(search, name), *self._texts]
        make = partial(_loaded, lambda: Times(total=self._encode(search, name)))
        return self._stages.keep(Times, identity, make, self.time_again)

    def vector(self, search: HybridSearch, name: str, number: int) -> QueryVector:
        vectors = self._vectors.setdefault((id(search), name), [])
        if number >= len(vectors):
            vectors += search.retrievers[name].encode_queries(self._texts[len(vectors) :])
        return vectors[number]

    def _encode(self, search: HybridSearch, name: str) -> tuple[float, ...]:
        encoder, vectors = search.retrievers[name], self._vectors.setdefault((id(search), name), [])

        def encode(number: int) -> float:
            started = time.perf_counter()
            (vector,) = encoder.encode_queries([self._texts[number]])
            spent = time.perf_counter() - started
            vectors[number:] = [vector]
            return 1000 * spent

        with no_cache():
            return tuple(_within(SECONDS, encode, len(self._texts)))


@dataclass(frozen=True, slots=True)
class _Known:
    """An encoder for one query whose vector is known already."""

    vector: QueryVector
    encoder: Encoder

    def encode_queries(self, texts: Sequence[str]) -> list[QueryVector]:
        return [self.vector]

    def encode_fields(self, documents: Sequence[Document]) -> Vectors:
        return encode(self.encoder, documents)


def _timed(plan: SystemPlan, stages: Stages, sample: Sequence[str], encoders: _Encoders) -> Cost:
    search = plan.source

    def measure(number: int) -> dict[str, float]:
        if isinstance(search, HybridSearch):
            vectors = {name: encoders.vector(search, name, number) for name in plan.retrievers}
            return _time_index(plan, search, stages.queries[sample[number]], vectors)
        return _time_runs(plan, stages, sample[number])

    def make() -> Times:
        rows = _within(SECONDS, measure, len(sample))

        def of(stage: str) -> tuple[float, ...]:
            return tuple(1000 * row[stage] for row in rows if stage in row)

        return Times(of("search"), of("fuse"), of("rerank"), of("total"))

    times = stages.keep(Times, _identity(plan, stages, sample), partial(_loaded, make), encoders.time_again)
    encoding = [encoders.times(search, name) for name in plan.retrievers] if isinstance(search, HybridSearch) else []
    encode = [sum(of_query) for of_query in zip(*(of_retriever.total for of_retriever in encoding), strict=False)]
    totals = [sum(of_query) for of_query in zip(times.total, encode, strict=False)]
    return Cost(
        queries=max(len(times.fuse), len(totals)),
        timed=min(one.at for one in (times, *encoding)),
        load=max(one.load for one in (times, *encoding)),
        encode_ms=_timing(encode),
        search_ms=_timing(times.search),
        fuse_ms=_timing(times.fuse) if len(plan.retrievers) > 1 else None,
        rerank_ms=_timing(times.rerank),
        total_ms=_timing(totals),
    )


def _loaded(make: Callable[[], Times]) -> Times:
    """The result of `make`, with the load of the machine: the greater one of the loads before and after."""
    before = _load()
    times = make()
    return replace(times, load=max(before, _load()))


def _load() -> float:
    """Running and waiting processes per core in the last minute. 0 if the system does not tell."""
    return os.getloadavg()[0] / (os.cpu_count() or 1) if hasattr(os, "getloadavg") else 0.0


def _within(seconds: float, measure: Callable[[int], T], count: int) -> list[T]:
    """The results of `measure` for 0, 1 ... until the time is up. One call before them loads models."""
    measure(0)
    ended = time.perf_counter() + seconds
    found: list[T] = []
    for number in range(count):
        found.append(measure(number))
        if len(found) >= FEWEST and time.perf_counter() > ended:
            break
    return found


def _time_index(
    plan: SystemPlan, search: HybridSearch, text: str, vectors: Mapping[str, QueryVector]
) -> dict[str, float]:
    encoder: Callable[[str], Any] = lambda name: _Known(vectors[name], search.retrievers[name])  # noqa: E731
    asks = replace(plan.asks(search), top_k=LATENCY_TOP_K, encoder=encoder)
    started = time.perf_counter()
    (results,) = asks.results([text])
    total = time.perf_counter() - started
    spent = {stage: results.timings[stage] for stage in ("search", "fuse", "rerank") if stage in results.timings}
    if "feedback" in results.timings:
        spent["search"] += results.timings["feedback"]
    return spent | {"total": total}


def _time_runs(plan: SystemPlan, stages: Stages, query: str) -> dict[str, float]:
    rankings = stages.rankings(plan, query)
    started = time.perf_counter()
    fused = plan.fusion.fuse(rankings)
    fuse = time.perf_counter() - started
    if plan.reranker is None:
        return {"fuse": fuse}
    documents = stages.documents(fused.ids[: plan.reranker.top_k], [plan])
    started = time.perf_counter()
    head = [documents[id] for id in fused.ids[: plan.reranker.top_k]]
    (scores,) = plan.reranker.rerank([stages.queries[query]], [head])
    blend = getattr(plan.reranker, "blend", 0.0)
    reordered(fused, dict(zip(fused.ids, np.asarray(scores).tolist(), strict=False)), len(head), blend)
    return {"fuse": fuse, "rerank": time.perf_counter() - started}


def _timing(milliseconds: Sequence[float]) -> Timing | None:
    if not milliseconds:
        return None
    p50, p95 = np.percentile(milliseconds, [50, 95]).tolist()
    return Timing(p50, p95)


def _identity(plan: SystemPlan, stages: Stages, sample: Sequence[str]) -> list[Any]:
    """Everything known on which a time depends."""
    source = plan.source
    asked: list[Any]
    if isinstance(source, HybridSearch):
        asked = [stages.index_digest(source), *(identity_of(source, name) for name in plan.retrievers)]
    else:
        asked = [[list(ranking) for ranking in stages.rankings(plan, query).values()] for query in sample]
    parts = [plan.retrievers, plan.depth, repr(plan.fusion), repr(plan.reranker), repr(plan.filter), LATENCY_TOP_K]
    parts += [plan.feedback_of(name) for name in plan.feedback]
    return ["stages", *_this_machine(), *asked, *parts, [stages.queries[query] for query in sample]]


def _with_index_facts(cost: Cost, plan: SystemPlan, stages: Stages, time_again: bool) -> Cost:
    search = plan.source
    if not isinstance(search, HybridSearch):
        return cost
    rates: dict[str, float] = {}
    sparsity: dict[str, Sparsity] = {}
    for name in plan.retrievers:
        identity = [*identity_of(search, name), stages.index_digest(search)]
        if stages.corpus is not None:
            measure = partial(_encoding_rate, search.retrievers[name], stages.corpus)
            rate = stages.keep(Rate, ["documents", *_this_machine(), *identity], measure, time_again)
            rates[name] = rate.documents_per_second
        vectors = stages.asked(plan, name).vectors
        if vectors and search.backend.capabilities.scan:
            scan = partial(_sparsity, search, name, vectors)
            feedback = plan.feedback_of(name)
            expanded = [feedback, repr(plan.filter)] if feedback else []  # the terms that feedback adds to the queries
            sparsity[name] = stages.keep(Sparsity, ["sparsity", *identity, stages.queries, *expanded], scan)
    rates = {name: rate for name, rate in rates.items() if rate}
    size = index_bytes(search, plan.retrievers)
    return replace(cost, index_bytes=size, documents_per_second=rates, sparsity=sparsity)


def index_bytes(search: HybridSearch, names: Sequence[str]) -> int | None:
    """Bytes of the retrievers' vectors if the engine tells them, else of the whole index, else None."""
    if not isinstance(search.backend, Described):
        return None
    facts = search.backend.describe()
    of_retrievers = facts.get("retrievers")
    if isinstance(of_retrievers, Mapping) and all("bytes" in of_retrievers.get(name, {}) for name in names):
        return sum(int(of_retrievers[name]["bytes"]) for name in names)
    return int(facts["bytes"]) if "bytes" in facts else None


def _encoding_rate(encoder: Any, corpus: Iterable[Document]) -> Rate:
    """The encoding speed of the last batch. Batches get twice as large until one takes a second."""
    documents = spread(list(islice(corpus, 4 * ENCODED)), ENCODED)
    size, start, rate = 16, 0, 0.0
    with no_cache():
        if documents:
            encode(encoder, documents[:1])  # loads the model
        while start < len(documents):
            batch = documents[start : start + size]
            started = time.perf_counter()
            encode(encoder, batch)
            seconds = time.perf_counter() - started
            rate = len(batch) / max(seconds, 1e-9)
            if seconds > 1:
                break
            start, size = start + size, 2 * size
    return Rate(rate)


def _sparsity(search: HybridSearch, name: str, queries: Mapping[str, SparseQuery]) -> Sparsity:
    def vectors() -> Iterable[SparseVectors]:
        seen = 0
        for batch in search.backend.scan():
            of_batch = batch.vectors[name]
            if isinstance(of_batch, SparseVectors):
                yield of_batch
            seen += len(batch)
            if seen >= SCANNED:
                break

    return measure_sparsity(vectors(), list(queries.values()))


def machine_facts() -> dict[str, str]:
    """Facts about this machine: CPU, cores that this process may use, memory, operating system, Python.

    If torch is loaded, also its version, threads and device.

    >>> {"CPU", "cores", "memory", "OS", "Python"} <= machine_facts().keys()
    True
    """
    facts = {
        "CPU": _processor(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "memory": _memory(),
        "OS": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
    }
    torch = sys.modules.get("torch")
    if torch is not None:
        facts["torch"] = f"{torch.__version__} ({torch.get_num_threads()} threads)"
        facts["device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return facts


def _this_machine() -> list[str]:
    """What tells the times of this machine from those of another one that has used the work folder."""
    facts = machine_facts()
    return [facts["CPU"], facts["cores"]]


def _processor() -> str:
    """The name of the processor."""
    described = Path("/proc/cpuinfo")
    lines = described.read_text(encoding="utf-8").splitlines() if described.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _memory() -> str:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not on Windows
        return "unknown"
    return f"{total / 2**30:.0f} GiB"
