"""What a comparison found, as plain records; `hybridsearch.evaluation.comparison` prints and keeps them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from hybridsearch.evaluation.statistics import Interval
from hybridsearch.messages import number_of

Kind: TypeAlias = Literal["single", "fused", "reranked", "oracle-positives", "run"]
"""What a system is: one retriever; several, fused; reranked end to end (only what retrieval found); reranked with the
missed relevant documents put in, which no real system can do; or rankings read from a file."""

ALPHA = 0.05
"""Below this adjusted p-value a difference is called significant."""

LATENCY_TOP_K = 10
"""How many hits a query asks for where it is timed: what a user sees, not what a measure looks at."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds a query, median and 95th percentile over queries asked one at a time for `LATENCY_TOP_K` hits."""

    p50: float
    p95: float


@dataclass(frozen=True, slots=True)
class Histogram:
    """`counts[i]` values lie in [edges[i], edges[i + 1]), in the last bin also at its right edge."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Sparsity:
    """How sparse the vectors of a lexical or sparse retriever are.

    Attributes:
        documents_mean, queries_mean: active dimensions of a document, of a query.
        flops: expected number of multiplications to score one query against one document, which is the sum over terms
            of the probability that a query has it times the probability that a document has it (Paria et al., ICLR
            2020; Formal et al., SPLADE, SIGIR 2021).
        documents_histogram, queries_histogram: of active dimensions.
    """

    documents_mean: float
    queries_mean: float
    flops: float
    documents_histogram: Histogram
    queries_histogram: Histogram


@dataclass(frozen=True, slots=True)
class Cost:
    """What a system costs. A stage that it does not have, or that could not be measured, is None.

    Attributes:
        queries: how many queries were asked, one at a time, for the times.
        timed: when the oldest of the times was taken, in UTC to the minute; a work folder keeps them.
        load: processes that ran or waited, a core, in the last minute of timing; above 1 others took time from it.
        encode_ms: encoding the query for all retrievers, none of it from a cache.
        search_ms: searching all retrievers.
        fuse_ms, rerank_ms: merging the rankings, reranking.
        total_ms: all of a query together, with fetching the documents it shows.
        index_bytes: of the vectors of its retrievers where the engine tells them apart, else of the whole index.
        documents_per_second: encoded by each retriever, none of it from a cache.
        sparsity: of each lexical or sparse retriever.
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
    """One system against another on the same queries, by one measure.

    Attributes:
        difference: mean of the system's figure minus the other's, with its bootstrap interval.
        p_value: of the paired test.
        p_adjusted: corrected for the number of systems compared.
        wins, losses, ties: queries on which the system is better, worse, equal.
    """

    difference: Interval
    p_value: float
    p_adjusted: float
    wins: int
    losses: int
    ties: int

    @property
    def significant(self) -> bool:
        """Whether the adjusted p-value is below `ALPHA`."""
        return self.p_adjusted < ALPHA

    @property
    def same(self) -> bool:
        """Whether no query tells the two apart."""
        return not self.wins and not self.losses


@dataclass(frozen=True, slots=True)
class BestSingle:
    """The better single retriever of a fused or reranked system, by the main measure on the same queries.

    Attributes:
        retriever: its name in the system's index.
        means: by measure.
        versus: by measure, the system against this retriever; corrected over all systems that have one.
    """

    retriever: str
    means: Mapping[str, float]
    versus: Mapping[str, Versus]


@dataclass(frozen=True, slots=True, repr=False)
class SystemRecord:
    """One system on one data set.

    Attributes:
        name: as given to `compare`.
        description: such as "bm25 + dense, RRF(k=60), 100 candidates".
        retrievers: the names of those it asks; empty for a run file.
        kind: see `Kind`.
        scores: measure -> query id -> figure, for every judged query; one without results has 0.
        means: measure -> mean with its bootstrap interval.
        versus: measure -> against the baseline; empty for the baseline itself.
        best_single: None for single retrievers and run files.
        cost: None for run files.
        rankings: query id -> (document id, score), best first, to the depth that was kept.
        warnings: one sentence each on what to know of its figures, such as that the fusion was tuned on these queries.
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
        title: the document's title or first words.
        grade: its judgement; None where it has none.
        retrievers: the rank at which each retriever listed it; those that did not are left out.
        terms: of each lexical or sparse retriever, what matched terms added to its score, the heaviest first.
        text: the beginning of its text, after what `title` has of it.
    """

    id: str
    title: str
    rank: int
    score: float
    grade: int | None
    retrievers: Mapping[str, int]
    terms: Mapping[str, Mapping[str, float]]
    text: str = ""


@dataclass(frozen=True, slots=True)
class QueryDetail:
    """One query that is worth reading: the systems do badly on it, or differ.

    Attributes:
        text: of the query.
        relevant: (document id, grade, title or first words) of its relevant documents, the best grades first.
        systems: system name -> its first hits.
    """

    id: str
    text: str
    relevant: tuple[tuple[str, int, str], ...]
    systems: Mapping[str, tuple[DetailHit, ...]]


@dataclass(frozen=True, slots=True)
class DatasetFacts:
    """What was searched.

    Attributes:
        documents: None where the data set has no corpus.
        queries: all that were asked; each of them has judgements.
        judgements: pairs of a query and a document.
        problems: one sentence each, from the data set's check.
    """

    name: str
    documents: int | None
    queries: int
    judgements: int
    problems: tuple[str, ...] = ()

    def __str__(self) -> str:
        documents = [] if self.documents is None else [number_of(self.documents, "document")]
        counts = [*documents, number_of(self.queries, "query", "queries"), number_of(self.judgements, "judgement")]
        return f"{self.name}: {', '.join(counts)}"


@dataclass(frozen=True, slots=True, repr=False)
class ComparisonRecord:
    """Several systems on one data set.

    Attributes:
        measures: names, the main one first.
        baseline: the system that the others are tested against.
        test, correction: names of the paired test, and of the correction for the number of systems.
        systems: in the order given; those with oracle positives follow theirs.
        details: the queries most worth reading, worst first.
        seconds: that the comparison took.
        created: date and time in ISO form, UTC.
        version: of hybridsearch.
        command: the command line, where there was one.
        level: of the intervals.
        machine: what the costs were measured on, such as {"CPU": "AMD EPYC 7763", "cores": "2"}; empty where not known.
        top_k: how many documents of each query count; 0 where not known.
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
        """Of the systems."""
        return [system.name for system in self.systems]

    @property
    def main(self) -> str:
        """The first measure: what systems are ordered and single retrievers chosen by."""
        return self.measures[0]

    @property
    def tested_against(self) -> SystemRecord:
        """The baseline."""
        return next(system for system in self.systems if system.name == self.baseline)
