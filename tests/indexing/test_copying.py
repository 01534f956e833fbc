"""Tests of copying indexes with their vectors between backends, and of indexing by way of a folder."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array

import hybridsearch as hs
from hybridsearch.adapters.lucene.wire.channel import Call, Channel
from hybridsearch.adapters.memory import MemoryBackend
from hybridsearch.backends import (
    Backend,
    Capabilities,
    Fingerprint,
    Kind,
    Loader,
    RetrieverSchema,
    Schema,
)
from hybridsearch.errors import (
    BackendError,
    BulkIndexError,
    FingerprintMismatchError,
    HybridSearchError,
    IndexExistsError,
    IndexNotFoundError,
    InvalidArgumentError,
)
from hybridsearch.filters import Filter
from hybridsearch.indexing.copying import publish
from hybridsearch.messages import redacted
from hybridsearch.places import connect
from hybridsearch.vectors import DenseVectors, EncodedBatch, SparseVectors, Vocabulary

DIMENSIONS = 8
WORDS = [f"word{i}" for i in range(30)]
SCHEMA = Schema(
    {
        "bm25": RetrieverSchema("lexical", Fingerprint("words", {}), weighting={"variant": "lucene"}),
        "splade": RetrieverSchema("sparse", Fingerprint("weights", {})),
        "dense": RetrieverSchema("dense", Fingerprint("points", {}), dimensions=DIMENSIONS, metric="cosine"),
    },
    {"candidates": 50, "fusion": {"type": "rrf", "k": 60, "weights": {"bm25": 1, "splade": 1, "dense": 2}}},
)


def encoded(numbers: Iterable[int]) -> EncodedBatch:
    """Numbered documents whose vectors depend on the number only. Every seventh document is empty."""
    documents, frequencies, weights, points = [], [], [], []
    for number in numbers:
        rng = np.random.default_rng(number)
        empty = number % 7 == 3
        frequencies.append(np.zeros(30) if empty else rng.integers(0, 3, 30) * (rng.random(30) < 0.4))
        weights.append(np.zeros(30) if empty else rng.gamma(2.0, size=30) * (rng.random(30) < 0.3))
        point = np.zeros(DIMENSIONS) if empty else rng.normal(size=DIMENSIONS)
        points.append(point / (np.linalg.norm(point) or 1.0))
        documents.append(hs.Document(f"d{number:03}", f"text {number}", metadata={"n": number}))
    vocabulary = Vocabulary(WORDS)
    return EncodedBatch(
        documents,
        {
            "bm25": SparseVectors(csr_array(np.array(frequencies, dtype=np.float32)), vocabulary),
            "splade": SparseVectors(csr_array(np.array(weights, dtype=np.float32)), vocabulary),
            "dense": DenseVectors(np.array(points, dtype=np.float32)),
        },
    )


def made(backend: Backend, count: int = 60) -> Backend:
    backend.create(SCHEMA)
    for start in range(0, count, 25):
        backend.upsert(encoded(range(start, min(start + 25, count))))
    backend.refresh()
    return backend


@pytest.fixture
def source(tmp_path: Path) -> str:
    """A folder with an index of 60 documents."""
    place = str(tmp_path / "source")
    made(MemoryBackend(place)).close()
    return place


class Stepwise(MemoryBackend):
    """Stores one batch after the other, as a backend without `load`."""

    load = None  # type: ignore[assignment]


class Declaring(Stepwise):
    """The memory backend with other declared capabilities. It remembers its input."""

    def __init__(self, **declared: Any) -> None:
        super().__init__()
        self.declared = declared
        self.sent: list[str] = []
        self.fetched: list[str] = []

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, **self.declared)

    def upsert(self, batch: EncodedBatch) -> None:
        self.sent += [document.id for document in batch.documents]
        super().upsert(batch)

    def fetch(self, ids: Sequence[str]) -> list[hs.Document | None]:
        self.fetched += ids
        return super().fetch(ids)


class Hasty(Declaring):
    """A loader that sends all batches at the same time. The last one arrives first."""

    loads = 0

    def load(self, batches: Iterable[EncodedBatch]) -> None:
        self.loads += 1
        late = list(batches)
        with ThreadPoolExecutor(1) as pool:
            list(pool.map(self.upsert, reversed(late)))
        self.refresh()


class Unrefreshed(Hasty):
    """A loader whose documents are counted only after a refresh."""

    refreshed = False

    def count(self, filter: Filter | None = None) -> int:
        return super().count(filter) if self.refreshed else 0

    def refresh(self) -> None:
        self.refreshed = True


def vectors_of(backend: Backend) -> dict[str, Any]:
    """All documents with their vectors, by id, in a form that can be compared."""
    found = {}
    for batch in backend.scan(17):
        for row, document in enumerate(batch.documents):
            of_row: dict[str, Any] = {"document": document}
            for name, vectors in batch.vectors.items():
                if isinstance(vectors, DenseVectors):
                    of_row[name] = vectors.array[row].tolist()
                else:
                    cells = vectors.matrix[[row]].tocoo()
                    terms = [vectors.vocabulary.terms[column] for column in cells.col.tolist()]
                    of_row[name] = dict(zip(terms, cells.data.tolist(), strict=True))
            found[document.id] = of_row
    return found


# Copying


def test_a_copy_has_the_same_documents_vectors_and_settings(source: str, tmp_path: Path) -> None:
    report = hs.copy(source, tmp_path / "copy", batch_size=7)
    original, copy = MemoryBackend(source), MemoryBackend(tmp_path / "copy")

    assert copy.open() == original.open()
    assert vectors_of(copy) == vectors_of(original)
    assert (report.copied, report.unchanged, report.documents, report.differences) == (60, 0, 60, ())


def test_rankings_of_every_retriever_are_compared_at_the_end(source: str) -> None:
    report = hs.copy(source, MemoryBackend(), verify=10)

    assert [check.retriever for check in report.checks] == ["bm25", "splade", "dense"]
    assert all(check.overlap == 1.0 and check.deviation == 0.0 and check.queries >= 5 for check in report.checks)


def test_a_copy_whose_scores_are_wrong_is_reported(source: str) -> None:
    class Tilted(MemoryBackend):
        def search(self, requests: Any) -> list[hs.Ranking]:
            return [hs.Ranking(ranking.ids, ranking.scores * 1.5) for ranking in super().search(requests)]

    report = hs.copy(source, Tilted())

    assert len(report.differences) == 3
    assert "'splade': scores differ by up to 0.33" in " ".join(report.differences)


def test_a_copy_that_finds_less_is_reported(source: str) -> None:
    class Forgetful(MemoryBackend):
        def search(self, requests: Any) -> list[hs.Ranking]:
            return [ranking.top(3) for ranking in super().search(requests)]

    assert "another number of hits" in " ".join(hs.copy(source, Forgetful()).differences)


def test_a_copy_that_is_approximate_is_measured_by_what_it_finds(source: str) -> None:
    class Sloppy(Declaring):
        def search(self, requests: Any) -> list[hs.Ranking]:
            return [hs.Ranking(r.ids[self.skip :], r.scores[self.skip :]) for r in super().search(requests)]

    for skip, complaints in ((1, 0), (3, 1)):
        destination = Sloppy(approximate=frozenset({"dense"}))
        destination.skip = skip  # type: ignore[attr-defined]
        report = hs.copy(source, destination, retrievers=["dense"])
        assert len(report.differences) == complaints
        assert report.checks[0].overlap == pytest.approx(1 - skip / 10)


def test_documents_that_get_lost_are_reported(source: str) -> None:
    class Losing(Stepwise):
        def upsert(self, batch: EncodedBatch) -> None:
            super().upsert(encoded(range(5)))

    report = hs.copy(source, Losing(), batch_size=60)

    assert (report.copied, report.documents) == (60, 5)
    assert "gave 60 documents and the destination has 5" in report.differences[0]


def test_a_source_that_gives_documents_twice_damages_no_copy_and_is_reported(tmp_path: Path) -> None:
    class Twice(MemoryBackend):
        def scan(self, batch_size: int = 1024) -> Iterator[EncodedBatch]:
            for batch in super().scan(batch_size):
                yield from (batch, batch)

    report = hs.copy(made(Twice()), tmp_path / "copy")

    assert "gave 120 documents and the destination has 60" in report.differences[0]
    with contextlib.closing(MemoryBackend(tmp_path / "copy")) as copy:
        assert copy.open() is not None
        assert copy.count() == 60
        assert len({document.id for batch in copy.scan() for document in batch.documents}) == 60


def test_an_existing_destination_is_an_error_that_says_what_to_do(source: str, tmp_path: Path) -> None:
    made(MemoryBackend(tmp_path / "copy"), 1).close()
    with pytest.raises(IndexExistsError, match=r"resume=True \(--resume\)"):
        hs.copy(source, tmp_path / "copy")


def test_a_resumed_copy_sends_only_what_is_missing_or_differs(source: str) -> None:
    destination = Declaring()
    made(destination, 40)
    destination.upsert(replace(encoded([5]), documents=[hs.Document("d005", "something else")]))
    destination.sent.clear()

    report = hs.copy(source, destination, resume=True)

    assert sorted(destination.sent) == ["d005", *(f"d{n:03}" for n in range(40, 60))]
    assert (report.copied, report.unchanged, report.differences) == (21, 39, ())


def test_a_copy_that_breaks_off_goes_on_where_it_was(source: str) -> None:
    class Breaking(Declaring):
        broken = True

        def upsert(self, batch: EncodedBatch) -> None:
            if self.broken and len(self.sent) >= 30:
                raise BackendError("The server is gone.")
            super().upsert(batch)

    destination = Breaking()
    with pytest.raises(BackendError, match="gone"):
        hs.copy(source, destination, batch_size=10)
    destination.broken = False

    report = hs.copy(source, destination, batch_size=10, resume=True)

    assert (report.copied, report.unchanged, report.differences) == (30, 30, ())


def test_a_resumed_copy_refuses_other_vectors(source: str) -> None:
    other = {**SCHEMA.retrievers, "dense": replace(SCHEMA.retrievers["dense"], fingerprint=Fingerprint("other", {}))}
    destination = MemoryBackend()
    destination.create(replace(SCHEMA, retrievers=other))
    with pytest.raises(FingerprintMismatchError, match=r"'dense'.*other"):
        hs.copy(source, destination, resume=True)


def test_a_resumed_copy_refuses_an_index_with_other_documents_before_it_writes(source: str) -> None:
    destination = Declaring()
    made(destination, 70)
    destination.sent.clear()

    with pytest.raises(IndexExistsError, match="has the document 'd060', but the source does not"):
        hs.copy(source, destination, resume=True)

    assert destination.sent == []


def test_an_engine_without_a_kind_is_told_how_to_get_the_rest(source: str) -> None:
    destination = Declaring(kinds=frozenset[Kind]({"sparse"}))
    with pytest.raises(BackendError, match=r"'bm25' \(lexical\), 'dense' \(dense\).*retrievers=\['splade'\]"):
        hs.copy(source, destination)
    assert destination.open() is None


def test_some_retrievers_can_be_copied_alone(source: str) -> None:
    destination = MemoryBackend()
    report = hs.copy(source, destination, retrievers=["dense"])
    schema = destination.open()

    assert schema is not None
    assert list(schema.retrievers) == ["dense"]
    assert schema.settings["fusion"]["weights"] == {"dense": 2}
    assert [check.retriever for check in report.checks] == ["dense"]


def test_a_copy_without_the_retriever_whose_tokens_passages_count_is_told(tmp_path: Path) -> None:
    source, passages = tmp_path / "source", hs.Passages(size=16, whole=())
    with hs.HybridSearch({"chars": hs.CharNGrams(), "bm25": hs.BM25()}, source, passages=passages) as search:
        search.index([hs.Document("a", "Heat flows. " * 20)], show_progress_bar=False)
    with pytest.warns(UserWarning, match="The retriever 'bm25' counts the tokens of passages, and it is not copied"):
        hs.copy(source, tmp_path / "chars", retrievers=["chars"])
    hs.copy(source, tmp_path / "bm25", retrievers=["bm25"])


def test_an_engine_that_freezes_the_mean_length_gets_the_exact_one(source: str) -> None:
    frozen = Declaring(live_average=False)
    report = hs.copy(source, frozen)
    schema = frozen.open()

    lengths = [encoded([n]).vectors["bm25"].matrix.sum() for n in range(60)]  # type: ignore[union-attr]
    assert schema is not None
    assert schema.retrievers["bm25"].average_length == pytest.approx(sum(lengths) / 60)
    assert report.differences == ()
    assert report.checks[0].queries > 0


def test_an_engine_that_follows_the_mean_length_is_given_none(source: str) -> None:
    frozen, live = Declaring(live_average=False), MemoryBackend()
    hs.copy(source, frozen)
    hs.copy(frozen, live)
    schema = live.open()

    assert schema is not None
    assert schema.retrievers["bm25"].average_length is None


def test_scores_by_another_mean_length_are_not_compared(tmp_path: Path) -> None:
    frozen = Declaring(live_average=False)
    retrievers = {**SCHEMA.retrievers, "bm25": replace(SCHEMA.retrievers["bm25"], average_length=3.0)}
    frozen.create(replace(SCHEMA, retrievers=retrievers))
    frozen.upsert(encoded(range(20)))

    report = hs.copy(frozen, tmp_path / "copy")

    assert "differ by definition" in report.checks[0].note
    assert report.differences == ()
    assert "mean document length of 3 tokens" in str(report)


def test_refused_documents_are_reported_by_id_after_all_others_are_stored(source: str) -> None:
    class Picky(Stepwise):
        def upsert(self, batch: EncodedBatch) -> None:
            super().upsert(batch)
            bad = [document.id for document in batch.documents if document.id.endswith("9")]
            self.delete(bad)
            if bad:
                raise BulkIndexError([(id, "ends with a nine") for id in bad])

    destination = Picky()
    with pytest.raises(BulkIndexError) as caught:
        hs.copy(source, destination, batch_size=8)

    assert sorted(id for id, _ in caught.value.failed) == ["d009", "d019", "d029", "d039", "d049", "d059"]
    assert destination.count() == 54


@pytest.mark.parametrize(
    ("call", "error", "part"),
    [
        (lambda s, t: hs.copy(t / "no", t / "b"), IndexNotFoundError, "no index at .*no"),
        (lambda s, t: hs.copy(s, s), InvalidArgumentError, "both"),
        (lambda s, t: hs.copy(s, f"{s}/../source/"), InvalidArgumentError, "both"),
        pytest.param(
            lambda s, t: hs.copy(s, f"seismic://{s}/../source", resume=True),
            InvalidArgumentError,
            "both",
            marks=pytest.mark.skipif(find_spec("seismic") is None, reason="pip install 'hybridsearch[seismic]'"),
        ),
        (lambda s, t: hs.copy(s, "memory"), InvalidArgumentError, "lost"),
        (lambda s, t: hs.copy(s, t / "b", retrievers=["bm52"]), InvalidArgumentError, "'bm52'.*'bm25'"),
        (lambda s, t: hs.copy(s, t / "b", retrievers=[]), InvalidArgumentError, "No retriever"),
        (lambda s, t: hs.copy(s, t / "b", batch_size=0), InvalidArgumentError, "batch_size is 0"),
        (lambda s, t: hs.copy(s, t / "b", verify=-1), InvalidArgumentError, "verify is -1"),
        (lambda s, t: hs.copy(made(Declaring(scan=False)), t / "b"), BackendError, "give its vectors"),
        (lambda s, t: publish(s, "name"), BackendError, "no aliases"),
    ],
)
def test_a_wrong_argument_gets_one_clear_sentence(
    call: Any, error: type[HybridSearchError], part: str, source: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=part):
        call(source, tmp_path)


def test_what_stands_before_an_at_sign_in_a_url_is_never_shown() -> None:
    assert redacted("opensearch://me:p@ss/w@host:9200/x") == "opensearch://***@host:9200/x"
    assert redacted("qdrant:///a/folder@home/x") == "qdrant:///a/folder@home/x"
    assert redacted(Path("some@where")) == "some@where"


# Indexing by way of a folder, and by a loader

DOCUMENTS = [hs.Document(f"d{i}", f"wing number{i} in a flow", metadata={"n": i}) for i in range(30)]


class Counting(hs.BM25):
    """An encoder that remembers its documents, and fails at a given one."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.limit: float = float("inf")

    def encode_documents(self, texts: Sequence[str], *, show_progress_bar: bool = False) -> SparseVectors:
        if len(self.texts) + len(texts) > self.limit:
            raise ZeroDivisionError("power failure")
        self.texts += texts
        return super().encode_documents(texts, show_progress_bar=show_progress_bar)


