"""Tests of Seismic: it passes the conformance suite, handles what Seismic alone cannot do, and has a high recall."""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array

import hybridsearch as hs
from hybridsearch.adapters.memory import MemoryBackend
from hybridsearch.adapters.memory.segment import Segment
from hybridsearch.adapters.memory.state import State, View
from hybridsearch.backends import Backend, Request, Schema
from hybridsearch.corpus import CorpusStore
from hybridsearch.documents import Document
from hybridsearch.errors import BackendError, IndexCorruptedError, InvalidArgumentError
from hybridsearch.filters import Filter
from hybridsearch.places import connect
from hybridsearch.ranking import EMPTY
from hybridsearch.testing import BackendSuite
from hybridsearch.testing.base import ask, check, put
from hybridsearch.testing.ranking import RankingTests
from hybridsearch.testing.samples import Item, encode, make_schema, random_items, random_queries, sparse_query
from hybridsearch.testing.updates import UpdateTests
from hybridsearch.vectors import EncodedBatch, SparseQuery, SparseVectors, Vocabulary

seismic = pytest.importorskip("seismic", reason="Seismic needs pyseismic-lsr: pip install 'hybridsearch[seismic]'")

from hybridsearch.adapters.seismic import SeismicBackend  # noqa: E402 - after the line above
from hybridsearch.adapters.seismic.shards import read_shards  # noqa: E402

SMALL = 16
"""The smallest number of documents with a Seismic index. It is small, so that the tests do not use exact search."""

SCHEMA = make_schema(frozenset({"sparse"}))


class TestInAFolder(BackendSuite):
    @pytest.fixture
    def connect(self, tmp_path: Path) -> Callable[[str], Backend]:
        return lambda name: SeismicBackend(f"seismic://{tmp_path / name}", min_documents=SMALL)

    @pytest.fixture
    def connect_shared(self, new_folder: Callable[[], Path]) -> Callable[[str], Backend]:
        return lambda name: SeismicBackend(f"seismic://{new_folder()}", min_documents=SMALL)


