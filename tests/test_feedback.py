"""Tests of feedback: RM3 and Rocchio against numpy, and searches in two passes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

import hybridsearch as hs
from hybridsearch.adapters.memory import MemoryBackend
from hybridsearch.backends import Fingerprint, Request, RetrieverSchema
from hybridsearch.cli.app import app
from hybridsearch.errors import BackendError, HybridSearchError, InvalidArgumentError
from hybridsearch.evaluation.spec import parse_systems
from hybridsearch.feedback import Feedback
from hybridsearch.passages import with_passages
from hybridsearch.ranking import Ranking
from hybridsearch.vectors import DenseVectors, Metric, SparseVectors

QUERIES = ["heat transfer of a slender wing", "supersonic flow over cones", "boundary layer", "flutter of panels"]


class Letters:
    """A dense encoder that counts letters."""

    def __init__(self, metric: Metric = "cosine") -> None:
        self.metric: Metric = metric

    def encode_documents(self, texts: Sequence[str], *, show_progress_bar: bool = False) -> DenseVectors:
        return DenseVectors(np.array([self._vector(text) for text in texts]).reshape(-1, 26), self.metric)

    def encode_queries(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        return list(map(self._vector, texts))

    def fingerprint(self) -> Fingerprint:
        return Fingerprint("letters", {"metric": self.metric})

    def schema(self) -> RetrieverSchema:
        return RetrieverSchema("dense", self.fingerprint(), None, 26, self.metric)

    def _vector(self, text: str) -> NDArray[np.float32]:
        counts = np.array([text.lower().count(chr(97 + number)) for number in range(26)], dtype=np.float64)
        length = np.linalg.norm(counts) if self.metric == "cosine" else 10.0
        return (counts / (length or 1.0)).astype(np.float32)


class Recording(MemoryBackend):
    """A backend that counts its searches."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Sequence[Request]] = []

    def search(self, requests: Sequence[Request]) -> list[Ranking]:
        self.asked.append(requests)
        return super().search(requests)


class Awaited(Recording):
    """A backend with an asynchronous search."""

    async def asearch(self, requests: Sequence[Request]) -> list[Ranking]:
        await asyncio.sleep(0)
        return self.search(requests)

    async def aclose(self) -> None:
        self.close()


@pytest.fixture(scope="module")
def documents(data_folder: Path) -> list[hs.Document]:
    """The first 200 documents of Cranfield."""
    with (data_folder / "cranfield" / "corpus.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line, _ in zip(file, range(200), strict=False)]
    return [hs.Document(row["_id"], row["text"], metadata={"odd": int(row["_id"]) % 2}) for row in rows]


@pytest.fixture(scope="module")
def search(documents: list[hs.Document]) -> Iterator[hs.HybridSearch]:
    with hs.HybridSearch({"bm25": hs.BM25(), "dense": Letters(), "chars": hs.CharNGrams()}) as search:
        search.index(documents, show_progress_bar=False)
        yield search


def anserini(
    vectors: SparseVectors, query: dict[str, float], method: hs.RM3, allowed: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], dict[str, float]]:
    """The scores of all documents after RM3, and the weights of the query, as Anserini computes them.

    BM25 and RM3 are written out with one array of shape (documents, terms). `allowed` documents give feedback.
    """
    terms, counts = vectors.vocabulary.terms, vectors.matrix.toarray().astype(np.float64)
    lengths = counts.sum(axis=1, keepdims=True)
    n = (counts > 0).sum(axis=0)
    idf = np.log1p((len(counts) - n + 0.5) / (n + 0.5))
    weights = idf * counts / (counts + 1.2 * (0.25 + 0.75 * lengths / lengths.mean()))
    vector = np.array([query.get(term, 0.0) for term in terms])
    scores = weights @ vector
    first = sorted(np.flatnonzero((scores > 0) & allowed).tolist(), key=lambda row: -scores[row])[: method.documents]
    usable = np.array([2 <= len(term) <= 20 and term.isalnum() for term in terms]) & (
        n <= method.max_share * len(counts)
    )
    model = np.zeros(len(terms))
    for row in first:
        kept = np.where(usable, counts[row], 0.0)
        kept[np.argsort(-kept, kind="stable")[method.terms :]] = 0  # the terms are sorted, so ties go by term
        model += scores[row] * kept / max(kept.sum(), 1.0)
    model[np.argsort(-model, kind="stable")[method.terms :]] = 0
    expanded = method.original * vector / vector.sum() + (1 - method.original) * model / model.sum()
    return weights @ expanded, {terms[column]: expanded[column] for column in np.flatnonzero(expanded).tolist()}