def test_an_index_made_by_way_of_a_folder_is_the_same(tmp_path: Path) -> None:
    direct, by_folder = hs.HybridSearch({"bm25": hs.BM25()}), hs.HybridSearch({"bm25": hs.BM25()}, candidates=7)
    direct.index(DOCUMENTS)

    report = by_folder.index(DOCUMENTS, via=tmp_path / "encoded")

    assert (report.indexed, report.unchanged) == (30, 0)
    assert by_folder.search("number7 wing") == direct.search("number7 wing", candidates=10)
    with hs.open(tmp_path / "encoded") as folder:
        assert (folder.count(), folder.candidates) == (30, 7)


def test_a_folder_with_passages_is_no_way_to_an_index_without_before_anything_is_encoded(tmp_path: Path) -> None:
    with hs.HybridSearch({"bm25": hs.BM25()}, passages=hs.Passages(size=16, whole=())) as search:
        search.index([hs.Document("a", "Heat flows. " * 20)], via=tmp_path / "via", show_progress_bar=False)
    with hs.HybridSearch({"bm25": hs.BM25()}, tmp_path / "index") as search:
        with pytest.raises(FingerprintMismatchError, match=r"was made with Passages.*choose another folder"):
            search.index([hs.Document("b", "A wing.")], via=tmp_path / "via", show_progress_bar=False)
        assert search.backend.open() is None