class TestInRam(RankingTests, UpdateTests):
    @pytest.fixture
    def connect(self) -> Callable[[str], Backend]:
        return lambda name: SeismicBackend("seismic://:memory:", min_documents=SMALL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "index"


@pytest.fixture
def exact_search_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make exact search fail, so that only Seismic can answer."""

    def fail(state: State, requests: Sequence[Request]) -> None:
        raise AssertionError("exact search was asked")

    monkeypatch.setattr(State, "_answer", fail)


def make(items: Sequence[Item], folder: Path | None = None, *, n_postings: int | None = None) -> SeismicBackend:
    """A backend with a Seismic index of `items`. Seismic skips no clusters, so that few documents are enough."""
    backend = SeismicBackend(folder, min_documents=SMALL, heap_factor=0.0, n_postings=n_postings)
    backend.create(SCHEMA)
    put(backend, items, SCHEMA)
    return backend


def reopen(folder: Path, *, n_postings: int | None = None, summary_energy: float | None = None) -> SeismicBackend:
    backend = SeismicBackend(
        folder, min_documents=SMALL, heap_factor=0.0, n_postings=n_postings, summary_energy=summary_energy
    )
    assert backend.open() == SCHEMA
    return backend


def indexed(backend: SeismicBackend) -> list[int]:
    """The number of documents of each Seismic index."""
    return [index["documents"] for index in backend.describe()["seismic"]["indices"]]


# --------------------------------------------------------------------------------------------------- who answers


def test_seismic_itself_answers(exact_search_is_broken: None) -> None:
    items = random_items(500)
    backend = make(items)
    for query in random_queries("sparse"):
        check(backend, "sparse", items, query, 10)


def test_seismic_itself_answers_a_batch(exact_search_is_broken: None) -> None:
    items = random_items(500)
    backend = make(items)
    requests = [Request("sparse", query, 10) for query in random_queries("sparse", 70)]
    assert backend.search(requests) == [backend.search([request])[0] for request in requests]


def test_seismic_answers_from_a_folder_that_was_opened_again(folder: Path, exact_search_is_broken: None) -> None:
    items = random_items(100)
    make(items, folder).close()
    backend = reopen(folder)
    for query in random_queries("sparse"):
        check(backend, "sparse", items, query, 3)


def test_few_documents_are_searched_exactly() -> None:
    backend = make(random_items(SMALL - 1))
    assert indexed(backend) == []


def test_a_filter_is_answered_exactly() -> None:
    items = random_items(200)
    backend = make(items)
    wanted = [item.id for item in items[:7]]
    query = sparse_query({"word0": 1.0, "word1": 0.5, "word2": 0.1})
    exact = MemoryBackend()
    exact.create(SCHEMA)
    put(exact, items, SCHEMA)
    filter = Filter.parse({"id": {"$in": wanted}})
    assert ask(backend, "sparse", query, 10, filter) == ask(exact, "sparse", query, 10, filter)


def test_a_search_for_more_documents_than_match_finds_all_that_match() -> None:
    items = [*random_items(300), Item("rare", {}, {"rare": 0.5})]
    backend = make(items, n_postings=1)
    assert ask(backend, "sparse", sparse_query({"rare": 1.0}), 10).ids == ("rare",)
    for query in random_queries("sparse"):
        found = ask(backend, "sparse", query, 300)
        terms = {*query.terms} if isinstance(query, SparseQuery) else set()
        assert set(found.ids) == {item.id for item in items if terms & item.weights.keys()}


# ------------------------------------------------------------------------------------------------------ changes


def test_what_came_since_the_index_was_made_is_found_at_once() -> None:
    items = random_items(100)
    backend = make(items)
    new = [Item(f"new{number}", {}, {"word0": 50.0 + number}) for number in range(3)]
    backend.upsert(encode(new, SCHEMA))
    assert indexed(backend) == [100]
    assert ask(backend, "sparse", sparse_query({"word0": 1.0}), 3).ids == ("new2", "new1", "new0")


def test_deleted_and_replaced_documents_never_come_back(folder: Path) -> None:
    items = random_items(100)
    backend = make(items, folder)
    query = sparse_query({"word0": 1.0, "word1": 1.0})
    best = ask(backend, "sparse", query, 2).ids
    backend.delete([best[0]])
    backend.upsert(encode([Item(best[1], {}, {"other": 1.0})], SCHEMA))
    assert not set(best) & set(ask(backend, "sparse", query, 20).ids)
    backend.close()
    again = reopen(folder)
    assert indexed(again) == [100]
    assert not set(best) & set(ask(again, "sparse", query, 20).ids)


def test_an_index_of_mostly_deleted_documents_is_dropped(folder: Path) -> None:
    items = random_items(100)
    backend = make(items, folder)
    backend.delete([item.id for item in items[:90]])
    backend.refresh()
    assert indexed(backend) == []
    assert list((folder / "seismic").iterdir()) == []
    for query in random_queries("sparse"):
        check(backend, "sparse", items[90:], query)


def test_many_additions_leave_few_indices_and_no_stale_files(folder: Path) -> None:
    backend = make([], folder)
    items = random_items(15 * SMALL)
    for start in range(0, len(items), SMALL):
        put(backend, items[start : start + SMALL], SCHEMA)
    assert len(indexed(backend)) <= 4
    assert len(list((folder / "seismic").iterdir())) == len(indexed(backend))
    for query in random_queries("sparse"):
        check(backend, "sparse", items, query)


# ------------------------------------------------------------------------------------ what Seismic alone gets wrong


def test_terms_that_seismic_would_truncate_stay_apart(exact_search_is_broken: None) -> None:
    terms = [f"{'x' * length}{number}" for length in (29, 30, 99, 100, 300) for number in range(9)]
    backend = make([Item(f"d{number}", {}, {term: 1.0}) for number, term in enumerate(terms)])
    for number, term in enumerate(terms):
        assert ask(backend, "sparse", sparse_query({term: 1.0}), 1).ids == (f"d{number}",)


def test_more_than_65535_terms_are_told_apart(exact_search_is_broken: None) -> None:
    items = [
        Item(f"d{row}", {}, {f"t{number}": 1.0 for number in range(15 * row, 15 * row + 15)}) for row in range(4400)
    ]
    backend = make(items)
    for number in (0, 4463, 4464, 65_534, 65_535, 65_536, 65_999):
        assert ask(backend, "sparse", sparse_query({f"t{number}": 1.0}), 1).ids == (f"d{number // 15}",)


def test_a_query_without_a_match_finds_nothing() -> None:
    backend = make(random_items(100))
    known, unknown = sparse_query({"word0": 1.0}), sparse_query({"unknown": 1.0})
    answers = backend.search([Request("sparse", query, 5) for query in (unknown, known, unknown)])
    assert [len(answer) for answer in answers] == [0, 5, 0]
    assert answers[0] == EMPTY


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e6, 1e30])
def test_weights_beyond_16_bit_floats_are_searched(scale: float, exact_search_is_broken: None) -> None:
    items = [
        Item(item.id, {}, {term: float(np.float32(weight * scale)) for term, weight in item.weights.items()})
        for item in random_items(200)
    ]
    backend = make(items)
    for query in random_queries("sparse"):
        check(backend, "sparse", items, query, 10)


@pytest.mark.parametrize("scale", [1e-38, 1e38])
def test_queries_of_extreme_weights_are_answered(scale: float, exact_search_is_broken: None) -> None:
    backend = make([Item(f"d{number:02}", {}, {"term": 0.1 * (number + 1)}) for number in range(30)])
    assert ask(backend, "sparse", sparse_query({"term": scale}), 3).ids == ("d29", "d28", "d27")


def test_weights_that_16_bit_floats_cannot_tell_apart_are_in_the_right_order(exact_search_is_broken: None) -> None:
    items = [Item(f"d{number}", {}, {"term": float(np.float32(1 + number * 1e-6))}) for number in range(SMALL)]
    found = ask(make(items), "sparse", sparse_query({"term": 1.0}), 5)
    assert found.ids == ("d15", "d14", "d13", "d12", "d11")
    assert found.scores.tolist() == [items[number].weights["term"] for number in (15, 14, 13, 12, 11)]


def test_equal_scores_are_ordered_by_id_even_where_one_was_added_later() -> None:
    backend = make([Item(f"b{number}", {}, {"term": 1.0}) for number in range(30)])
    backend.upsert(encode([Item("a", {}, {"term": 1.0}), Item("c", {}, {"term": 1.0})], SCHEMA))
    found = ask(backend, "sparse", sparse_query({"term": 1.0}), 12)
    assert found.ids[0] == "a"
    assert list(found.ids) == sorted(found.ids)


@pytest.mark.parametrize("negative", ["document", "query"])
def test_negative_weights_count(negative: str) -> None:
    items = random_items(100)
    if negative == "document":
        items[5] = Item("d5", {}, {"word0": -1.0, "word3": 30.0})
    backend = make(items)
    query = {"word0": 1.0, "word3": 1.0} if negative == "document" else {"word0": -1.0, "word3": 1.0}
    check_exactly(backend, items, query)
    backend.refresh()
    check_exactly(backend, items, query)


def check_exactly(backend: SeismicBackend, items: Sequence[Item], query: dict[str, float]) -> None:
    right = {item.id: sum(query.get(term, 0) * weight for term, weight in item.weights.items()) for item in items}
    best = sorted((pair for pair in right.items() if pair[1] > 0), key=lambda pair: (-pair[1], pair[0]))[:10]
    assert list(ask(backend, "sparse", sparse_query(query), 10).ids) == [id for id, _ in best]


def test_seismic_writes_nothing_to_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    backend = make(random_items(50))
    ask(backend, "sparse", sparse_query({"word0": 1.0}))
    assert capfd.readouterr() == ("", "")


# ------------------------------------------------------------------------------------------------------- storage


def damage_index(files: Path) -> None:
    path = next(files.glob("*/0.index.seismic"))
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def truncate_index(files: Path) -> None:
    path = next(files.glob("*/0.index.seismic"))
    path.write_bytes(path.read_bytes()[:-9])


def remove_index(files: Path) -> None:
    next(files.glob("*/0.index.seismic")).unlink()


def damage_manifest(files: Path) -> None:
    path = next(files.glob("*/manifest.json"))
    path.write_text(path.read_text().replace("word1", "word2", 1))


@pytest.mark.parametrize("damage", [damage_index, truncate_index, remove_index, damage_manifest])
def test_a_damaged_file_is_named_and_its_index_made_again(
    folder: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    items = random_items(100)
    make(items, folder).close()
    damage(folder / "seismic")
    with caplog.at_level(logging.WARNING):
        backend = reopen(folder)
    assert str(folder / "seismic") in caplog.text
    assert indexed(backend) == [100]
    backend.close()
    caplog.clear()
    again = reopen(folder)
    assert indexed(again) == [100]
    for query in random_queries("sparse"):
        check(again, "sparse", items, query)


def index_of(content: Any) -> Any:
    return content["indices"]["sparse"]


HOSTILE: list[Callable[[Any], Any]] = [
    lambda content: index_of(content).update(file="../../manifest.json"),
    lambda content: index_of(content).update(file="/etc/passwd"),
    lambda content: index_of(content).update(size=-1),
    lambda content: index_of(content).update(terms=["word1"] * len(index_of(content)["terms"])),
    lambda content: index_of(content).update(terms=[]),
    lambda content: content.update(documents=float("nan")),
    lambda content: content.update(parts=[1, 2]),
    lambda content: content.update(parameters={"n_postings": "many"}),
    lambda content: content.pop("indices"),
]


def test_a_manifest_that_says_something_impossible_is_not_followed(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make(random_items(100), folder).close()
    store = CorpusStore.open(folder)
    views = [View(Segment.build(next(store.batches())), None, store.parts[0])]
    assert len(read_shards(folder / "seismic", views, {})[0]) == 1
    for number, change in enumerate(HOSTILE):
        hostile = tmp_path / f"hostile{number}"
        shutil.copytree(folder / "seismic", hostile)
        path = next(hostile.glob("*/manifest.json"))
        content = json.loads(path.read_bytes())
        change(content)
        raw = json.dumps(content).encode()
        path.write_bytes(raw)
        path.parent.rename(hostile / hashlib.sha256(raw).hexdigest()[:16])
        caplog.clear()
        assert read_shards(hostile, views, {})[0] == []
        assert str(hostile) in caplog.text


def test_a_link_in_the_place_of_the_indices_is_refused(folder: Path, tmp_path: Path) -> None:
    make(random_items(20), folder).close()
    (folder / "seismic").rename(tmp_path / "elsewhere")
    (folder / "seismic").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IndexCorruptedError, match="seismic is damaged"):
        SeismicBackend(folder).open()


def test_what_was_never_refreshed_is_indexed_when_the_folder_is_opened(folder: Path) -> None:
    backend = SeismicBackend(folder, min_documents=SMALL)
    backend.create(SCHEMA)
    backend.upsert(encode(random_items(50), SCHEMA))
    backend.close()
    assert indexed(reopen(folder)) == [50]


def test_the_folder_is_an_index_of_the_memory_backend_too(folder: Path) -> None:
    items = random_items(100)
    make(items, folder).close()
    memory = MemoryBackend(folder)
    assert memory.open() == SCHEMA
    put(memory, [Item("new", {}, {"word0": 99.0})], SCHEMA)
    memory.close()
    assert ask(reopen(folder), "sparse", sparse_query({"word0": 1.0}), 1).ids == ("new",)


def test_build_parameters_are_remembered_until_others_are_given(folder: Path) -> None:
    make(random_items(50), folder, n_postings=30).close()
    for n_postings, summary_energy in ((None, None), (40, None), (None, 0.5), (None, None)):
        backend = reopen(folder, n_postings=n_postings, summary_energy=summary_energy)
        assert indexed(backend) == [50]
        built = backend.describe()["seismic"]
        backend.close()
    assert (built["n_postings"], built["summary_energy"]) == (40, 0.5)


def test_an_index_of_another_version_of_seismic_is_made_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("hybridsearch.adapters.seismic.shards._ENGINE", "0.0.1")
        make(random_items(50), folder).close()
    before = [path.name for path in (folder / "seismic").iterdir()]
    backend = reopen(folder)
    assert indexed(backend) == [50]
    assert [path.name for path in (folder / "seismic").iterdir()] != before


def test_leftovers_of_an_interrupted_build_are_removed(folder: Path) -> None:
    backend = make(random_items(50), folder)
    leftover = folder / "seismic" / "0123456789abcdef.tmp"
    leftover.mkdir()
    put(backend, random_items(50, prefix="e"), SCHEMA)
    assert not leftover.exists()


def test_a_failing_builder_is_an_error_and_the_documents_are_searched_exactly(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = SeismicBackend(folder, min_documents=SMALL)
    backend.create(SCHEMA)
    items = random_items(50)
    backend.upsert(encode(items, SCHEMA))
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/bin/false")
        with pytest.raises(BackendError, match="exit status 1"):
            backend.refresh()
    assert list((folder / "seismic").iterdir()) == []
    check(backend, "sparse", items, sparse_query({"word0": 1.0}))
    backend.refresh()
    assert indexed(backend) == [50]


def test_readers_keep_their_index_while_another_process_replaces_the_files(folder: Path) -> None:
    items = random_items(100)
    make(items, folder).close()
    reader, writer = reopen(folder), reopen(folder)
    put(writer, random_items(100, seed=3, prefix="e"), SCHEMA)
    for query in random_queries("sparse"):
        check(reader, "sparse", items, query)
    assert indexed(reader) == [100]
    assert indexed(writer) == [200]


# -------------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize("location", ["seismic://folder", "seismic://localhost/x/", "http:///a/folder"])
def test_a_place_that_is_none_is_refused(location: str) -> None:
    with pytest.raises(InvalidArgumentError, match="seismic:///a/folder"):
        SeismicBackend(location)


@pytest.mark.parametrize(
    "options",
    [{"query_cut": 0}, {"heap_factor": 1.5}, {"n_postings": 0}, {"summary_energy": 0.0}, {"min_documents": -1}],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(InvalidArgumentError, match=next(iter(options))):
        connect("seismic://:memory:", options)


def test_an_index_is_made_and_opened_by_its_url(folder: Path) -> None:
    url = f"seismic://{folder}"
    with hs.HybridSearch({"bm25": hs.BM25()}, backend=url) as search:
        search.index([hs.Document("a", "lift of a wing"), hs.Document("b", "flow in a pipe")])
    with hs.open(url) as opened:
        assert [hit.id for hit in opened.search("wing")] == ["a"]


# --------------------------------------------------------------------------------------------------------- recall


def splade_like(path: Path, documents: int, queries: int) -> tuple[SparseVectors, list[SparseQuery]]:
    """Documents that are mixtures of the SPLADE vectors of three questions, and other questions.

    A line holds each token as often as its weight says, times 100.
    """
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [Counter(line.rstrip("\n").split("\t")[1].split(" ")) for line in islice(lines, 2000 + queries)]
    vocabulary = Vocabulary(sorted({term for row in rows for term in row}))
    indices = np.array([vocabulary.index[term] for row in rows for term in row])
    data = np.array([count / 100 for row in rows for count in row.values()], dtype=np.float32)
    matrix = csr_array((data, indices, np.cumsum([0, *map(len, rows)])), shape=(len(rows), len(vocabulary)))
    rng = np.random.default_rng(0)
    chosen = rng.integers(0, 2000, 3 * documents)
    strength = rng.uniform(0.3, 1.2, 3 * documents).astype(np.float32)
    mixture = csr_array((strength, chosen, np.arange(documents + 1) * 3), shape=(documents, len(rows)))
    asked = [
        SparseQuery(tuple(row), np.array([count / 100 for count in row.values()], dtype=np.float32))
        for row in rows[2000:]
    ]
    return SparseVectors(csr_array(mixture @ matrix), vocabulary), asked


def test_nine_of_ten_documents_are_found_at_default_parameters(data_folder: Path) -> None:
    vectors, queries = splade_like(data_folder / "splade_v3_queries" / "msmarco-dev.tsv.gz", 10_000, 100)
    backend = SeismicBackend(min_documents=1000)
    schema = Schema({"sparse": SCHEMA.retrievers["sparse"]})
    backend.create(schema)
    backend.upsert(EncodedBatch([Document(str(row), "") for row in range(len(vectors))], {"sparse": vectors}))
    backend.refresh()
    assert indexed(backend) == [10_000]
    requests = [Request("sparse", query, 10) for query in queries]
    found = backend.search(requests)
    assert found == [backend.search([request])[0] for request in requests]
    recalls = []
    for query, ranking in zip(queries, found, strict=True):
        columns = [vectors.vocabulary.index[term] for term in query.terms]
        scores = vectors.matrix[:, columns] @ query.weights.astype(np.float64)
        best = np.argsort(-scores)[:10]
        recalls.append(len({str(row) for row in best} & set(ranking.ids)) / 10)
        assert ranking.scores == pytest.approx([scores[int(id)] for id in ranking.ids], rel=1e-5)
    assert np.mean(recalls) >= 0.9