@pytest.mark.parametrize("method", [hs.RM3(), hs.RM3(5, 20, 0.8, 1.0), hs.RM3(documents=3, terms=4, original=0)])
@pytest.mark.parametrize("filter", [None, {"odd": 1}])
def test_rm3_gives_the_rankings_of_anserinis_formula(
    search: hs.HybridSearch, documents: list[hs.Document], method: hs.RM3, filter: dict[str, int] | None
) -> None:
    vectors = hs.BM25().encode_documents([document.content for document in documents])
    allowed = np.array([filter is None or document.metadata["odd"] == 1 for document in documents])
    found = search.rankings(QUERIES, retrievers=["bm25"], feedback=method, filter=filter, candidates=50)
    for text, rankings in zip(QUERIES, found, strict=True):
        scores, _ = anserini(vectors, dict(hs.BM25().decode(text)), method, allowed)
        ids = [document.id for document in documents]
        right = Ranking.from_scores(
            [(id, score) for id, score, one in zip(ids, scores, allowed, strict=True) if one and score > 0], 50
        )
        assert rankings["bm25"].ids == right.ids
        np.testing.assert_allclose(rankings["bm25"].scores, right.scores, rtol=1e-5)


@pytest.mark.parametrize("metric", ["cosine", "dot", "euclidean"])
def test_rocchio_moves_the_query_to_the_mean_of_the_first_documents(
    documents: list[hs.Document], metric: Metric
) -> None:
    encoder = Letters(metric)
    array = encoder.encode_documents([document.content for document in documents]).array.astype(np.float64)
    with hs.HybridSearch({"dense": encoder}) as search:
        search.index(documents, show_progress_bar=False)
        found = search.rankings(QUERIES, feedback=hs.Rocchio(4, 0.6, 0.4), candidates=20)
    for text, rankings in zip(QUERIES, found, strict=True):
        query = encoder.encode_queries([text])[0].astype(np.float64)

        def score(query: NDArray[np.float64]) -> NDArray[np.float64]:
            return -np.linalg.norm(array - query, axis=1) if metric == "euclidean" else array @ query

        query = 0.6 * query + 0.4 * array[np.argsort(-score(query), kind="stable")[:4]].mean(axis=0)
        scores = score(query / np.linalg.norm(query) if metric == "cosine" else query)
        np.testing.assert_allclose(rankings["dense"].scores, np.sort(scores)[::-1][:20], rtol=1e-4)


def test_each_pass_is_one_search_for_all_queries(documents: list[hs.Document]) -> None:
    with hs.HybridSearch({"bm25": hs.BM25(), "dense": Letters()}, backend := Recording()) as search:
        search.index(documents[:100], show_progress_bar=False)
        backend.asked.clear()
        plain = search.search_many(QUERIES)
        assert list(map(len, backend.asked)) == [8]
        backend.asked.clear()
        both = search.search_many(QUERIES, feedback=[hs.RM3(7), hs.Rocchio()])
        assert list(map(len, backend.asked)) == [8, 8]
        assert sorted(request.k for request in backend.asked[0]) == [3] * 4 + [7] * 4
        assert [results.ids for results in both] != [results.ids for results in plain]
        assert all("feedback" in results.timings for results in both)
        backend.asked.clear()
        search.search_many(QUERIES, feedback=hs.RM3())  # the dense retriever is searched once
        assert list(map(len, backend.asked)) == [4, 8]
        assert [search.search(query, feedback=[hs.RM3(7), hs.Rocchio()]).ids for query in QUERIES] == [
            results.ids for results in both
        ]


