"""Tests of repairs on real servers, after lost answers, killed processes and moved aliases."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import count, islice
from typing import Any

import faulty_proxy
import numpy as np
import pytest
from scipy.sparse import csr_array

pytest.importorskip("opensearchpy", reason="pip install 'hybridsearch[opensearch]'")
pytest.importorskip("elasticsearch", reason="pip install 'hybridsearch[elasticsearch]'")

from hybridsearch import BM25, HybridSearch
from hybridsearch.adapters.lucene.backend import LuceneBackend
from hybridsearch.adapters.lucene.wire.channel import Call, Channel
from hybridsearch.adapters.lucene.writing import Writer
from hybridsearch.backends import Request
from hybridsearch.documents import Document
from hybridsearch.errors import BackendError, BulkIndexError, IndexNotFoundError, InvalidArgumentError, StorageError
from hybridsearch.testing import samples
from hybridsearch.testing.base import put
from hybridsearch.testing.samples import Item, sparse_query
from hybridsearch.vectors import EncodedBatch, SparseVectors, Vocabulary

Make = Callable[..., LuceneBackend]
SCHEMA = samples.make_schema(frozenset({"lexical", "sparse", "dense"}), average_length=samples.FROZEN_LENGTH)
LEXICAL = samples.make_schema(frozenset({"lexical"}))


def settings(backend: LuceneBackend) -> tuple[str | None, str]:
    """The refresh interval and the number of replicas of the index."""
    (found,) = backend._channel.call("GET", f"{backend.address.path}/_settings").values()
    index = found["settings"]["index"]
    return index.get("refresh_interval"), index["number_of_replicas"]


def test_shards_and_replicas_that_an_index_does_not_have_are_refused(make: Make) -> None:
    made = make(shards=2, replicas=0)
    made.create(SCHEMA)
    assert make(shards=2, replicas=0).open() == SCHEMA
    assert make(replicas=None).open() == SCHEMA
    with pytest.raises(InvalidArgumentError, match=r"has shards=2, not 3: leave shards out, or index"):
        make(shards=3).open()
    with pytest.raises(InvalidArgumentError, match=r"has replicas=0, not 1: .* change number_of_replicas"):
        make(replicas=1).open()


def test_the_replicas_that_a_load_turns_off_meanwhile_are_those_of_the_index(make: Make) -> None:
    made = make(replicas=1)
    made.create(SCHEMA)

    def batches() -> Iterator[EncodedBatch]:
        assert make(replicas=1).open() == SCHEMA
        yield samples.encode(samples.random_items(), SCHEMA)

    made.load(batches())
    assert settings(made)[1] == "1"


def test_a_scan_whose_page_was_lost_raises(make: Make) -> None:
    backend = make()
    backend.create(SCHEMA)
    put(backend, samples.random_items(), SCHEMA)
    with faulty_proxy.FaultyProxy(backend.address, on="_search/scroll") as proxy:
        reader = make(through=proxy.url)
        reader.open()
        assert sum(map(len, reader.scan(10))) == 60
        proxy.faults += [faulty_proxy.passing, faulty_proxy.reset_after(0.5)]
        with pytest.raises(BackendError, match=r"10 documents .* did not come"):
            list(reader.scan(10))


def test_settings_whose_relaxing_was_not_answered_are_restored(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = make(replicas=1)
    backend.create(SCHEMA)
    original, lost = Channel.send, ["/_settings"]

    def send(self: Channel, call: Call) -> Any:
        answer = original(self, call)
        if call.method == "PUT" and lost and call.path.endswith(lost[0]):
            lost.clear()
            raise BackendError("The answer was lost.")
        return answer

    monkeypatch.setattr(Channel, "send", send)
    with pytest.raises(BackendError, match="lost"):
        backend.load([samples.encode(samples.random_items(5), SCHEMA)])
    assert not lost
    assert settings(backend) == (None, "1")


@pytest.mark.parametrize("use", ["upsert", "refresh"])
def test_what_a_crashed_load_relaxed_is_restored_by_the_next(
    make: Make, monkeypatch: pytest.MonkeyPatch, use: str
) -> None:
    crashing, backend = make(replicas=1), make(replicas=1)
    crashing.create(SCHEMA)
    batch = samples.encode(samples.random_items(5), SCHEMA)
    monkeypatch.setattr(crashing._writer, "_restore", lambda *_, **__: None)
    crashing.load([batch])
    assert settings(crashing) == ("-1", "0")
    backend.open()
    backend.upsert(batch) if use == "upsert" else backend.refresh()
    assert settings(backend) == (None, "1")
    mapping = backend._channel.call("GET", f"{backend.address.path}/_mapping")
    assert "before_load" not in str(mapping)


@pytest.mark.parametrize("sending", [1, 2], ids=["load", "reweigh"])
@pytest.mark.parametrize("stored", [0, 12])
def test_an_index_whose_first_load_was_interrupted_ranks_like_one_that_was_not(
    make: Make, monkeypatch: pytest.MonkeyPatch, sending: int, stored: int
) -> None:
    documents = [Document(f"d{n}", "wing " + "lift " * n) for n in range(40)]
    whole, interrupted = (HybridSearch({"bm25": BM25()}, make(name)) for name in ("whole", "interrupted"))
    whole.index(documents, batch_size=8, show_progress_bar=False)
    original, calls = Writer.send, count(1)

    def send(self: Writer, target: Any, lines: Iterable[Any], **options: Any) -> int:
        if next(calls) < sending:
            return original(self, target, lines, **options)
        original(self, target, islice(lines, stored), **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Writer, "send", send)
        with pytest.raises(KeyboardInterrupt):
            interrupted.index(documents, batch_size=8, show_progress_bar=False)
    interrupted.index(documents, batch_size=8, show_progress_bar=False)
    request = Request("bm25", sparse_query({"wing": 1.0}), 40)
    assert interrupted.backend.search([request]) == whole.backend.search([request])
    assert "unsettled" not in str(interrupted.backend._channel.call("GET", interrupted.backend.address.path))


def test_a_load_in_which_a_document_was_refused_ranks_by_the_mean_of_all(make: Make) -> None:
    backend = make()
    backend.create(LEXICAL)
    items = [Item("a", {"x": 1}), *(Item(f"b{n}", {"x": 1, "y": 10 * n}) for n in range(20))]
    with faulty_proxy.FaultyProxy(backend.address) as proxy:
        writer = make(through=proxy.url)
        writer.open()
        proxy.faults.append(faulty_proxy.rejecting(lambda number: number == 5, 400, "mapper_parsing_exception"))
        with pytest.raises(BulkIndexError):
            writer.load([samples.encode([item], LEXICAL) for item in items])
    stored = make().open()
    assert stored is not None
    assert stored.retrievers["lexical"].average_length == pytest.approx((20 * 1 + sum(range(0, 200, 10)) - 40) / 20)


def test_a_write_block_during_a_write_is_named_as_such(make: Make) -> None:
    backend = make()
    backend.create(SCHEMA)
    backend._channel.call("PUT", f"{backend.address.path}/_settings", {"index.blocks.write": True})
    with pytest.raises(StorageError, match="is read-only"):
        backend.upsert(samples.encode([samples.plain("a")], SCHEMA))


@pytest.mark.parametrize(("status", "sentence"), [(401, "credentials"), (403, "no permission for this")])
def test_a_write_without_the_right_to_it_says_what_to_give(make: Make, status: int, sentence: str) -> None:
    backend = make()
    backend.create(SCHEMA)
    with faulty_proxy.FaultyProxy(backend.address) as proxy:
        writer = make(through=proxy.url)
        writer.open()
        proxy.faults.append(faulty_proxy.status(status, b'{"error": {"type": "security_exception", "reason": "no"}}'))
        with pytest.raises(BackendError, match=sentence):
            writer.upsert(samples.encode([samples.plain("a")], SCHEMA))


def test_a_load_that_began_with_a_short_document_ranks_by_the_mean_of_all(make: Make) -> None:
    items = [Item("a", {"x": 1}), *(Item(f"b{n}", {"x": 1 + n % 3, "y": 10 * n}) for n in range(1, 20))]
    backend = make()
    backend.create(LEXICAL)
    backend.load([samples.encode([item], LEXICAL) for item in items])
    mean = float(np.mean([sum(item.counts.values()) for item in items]))
    stored = make().open()
    assert stored is not None
    assert stored.retrievers["lexical"].average_length == pytest.approx(mean)
    (ranking,) = backend.search([Request("lexical", sparse_query({"x": 1.0}), 20)])
    idf = math.log(1 + 0.5 / (len(items) + 0.5))  # the idf of a term that all documents have
    found = dict(zip(ranking.ids, ranking.scores.tolist(), strict=True))
    for item in items:
        tf, length = item.counts["x"], sum(item.counts.values())
        expected = idf * tf / (tf + 1.2 * (1 - 0.75 + 0.75 * length / mean))  # Lucene's BM25Similarity, k1 1.2, b 0.75
        assert found[item.id] == pytest.approx(expected, rel=1 / 256)


def test_weighing_anew_equals_an_index_made_with_that_mean(make: Make) -> None:
    few, many = samples.random_items(2, prefix="a"), samples.random_items(30, prefix="b")
    batches = [samples.encode(items, SCHEMA) for items in (few, many)]
    schema = samples.make_schema(frozenset({"lexical", "sparse", "dense"}))
    grown, direct = make("grown"), make("direct")
    grown.create(schema)
    for batch in batches:
        grown.upsert(batch)
    averages = grown.reweigh()
    assert grown.reweigh() == averages
    direct.create(samples.make_schema(frozenset({"lexical", "sparse", "dense"}), average_length=averages["lexical"]))
    for batch in batches:
        direct.upsert(batch)
    for kind in ("lexical", "sparse", "dense"):
        requests = [Request(kind, query, 32) for query in samples.random_queries(kind)]
        assert grown.search(requests) == direct.search(requests)


def test_weighing_anew_keeps_what_others_write_meanwhile(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    items = samples.random_items(30)
    backend, other = make(), make()
    backend.create(SCHEMA)
    put(backend, items, SCHEMA)
    other.open()
    changed = samples.encode([Item(items[1].id, {"x": 7})], SCHEMA)
    weigh = Writer._weighed_lines

    def change(self: Writer, batch: EncodedBatch, *settings: Any) -> Iterator[tuple[str, bytes]]:
        if self is backend._writer:  # the documents were read, and are not written yet
            other.delete([items[0].id])
            other.upsert(changed)
        return weigh(self, batch, *settings)

    monkeypatch.setattr(Writer, "_weighed_lines", change)
    backend.reweigh()
    assert backend.fetch([item.id for item in items[:2]]) == [None, changed.documents[0]]
    assert backend.count() == 29


def test_upserts_far_from_the_average_of_the_first_warn_that_weights_are_off(make: Make) -> None:
    backend = make()
    backend.create(LEXICAL)
    backend.upsert(samples.encode([Item("a", {"x": 1})], LEXICAL))
    with pytest.warns(UserWarning, match=r"reweigh\(\)"):
        backend.upsert(samples.encode([Item(f"b{n}", {"x": 20}) for n in range(100)], LEXICAL))


@pytest.mark.parametrize("drop_old", [False, True])
def test_a_load_by_an_alias_that_moves_stops_and_writes_to_one_index_only(make: Make, drop_old: bool) -> None:
    old, new, live = make("v1"), make("v2"), make("live")
    old.create(SCHEMA)
    new.create(SCHEMA)
    old.publish(live.address.index)
    live.open()

    def batches() -> Iterator[Any]:
        yield samples.encode(samples.random_items(20, prefix="a"), SCHEMA)
        new.publish(live.address.index, drop_old)
        yield samples.encode(samples.random_items(20, prefix="b"), SCHEMA)

    with pytest.raises(BackendError, match=r"moved while documents were written.*write them again"):
        live.load(batches())
    assert new.count() == 0
    if drop_old:
        with pytest.raises(IndexNotFoundError):
            old.refresh()
    else:
        assert settings(old) == (None, "0")
    live.load([samples.encode(samples.random_items(20, prefix="a"), SCHEMA)])
    new.refresh()
    assert new.count() == 20


def test_more_unknown_terms_than_one_search_may_count_are_found(make: Make) -> None:
    backend = make()
    backend.create(SCHEMA)
    put(backend, [Item("a", {"t0": 1, "t67999": 2})], SCHEMA)
    terms = [f"t{number}" for number in range(68_000)]
    parts = [dict.fromkeys(terms[start : start + 400], 1.0) for start in range(0, len(terms), 400)]
    rankings = backend.search([Request("lexical", sparse_query(part), 1) for part in parts])
    assert [n for n, ranking in enumerate(rankings) if len(ranking)] == [0, len(parts) - 1]


def test_a_vocabulary_of_250_000_tokens_comes_back_bit_for_bit(make: Make) -> None:
    schema = samples.make_schema(frozenset({"sparse"}))
    rng = np.random.default_rng(7)
    columns = np.sort(rng.permutation(250_000).astype(np.int32).reshape(2_500, 100))  # each token in one document
    weights = rng.uniform(0.01, 3.0, columns.shape).astype(np.float32)
    vocabulary = Vocabulary([f"token{number}" for number in range(columns.size)])

    def batch(rows: range) -> EncodedBatch:
        held = slice(rows.start, rows.stop)
        indptr = np.arange(0, 100 * len(rows) + 1, 100, dtype=np.int32)
        parts = (weights[held].ravel(), columns[held].ravel(), indptr)
        vectors = SparseVectors(csr_array(parts, shape=(len(rows), len(vocabulary))), vocabulary)
        return EncodedBatch([Document(f"d{row}", "") for row in rows], {"sparse": vectors})

    backend = make()
    backend.create(schema)
    backend.load([batch(range(start, start + 500)) for start in range(0, 2_500, 500)])
    found = np.zeros_like(weights)
    for stored in backend.scan():
        sparse = stored.vectors["sparse"]
        assert isinstance(sparse, SparseVectors)
        numbers = np.array([int(term.removeprefix("token")) for term in sparse.vocabulary.terms])
        for place, document in enumerate(stored.documents):
            row, held = int(document.id[1:]), slice(*sparse.matrix.indptr[place : place + 2])
            order = np.argsort(numbers[sparse.matrix.indices[held]])
            np.testing.assert_array_equal(numbers[sparse.matrix.indices[held]][order], columns[row])
            found[row] = sparse.matrix.data[held][order]
    np.testing.assert_array_equal(found, weights)
    for row in (0, 1_234, 2_499):
        query = sparse_query({f"token{columns[row, 50]}": 1.0})
        (ranking,) = backend.search([Request("sparse", query, 10)])
        assert ranking.ids == (f"d{row}",)
        assert ranking.scores == pytest.approx([weights[row, 50]], rel=1 / 256)
