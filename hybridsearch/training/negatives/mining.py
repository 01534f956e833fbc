"""Mine hard negatives: documents that a search ranks high for a query and that are not known to be relevant.

The window of ranks, the margins and the formats are the same as in sentence-transformers' `mine_hard_negatives`. With
the same dense model, they give the same negatives. This function mines any retriever of an index, or all retrievers
fused. It keeps each finished batch.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from hybridsearch.arguments import ALLOWED_FIRST, whole_number
from hybridsearch.errors import BackendError, InvalidArgumentError, RetrieverError
from hybridsearch.evaluation.datasets import Dataset
from hybridsearch.evaluation.pipeline import Pipeline
from hybridsearch.evaluation.stages import identity_of
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
"""Number of rows that are read at a time."""


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
    """Mine hard negatives, which are documents that rank high for a query and are not known to be relevant.

    Each query is searched. Some candidates are never taken:

    - a known positive of the query, by id or text
    - a text of 20 words or more that shares 95% of its words with a positive
    - the query itself
    - a text that equals the text of a better candidate

    The other candidates are counted by rank, and must pass the margins and limits.

    Margins and limits use the scores of `reranker`, or without a reranker the scores of the ranking. They compare a
    candidate with the positive that has the lowest score. If a positive is not in the ranking, no candidate passes a
    margin. Texts that differ only in case, spaces and punctuation count as the same. Queries with the same text are one
    query.

    Args:
        data: Pairs (`Kind.PAIRS`), or anything that `read_training_data` reads as pairs, such as
            `hs.load_dataset(folder, split="train")`. The texts are not held in memory.
        search: Index or pipeline to mine. Its reranker is not used.
        per_query: Number of negatives for each query, at least 1.
        ranks: First and last rank that may be taken, from 1. Known positives do not count. The first ranks often hold
            relevant documents that nobody has judged.
        retriever: Name of the retriever to search with. None fuses all retrievers.
        margin: Least distance between the score of a negative and the score of the positive, 0 or more. None sets no
            margin.
        percentage: Largest score of a negative as a share of the positive's score, above 0 and at most 1. The exact
            limit is positive - (1 - percentage) * |positive|. NV-Retriever recommends .95 (arXiv 2407.15831). None sets
            no limit.
        max_score: Largest score of a negative. None sets no limit.
        min_score: Least score of a negative. None sets no limit.
        reranker: Reranker that scores the positives and candidates again: a cross-encoder, its folder or name, or a
            `Reranker`. It scores only as many candidates as are needed. If no margin or limit is given, the margin is
            0. None uses the scores of the ranking.
        sampling: How negatives are chosen among the candidates that pass: "top" takes the best ranks, "random" any.
        seed: Seed of random sampling. The choice for a query does not depend on the batches.
        output_format: Format of the rows: "triplets", "n-tuples", "labelled pairs" or "lists" (the columns are in
            `hybridsearch.training.data.mined`). N-tuples leave out queries with fewer than `per_query` negatives. Lists
            and triplets leave out queries without negatives.
        output: Folder for the rows. Each batch is written when it is finished, and after a crash the same call
            continues. None keeps the rows in memory.
        batch_size: Number of queries that are searched together.
        show_progress_bar: Whether a progress bar is shown. None shows it only in a terminal.

    Returns:
        The rows to train on, their provenance and the counts.

    Raises:
        InvalidArgumentError: An argument cannot be used, no negatives were found, or the folder holds negatives that
            were mined in another way.
        IndexNotFoundError: Nothing has been indexed yet.
        RetrieverError: A retriever failed. This includes optional retrievers.
        StorageError: The folder cannot be written.

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
    """A text that changes when the scores of a reranker change, as far as the reranker tells it."""
    fingerprint = getattr(reranker, "fingerprint", None)
    return repr(reranker) if fingerprint is None else str(fingerprint().digest)