def test_other_ways_to_ask_give_the_same_hits(documents: list[hs.Document]) -> None:
    feedback = [hs.RM3(), hs.Rocchio()]
    encoders: dict[str, Any] = {"bm25": hs.BM25(), "dense": Letters()}
    with hs.HybridSearch(encoders, backend := Awaited()) as search:
        search.index(documents[:100], show_progress_bar=False)
        right = search.search(QUERIES[0], feedback=feedback)
        backend.asked.clear()
        assert asyncio.run(search.asearch(QUERIES[0], feedback=feedback)) == right
        assert len(backend.asked) == 2
        search.timeout = {"bm25": 60.0}  # the retrievers are asked side by side
        assert search.search(QUERIES[0], feedback=feedback) == right
        assert asyncio.run(search.asearch(QUERIES[0], feedback=feedback)) == right
        assert right[0].explain().feedback


def test_an_explanation_tells_what_feedback_did(search: hs.HybridSearch, documents: list[hs.Document]) -> None:
    feedback = [hs.RM3(terms=5), hs.Rocchio()]
    hit = search.search(QUERIES[0], feedback=feedback, retrievers=["bm25", "dense"])[0]
    explanation = hit.explain()
    of_bm25, of_dense = explanation.feedback["bm25"], explanation.feedback["dense"]

    (first,) = search.rankings([QUERIES[0]], candidates=10)
    assert of_bm25.documents == dict(first["bm25"])
    assert of_dense.documents == dict(first["dense"].top(3))
    vectors = hs.BM25().encode_documents([document.content for document in documents])
    asked = dict(hs.BM25().decode(QUERIES[0]))
    _, weights = anserini(vectors, asked, hs.RM3(terms=5), np.ones(len(documents), dtype=bool))
    assert of_bm25.terms == pytest.approx({term: one for term, one in weights.items() if term not in asked}, rel=1e-5)
    assert list(of_bm25.terms.values()) == sorted(of_bm25.terms.values(), reverse=True)
    assert of_dense.terms == {}
    assert set(explanation.terms["bm25"]) <= set(weights)
    assert sum(explanation.terms["bm25"].values()) == pytest.approx(hit.retrievers["bm25"].score, rel=1e-5)

    assert json.loads(json.dumps(explanation.to_dict()))["feedback"]["bm25"]["terms"] == of_bm25.terms
    assert f"feedback by RM3 from {next(iter(of_bm25.documents))}, " in str(explanation)
    assert f"terms from feedback: {next(iter(of_bm25.terms))} " in str(explanation)
    assert "feedback" not in search.search(QUERIES[0])[0].explain().to_dict()

    nowhere = search.explain(QUERIES[0], documents[-1].id, retrievers=["bm25"], candidates=10, feedback=feedback[0])
    assert nowhere.rank is None
    assert nowhere.feedback["bm25"] == of_bm25


def test_a_retriever_of_passages_reads_the_best_passage(documents: list[hs.Document]) -> None:
    passages = hs.Passages(30, overlap=0, whole=["whole"])
    with hs.HybridSearch({"bm25": hs.BM25(), "whole": hs.BM25()}, passages=passages) as search:
        search.index(documents[:60], show_progress_bar=False)
        method = hs.RM3(2, 3, max_share=1.0)
        hit = search.search(QUERIES[0], feedback=method)[0]
        read, whole = (hit.explain().feedback[name] for name in ("bm25", "whole"))
        (plain,) = search.search_many([QUERIES[0]], retrievers=["bm25"], top_k=2)
        spans = {one.id: one.span for one in plain}
        assert read.passages == spans
        assert whole.passages == {}
        best = [with_passages(one.document, [one.span]) for one in plain]
        counts = [dict(of) for of in hs.BM25().decode(hs.BM25().encode_fields(best))]
        words = [{term: count for term, count in of.items() if len(term) > 1 and term.isalnum()} for of in counts]
        model = method.model(words, list(read.documents.values()))
        known = dict(hs.BM25().decode(QUERIES[0]))
        right = {term: 0.5 * share for term, share in model.items() if term not in known}
        assert read.terms == pytest.approx(right, rel=1e-5)
        assert hit.passages


