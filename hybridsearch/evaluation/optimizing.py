"""Make a model faster: quantise it to int8 on texts of its user, and measure what that costs and gives."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hybridsearch import arguments
from hybridsearch.documents import Document
from hybridsearch.encoders.bm25 import BM25
from hybridsearch.encoders.cache import no_cache
from hybridsearch.encoders.dense import Dense
from hybridsearch.encoders.model_folders import Family, family_of, find_model
from hybridsearch.encoders.runtimes import INT8, openvino, quantize
from hybridsearch.encoders.sparse import Sparse
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.evaluation.datasets import Dataset
from hybridsearch.evaluation.experiment import evaluate
from hybridsearch.evaluation.samples import first_sentences, spread
from hybridsearch.indexing.adding import Documents
from hybridsearch.readers import read_documents
from hybridsearch.rerank.cross_encoder import CrossEncoderReranker
from hybridsearch.rerank.late_interaction import LateInteraction
from hybridsearch.search import HybridSearch
from hybridsearch.tables import Grid

if TYPE_CHECKING:
    from rich.console import RenderableType

REPORT = "optimization.json"

_MEASURED = 1000  # documents of which vectors are compared
_TIMED = 128  # documents or pairs that are timed
_QUERIES = 100  # queries that are asked, if there are no judgements
_CANDIDATES = 50  # documents that are reranked for each query


@dataclass(frozen=True, slots=True)
class Optimization:
    """What int8 costs and gives for one model, against fp32 by torch. It prints as a table.

    Attributes:
        model: Name of the model as it was given.
        folder: Folder with the new model.
        calibrated: Number of texts or pairs that the number ranges were taken from.
        cosine: Smallest cosine of the two vectors of a text, or of a token for a late-interaction model. None for a
            cross-encoder.
        mean_cosine: Mean of these cosines. None for a cross-encoder.
        correlation: Correlation (Pearson) of the two scores of the documents that are reranked, each less the mean of
            its query. None for a model that does not rerank, or if all scores of a query are the same.
        overlap: Mean share of the first ten hits of fp32 that are also first ten hits of int8.
        queries: Number of queries that were asked.
        ndcg: nDCG@10 of fp32 and of int8. None if there are no judgements.
        speed: How many times as many documents a second as fp32.
        query_speed: How many times as fast a single query is. For a cross-encoder, a query with 50 documents.
    """

    model: str
    folder: str
    calibrated: int
    cosine: float | None
    mean_cosine: float | None
    correlation: float | None
    overlap: float
    queries: int
    ndcg: tuple[float, float] | None
    speed: float
    query_speed: float

    def to_dict(self) -> dict[str, Any]:
        """Convert the result to a dict that JSON can hold."""
        return asdict(self)

    def __rich__(self) -> RenderableType:
        rows = [("documents a second", f"{self.speed:.2f} times fp32")]
        rows += [("single queries", f"{self.query_speed:.2f} times as fast as fp32")]
        if self.cosine is not None:
            rows += [("cosine with fp32", f"smallest {self.cosine:.4f}, mean {self.mean_cosine:.4f}")]
        if self.correlation is not None:
            rows += [("scores of fp32", f"correlation {self.correlation:.4f}")]
        rows += [("first ten hits", f"{self.overlap:.1%} are those of fp32 ({self.queries:,} queries)")]
        if self.ndcg is not None:
            rows += [("nDCG@10", f"{self.ndcg[1]:.4f}, fp32 {self.ndcg[0]:.4f}")]
        return Grid(f"int8 for {self.model}", ["", "int8"], [[[name], [value]] for name, value in rows], texts=range(2))


def optimize(
    model: str | Path,
    data: Documents | Dataset,
    output: str | Path,
    *,
    texts: int = 300,
    revision: str | None = None,
) -> Optimization:
    """Write a copy of a model that also computes in int8, and measure what int8 costs and gives.

    The model is quantised after training by nncf, on texts of yours. OpenVINO runs the result on a CPU. `Dense`,
    `Sparse`, `LateInteraction`, `CrossEncoderReranker` and every verb take the folder, and use int8 if no precision is
    given.

    Args:
        model: Folder of a dense model, a sparse model, a late-interaction model or a cross-encoder, or its name on the
            Hugging Face hub.
        data: Documents as they will be searched, in any form that `hybridsearch.read_documents` takes. Or a data set:
            then its queries are asked and its judgements are used. Otherwise each query is the first sentence of a
            document.
        output: Folder to write. It must be new or empty.
        texts: Number of texts from which the number ranges are taken, spread over the documents.
        revision: Revision of a model on the hub.

    Returns:
        What int8 costs and gives. It is also in the folder, as `optimization.json`.

    Raises:
        InvalidArgumentError: The folder is not empty, there are no documents, or OpenVINO cannot run the model.
        ModelNotFoundError: There is no such model.
        MissingExtraError: OpenVINO or nncf is not installed.
    """
    texts, place = arguments.whole_number("texts", texts), arguments.new_folder("output", output)
    openvino()
    dataset = data if isinstance(data, Dataset) else None
    corpus = (data.corpus or ()) if isinstance(data, Dataset) else read_documents(data)
    documents = [one for one in corpus if one.content.strip()]
    if len(documents) < 2:
        raise InvalidArgumentError("The data have fewer than two documents with text: give the texts to be searched.")
    folder = find_model(str(model), "SentenceTransformer", revision)
    family = family_of(folder)
    if family is None:
        raise InvalidArgumentError(
            f"The model in {folder} is a language model: give a dense, sparse or late-interaction model or a "
            "cross-encoder."
        )
    queries = dict(dataset.queries) if dataset else first_sentences(documents, _QUERIES)
    if dataset is not None and not queries:
        raise InvalidArgumentError(f"The data set {dataset.name!r} has no queries: give its documents instead.")
    exact = _encoder(family, folder, precision="fp32", runtime="torch", model_kwargs={"dtype": "float32"})
    left_out = shutil.ignore_patterns("checkpoints", "negatives", INT8)
    shutil.copytree(folder, place, dirs_exist_ok=True, ignore=left_out)
    try:
        used = spread([one.content for one in documents], texts)
        inputs: Sequence[Any] = used
        if family == "CrossEncoder":
            asked = spread(list(queries.values()), texts)
            inputs = [(asked[number % len(asked)], text) for number, text in enumerate(used)]
        quantize(exact.model.get(), inputs, place)
        fast = _encoder(family, place, precision="int8")
        found = _MEASURES[family](exact, fast, documents, queries, dataset)
    except BaseException:
        shutil.rmtree(place)
        raise
    result = Optimization(str(model), str(place), len(inputs), queries=len(queries), **found)
    (place / REPORT).write_text(json.dumps(result.to_dict(), indent=1) + "\n", encoding="utf-8")
    return result


def _encoder(family: Family, folder: Path, **options: Any) -> Any:
    makers: Mapping[Family, Callable[..., Any]] = {
        "SentenceTransformer": Dense,
        "SparseEncoder": Sparse,
        "MultiVectorEncoder": LateInteraction,
        "CrossEncoder": CrossEncoderReranker,
    }
    return makers[family](folder, device="cpu", **options)


def _measure_encoder(
    exact: Any, fast: Any, documents: list[Document], queries: Mapping[str, str], dataset: Dataset | None
) -> dict[str, Any]:
    searches = [HybridSearch({"model": one}) for one in (exact, fast)]
    for search in searches:
        search.index(documents)
    some = [one.content for one in spread(documents, _MEASURED)]
    ours, theirs = (_rows(one.encode_documents(some)) for one in (fast, exact))
    timed, question = [one.content for one in spread(documents, _TIMED)], next(iter(queries.values()))
    with no_cache():
        speed = _speed(lambda one: one.encode_documents(timed), exact, fast, 2)
        query_speed = _speed(lambda one: one.encode_queries([question]), exact, fast, 20)
    return {
        **_cosines(ours, theirs),
        "correlation": None,
        **_hits(searches, queries, dataset),
        "speed": speed,
        "query_speed": query_speed,
    }


def _measure_late_interaction(
    exact: Any, fast: Any, documents: list[Document], queries: Mapping[str, str], dataset: Dataset | None
) -> dict[str, Any]:
    some = [exact.text_of(one) for one in spread(documents, _TIMED)]
    ours, theirs = (np.concatenate(one.vectors(some, "document")) for one in (fast, exact))
    question = next(iter(queries.values()))
    return {
        **_cosines(ours, theirs),
        **_reranked(exact, fast, documents, queries, dataset),
        "speed": _speed(lambda one: one.vectors(some, "document"), exact, fast, 2),
        "query_speed": _speed(lambda one: one.vectors([question], "query"), exact, fast, 20),
    }


def _measure_cross_encoder(
    exact: Any, fast: Any, documents: list[Document], queries: Mapping[str, str], dataset: Dataset | None
) -> dict[str, Any]:
    question, some = next(iter(queries.values())), spread(documents, _CANDIDATES)
    speed = _speed(lambda one: one.rerank([question], [some]), exact, fast, 3)
    return {
        "cosine": None,
        "mean_cosine": None,
        **_reranked(exact, fast, documents, queries, dataset),
        "speed": speed,
        "query_speed": speed,
    }


_MEASURES: Mapping[Family, Callable[..., dict[str, Any]]] = {
    "SentenceTransformer": _measure_encoder,
    "SparseEncoder": _measure_encoder,
    "MultiVectorEncoder": _measure_late_interaction,
    "CrossEncoder": _measure_cross_encoder,
}


def _reranked(
    exact: Any, fast: Any, documents: list[Document], queries: Mapping[str, str], dataset: Dataset | None
) -> dict[str, Any]:
    """The correlation of the scores of two rerankers over the first documents of BM25, and `_hits`.

    The mean of each query is taken away from its scores, so that only differences between documents count.
    """
    searches = [HybridSearch({"bm25": BM25()}, reranker=one) for one in (exact, fast)]
    for search in searches:
        search.index(documents)
    found = [search.search_many(list(queries.values()), top_k=_CANDIDATES) for search in searches]
    deviations = []
    for ours, theirs in zip(*found, strict=True):
        scores = {hit.id: hit.score for hit in theirs}
        pairs = np.array([(hit.score, scores[hit.id]) for hit in ours]).reshape(-1, 2)
        deviations.append(pairs - pairs.mean(axis=0) if len(pairs) else pairs)
    both = np.concatenate(deviations)
    correlation = float(np.corrcoef(both.T)[0, 1]) if both.any(axis=0).all() else None
    return {"correlation": correlation, **_hits(searches, queries, dataset)}


def _cosines(ours: Any, theirs: Any) -> dict[str, float]:
    """The smallest and the mean cosine of the rows of two matrices. Rows of zeros do not count."""
    lengths = np.sqrt(_products(ours, ours) * _products(theirs, theirs))
    cosines = _products(ours, theirs)[lengths > 0] / lengths[lengths > 0]
    return {"cosine": float(cosines.min()), "mean_cosine": float(cosines.mean())}


def _hits(searches: Sequence[HybridSearch], queries: Mapping[str, str], dataset: Dataset | None) -> dict[str, Any]:
    """The overlap of the first ten hits of two searches, and the nDCG@10 of both if there are judgements."""
    exact, fast = (search.search_many(list(queries.values()), top_k=10) for search in searches)
    shares = [len({*a.ids} & {*b.ids}) / len(a.ids) for a, b in zip(exact, fast, strict=True) if a.ids]
    ndcg = None
    if dataset is not None and not dataset.qrels.keys().isdisjoint(dataset.queries):
        options: dict[str, Any] = {"measures": ["nDCG@10"], "top_k": 10, "latency_queries": 0}
        ndcg = tuple(evaluate(search, dataset, **options).means["nDCG@10"].mean for search in searches)
    return {"overlap": float(np.mean(shares)), "ndcg": ndcg}


def _speed(run: Callable[[Any], object], exact: Any, fast: Any, rounds: int) -> float:
    """How many times as fast `fast` is. Both take turns, and the best time of each counts."""
    best = [float("inf"), float("inf")]
    for number in range(rounds + 1):
        for place, one in enumerate((exact, fast)):
            start = time.perf_counter()
            run(one)
            if number:  # the first round loads the models
                best[place] = min(best[place], time.perf_counter() - start)
    return best[0] / best[1]


def _rows(vectors: Any) -> Any:
    return vectors.array if hasattr(vectors, "array") else vectors.matrix


def _products(one: Any, other: Any) -> Any:
    if isinstance(one, np.ndarray):
        return np.einsum("ij,ij->i", one, other, dtype=np.float64)
    return np.asarray(one.multiply(other).sum(axis=1), dtype=np.float64).ravel()