def test_after_a_crash_in_the_middle_of_encoding_nothing_is_encoded_twice(tmp_path: Path) -> None:
    encoder = Counting()
    search = hs.HybridSearch({"bm25": encoder})
    encoder.limit = 20
    with pytest.raises(ZeroDivisionError):
        search.index(DOCUMENTS, via=tmp_path / "encoded", batch_size=10)
    encoder.limit = float("inf")

    search.index(DOCUMENTS, via=tmp_path / "encoded", batch_size=10)

    assert sorted(encoder.texts) == sorted(document.content for document in DOCUMENTS)
    assert search.count() == 30


def test_after_a_crash_in_the_middle_of_loading_nothing_is_encoded_or_sent_twice(tmp_path: Path) -> None:
    class Breaking(Declaring):
        limit = 20

        def upsert(self, batch: EncodedBatch) -> None:
            if len(self.sent) >= self.limit:
                raise BackendError("The server is gone.")
            super().upsert(batch)

    encoder, backend = Counting(), Breaking()
    search = hs.HybridSearch({"bm25": encoder}, backend)
    with pytest.raises(BackendError, match="gone"):
        search.index(DOCUMENTS, via=tmp_path / "encoded", batch_size=10)
    backend.limit = 1000

    report = hs.HybridSearch({"bm25": encoder}, backend).index(DOCUMENTS, via=tmp_path / "encoded", batch_size=10)

    assert len(encoder.texts) == len(backend.sent) == len(DOCUMENTS)
    assert (report.indexed, report.unchanged) == (10, 20)