@dataclass(frozen=True, slots=True)
class _Ranker:
    """The search whose rankings are mined.

    Attributes:
        search: Index that is searched.
        pipeline: Pipeline with the filter and the fusion.
        names: Retrievers that are searched. With a single retriever, its ranks and scores are used, else the fused.
        top_k: Number of documents that are fetched for each query.
        candidates: Number of documents that are read from each retriever.
        description: Description of the search.
    """

    search: HybridSearch
    pipeline: Pipeline
    names: tuple[str, ...]
    top_k: int
    candidates: int
    description: str

    @classmethod
    def make(cls, search: HybridSearch | Pipeline, retriever: str | None, depth: int, *, with_scores: bool) -> _Ranker:
        """Make the search. `depth` documents are needed, and `with_scores` also the scores of the positives."""
        pipeline = Pipeline(search) if isinstance(search, HybridSearch) else search
        source = pipeline.source if isinstance(pipeline, Pipeline) else None
        if not isinstance(source, HybridSearch):
            raise InvalidArgumentError(
                f"search is {search!r:.80}. Give a HybridSearch, or a Pipeline over a HybridSearch, which has the "
                "documents."
            )
        if retriever is not None:
            pipeline = replace(pipeline, retrievers=[retriever], fusion=RRF())
        plan = replace(pipeline, reranker=None).resolve("mining", depth)
        if len(plan.retrievers) == 1:
            pipeline = replace(pipeline, fusion=RRF())
        top_k = plan.depth if with_scores else depth
        return cls(source, pipeline, plan.retrievers, top_k, plan.depth, plan.description)

    def rank(self, queries: Sequence[str]) -> list[list[Mined]]:
        """The candidates of each query with their documents, best first."""
        answers = self.search.search_many(
            queries,
            self.top_k,
            filter=self.pipeline.filter,
            feedback=self.pipeline.feedback,
            retrievers=self.names,
            candidates=self.candidates,
            fusion=self.pipeline.fusion,
            reranker=None,
        )
        for results in answers:
            if results.failures:
                name, reason = next(iter(results.failures.items()))
                raise RetrieverError(f"The retriever {name!r} failed, and mining needs all retrievers: {reason}")
        return [[self._mined(hit) for hit in results] for results in answers]

    def _mined(self, hit: Hit) -> Mined:
        if len(self.names) == 1:
            own = hit.retrievers[self.names[0]]
            return Mined(hit.id, hit.document.content, self.names[0], own.rank, own.score, document=hit.document)
        listing = "+".join(name for name in self.names if name in hit.retrievers)
        return Mined(hit.id, hit.document.content, listing, hit.rank, hit.score, document=hit.document)

    def to_dict(self) -> dict[str, Any]:
        """Everything that the rankings depend on, ready for JSON."""
        return {
            "search": self.description,
            "filter": repr(self.pipeline.filter),
            "candidates": self.candidates,
            "retrievers": {name: identity_of(self.search, name)[1:] for name in self.names},
            "documents": self.search.count(),
            "content": self._content(),
        }

    def _content(self) -> str | None:
        """A digest of the documents, or None if the engine cannot list them."""
        total = hashlib.sha256()
        try:
            for document in self.search.documents(self.pipeline.filter):
                total.update(_hash(json.dumps(document.to_dict(), sort_keys=True)))
        except BackendError:
            return None
        return total.hexdigest()[:16]


# Below: queries


class _Queries:
    """The queries of pairs with all their positives, in the order of their first rows."""

    def __init__(self, pairs: TrainingData) -> None:
        self._pairs = pairs
        rows: dict[bytes, list[int]] = {}  # by a hash, because the texts may not fit into memory
        digest = hashlib.sha256()
        for start in range(0, len(pairs), _ROWS):
            batch = pairs.rows[start : start + _ROWS]
            ids = {} if pairs.ids is None else pairs.ids[start : start + _ROWS]
            known = [ids[name] for name in ("query_id", "document_id") if name in ids]
            for number, row in enumerate(zip(batch["anchor"], batch["positive"], *known, strict=True), start):
                rows.setdefault(_hash(normalized(row[0])), []).append(number)
                digest.update(_hash(json.dumps(row, default=str)))
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
            f"{pairs.name!r} holds {pairs.kind}, but negatives are mined for pairs (anchor, positive). Give pairs."
        )
    return pairs
