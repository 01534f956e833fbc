"""The records of a comparison. `hybridsearch.evaluation.comparison` adds printing and saving to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from hybridsearch.evaluation.statistics import Interval
from hybridsearch.messages import number_of

Kind: TypeAlias = Literal["single", "fused", "reranked", "oracle-positives", "run"]
"""The kind of a system.

- "single": one retriever.
- "fused": several retrievers, whose rankings are merged.
- "reranked": the documents that retrieval found are reranked (end to end).
- "oracle-positives": the reranker also gets the relevant documents that retrieval missed. No real system can do that.
- "run": rankings from a file or from memory.
"""

ALPHA = 0.05
"""A difference is significant if its adjusted p-value is below this."""

LATENCY_TOP_K = 10
"""Number of hits of a query whose time is measured: as many as a user sees, not as many as a measure needs."""


@dataclass(frozen=True, slots=True)
class Timing:
    """The time of a query in milliseconds, over queries that are asked one at a time for `LATENCY_TOP_K` hits.

    Attributes:
        p50: Median.
        p95: 95th percentile.
    """

    p50: float
    p95: float


@dataclass(frozen=True, slots=True)
class Histogram:
    """A histogram.

    Attributes:
        edges: Edges of the bins, in rising order. There is one more edge than there are bins.
        counts: Number of values in each bin. Bin i holds values from `edges[i]` to below `edges[i + 1]`. The last bin
            also holds its right edge.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Sparsity:
    """How sparse the vectors of a lexical or sparse retriever are.

    If the index has passages, each passage counts as a document, unless the retriever reads whole documents.

    Attributes:
        documents_mean: Mean number of active dimensions of a document.
        queries_mean: Mean number of active dimensions of a query.
        flops: Expected number of multiplications to score one document for one query. It is the sum over all terms of
            the probability that a query has the term, times the probability that a document has it (Paria et al., ICLR
            2020; Formal et al., SPLADE, SIGIR 2021).
        documents_histogram: Histogram of the active dimensions of documents.
        queries_histogram: Histogram of the active dimensions of queries.
    """

    documents_mean: float
    queries_mean: float
    flops: float
    documents_histogram: Histogram
    queries_histogram: Histogram


@dataclass(frozen=True, slots=True)
class Cost:
    """The costs of a system. A stage that the system does not have, or that was not measured, is None.

    Attributes:
        queries: Number of queries that were asked one at a time to measure the times.
        timed: Time at which the oldest of the times was measured, in UTC, to the minute. A work folder keeps times.
        load: Running and waiting processes per core, in the last minute of the measurement. Above 1, other programs
            made the times longer.
        encode_ms: Time to encode the query for all retrievers, without a cache.
        search_ms: Time to search with all retrievers.
        fuse_ms: Time to merge the rankings.
        rerank_ms: Time to rerank.
        total_ms: Time of the whole query, including fetching the documents.
        index_bytes: Bytes of the retrievers' vectors, if the engine tells them, else of the whole index.
        documents_per_second: Documents that each retriever encodes in a second, without a cache.
        sparsity: Sparsity of each lexical or sparse retriever.
    """

    queries: int = 0
    timed: str = ""
    load: float = 0.0
    encode_ms: Timing | None = None
    search_ms: Timing | None = None
    fuse_ms: Timing | None = None
    rerank_ms: Timing | None = None
    total_ms: Timing | None = None
    index_bytes: int | None = None
    documents_per_second: Mapping[str, float] = field(default_factory=dict)
    sparsity: Mapping[str, Sparsity] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Versus:
    """The comparison of one system with another on the same queries, by one measure.

    Attributes:
        difference: Mean of the system's value minus the other's value, with its bootstrap interval.
        p_value: p-value of the paired test.
        p_adjusted: p-value, corrected for the number of systems.
        wins: Number of queries on which the system is better.
        losses: Number of queries on which the system is worse.
        ties: Number of queries on which both are equal.
    """

    difference: Interval
    p_value: float
    p_adjusted: float
    wins: int
    losses: int
    ties: int

    @property
    def significant(self) -> bool:
        """Whether the corrected p-value is below 0.05."""
        return self.p_adjusted < ALPHA

    @property
    def same(self) -> bool:
        """Whether both have the same value on every query."""
        return not self.wins and not self.losses


@dataclass(frozen=True, slots=True)
class BestSingle:
    """The best single retriever of a fused or reranked system, by the main measure.

    Attributes:
        retriever: Name of the retriever.
        means: Mean of each measure for this retriever alone.
        versus: Comparison of the system with this retriever, by measure. p-values are corrected for the number of
            systems that have a best single retriever.
    """

    retriever: str
    means: Mapping[str, float]
    versus: Mapping[str, Versus]