def test_documents_are_added_to_what_an_index_holds(tmp_path: Path) -> None:
    search = hs.HybridSearch({"bm25": hs.BM25()})
    search.index([hs.Document("other", "heat"), hs.Document("d3", "old text")])

    report = search.index(DOCUMENTS, via=tmp_path / "encoded")

    assert report.indexed == 30
    assert search.count() == 31
    assert search.get("d3") == [DOCUMENTS[3]]


def test_a_folder_of_another_encoder_is_refused(tmp_path: Path) -> None:
    hs.HybridSearch({"bm25": hs.BM25("german")}).index(DOCUMENTS, via=tmp_path / "encoded")
    with pytest.raises(FingerprintMismatchError, match="german"):
        hs.HybridSearch({"bm25": hs.BM25()}).index(DOCUMENTS, via=tmp_path / "encoded")


@pytest.mark.parametrize("via", ["memory", "opensearch://me:secret@host/x"])
def test_only_a_folder_keeps_what_was_encoded(via: str) -> None:
    with pytest.raises(InvalidArgumentError, match="via is a folder") as caught:
        hs.HybridSearch({"bm25": hs.BM25()}).index(DOCUMENTS, via=via)
    assert "secret" not in str(caught.value)


def test_an_empty_index_is_filled_by_the_loader_without_asking_what_is_there() -> None:
    backend = Hasty()
    assert isinstance(backend, Loader)
    report = hs.HybridSearch({"bm25": hs.BM25()}, backend).index(DOCUMENTS, batch_size=4)

    assert (backend.loads, backend.fetched, report.indexed) == (1, [], 30)
    assert backend.count() == 30