@pytest.mark.parametrize("query", ["zzz", "the of", " "])
def test_a_query_that_finds_nothing_stays_as_it_is(search: hs.HybridSearch, query: str) -> None:
    results = search.search(query, retrievers=["bm25"], feedback=hs.RM3())
    assert results.ids == []
    assert results.notes == search.search(query, retrievers=["bm25"]).notes


def test_a_query_stays_as_it_is_if_no_term_is_left() -> None:
    with hs.HybridSearch({"bm25": hs.BM25()}) as search:
        search.index([{"id": "a", "text": "wing flow"}, {"id": "b", "text": "wing"}], show_progress_bar=False)
        assert search.rankings(["wing"], feedback=hs.RM3(original=0)) == search.rankings(["wing"])


@pytest.mark.parametrize(
    ("feedback", "asked", "message"),
    [
        (hs.RM3(), ["dense", "chars"], "RM3 is feedback for BM25, but 'dense' is a dense retriever of the encoder"),
        (hs.Rocchio(), ["bm25"], "Rocchio is feedback for dense and sparse retrievers, but 'bm25' is a lexical"),
        (hs.RM3(retriever="chars"), None, "'chars' is a lexical retriever of the encoder 'chars'"),
        (hs.RM3(retriever="splade"), None, "names the retriever 'splade', which is not asked"),
        ([hs.RM3(), hs.RM3(5)], None, "two feedbacks for the retriever 'bm25'"),
        ("rm3", None, r"feedback is an object such as hs.RM3\(\)"),
        ([hs.MMR()], None, r"or a list of them, not MMR"),
    ],
)
def test_feedback_that_does_not_fit_is_refused(
    search: hs.HybridSearch, feedback: Any, asked: list[str] | None, message: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        search.search("wing", feedback=feedback, retrievers=asked)


@pytest.mark.parametrize(
    "make",
    [
        lambda: hs.RM3(0),
        lambda: hs.RM3(terms=1.5),  # type: ignore[arg-type]
        lambda: hs.RM3(original=1.1),
        lambda: hs.RM3(max_share=-1),
        lambda: hs.Rocchio(documents=True),
        lambda: hs.Rocchio(beta=-0.1),
        lambda: hs.Rocchio(alpha=0, beta=0),
    ],
)
def test_wrong_numbers_are_refused(make: Callable[[], Feedback]) -> None:
    with pytest.raises(InvalidArgumentError, match=r"of (RM3|Rocchio)"):
        make()


def test_an_engine_that_counts_no_documents_is_named(documents: list[hs.Document]) -> None:
    class Uncounted(MemoryBackend):
        document_frequencies = None  # type: ignore[assignment]

    with hs.HybridSearch({"bm25": hs.BM25()}, Uncounted()) as search:
        search.index(documents[:20], show_progress_bar=False)
        with pytest.raises(BackendError, match="max_share=1"):
            search.search("wing", feedback=hs.RM3())
        assert search.search("wing", feedback=hs.RM3(max_share=1))[0].explain().feedback["bm25"].terms


# Measuring, and the command line


@pytest.fixture(scope="module")
def dataset(documents: list[hs.Document], search: hs.HybridSearch) -> hs.Dataset:
    queries = {f"q{number}": text for number, text in enumerate(QUERIES)}
    second = [results.ids[1] for results in search.search_many(QUERIES, retrievers=["bm25"])]
    return hs.Dataset("c", queries, {q: {id: 1} for q, id in zip(queries, second, strict=True)}, documents)


def test_systems_with_and_without_feedback_are_compared(
    search: hs.HybridSearch, dataset: hs.Dataset, tmp_path: Path
) -> None:
    systems = parse_systems(["bm25", "bm25+rm3", "rm3:5=bm25+rm3:5", "bm25+dense+rm3+rocchio"], search)
    options: dict[str, Any] = {"work_folder": tmp_path, "latency_queries": 1, "details": 1, "show_progress_bar": False}
    for _ in range(2):  # the second time from the work folder
        compared = hs.compare(systems, dataset, **options)
        for name, feedback in (("bm25", None), ("bm25+rm3", hs.RM3()), ("rm3:5", hs.RM3(5))):
            found = search.search_many(QUERIES, 100, retrievers=["bm25"], feedback=feedback)
            assert [one.ids for one in found] == [
                list(compared[name].ranking(query).ids) for query in dataset.queries
            ], name
    both = search.search_many(QUERIES, 100, retrievers=["bm25", "dense"], feedback=[hs.RM3(), hs.Rocchio()])
    last = compared["bm25+dense+rm3+rocchio"]
    assert [one.ids for one in both] == [list(last.ranking(query).ids) for query in dataset.queries]
    assert "RM3(documents=5" in compared["rm3:5"].description
    assert len(list((tmp_path / "rankings").iterdir())) == 4  # the last system shares the rankings of bm25+rm3


def test_runs_have_no_feedback(search: hs.HybridSearch, dataset: hs.Dataset) -> None:
    run = {query: Ranking.from_scores({"1": 1.0}) for query in dataset.queries}
    with pytest.raises(InvalidArgumentError, match="cannot be searched again: leave out feedback"):
        hs.evaluate(hs.Pipeline({"run": run}, feedback=hs.RM3()), dataset)
    with pytest.raises(HybridSearchError, match="a colon needs a number"):
        parse_systems(["bm25+rm3:x"], search)


def test_the_program_searches_and_explains_with_feedback(documents: list[hs.Document], tmp_path: Path) -> None:
    place = str(tmp_path / "index")
    with hs.HybridSearch({"bm25": hs.BM25()}, place) as search:
        search.index(documents[:100], show_progress_bar=False)
        right = search.search(QUERIES[0], feedback=hs.RM3(5)).ids
    found = CliRunner().invoke(app, ["search", place, QUERIES[0], "--feedback", "rm3:5", "--json"])
    assert [hit["id"] for hit in json.loads(found.stdout)["hits"]] == right
    told = CliRunner().invoke(app, ["explain", place, QUERIES[0], right[0], "--feedback", "rm3:5"])
    assert "feedback by RM3 from" in told.stdout
    for wrong, reason in (
        ("rm4", "rm3 or rocchio"),
        ("rm3:0", "rm3 or rocchio"),
        ("rocchio", "but 'bm25' is a lexical"),
    ):
        refused = CliRunner().invoke(app, ["search", place, "wing", "--feedback", wrong])
        assert refused.exit_code != 0
        assert reason in refused.output


def test_added_words_are_highlighted_only_where_the_query_has_no_word() -> None:
    search = hs.HybridSearch({"bm25": hs.BM25(), "letters": Letters()})
    texts = ["Pair the phone with a button.", "A button is pressed. Nobody has paired it.", "The button is red."]
    search.index([hs.Document(str(number), text) for number, text in enumerate(texts)], show_progress_bar=False)
    feedback = [hs.RM3(documents=1, max_share=1), hs.Rocchio(documents=1, alpha=0.1, beta=1)]
    for hit in search.search("pair", feedback=feedback):
        words = [one for one in hit.highlights if one.retriever == "bm25"]
        shown = {hit.document.text[one.start : one.end] for one in words}
        assert shown == {"0": {"Pair"}, "1": {"paired"}, "2": {"button"}}[hit.id]
        assert {one.term: one.weight for one in words}.items() <= hit.explain().terms["bm25"].items()
        (sentence,) = (one for one in hit.highlights if one.retriever == "letters")
        read = search.retrievers["letters"]
        own, (near,) = (
            read.encode_queries(["pair"])[0],
            read.encode_documents([hit.document.text[sentence.start : sentence.end]]).array,
        )
        assert sentence.weight == pytest.approx(float(own @ near))
