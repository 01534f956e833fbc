"""Tests of the core with backends: what a backend declares that it cannot do is refused, not ignored."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fuzzing import SIZES, count_answers, mutated, value

import hybridsearch as hs
from hybridsearch.backends import Capabilities, Fingerprint, Request, RetrieverSchema, Schema, check_schema
from hybridsearch.documents import Document
from hybridsearch.errors import BackendError, HybridSearchError, InvalidArgumentError
from hybridsearch.filters import Filter
from hybridsearch.places import connect
from hybridsearch.ranking import Ranking
from hybridsearch.registry import make, registered
from hybridsearch.vectors import EncodedBatch, SparseQuery, SparseVectors

DOCUMENTS = [
    hs.Document("mine", "our wing", metadata={"tenant": "a"}),
    hs.Document("theirs", "their wing", metadata={"tenant": "b"}),
]


class Minimal:
    """An engine of a third party that counts common terms. It has only the required methods."""

    def __init__(self, **declared: object) -> None:
        self.capabilities = Capabilities(kinds=frozenset({"lexical"}), **declared)  # type: ignore[arg-type]
        self.schema: Schema | None = None
        self.documents: dict[str, Document] = {}
        self.words: dict[str, set[str]] = {}

    def open(self) -> Schema | None:
        return self.schema

    def create(self, schema: Schema) -> None:
        self.schema = schema

    def upsert(self, batch: EncodedBatch) -> None:
        vectors = batch.vectors["bm25"]
        assert isinstance(vectors, SparseVectors)
        for row, document in enumerate(batch.documents):
            columns = vectors.matrix.indices[vectors.matrix.indptr[row] : vectors.matrix.indptr[row + 1]]
            self.documents[document.id] = document
            self.words[document.id] = {vectors.vocabulary.terms[column] for column in columns}

    def delete(self, ids: Sequence[str]) -> int:
        return 0

    def fetch(self, ids: Sequence[str]) -> list[Document | None]:
        return [self.documents.get(id) for id in ids]

    def search(self, requests: Sequence[Request]) -> list[Ranking]:
        rankings = []
        for request in requests:
            assert isinstance(request.query, SparseQuery)
            found = {id: float(len(words.intersection(request.query.terms))) for id, words in self.words.items()}
            rankings.append(Ranking.from_scores({id: score for id, score in found.items() if score}, request.k))
        return rankings

    def explain(self, request: Request, ids: Sequence[str]) -> list[dict[str, float]]:
        raise NotImplementedError

    def scan(self, batch_size: int = 1024) -> Iterator[EncodedBatch]:
        raise NotImplementedError

    def count(self, filter: Filter | None = None) -> int:
        return len(self.documents)

    def refresh(self) -> None:
        pass

    def close(self) -> None:
        pass


class Scanning(Minimal):
    """A backend that can tell which documents it has."""

    def scan(self, batch_size: int = 1024) -> Iterator[EncodedBatch]:
        yield EncodedBatch(list(self.documents.values()), {})


def indexed(backend: Minimal) -> hs.HybridSearch:
    search = hs.HybridSearch({"bm25": hs.BM25()}, backend)
    search.index(DOCUMENTS)
    return search


def test_an_engine_that_cannot_filter_never_answers_as_if_it_had() -> None:
    search = indexed(Minimal(filters=False))
    assert sorted(search.search("wing").ids) == ["mine", "theirs"]
    only_ours = {"tenant": "a"}
    for ask in (
        lambda: search.search("wing", filter=only_ours),
        lambda: search.search_many(["wing"], filter=only_ours),
        lambda: search.rankings(["wing"], filter=only_ours),
        lambda: search.plan(filter=Filter.parse(only_ours)),
        lambda: search.count(only_ours),
    ):
        with pytest.raises(BackendError, match="cannot filter"):
            ask()


def test_an_engine_that_cannot_delete_says_so() -> None:
    with pytest.raises(BackendError, match="cannot delete"):
        indexed(Minimal(delete=False)).delete("mine")
    with pytest.raises(BackendError, match="cannot delete"):
        indexed(Scanning(delete=False)).index(DOCUMENTS[:1], sync=True)


def test_explanations_from_an_engine_that_cannot_explain_have_ranks_and_no_terms() -> None:
    explanation = indexed(Minimal(explain=False)).search("wing")[0].explain()
    assert explanation.retrievers["bm25"].rank == 1
    assert explanation.terms == {}


def test_an_engine_that_gives_no_vectors_back_is_not_copied_from() -> None:
    backend = Minimal(scan=False)
    indexed(backend)
    with pytest.raises(BackendError, match="cannot give its vectors"):
        hs.copy(backend, Minimal())
    with pytest.raises(BackendError, match="cannot list its documents"):
        indexed(backend).index(DOCUMENTS[:1], sync=True)


def test_a_kind_of_retriever_that_an_engine_does_not_store_is_refused_before_anything_is_stored() -> None:
    backend = Minimal()
    search = hs.HybridSearch({"bm25": hs.BM25(), "native": hs.NativeBM25()}, backend)
    with pytest.raises(BackendError, match=r"stores lexical retrievers only, not 'native' \(text\).*\['bm25'\]"):
        search.index(DOCUMENTS)
    assert backend.schema is None


def test_an_engine_without_late_interaction_says_that_it_can_rerank() -> None:
    late = RetrieverSchema("multi_vector", Fingerprint("late-interaction", {}), dimensions=4)
    with pytest.raises(BackendError, match=r"'late' \(multi_vector\).*hs\.LateInteraction as the reranker"):
        check_schema(Schema({"late": late}), Minimal())


# Places and options


_PARTS = (
    *("host", "[::1]", "[::1", "user:hunter2@host", "hunter2@host", "@host", "a:b:hunter2@h", ":memory:", "", "hö.st"),
    *("a" * 300, "host:port", "host:99999", "host:-1", "ho st", "host?password=hunter2", "host#f", "\0", "\ud800"),
    *("user:hunter2@[::1]:9200", "user:hunter2@host:port", "user:hunter2@"),
)
_PATHS = (
    *(
        "/name",
        "",
        "/",
        "/a/b",
        "/NAME",
        "/_x",
        "/..",
        "/na me",
        "/n?api_key=hunter2",
        "/" + "x" * 300,
        "/\0",
        "/\ud800",
    ),
    *("//x", "/*", "/a,b", "/-x", "/%2e%2e"),
)
_OPTIONS = (
    *("user", "password", "api_key", "ca_file", "timeout", "shards", "replicas", "dense", "sparse", "quantization"),
    *(
        "engine",
        "hnsw",
        "verify",
        "refresh",
        "bulk_threads",
        "senders",
        "query_cut",
        "heap_factor",
        "n_postings",
        "x",
        "",
    ),
)


@pytest.mark.parametrize(
    ("place", "shown"),
    [
        ("http://me:hunter2@host:9200/a", ["opensearch://,", "elasticsearch://", "opensearch://***@host:9200/a."]),
        ("https://host/a", ["opensearch+https://,", "elasticsearch+https://", "as in opensearch+https://host/a."]),
    ],
)
def test_the_url_of_a_web_server_is_refused_with_the_places_of_engines(place: str, shown: list[str]) -> None:
    with pytest.raises(InvalidArgumentError, match="does not say which engine is there") as raised:
        connect(place)
    assert "hunter2" not in str(raised.value)
    assert [part for part in shown if part not in str(raised.value)] == []


@pytest.mark.parametrize("count", SIZES)
def test_a_place_or_an_option_that_is_none_is_one_of_our_errors_without_its_password(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    schemes = [*registered("backend"), "opensearch+https", "qdrant+https", "http", "OPENSEARCH", "", "qdrant+x"]
    words = ["exact", "hnsw", "seismic", "lucene", "int8", "hunter2", "/nowhere"]

    def call(rng: random.Random) -> None:
        place: Any = rng.choice(schemes) + rng.choice(["://", "://", "://", ":/", "//", ""])
        place += rng.choice(_PARTS) + rng.choice(["", ":9200", ":x"]) + rng.choice(_PATHS)
        if rng.random() < 0.1:
            place = value(rng, words)
        options: Any = {rng.choice(_OPTIONS): value(rng, words) for _ in range(rng.choice([0, 0, 1, 2]))}
        if rng.random() < 0.03:
            options = value(rng, words)
        with shown_by(place, options) as messages:
            backend = connect(place, options)
            messages.append(repr(backend))
            backend.close()

    @contextmanager
    def shown_by(place: Any, options: Any) -> Iterator[list[str]]:
        messages: list[str] = []
        try:
            yield messages
        except HybridSearchError as error:
            messages.append(str(error))
            raise
        finally:
            told = [text for text in messages if "user:hunter2" in text or "=hunter2" in text]
            assert not told or not re.match(r"\w[\w+]+:?/", str(place)), (
                place,
                options,
            )  # without "://" it is the name of a folder

    assert count_answers(count, 4, call) > count // 20


# What an index remembers


_WORDS = (
    *("type", "retrievers", "settings", "version", "kind", "fingerprint", "encoder", "dimensions", "metric", "name"),
    *("weighting", "average_length", "fusion", "reranker", "candidates", "weights", "k", "variant", "b", "language"),
    *("model", "max_length", "device", "model_kwargs", "revision", "analyzer", "stop_words", "bm25", "native", "dense"),
    *("sparse", "cross-encoder", "rrf", "score", "lexical", "text", "english", "lucene", "cosine", "/nowhere"),
)


@pytest.mark.filterwarnings("ignore:The index at:UserWarning")
@pytest.mark.parametrize("count", SIZES)
def test_a_schema_that_is_none_is_one_of_our_errors(count: int) -> None:
    encoders = {"bm25": hs.BM25(), "native": hs.NativeBM25()}
    reranker = {"type": "cross-encoder", "model": "/nowhere", "top_k": 5}
    settings = {
        "fusion": hs.RRF(weights={"bm25": 1, "native": 2, "dense": 3}).to_json(),
        "candidates": 100,
        "reranker": reranker,
    }
    schema = Schema({name: encoder.schema() for name, encoder in encoders.items()}, settings).to_json()
    dense = {"kind": "dense", "fingerprint": {"name": "dense", "settings": {}}, "dimensions": 3, "metric": "cosine"}
    schema["retrievers"]["dense"] = {**dense, "encoder": {"type": "dense", "model": "/nowhere"}, "weighting": None}

    def call(rng: random.Random) -> None:
        backend = Minimal()
        backend.schema = Schema.from_json(mutated(rng, schema, _WORDS))
        assert Schema.from_json(backend.schema.to_json()) == backend.schema
        repr(hs.open(backend))

    assert count_answers(count, 2, call) > count // 4


@pytest.mark.parametrize("count", SIZES)
def test_a_description_that_fits_no_class_is_one_of_our_errors(count: int) -> None:
    kinds = ("encoder", "fusion", "reranker")

    def call(rng: random.Random) -> None:
        kind = rng.choice(kinds)
        given = {rng.choice(_WORDS): value(rng, _WORDS) for _ in range(rng.randrange(3))}
        repr(make(kind, {**given, "type": rng.choice([*registered(kind), value(rng, _WORDS)])}))  # type: ignore[arg-type]

    assert count_answers(count, 3, call) > count // 20