def test_what_a_load_left_unrefreshed_in_a_crash_is_neither_encoded_nor_sent_again(source: str) -> None:
    backend = Unrefreshed()
    bm25 = Counting()
    search = hs.HybridSearch({"bm25": bm25}, backend)
    search.index(DOCUMENTS)
    backend.refreshed = False
    assert search.index(DOCUMENTS).unchanged == len(DOCUMENTS) == len(bm25.texts)

    destination = Unrefreshed()
    hs.copy(source, destination)
    destination.refreshed = False
    assert hs.copy(source, destination, resume=True).unchanged == 60


def test_documents_are_added_to_a_filled_index_in_order() -> None:
    backend = Hasty()
    search = hs.HybridSearch({"bm25": hs.BM25()}, backend)
    search.index(DOCUMENTS[:10], batch_size=4)
    report = search.index(DOCUMENTS, batch_size=4)

    assert backend.loads == 1
    assert (report.indexed, report.unchanged) == (20, 10)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 100])
def test_the_last_of_equal_ids_wins_though_batches_overtake_each_other(batch_size: int) -> None:
    rng = np.random.default_rng(batch_size)
    ids = rng.integers(0, 12, 50).tolist()
    documents = [hs.Document(f"d{id}", f"version{turn}") for turn, id in enumerate(ids)]
    search = hs.HybridSearch({"bm25": hs.BM25()}, Hasty())

    with pytest.warns(UserWarning, match="came more than once"):
        report = search.index(documents, batch_size=batch_size)

    right = {document.id: document for document in documents}
    assert search.get(list(right)) == list(right.values())
    assert search.count() == len(right)
    assert set(report.duplicates) == {f"d{id}" for id, group in itertools.groupby(sorted(ids)) if len([*group]) > 1}


