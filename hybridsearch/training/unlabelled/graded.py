"""Grade documents for pseudo-queries by a hybrid search, so that a model can learn what the search knows."""

from __future__ import annotations

import random

from hybridsearch.errors import InvalidArgumentError
from hybridsearch.messages import number_of
from hybridsearch.search import HybridSearch
from hybridsearch.training.data import Kind, TrainingData
from hybridsearch.training.libraries import import_datasets
from hybridsearch.training.negatives.candidates import Limits, Options

_SEARCHED = 100  # documents of an answer; the last one gets the score 0
_BEST = 0.4  # score of the first one; cosines can reach this margin
_BATCH = 256  # queries


def graded_by(
    search: HybridSearch, pairs: TrainingData, hard_negatives: int, ranks: tuple[int, int], seed: int
) -> TrainingData:
    """Ask each query of some pairs, and grade documents of the answer by their fused scores.

    The document that the query was made of is left out. Its score would be so high that all others look alike. The
    first document of the others has the score 0.4, and the last one of 100 has the score 0.

    Args:
        search: Search that has the documents.
        pairs: Pseudo-queries, with the ids of their documents.
        hard_negatives: Number of graded documents after the first. The second is the next one of the ranks, and the
            others are drawn at random.
        ranks: First and last rank that the documents come from.
        seed: Seed of the draw.

    Returns:
        Tuples with scores. Queries that find too few documents are left out.

    Raises:
        InvalidArgumentError: A number is not allowed, or no query finds enough documents.
    """
    options = Options(hard_negatives, ranks, "random", seed, "n-tuples", Limits())
    chance = random.Random(options.seed)  # noqa: S311
    first, last = options.ranks
    names = ["positive", *(f"negative_{number}" for number in range(1, hard_negatives + 1))]
    rows: list[dict[str, object]] = []
    queries, own = list(pairs.rows["anchor"]), [] if pairs.ids is None else list(pairs.ids["document_id"])
    for start in range(0, len(queries), _BATCH):
        asked = queries[start : start + _BATCH]
        for query, id, results in zip(asked, own[start:], search.search_many(asked, _SEARCHED), strict=False):
            hits = [hit for hit in results if hit.id != id]
            known = hits[first - 1 : last]
            if len(known) < len(names) or hits[0].score == hits[-1].score:
                continue
            lowest, width = hits[-1].score, hits[0].score - hits[-1].score
            chosen = [*known[:2], *chance.sample(known[2:], len(names) - 2)]
            texts = dict(zip(names, (hit.document.content for hit in chosen), strict=True))
            scores = [_BEST * (hit.score - lowest) / width for hit in chosen]
            rows.append({"anchor": query, **texts, "label": scores})
    if not rows:
        raise InvalidArgumentError(
            f"No query found {number_of(len(names), 'document')} that can be graded. Give more documents, or fewer "
            "hard negatives."
        )
    note = f"{number_of(len(rows), 'query', 'queries')} with {len(names)} documents each, graded by a hybrid search"
    data = import_datasets().Dataset.from_list(rows)
    return TrainingData(pairs.name, data, Kind.SCORED_TUPLES, notes=(*pairs.notes, note))