@dataclass(frozen=True, slots=True, repr=False)
class SystemRecord:
    """The results of one system on one data set.

    Attributes:
        name: Name of the system, as given to `compare`.
        description: Parts of the system, such as "bm25 + dense, RRF(k=60), 100 candidates".
        retrievers: Names of the retrievers that the system asks. Empty for a run file.
        kind: Kind of the system (see `Kind`).
        scores: Measure -> query id -> value, for every judged query. A query without results has 0.
        means: Measure -> mean over the queries, with its bootstrap interval.
        versus: Measure -> comparison with the baseline. Empty for the baseline.
        best_single: Best single retriever of the system. None for single retrievers and run files.
        cost: Costs of the system. None for run files, and if no costs were measured.
        rankings: Query id -> pairs of document id and score, the best first, `top_k` at most.
        warnings: Sentences about values that can mislead, such as values of a fusion that was tuned on these queries.
    """

    name: str
    description: str
    retrievers: tuple[str, ...]
    kind: Kind
    scores: Mapping[str, Mapping[str, float]]
    means: Mapping[str, Interval]
    versus: Mapping[str, Versus] = field(default_factory=dict)
    best_single: BestSingle | None = None
    cost: Cost | None = None
    rankings: Mapping[str, tuple[tuple[str, float], ...]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DetailHit:
    """One hit of one system.

    Attributes:
        id: Id of the document.
        title: Title of the document, or its first words.
        rank: Rank of the document, from 1.
        score: Score of the document.
        grade: Grade of the document for the query. None if it was not judged.
        retrievers: Rank that each retriever gave to the document. Retrievers that did not find it are left out.
        terms: What each matched term added to the score of a lexical or sparse retriever, the largest first.
        text: Window of the text with the words that matched. If there are none, it is the beginning of the text, after
            the words that `title` shows.
        marks: Spans of `text` that matched, in order.
    """

    id: str
    title: str
    rank: int
    score: float
    grade: int | None
    retrievers: Mapping[str, int]
    terms: Mapping[str, Mapping[str, float]]
    text: str = ""
    marks: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class QueryDetail:
    """One query that is worth reading, because the systems are bad at it or differ on it.

    Attributes:
        id: Id of the query.
        text: Text of the query.
        relevant: Relevant documents: document id, grade, and title or first words. The highest grades come first.
        systems: System name -> its first hits.
    """

    id: str
    text: str
    relevant: tuple[tuple[str, int, str], ...]
    systems: Mapping[str, tuple[DetailHit, ...]]


@dataclass(frozen=True, slots=True)
class DatasetFacts:
    """Facts about the data set of a comparison.

    Attributes:
        name: Name of the data set.
        documents: Number of documents. None if the data set has no documents.
        queries: Number of queries that were asked. Each has judgements.
        judgements: Number of judgements.
        problems: Sentences about problems in the data set.
        judged_by: Whose grades the judgements are. "" if nothing says it.
    """

    name: str
    documents: int | None
    queries: int
    judgements: int
    problems: tuple[str, ...] = ()
    judged_by: str = ""

    def __str__(self) -> str:
        documents = [] if self.documents is None else [number_of(self.documents, "document")]
        counts = [*documents, number_of(self.queries, "query", "queries"), number_of(self.judgements, "judgement")]
        return f"{self.name}: {', '.join(counts)}" + (f", judged by {self.judged_by}" if self.judged_by else "")


@dataclass(frozen=True, slots=True, repr=False)
class ComparisonRecord:
    """The results of several systems on one data set.

    Attributes:
        dataset: Facts about the data set.
        measures: Names of the measures. The first one is the main measure.
        baseline: Name of the system that the others are tested against.
        test: Name of the significance test.
        correction: Name of the correction for the number of systems.
        systems: Results of the systems, in the order given. A system with oracle positives follows its own system.
        details: Queries that are most worth reading, the worst first.
        seconds: Duration of the comparison.
        created: Date and time of the comparison, in ISO format, UTC.
        version: Version of hybridsearch.
        command: Command line. None if the comparison was not made on the command line.
        level: Confidence level of the intervals.
        machine: Facts about the machine, such as {"CPU": "AMD EPYC 7763", "cores": "2"}. Empty if not known.
        top_k: Number of documents that each system returns. 0 if not known.
    """

    dataset: DatasetFacts
    measures: tuple[str, ...]
    baseline: str
    test: str
    correction: str
    systems: Sequence[SystemRecord]
    details: tuple[QueryDetail, ...] = ()
    seconds: float = 0.0
    created: str = ""
    version: str = ""
    command: str | None = None
    level: float = 0.95
    machine: Mapping[str, str] = field(default_factory=dict)
    top_k: int = 0

    @property
    def names(self) -> list[str]:
        """The names of the systems."""
        return [system.name for system in self.systems]

    @property
    def main(self) -> str:
        """The main measure: the first one. It decides which system and which single retriever is the best."""
        return self.measures[0]

    @property
    def tested_against(self) -> SystemRecord:
        """The results of the baseline."""
        return next(system for system in self.systems if system.name == self.baseline)