def test_what_came_before_a_bad_document_is_stored_by_the_loader_too() -> None:
    search = hs.HybridSearch({"bm25": hs.BM25()}, Hasty())
    with pytest.raises(HybridSearchError, match="text is a string"):
        search.index([{"id": "a", "text": "good"}, {"id": "b", "text": "good"}, {"id": "c", "text": 5}], batch_size=1)
    assert search.count() == 2


@pytest.mark.parametrize("backend", [Hasty, MemoryBackend])
def test_the_last_of_equal_ids_before_a_bad_document_is_stored(backend: type[MemoryBackend]) -> None:
    search = hs.HybridSearch({"bm25": hs.BM25()}, backend())
    texts = [("a", "first"), ("b", "first"), ("b", "last"), ("a", "last"), ("c", "only"), ("d", "only"), ("e", 5)]
    with pytest.raises(HybridSearchError, match="text is a string"):
        search.index([{"id": id, "text": text} for id, text in texts], batch_size=3)
    assert [document.text for document in search.documents()] == ["last", "last", "only", "only"]


def test_refused_documents_are_named_after_all_others_are_indexed() -> None:
    class Picky(Hasty):
        def load(self, batches: Iterable[EncodedBatch]) -> None:
            super().load(batches)
            self.delete(["d3"])
            raise BulkIndexError([("d3", "no threes")])

    search = hs.HybridSearch({"bm25": hs.BM25()}, Picky())
    with pytest.raises(BulkIndexError, match=r"'d3': no threes") as caught:
        search.index(DOCUMENTS, batch_size=4)
    assert caught.value.failed == [("d3", "no threes")]
    assert search.count() == 29


class Analysing(Declaring):
    """A backend that declares that it analyses texts itself. It stores only the other retrievers."""

    def __init__(self) -> None:
        super().__init__(kinds=frozenset[Kind]({"lexical", "text"}))

    def create(self, schema: Schema) -> None:
        self.schema = schema
        super().create(replace(schema, retrievers={k: v for k, v in schema.retrievers.items() if v.kind != "text"}))

    def open(self) -> Schema | None:
        return None if super().open() is None else self.schema

    def upsert(self, batch: EncodedBatch) -> None:
        texts = batch.vectors["native"]
        assert isinstance(texts, SparseVectors)
        assert texts.matrix.shape == (len(batch), 0)
        super().upsert(replace(batch, vectors={k: v for k, v in batch.vectors.items() if k != "native"}))


def test_a_folder_keeps_nothing_for_a_retriever_whose_engine_analyses_the_texts(tmp_path: Path) -> None:
    backend = Analysing()
    fusion = hs.RRF(weights={"bm25": 1, "native": 2})
    search = hs.HybridSearch({"bm25": hs.BM25(), "native": hs.NativeBM25()}, backend, fusion)

    assert search.index(DOCUMENTS, via=tmp_path / "encoded").indexed == 30
    assert backend.schema.settings["fusion"]["weights"] == {"bm25": 1, "native": 2}
    with hs.open(tmp_path / "encoded") as folder:
        assert list(folder.retrievers) == ["bm25"]


def test_by_way_of_a_folder_an_engine_that_lacks_a_kind_is_refused_before_anything_is_encoded(tmp_path: Path) -> None:
    encoder = Counting()
    search = hs.HybridSearch({"bm25": encoder, "native": hs.NativeBM25()})
    with pytest.raises(BackendError, match=r"'native' \(text\).*retrievers=\['bm25'\]"):
        search.index(DOCUMENTS, via=tmp_path / "encoded")
    assert encoder.texts == []
    with pytest.raises(InvalidArgumentError, match="leave out via"):
        hs.HybridSearch({"native": hs.NativeBM25()}, Analysing()).index(DOCUMENTS, via=tmp_path / "encoded")


# Real engines


@pytest.fixture(params=["opensearch", "elasticsearch", "qdrant"])
def place(
    request: pytest.FixtureRequest, lucene_names: Callable[[str, str], str], tmp_path: Path
) -> Callable[[str], str]:
    """A function from a name to the place of an index in a real engine."""
    if request.param == "qdrant":
        pytest.importorskip("qdrant_client", reason="pip install 'hybridsearch[qdrant]'")
        return lambda name: f"qdrant://{tmp_path}/qdrant-{name}/index"
    server = request.getfixturevalue(f"{request.param}_url")
    return lambda name: lucene_names(server, name)


