"""Hard negatives: documents that a search puts high for a query, and that do not answer it.

The rank window, the margins and the formats are those of sentence-transformers' `mine_hard_negatives`, and give the
same negatives with the same dense model; here any retriever of an index is mined, or all of them fused, in batches that
are kept as they are done.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from hybridsearch.arguments import ALLOWED_FIRST, whole_number
from hybridsearch.errors import InvalidArgumentError, RetrieverError
from hybridsearch.evaluation.datasets import Dataset
from hybridsearch.evaluation.pipeline import Pipeline
from hybridsearch.fusion import RRF
from hybridsearch.hits import Hit
from hybridsearch.progress import progress_bar
from hybridsearch.rerank import CrossEncoderReranker, Reranker
from hybridsearch.search import HybridSearch
from hybridsearch.training.data import Kind, TrainingData, normalized, read_training_data
from hybridsearch.training.data.mined import (
    Format,
    Mined,
    MiningFolder,
    MiningSummary,
    Negatives,
    check_format,
    check_found,
    to_negatives,
    to_table,
)
from hybridsearch.training.libraries import import_datasets
from hybridsearch.training.negatives.candidates import (
    Found,
    Limits,
    Options,
    Query,
    Sampling,
    decide_by_reranker,
)

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

_ROWS = 4096
"""Rows of data that are read at a time."""


def mine_hard_negatives(
    data: TrainingData | Dataset | str | Path,
    search: HybridSearch | Pipeline,
    *,
    per_query: int = 1,
    ranks: tuple[int, int] = (6, 40),
    retriever: str | None = None,
    margin: float | None = None,
    percentage: float | None = None,
    max_score: float | None = None,
    min_score: float | None = None,
    reranker: Reranker | CrossEncoder | str | Path | None = None,
    sampling: Sampling = "top",
    seed: int = 0,
    output_format: Format = "triplets",
    output: str | Path | None = None,
    batch_size: int = 256,
    show_progress_bar: bool | None = None,
) -> Negatives:
    """Search each query of `data`, and take as negatives what is ranked high and is not known to be relevant.

    Never taken are a known positive of the query (by id or text), a text of 20 words or more that shares 95% of its
    words with one, the query itself, and the text of a better ranked candidate. The others are counted by rank, and
    have to pass the margins and limits. These compare the scores of `reranker` where there is one, else those of the
    ranking, with the lowest of the query's positives. A positive that the ranking does not reach scores below all
    others, so that no candidate passes a margin. Texts count as the same whatever their blanks, case and punctuation;
    queries of the same text are one query.

    Args:
        data: pairs (`Kind.PAIRS`), or what `read_training_data` makes them from, such as
            `hs.load_dataset(folder, split="train")`. Its texts are not held in memory.
        search: the index to mine. Its own reranker is not asked.
        per_query: how many negatives.
        ranks: the first and the last rank that may be taken, from 1, known positives not counted. The first ones are
            often relevant documents that nobody has judged.
        retriever: the one to ask; None for all, fused.
        margin: of at least 0; a negative scores at least so much less than the positive.
        percentage: above 0, at most 1; a negative scores at most this share of the positive's score, more precisely
            positive - (1 - percentage) * |positive|. NV-Retriever recommends .95 (arXiv 2407.15831).
        max_score, min_score: of a negative.
        reranker: a cross-encoder, its name, or a `Reranker`, that scores positives and as many candidates as it takes
            to find `per_query` anew. Without a margin, percentage or limit beside it, the margin is 0.
        sampling: "top" takes the best ranked of those that pass, "random" any of them.
        seed: of random sampling; each query has its own random numbers, whatever the batches are.
        output_format: "triplets", "n-tuples", "labelled pairs" or "lists"; their columns are in
            `hybridsearch.training.data.mined`. N-tuples leave out queries with fewer negatives than asked for,
            lists and triplets those without any.
        output: a folder for the rows, batch by batch: after a crash the same call goes on. None keeps them in memory.
        batch_size: queries that are searched together.
        show_progress_bar: None shows it in a terminal.

    Raises:
        InvalidArgumentError: an argument is not usable, or the folder holds what was mined in another way.
        IndexNotFoundError: nothing has been indexed yet.
        RetrieverError: a retriever failed, an optional one, too.
        StorageError: the folder cannot be written.

    >>> import hybridsearch as hs
    >>> corpus = [
    ...     hs.Document("lift", "The lift of a wing grows with its angle of attack."),
    ...     hs.Document("drag", "The drag of a wing grows with its lift."),
    ...     hs.Document("heat", "Heat flows through the boundary layer."),
    ... ]
    >>> search = hs.HybridSearch({"bm25": hs.BM25()})
    >>> _ = search.index(corpus, show_progress_bar=False)
    >>> dataset = hs.Dataset("wings", {"q": "What makes the lift of a wing grow?"}, {"q": {"lift": 1}}, corpus)
    >>> mined = mine_hard_negatives(dataset, search, ranks=(1, 10))
    >>> mined.data.rows[0]["negative_1"]
    'The drag of a wing grows with its lift.'
    >>> print(mined)
    1 negative for 1 query, 1 row
               2  candidates
               1  kept, listed by bm25
               1  dropped: known positive
    """
    limits = Limits(margin, percentage, max_score, min_score)
    judge = _make_reranker(reranker)
    if judge is not None and limits == Limits():
        limits = Limits(margin=0.0)
    options = Options(per_query, ranks, sampling, seed, check_format(output_format), limits)
    batch_size = whole_number("batch_size", batch_size, sentence=ALLOWED_FIRST)
    pairs = _read_pairs(data)
    queries = _Queries(pairs)
    ranker = _Ranker.make(
        search, retriever, ranks[1] + queries.most_positives, with_scores=judge is None and limits.relative
    )
    parts = math.ceil(len(queries) / batch_size)
    folder = None
    if output is not None:
        settings = {
            "data": queries.digest,
            "batch_size": batch_size,
            **options.to_dict(),
            **ranker.to_dict(),
            "reranker": None if judge is None else _identity(judge),
        }
        folder = MiningFolder.make(output, pairs.name, settings, parts)
    tables, summary = [], MiningSummary()
    with progress_bar("Mining", range(len(queries)), show_progress_bar, "queries") as advance:
        for part in range(parts):
            first, last = part * batch_size, min((part + 1) * batch_size, len(queries))
            if folder is None or not folder.has(part):
                found = _find(queries.read(first, last), ranker, options, judge)
                mined = [one.result() for one in found]
                table = to_table(mined, options.output_format, per_query)
                of_part = _summary(found, table.num_rows, per_query)
                if folder is None:
                    tables.append(table)
                    summary += of_part
                else:
                    folder.write(part, table, of_part)
            advance(last - first)
    if folder is not None:
        return folder.negatives()
    check_found(summary, pairs.name)
    return to_negatives(
        import_datasets().Dataset(pa.concat_tables(tables)), summary, options.output_format, per_query, pairs.name
    )


# Below: how it is done


def _find(queries: Sequence[Query], ranker: _Ranker, options: Options, reranker: Reranker | None) -> list[Found]:
    rankings = ranker.rank([query.text for query in queries])
    found = [Found.make(query, ranking, options) for query, ranking in zip(queries, rankings, strict=True)]
    if reranker is None:
        for one in found:
            one.decide(len(one.window), options)
    else:
        decide_by_reranker(found, reranker, options)
    return found


def _summary(found: Sequence[Found], rows: int, per_query: int) -> MiningSummary:
    dropped: Counter[str] = sum((one.dropped for one in found), Counter())
    kept_by = Counter(candidate.retriever or "" for one in found for candidate in one.kept)
    return MiningSummary(
        len(found),
        sum(len(one.kept) < per_query for one in found),
        sum(not one.kept for one in found),
        rows,
        sum(one.candidates for one in found),
        kept_by.total(),
        dict(kept_by),
        dict(+dropped),
    )


def _make_reranker(reranker: Any) -> Reranker | None:
    if reranker is None or (isinstance(reranker, Reranker) and not isinstance(reranker, type)):
        return reranker
    return CrossEncoderReranker(reranker)


def _identity(reranker: Reranker) -> str:
    """What its scores depend on, as far as it says."""
    fingerprint = getattr(reranker, "fingerprint", None)
    return repr(reranker) if fingerprint is None else str(fingerprint().digest)


@dataclass(frozen=True, slots=True)
class _Ranker:
    """The ranking that is mined.

    Attributes:
        names: the retrievers asked; with one of them, ranks and scores are its own, else the fused ones.
        top_k: how many documents are fetched for each query.
        candidates: how deep each retriever is read.
    """

    search: HybridSearch
    pipeline: Pipeline
    names: tuple[str, ...]
    top_k: int
    candidates: int
    description: str

    @classmethod
    def make(cls, search: HybridSearch | Pipeline, retriever: str | None, depth: int, *, with_scores: bool) -> _Ranker:
        """`depth`: documents needed; `with_scores`: whether the positives' scores are needed, too."""
        pipeline = Pipeline(search) if isinstance(search, HybridSearch) else search
        source = pipeline.source if isinstance(pipeline, Pipeline) else None
        if not isinstance(source, HybridSearch):
            raise InvalidArgumentError(
                "Negatives are mined from a HybridSearch or a Pipeline over one, which has the documents, "
                f"not {search!r:.80}."
            )
        if retriever is not None:
            pipeline = replace(pipeline, retrievers=[retriever], fusion=RRF())
        plan = replace(pipeline, reranker=None).resolve("mining", depth)
        if len(plan.retrievers) == 1:
            pipeline = replace(pipeline, fusion=RRF())
        top_k = plan.depth if with_scores else depth
        return cls(source, pipeline, plan.retrievers, top_k, plan.depth, plan.description)

    def rank(self, queries: Sequence[str]) -> list[list[Mined]]:
        """Candidates of each query, best first, and their documents."""
        answers = self.search.search_many(
            queries,
            self.top_k,
            filter=self.pipeline.filter,
            retrievers=self.names,
            candidates=self.candidates,
            fusion=self.pipeline.fusion,
            reranker=None,
        )
        for results in answers:
            if results.failures:
                name, reason = next(iter(results.failures.items()))
                raise RetrieverError(f"Mining needs all retrievers, and {name!r} failed: {reason}")
        return [[self._mined(hit) for hit in results] for results in answers]

    def _mined(self, hit: Hit) -> Mined:
        if len(self.names) == 1:
            own = hit.retrievers[self.names[0]]
            return Mined(hit.id, hit.document.content, self.names[0], own.rank, own.score, document=hit.document)
        listing = "+".join(name for name in self.names if name in hit.retrievers)
        return Mined(hit.id, hit.document.content, listing, hit.rank, hit.score, document=hit.document)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: what the rankings depend on."""
        encoders = self.search.retrievers
        return {
            "search": self.description,
            "filter": repr(self.pipeline.filter),
            "candidates": self.candidates,
            "retrievers": {name: encoders[name].fingerprint().digest for name in self.names},
            "documents": self.search.count(),
        }


# Below: queries


class _Queries:
    """The queries of pairs, each with all its positives, in the order of their first rows."""

    def __init__(self, pairs: TrainingData) -> None:
        self._pairs = pairs
        rows: dict[bytes, list[int]] = {}  # by a hash, so that the texts need not be held
        digest = hashlib.sha256()
        for start in range(0, len(pairs), _ROWS):
            batch = pairs.rows[start : start + _ROWS]
            for number, (anchor, positive) in enumerate(zip(batch["anchor"], batch["positive"], strict=True), start):
                rows.setdefault(_hash(normalized(anchor)), []).append(number)
                digest.update(_hash(anchor) + _hash(positive))
        self._rows = list(rows.values())
        self.digest = digest.hexdigest()[:16]
        self.most_positives = max(map(len, self._rows), default=0)

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, first: int, last: int) -> list[Query]:
        """The queries with these numbers."""
        places = [place for of_query in self._rows[first:last] for place in of_query]
        texts: dict[str, list[str]] = self._pairs.rows[places]
        ids: dict[str, list[str | None]] = {} if self._pairs.ids is None else self._pairs.ids[places]
        nothing = [None] * len(places)
        query_ids, document_ids = ids.get("query_id", nothing), ids.get("document_id", nothing)
        queries, start = [], 0
        for number in range(first, last):
            end = start + len(self._rows[number])
            positives = dict.fromkeys(zip(document_ids[start:end], texts["positive"][start:end], strict=True))
            known = tuple(Mined(id, text) for id, text in positives)
            queries.append(Query(number, query_ids[start], texts["anchor"][start], known))
            start = end
        return queries


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _read_pairs(data: TrainingData | Dataset | str | Path) -> TrainingData:
    pairs = data if isinstance(data, TrainingData) else read_training_data(data)
    if pairs.kind is not Kind.PAIRS:
        raise InvalidArgumentError(
            f"Negatives are mined for pairs (anchor, positive), and {pairs.name!r} has {pairs.kind}."
        )
    return pairs
