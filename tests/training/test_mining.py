"""Tests of mined hard negatives, compared with sentence-transformers and with results checked by hand."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import hybridsearch as hs
from hybridsearch.errors import IndexNotFoundError, InvalidArgumentError, RetrieverError
from hybridsearch.training.data import Kind, TrainingData, read_training_data
from hybridsearch.training.data.mined import Negatives
from hybridsearch.training.negatives.candidates import Limits
from hybridsearch.training.negatives.mining import mine_hard_negatives

pytest.importorskip("datasets", reason="pip install 'hybridsearch[training]'")

Rows = list[tuple[Any, ...]]


@pytest.fixture(scope="module")
def model(minilm: str) -> Any:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    return sentence_transformers.SentenceTransformer(minilm, device="cpu")


@pytest.fixture(scope="module")
def search(model: Any, tiny_corpus: list[hs.Document]) -> hs.HybridSearch:
    search = hs.HybridSearch({"bm25": hs.BM25(), "dense": hs.Dense(model, cache=False)})
    search.index(tiny_corpus, show_progress_bar=False)
    return search


@pytest.fixture(scope="module")
def pairs(tiny_corpus: list[hs.Document]) -> TrainingData:
    """A query for each document. Every third query has a second relevant document."""
    queries = [(f"What is {document.title.lower()}?", document.content) for document in tiny_corpus]
    more = [(queries[place][0], tiny_corpus[place - 1].content) for place in range(0, len(queries), 3)]
    anchors, positives = zip(*queries, *more, strict=True)
    return TrainingData.from_columns(Kind.PAIRS, {"anchor": anchors, "positive": positives})


@pytest.fixture(scope="module")
def by_sentence_transformers(
    model: Any, pairs: TrainingData, tiny_corpus: list[hs.Document], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., dict[str, list[Any]]]:
    from sentence_transformers.util import mine_hard_negatives as mine

    corpus = [document.content for document in tiny_corpus]
    cache = str(tmp_path_factory.mktemp("embeddings"))

    def columns(count: int | None = None, **options: Any) -> dict[str, list[Any]]:
        some = pairs.rows.select(range(count or len(pairs)))
        rows: dict[str, list[Any]] = mine(
            some, model, corpus=corpus, verbose=False, cache_folder=cache, **options
        ).to_dict()
        return rows

    return columns


def rows_of(columns: dict[str, Sequence[Any]]) -> Rows:
    return sorted(zip(*columns.values(), strict=True))


OPTIONS = [
    pytest.param({"ranks": (1, 10)}, {"range_max": 10}, id="top"),
    pytest.param({"ranks": (6, 20)}, {"range_min": 5, "range_max": 20}, id="window"),
    pytest.param({"ranks": (1, 38), "margin": 0.1}, {"range_max": 38, "absolute_margin": 0.1}, id="margin"),
    pytest.param({"ranks": (1, 38), "percentage": 0.6}, {"range_max": 38, "relative_margin": 0.4}, id="percentage"),
    pytest.param({"ranks": (1, 38), "max_score": 0.3}, {"range_max": 38, "max_score": 0.3}, id="maximum"),
    pytest.param({"ranks": (1, 38), "min_score": 0.2}, {"range_max": 38, "min_score": 0.2}, id="minimum"),
]


@pytest.mark.parametrize(("ours", "theirs"), OPTIONS)
def test_triplets_of_a_dense_retriever_and_their_scores_are_those_of_sentence_transformers(
    ours: dict[str, Any],
    theirs: dict[str, Any],
    search: hs.HybridSearch,
    pairs: TrainingData,
    by_sentence_transformers: Callable[..., dict[str, list[Any]]],
) -> None:
    expected = by_sentence_transformers(num_negatives=3, output_scores=True, **theirs)
    mined = mine_hard_negatives(pairs, search, retriever="dense", per_query=3, batch_size=25, **ours)
    scores = expected.pop("scores")
    assert rows_of(mined.data.rows.to_dict()) == rows_of(expected)
    by_text = {row: scores[place] for place, row in enumerate(zip(*expected.values(), strict=True))}
    found = zip(mined.provenance["positive_score"], mined.provenance["score"], strict=True)
    for row, (positive, score) in zip(zip(*mined.data.rows.to_dict().values(), strict=True), found, strict=True):
        assert score == pytest.approx(by_text[row][1], abs=1e-5)
        if positive is not None:
            assert positive == pytest.approx(by_text[row][0], abs=1e-5)


@pytest.mark.parametrize(("output_format", "theirs"), [("n-tuples", "n-tuple"), ("labelled pairs", "labeled-pair")])
def test_formats_are_those_of_sentence_transformers(
    output_format: Any,
    theirs: str,
    search: hs.HybridSearch,
    pairs: TrainingData,
    by_sentence_transformers: Callable[..., dict[str, list[Any]]],
) -> None:
    margins = {"num_negatives": 4, "range_max": 38, "absolute_margin": 0.2}
    expected = by_sentence_transformers(output_format=theirs, **margins)
    mined = mine_hard_negatives(
        pairs, search, retriever="dense", per_query=4, ranks=(1, 38), margin=0.2, output_format=output_format
    )
    assert rows_of(mined.data.rows.to_dict()) == rows_of(expected)


def test_lists_hold_the_texts_of_sentence_transformers_once_a_query(
    search: hs.HybridSearch, pairs: TrainingData, by_sentence_transformers: Callable[..., dict[str, list[Any]]]
) -> None:
    expected = by_sentence_transformers(output_format="labeled-list", num_negatives=4, range_max=10)
    labelled = {
        (query, text, float(label))
        for query, texts, labels in zip(*expected.values(), strict=True)
        for text, label in zip(texts, labels, strict=True)
    }
    mined = mine_hard_negatives(pairs, search, retriever="dense", per_query=4, ranks=(1, 10), output_format="lists")
    rows = mined.data.rows.to_dict()
    assert len(set(rows["query"])) == len(rows["query"])
    assert {
        (query, text, label)
        for query, texts, labels in zip(rows["query"], rows["docs"], rows["labels"], strict=True)
        for text, label in zip(texts, labels, strict=True)
    } == labelled


def test_a_cross_encoder_keeps_what_it_keeps_in_sentence_transformers(
    search: hs.HybridSearch,
    pairs: TrainingData,
    tiny_reranker: Path,
    by_sentence_transformers: Callable[..., dict[str, list[Any]]],
) -> None:
    from sentence_transformers import CrossEncoder

    reranker = CrossEncoder(str(tiny_reranker), device="cpu")
    expected = by_sentence_transformers(
        8, num_negatives=39, range_max=39, absolute_margin=0.0, cross_encoder=reranker, batch_size=128
    )
    some = pairs.select(range(8))
    mined = mine_hard_negatives(some, search, retriever="dense", per_query=39, ranks=(1, 39), reranker=reranker)
    assert rows_of(mined.data.rows.to_dict()) == rows_of(expected)


def test_a_reranker_scores_no_more_candidates_than_are_needed(search: hs.HybridSearch, pairs: TrainingData) -> None:
    scored: Counter[str] = Counter()

    class Indifferent:
        top_k = 10

        def rerank(self, queries: Sequence[str], documents: Sequence[Sequence[hs.Document]]) -> list[NDArray[Any]]:
            scored.update(dict(zip(queries, map(len, documents), strict=True)))
            return [np.zeros(len(of_query)) for of_query in documents]

        def to_json(self) -> None:
            return None

    mined = mine_hard_negatives(pairs, search, per_query=2, ranks=(1, 30), reranker=Indifferent())
    positives = Counter(pairs.rows["anchor"])
    assert scored == {query: count + 2 for query, count in positives.items()}
    assert mined.summary.kept == 2 * len(positives)


def test_the_provenance_is_where_the_search_shows_the_negative(
    search: hs.HybridSearch, tiny_dataset: hs.Dataset
) -> None:
    mined = mine_hard_negatives(tiny_dataset, search, per_query=2, ranks=(3, 12))
    assert len(mined.provenance) == len(mined.data) == 80
    found = search.search_many(mined.data.rows["anchor"], 100)
    for row, place, results in zip(mined.data.rows, mined.provenance, found, strict=True):
        assert place["query_id"] == f"q-{place['document_id']}"
        hits = {hit.id: hit for hit in results}
        hit = hits[place["negative_id"]]
        assert (hit.rank, hit.document.content) == (place["rank"], row["negative_1"])
        assert hit.score == pytest.approx(place["score"])
        assert set(hit.retrievers) == set(place["retriever"].split("+"))
        assert hits[place["document_id"]].score == pytest.approx(place["positive_score"])


def test_ranks_and_scores_of_one_retriever_are_its_own(search: hs.HybridSearch, tiny_dataset: hs.Dataset) -> None:
    mined = mine_hard_negatives(tiny_dataset, search, retriever="dense", ranks=(1, 5))
    row, place = mined.data.rows[0], mined.provenance[0]
    own = search.search(row["anchor"], 40, retrievers=["dense"])
    hit = next(hit for hit in own if hit.id == place["negative_id"])
    assert place["retriever"] == "dense"
    assert hit.retrievers["dense"].rank == place["rank"]
    assert hit.retrievers["dense"].score == pytest.approx(place["score"])


@pytest.fixture
def small() -> hs.HybridSearch:
    """Six documents that match "wing". Longer documents have lower scores."""
    search = hs.HybridSearch({"bm25": hs.BM25()})
    search.index(
        [
            hs.Document("a", "wing"),
            hs.Document("b", "wing lift"),
            hs.Document("c", "wing lift drag", "Title"),
            hs.Document("d", "wing lift drag heat flow"),
            hs.Document("d2", "Wing  lift drag heat FLOW"),
            hs.Document("e", "wing lift drag heat flow speed force"),
        ],
        show_progress_bar=False,
    )
    return search


def pair(query: str, *positives: str, ids: Sequence[str] | None = None) -> TrainingData:
    known = None if ids is None else {"query_id": ["q"] * len(positives), "document_id": list(ids)}
    columns = {"anchor": [query] * len(positives), "positive": list(positives)}
    return TrainingData.from_columns(Kind.PAIRS, columns, ids=known)


def negative_ids(mined: Negatives) -> list[str]:
    return list(mined.provenance["negative_id"])


def test_all_known_positives_are_left_out_by_id(small: hs.HybridSearch) -> None:
    mined = mine_hard_negatives(pair("wing", "other text", "b", ids=["e", "b"]), small, per_query=6, ranks=(1, 6))
    assert set(negative_ids(mined)) == {"c", "d"}


def test_all_known_positives_are_left_out_by_text_with_or_without_title(small: hs.HybridSearch) -> None:
    mined = mine_hard_negatives(pair("wing", "WING lift\n", "wing lift drag"), small, per_query=6, ranks=(1, 6))
    assert set(negative_ids(mined)) == {"d", "e"}


def test_known_positives_are_those_of_the_query_in_any_case(search: hs.HybridSearch) -> None:
    texts = ["Bread rises because yeast turns sugar into gas.", "Cheese is made from milk with rennet and bacteria."]
    columns = {"anchor": ["bread and cheese bacteria", "Bread and cheese  bacteria"], "positive": texts}

    mined = mine_hard_negatives(TrainingData.from_columns(Kind.PAIRS, columns), search, ranks=(1, 30))

    assert mined.summary.queries == 1
    assert set(texts).isdisjoint(mined.data.rows["negative_1"])


def test_the_query_itself_and_repeated_texts_are_no_negatives(small: hs.HybridSearch) -> None:
    mined = mine_hard_negatives(pair("wing", "wing lift"), small, per_query=6, ranks=(1, 6))
    assert negative_ids(mined) == ["c", "d", "e"]
    assert mined.summary.dropped == {"the query itself": 1, "known positive": 1, "same text as a better candidate": 1}


def test_nearly_the_text_of_a_positive_is_no_negative() -> None:
    long = (
        "Lift is the force on a wing that is normal to the flow and grows with the angle of attack until it stalls so"
    )
    words = long.split()
    texts = {
        "stop": f"{long}.",
        "quoted": f"“{long.upper()}!”",
        "wide": long.replace("wing", "ｗｉｎｇ"),
        "word": " ".join([*words[:-1], "soon"]),
        "words": " ".join([*words[:-2], "for", "good"]),
        "short": "lift is the force on a wing",
    }
    search = hs.HybridSearch({"bm25": hs.BM25()})
    search.index([hs.Document(id, text) for id, text in texts.items()], show_progress_bar=False)
    mined = mine_hard_negatives(
        pair("lift force", long, "Lift is the force on a flap"), search, per_query=9, ranks=(1, 9)
    )
    assert set(negative_ids(mined)) == {"words", "short"}
    assert mined.summary.dropped == {"known positive": 3, "nearly the same text as a positive": 1}


def test_the_summary_accounts_for_every_candidate(search: hs.HybridSearch, pairs: TrainingData) -> None:
    summary = mine_hard_negatives(pairs, search, retriever="dense", per_query=2, ranks=(2, 9), margin=0.2).summary
    assert summary.kept + sum(summary.dropped.values()) == summary.candidates
    assert sum(summary.kept_by.values()) == summary.kept
    assert set(summary.dropped) == {
        "known positive",
        "ranked before the window",
        "ranked after the window",
        "less than 0.2 below the positive",
        "not needed",
    }


def test_queries_with_too_few_negatives_are_counted(small: hs.HybridSearch) -> None:
    data = TrainingData.from_columns(Kind.PAIRS, {"anchor": ["speed", "absent"], "positive": ["x", "y"]})
    summary = mine_hard_negatives(data, small, per_query=2, ranks=(1, 6)).summary
    assert (summary.queries, summary.short, summary.empty, summary.kept) == (2, 2, 1, 1)
    assert str(summary).startswith(
        "1 negative for 2 queries, 1 row; 2 queries with fewer than asked for, 1 of them with none"
    )


def test_random_negatives_do_not_depend_on_the_batches(search: hs.HybridSearch, pairs: TrainingData) -> None:
    options: dict[str, Any] = {"retriever": "bm25", "per_query": 2, "ranks": (1, 30), "sampling": "random"}
    one, other = (mine_hard_negatives(pairs, search, batch_size=size, seed=3, **options) for size in (3, 100))
    assert one.data.rows.to_dict() == other.data.rows.to_dict()
    another = mine_hard_negatives(pairs, search, seed=4, **options)
    assert one.data.rows.to_dict() != another.data.rows.to_dict()


def test_a_positive_that_the_ranking_does_not_reach_leaves_no_negative_below_a_margin(small: hs.HybridSearch) -> None:
    with pytest.raises(InvalidArgumentError, match="a positive is not among the candidates"):
        mine_hard_negatives(pair("wing", "nowhere in the index"), small, ranks=(1, 6), margin=0.0)


def test_a_pipeline_says_which_documents_and_how_deep(tiny_corpus: list[hs.Document], tiny_dataset: hs.Dataset) -> None:
    search = hs.HybridSearch({"bm25": hs.BM25()})
    topics = [hs.Document(one.id, one.text, one.title, {"topic": one.id.split("-")[0]}) for one in tiny_corpus]
    search.index(topics, show_progress_bar=False)
    pipeline = hs.Pipeline(search, filter={"topic": "sky"})
    mined = mine_hard_negatives(tiny_dataset, pipeline, ranks=(1, 10))
    assert {id.split("-")[0] for id in negative_ids(mined)} == {"sky"}


def test_a_pipeline_mines_with_its_feedback() -> None:
    texts = {"a": "lift angle attack", "b": "lift angle angle wing", "c": "angle wing wing", "d": "wing tunnel"}
    search = hs.HybridSearch({"bm25": hs.BM25()})
    search.index((hs.Document(id, text) for id, text in texts.items()), show_progress_bar=False)
    dataset = hs.Dataset("wings", {"q": "lift"}, {"q": {"a": 1}}, [hs.Document(id, text) for id, text in texts.items()])
    feedback = hs.RM3(max_share=1.0)
    mined = mine_hard_negatives(dataset, hs.Pipeline(search, feedback=feedback), ranks=(1, 9))
    assert {"a", *negative_ids(mined)} <= set(search.search("lift", feedback=feedback).ids)
    assert mined.summary.candidates == 4
    assert mine_hard_negatives(dataset, search, ranks=(1, 9)).summary.candidates == 2


@pytest.mark.parametrize("output_format", ["triplets", "n-tuples", "labelled pairs", "lists"])
def test_a_folder_holds_what_memory_does(
    output_format: Any, search: hs.HybridSearch, tiny_dataset: hs.Dataset, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"per_query": 2, "ranks": (1, 10), "output_format": output_format, "batch_size": 16}
    options["retriever"] = "bm25"
    memory = mine_hard_negatives(tiny_dataset, search, **options)
    folder = mine_hard_negatives(tiny_dataset, search, output=tmp_path / "mined", **options)
    assert folder.path == tmp_path / "mined"
    assert folder.summary == memory.summary
    assert folder.data.rows.to_dict() == memory.data.rows.to_dict()
    assert folder.provenance.to_dict() == memory.provenance.to_dict()
    assert read_training_data(tmp_path / "mined").rows.to_dict() == memory.data.rows.to_dict()


def test_batches_without_a_row_are_no_hindrance(small: hs.HybridSearch, tmp_path: Path) -> None:
    columns = {"anchor": ["absent", "wing", "nowhere"], "positive": ["x", "wing lift", "y"]}
    data = TrainingData.from_columns(Kind.PAIRS, columns)
    mined = mine_hard_negatives(data, small, ranks=(1, 6), batch_size=1, output=tmp_path / "mined")
    assert mined.data.rows["anchor"][:] == ["wing"]
    with pytest.raises(InvalidArgumentError, match="No negatives were found"):
        mine_hard_negatives(data.select([0, 2]), small, batch_size=1, output=tmp_path / "none")


def test_positives_alone_are_nothing_to_train_on(small: hs.HybridSearch) -> None:
    pairs = TrainingData.from_columns(Kind.PAIRS, {"anchor": ["wing"], "positive": ["wing lift"]})
    with pytest.raises(InvalidArgumentError, match=r"No negatives were found .* `hybridsearch mine --ranks 1-20`"):
        mine_hard_negatives(pairs, small, ranks=(50, 60), output_format="labelled pairs")


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(percentage=0.999), "more than 99.9% of the positive's score"),
        (Limits(margin=0), "scored above the positive"),
    ],
)
def test_the_reason_names_the_limit_that_was_asked_for(limits: Limits, reason: str) -> None:
    assert limits.refuse(2.0, 1.0) == reason


def test_a_folder_that_was_mined_in_another_way_is_refused(
    small: hs.HybridSearch, tmp_path: Path, tiny_dataset: hs.Dataset
) -> None:
    data = pair("wing", "wing lift")
    mine_hard_negatives(data, small, ranks=(1, 6), output=tmp_path / "mined")
    with pytest.raises(InvalidArgumentError, match=r"another way \(ranks \[1, 6\], now \[1, 5\]\)"):
        mine_hard_negatives(data, small, ranks=(1, 5), output=tmp_path / "mined")
    small.upsert(hs.Document("e", "A text that is new"))
    with pytest.raises(InvalidArgumentError, match=r"another way \(content '"):
        mine_hard_negatives(data, small, ranks=(1, 6), output=tmp_path / "mined")
    small.upsert(hs.Document("e", "wing lift drag heat flow speed force", metadata={"read": "by a template"}))
    with pytest.raises(InvalidArgumentError, match=r"another way \(content '"):
        mine_hard_negatives(data, small, ranks=(1, 6), output=tmp_path / "mined")
    small.delete("e")
    with pytest.raises(InvalidArgumentError, match=r"documents 6, now 5"):
        mine_hard_negatives(data, small, ranks=(1, 6), output=tmp_path / "mined")


def test_a_folder_that_was_mined_for_pairs_with_other_ids_is_refused(small: hs.HybridSearch, tmp_path: Path) -> None:
    mine_hard_negatives(pair("wing", "other text", ids=["a"]), small, ranks=(1, 6), output=tmp_path / "mined")
    for ids in (["b"], None):
        with pytest.raises(InvalidArgumentError, match=r"another way \(data '"):
            mine_hard_negatives(pair("wing", "other text", ids=ids), small, ranks=(1, 6), output=tmp_path / "mined")


def test_a_folder_that_was_mined_from_other_passages_is_refused(tmp_path: Path) -> None:
    text = " ".join(f"The wing number {number} has lift and drag." for number in range(8))
    for passages in (None, hs.Passages(size=8)):
        search = hs.HybridSearch({"bm25": hs.BM25()}, passages=passages)
        search.index([hs.Document(id, f"{id} {text}") for id in "abc"], show_progress_bar=False)
        mine = partial(mine_hard_negatives, pair("wing", "a text"), search, ranks=(1, 6), output=tmp_path / "mined")
        if passages is None:
            mine()
        else:
            with pytest.raises(InvalidArgumentError, match=r"another way \(retrievers "):
                mine()


def test_a_folder_may_have_a_name_that_looks_like_a_pattern(small: hs.HybridSearch, tmp_path: Path) -> None:
    found = {
        name: mine_hard_negatives(pair("wing", text), small, ranks=(1, 6), output=tmp_path / name).data.rows[
            "positive"
        ][0]
        for name, text in (("run1", "wing lift"), ("run[1]", "another wing"))
    }
    assert found == {"run1": "wing lift", "run[1]": "another wing"}


def test_a_folder_with_other_files_is_left_alone(small: hs.HybridSearch, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InvalidArgumentError, match="other files"):
        mine_hard_negatives(pair("wing", "wing lift"), small, ranks=(1, 6), output=tmp_path)


def test_a_damaged_part_is_named(small: hs.HybridSearch, tmp_path: Path) -> None:
    mine_hard_negatives(pair("wing", "wing lift"), small, ranks=(1, 6), output=tmp_path / "mined")
    (tmp_path / "mined" / "part-00000.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(InvalidArgumentError, match=r"part-00000\.parquet is damaged"):
        Negatives.open(tmp_path / "mined")


def test_mining_that_was_killed_goes_on_and_ends_with_the_same_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    words = [f"word{number}" for number in range(200)]
    texts = [" ".join(rng.choice(words, 30)) for _ in range(150)]
    corpus = [hs.Document(f"d{number}", text) for number, text in enumerate(texts)]
    queries = {f"q{number}": " ".join(text.split()[:4]) for number, text in enumerate(texts)}
    dataset = hs.Dataset("words", queries, {id: {id.replace("q", "d"): 1} for id in queries}, corpus)
    search = hs.HybridSearch({"bm25": hs.BM25()})
    search.index(corpus, show_progress_bar=False)
    mined = tmp_path / "mined"
    mine = partial(mine_hard_negatives, dataset, search, per_query=2, sampling="random")

    process = get_context("fork").Process(target=mine, kwargs={"batch_size": 1, "output": mined})
    process.start()
    while process.is_alive() and not (mined / "part-00005.parquet").exists():
        time.sleep(0.002)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    parts = {path.name: path.stat().st_mtime_ns for path in mined.glob("part-*.parquet")}
    assert 6 <= len(parts) < 150
    with pytest.raises(InvalidArgumentError, match=r"lacks \d+ of 150 parts"):
        Negatives.open(mined)

    mine(batch_size=1, output=mined)
    assert {name: (mined / name).stat().st_mtime_ns for name in parts} == parts  # not done again
    whole = mine()
    resumed = Negatives.open(mined)
    assert resumed.data.rows.to_dict() == whole.data.rows.to_dict()
    assert resumed.provenance.to_dict() == whole.provenance.to_dict()
    assert resumed.summary == whole.summary


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"per_query": 0}, "per_query is a whole number of at least 1"),
        ({"ranks": (5, 4)}, r"ranks is \(5, 4\)\. Give the first and the last rank"),
        ({"ranks": (5, 5), "per_query": 2}, "Ranks 5 to 5 cannot give 2 negatives a query"),
        ({"ranks": (0, 4)}, "A rank is a whole number of at least 1"),
        ({"ranks": 4}, "ranks is 4. Give the first and the last rank"),
        ({"margin": -0.1}, "margin is -0.1"),
        ({"percentage": 1.5}, "percentage is 1.5"),
        ({"max_score": float("nan")}, "max_score is nan. Give a number or None"),
        ({"sampling": "best"}, "sampling is 'best'. Give 'top' or 'random'"),
        ({"output_format": "pairs"}, "output_format is one of"),
        ({"retriever": "sparse"}, "'sparse', which is not a retriever"),
        ({"batch_size": 0}, "batch_size is a whole number"),
    ],
)
def test_an_argument_that_is_not_usable_is_refused(
    options: dict[str, Any], message: str, small: hs.HybridSearch
) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        mine_hard_negatives(pair("wing", "wing lift"), small, **options)


def test_data_that_are_no_pairs_are_refused(small: hs.HybridSearch) -> None:
    data = TrainingData.from_columns(Kind.TEXTS, {"text": ["wing"]})
    with pytest.raises(InvalidArgumentError, match="pairs"):
        mine_hard_negatives(data, small)


def test_saved_runs_cannot_be_mined() -> None:
    runs = {"bm25": {"q": hs.Ranking.from_scores({"a": 1.0})}}
    with pytest.raises(InvalidArgumentError, match="which has the documents"):
        mine_hard_negatives(pair("wing", "wing lift"), hs.Pipeline(runs))


def test_an_index_without_documents_is_refused() -> None:
    with pytest.raises(IndexNotFoundError):
        mine_hard_negatives(pair("wing", "wing lift"), hs.HybridSearch({"bm25": hs.BM25()}))


def test_an_optional_retriever_that_fails_is_an_error(tiny_corpus: list[hs.Document]) -> None:
    class Failing(hs.BM25):
        def encode_queries(self, texts: Sequence[str]) -> Any:
            raise OSError("no connection")

    search = hs.HybridSearch({"bm25": hs.BM25(), "other": Failing()}, optional=["other"])
    search.index(tiny_corpus, show_progress_bar=False)
    with pytest.raises(RetrieverError, match="'other' failed"):
        mine_hard_negatives(pair("wing", "wing lift"), search)