def test_an_index_goes_to_an_engine_and_back_without_a_change(
    place: Callable[[str], str], source: str, tmp_path: Path
) -> None:
    there = hs.copy(source, place("copy"), batch_size=16)
    again = hs.copy(source, place("copy"), batch_size=16, resume=True)
    back = hs.copy(place("copy"), tmp_path / "back", batch_size=16)
    original, returned = MemoryBackend(source), MemoryBackend(tmp_path / "back")

    assert (there.differences, again.differences, back.differences) == ((), (), ())
    assert (there.copied, again.unchanged, back.copied) == (60, 60, 60)
    assert all(check.queries for check in [*there.checks, *back.checks])
    assert original.open() == returned.open()
    assert vectors_of(original) == vectors_of(returned)


def test_an_engine_is_loaded_by_way_of_a_folder_and_searched_from_an_event_loop(
    place: Callable[[str], str], tmp_path: Path
) -> None:
    with pytest.warns(UserWarning, match="'d3'"), hs.HybridSearch({"bm25": hs.BM25()}, place("index")) as search:
        search.index([*DOCUMENTS, DOCUMENTS[3]], batch_size=7, via=tmp_path / "encoded")
    queries = ["wing number7", "flow number21", "", "nothing"]

    async def ask() -> tuple[list[hs.Results], list[hs.Results], list[hs.Results]]:
        async with contextlib.aclosing(hs.open(place("index"))) as search:
            one_by_one = await asyncio.gather(*(search.asearch(query, 5) for query in queries))
            return one_by_one, await search.asearch_many(queries, 5), search.search_many(queries, 5)

    one_by_one, many, right = asyncio.run(ask())
    assert one_by_one == many == right
    assert right[0].ids[0] == "d7"
    assert right[0].ids == hs.open(tmp_path / "encoded").search(queries[0], 5).ids


def test_the_first_load_of_an_engine_keeps_the_last_of_equal_ids(place: Callable[[str], str]) -> None:
    rng = np.random.default_rng(0)
    documents = [hs.Document(f"d{id}", f"version{turn}") for turn, id in enumerate(rng.integers(0, 40, 120).tolist())]
    right = {document.id: document for document in documents}
    with hs.HybridSearch({"bm25": hs.BM25()}, place("index")) as search:
        with pytest.warns(UserWarning, match="came more than once"):
            search.index(documents, batch_size=9)
        assert search.get(list(right)) == list(right.values())
        assert search.count() == len(right)


@pytest.mark.parametrize("place", ["opensearch", "elasticsearch"], indirect=True)
def test_few_documents_take_few_requests_of_an_engine(
    place: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    send = Channel.send

    def counted(self: Channel, call: Call) -> Any:
        last = call.path.partition("?")[0].rpartition("/")[2]
        asked.append(call.method if last == self.address.index else last)
        return send(self, call)

    monkeypatch.setattr(Channel, "send", counted)
    with hs.HybridSearch({"bm25": hs.BM25()}, place("index")) as search:
        for change, requests in [
            (lambda: search.upsert(DOCUMENTS[:5]), "GET plugins PUT GET _mapping _bulk"),
            (lambda: search.upsert(DOCUMENTS[5]), "_mget GET _bulk"),
            (lambda: search.upsert(DOCUMENTS[5]), "_mget GET _refresh"),
            (lambda: search.delete("d1"), "_bulk"),
        ]:
            asked.clear()
            change()
            assert " ".join(asked) == requests
        assert search.count() == 5


@pytest.fixture
def of_engine(
    request: pytest.FixtureRequest, lucene_names: Callable[[str, str], str], tmp_path: Path
) -> Callable[[str, str], str]:
    """A function from an engine and a name to the place of an index there."""

    def of_engine(engine: str, name: str) -> str:
        if engine in ("opensearch", "elasticsearch"):
            return lucene_names(request.getfixturevalue(f"{engine}_url"), name)
        module = {"qdrant": "qdrant_client", "seismic": "seismic"}[engine]
        pytest.importorskip(module, reason=f"pip install 'hybridsearch[{engine}]'")
        return f"{engine}://{tmp_path}/{engine}-{name}" + ("/index" if engine == "qdrant" else "")

    return of_engine


@pytest.mark.parametrize(
    ("one", "other"),
    [("opensearch", "elasticsearch"), ("elasticsearch", "opensearch"), ("opensearch", "qdrant"), ("qdrant", "seismic")],
)
def test_an_index_goes_from_engine_to_engine_bit_for_bit(
    of_engine: Callable[[str, str], str], source: str, one: str, other: str
) -> None:
    hs.copy(source, of_engine(one, "one"), batch_size=16)
    report = hs.copy(of_engine(one, "one"), of_engine(other, "other"), batch_size=16)
    assert (report.copied, report.unchanged, report.documents, report.differences) == (60, 0, 60, ())
    assert all(check.queries for check in report.checks)
    with contextlib.closing(connect(of_engine(other, "other"))) as copy:
        schema = copy.open()
        assert schema is not None
        assert [r.fingerprint for r in schema.retrievers.values()] == [
            r.fingerprint for r in SCHEMA.retrievers.values()
        ]
        assert vectors_of(copy) == vectors_of(made(MemoryBackend()))


def test_an_index_goes_to_a_seismic_folder_and_back_without_a_change(
    of_engine: Callable[[str, str], str], source: str, tmp_path: Path
) -> None:
    place, options = of_engine("seismic", "copy"), {"min_documents": 16}
    there = hs.copy(source, place, destination_options=options)
    back = hs.copy(place, tmp_path / "back", source_options=options)
    original, returned = MemoryBackend(source), MemoryBackend(tmp_path / "back")

    assert list((tmp_path / "seismic-copy" / "seismic").iterdir())  # sparse searches went through Seismic
    assert (there.copied, there.differences, back.copied, back.differences) == (60, (), 60, ())
    assert original.open() == returned.open()
    assert vectors_of(original) == vectors_of(returned)


def test_texts_that_an_engine_analyses_itself_are_analysed_by_the_next(of_engine: Callable[[str, str], str]) -> None:
    with hs.HybridSearch({"bm25": hs.BM25(), "native": hs.NativeBM25()}, of_engine("opensearch", "one")) as search:
        search.index(DOCUMENTS)
        right = search.search_many(["number7 wing", "flow number21"], 5, retrievers=["native"])
    report = hs.copy(of_engine("opensearch", "one"), of_engine("elasticsearch", "other"))

    assert (report.copied, report.differences) == (30, ())
    assert {check.retriever: check.queries > 0 for check in report.checks} == {"bm25": True, "native": True}
    with hs.open(of_engine("elasticsearch", "other")) as copy:
        found = copy.search_many(["number7 wing", "flow number21"], 5, retrievers=["native"])
        assert [results.ids[0] for results in found] == [results.ids[0] for results in right] == ["d7", "d21"]


def test_texts_that_an_engine_analyses_itself_are_left_out_where_there_is_none(
    of_engine: Callable[[str, str], str], tmp_path: Path
) -> None:
    place = of_engine("elasticsearch", "one")
    with hs.HybridSearch({"bm25": hs.BM25(), "native": hs.NativeBM25()}, place) as search:
        search.index(DOCUMENTS)
    for destination in (str(tmp_path / "copy"), of_engine("qdrant", "copy")):
        with pytest.raises(BackendError, match=r"'native' \(text\).*retrievers=\['bm25'\]"):
            hs.copy(place, destination)
        report = hs.copy(place, destination, retrievers=["bm25"])
        assert (report.copied, report.differences) == (30, ())
        with hs.open(destination) as copy:
            assert copy.search("number7 wing", 5).ids[0] == "d7"


class Failing(MemoryBackend):
    """A source that disappears in the middle of its last scan."""

    def __init__(self, folder: str, scans: int) -> None:
        super().__init__(folder)
        self.scans = scans

    def scan(self, batch_size: int = 1024) -> Iterator[EncodedBatch]:
        self.scans -= 1
        for number, batch in enumerate(super().scan(batch_size)):
            if number == 3 and not self.scans:
                raise BackendError("The source is gone.")
            yield batch


def test_a_copy_to_an_engine_that_broke_off_in_the_middle_is_resumed(place: Callable[[str], str], source: str) -> None:
    failing = Failing(source, scans=2)  # the first scan is for the average length
    with pytest.raises(BackendError, match="The source is gone"):
        hs.copy(failing, place("copy"), batch_size=10)
    with contextlib.closing(connect(place("copy"))) as half:
        assert half.open() is not None
        assert half.count() == 30

    report = hs.copy(source, place("copy"), batch_size=10, resume=True)

    assert (report.copied, report.unchanged, report.documents, report.differences) == (30, 30, 60, ())
    with contextlib.closing(connect(place("copy"))) as copy:
        copy.open()
        assert vectors_of(copy) == vectors_of(made(MemoryBackend()))
