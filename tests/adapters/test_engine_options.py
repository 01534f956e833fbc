"""Tests of the options for storing vectors on real servers: quantization, SEISMIC and faiss.

Servers of other versions or with other plugins are imitated.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faulty_proxy import Exchange, FaultyProxy
from scipy.sparse import csr_array, vstack

pytest.importorskip("opensearchpy", reason="pip install 'hybridsearch[opensearch]'")
pytest.importorskip("elasticsearch", reason="pip install 'hybridsearch[elasticsearch]'")

from hybridsearch.adapters.lucene import seismic
from hybridsearch.adapters.lucene.backend import LuceneBackend
from hybridsearch.adapters.lucene.dialect import Server
from hybridsearch.backends import Backend, Capabilities
from hybridsearch.documents import Document
from hybridsearch.errors import BackendError, InvalidArgumentError
from hybridsearch.filters import Filter
from hybridsearch.places import connect
from hybridsearch.testing import samples
from hybridsearch.testing.base import Connect, ask, put
from hybridsearch.testing.filtering import FilterTests
from hybridsearch.testing.ranking import RankingTests
from hybridsearch.testing.samples import Item, sparse_query
from hybridsearch.testing.storage import StorageTests
from hybridsearch.testing.updates import UpdateTests
from hybridsearch.vectors import DenseVectors, EncodedBatch, Metric, SparseQuery, SparseVectors, Vocabulary

Make = Callable[..., LuceneBackend]
SCHEMA = samples.make_schema(frozenset({"lexical", "sparse", "dense"}), average_length=samples.FROZEN_LENGTH)
QUANTIZED = [("opensearch", "int8"), ("elasticsearch", "int8"), ("elasticsearch", "int4"), ("elasticsearch", "bbq")]
WORDS = [a + b for a, b in product(["wing", "flow", "lift", "drag"], map(str, range(0, 9_000, 50)))]
FULL = ("opensearch-knn", "opensearch-neural-search", "opensearch-ml")
on_opensearch = pytest.mark.parametrize("engine", ["opensearch"])
on_elasticsearch = pytest.mark.parametrize("engine", ["elasticsearch"])
quantized = pytest.mark.parametrize(("engine", "quantization"), QUANTIZED)


@contextmanager
def pretending(scheme: str, version: str, *plugins: str, **options: Any) -> Iterator[tuple[Backend, list[Any]]]:
    """A backend of an imitated server with `version` and `plugins`, and the bodies of new indexes that it gets."""
    made: list[Any] = []
    nodes = {"nodes": {"a": {"version": version, "plugins": [{"name": plugin} for plugin in plugins]}}}

    def rule(exchange: Exchange) -> None:
        made.extend([json.loads(exchange.body)] if exchange.body else [])
        exchange.reply(200, json.dumps(nodes if "_nodes" in exchange.path else {"acknowledged": True}).encode())

    with FaultyProxy(None, on="/") as proxy:
        proxy.rule = rule
        backend = connect(f"{scheme}://{proxy.url.partition('://')[2]}/index", options)
        try:
            yield backend, made
        finally:
            backend.close()


# ---------------------------------------------------------------------------------------------------- quantization


@quantized
@pytest.mark.parametrize("metric", ["cosine", "dot", "euclidean"])
def test_quantized_vectors_find_the_best_documents_with_exact_scores(
    make: Make, quantization: str, metric: Metric
) -> None:
    backend = make(dense="hnsw", quantization=quantization)
    schema = samples.make_schema(frozenset({"dense"}), metric, dimensions=128)
    backend.create(schema)
    rng = np.random.default_rng(3)
    centres = rng.standard_normal((50, 128))
    vectors = centres[rng.integers(0, 50, 2000)] + rng.standard_normal((2000, 128))
    if metric == "cosine":
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    array = vectors.astype(np.float32)
    documents = [Document(f"d{row}", "") for row in range(len(array))]
    backend.load([EncodedBatch(documents, {"dense": DenseVectors(array, metric)})])
    assert "dense" in backend.capabilities.approximate
    found = 0
    queries = array[:20] + np.float32(0.02) * rng.standard_normal((20, 128)).astype(np.float32)
    if metric == "cosine":
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    for query in queries:
        right = -np.linalg.norm(array - query, axis=1) if metric == "euclidean" else array @ query
        ranking = ask(backend, "dense", query, 10)
        scores = [right[int(id[1:])] for id in ranking.ids]
        assert ranking.scores.tolist() == pytest.approx(
            scores, rel=backend.capabilities.score_tolerance["dense"], abs=1e-5
        )
        found += len({f"d{row}" for row in np.argsort(-right)[:10]} & set(ranking.ids))
    assert found >= 0.9 * 10 * len(queries)


@quantized
def test_an_index_remembers_its_quantization(make: Make, quantization: str) -> None:
    made = make(dense="hnsw", quantization=quantization)
    made.create(samples.make_schema(frozenset({"dense"}), dimensions=64))
    again = make(dense=None)
    again.open()
    assert again.describe()["options"]["quantization"] == quantization
    other = next(value for _, value in QUANTIZED if value != quantization)
    if made.engine == "Elasticsearch":
        with pytest.raises(
            InvalidArgumentError, match=f"was made with quantization='{quantization}', not with '{other}'"
        ):
            make(dense=None, quantization=other).open()


@quantized
def test_quantized_vectors_come_back_as_they_were(make: Make, quantization: str) -> None:
    backend = make(dense="hnsw", quantization=quantization)
    backend.create(samples.make_schema(frozenset({"dense"}), dimensions=64))
    array = np.random.default_rng(1).standard_normal((50, 64)).astype(np.float32)
    array /= np.linalg.norm(array, axis=1, keepdims=True)
    documents = [Document(str(row), "") for row in range(50)]
    backend.upsert(EncodedBatch(documents, {"dense": DenseVectors(array)}))
    (batch,) = backend.scan()
    rows = [int(document.id) for document in batch.documents]
    vectors = batch.vectors["dense"]
    assert isinstance(vectors, DenseVectors)
    np.testing.assert_array_equal(vectors.array, array[rows])


@pytest.mark.parametrize(
    ("engine", "value", "allowed"),
    [("opensearch", "bbq", "engine lucene it must be 'int8'"), ("elasticsearch", "fp16", "one of int8, int4, bbq")],
)
def test_a_quantization_that_the_engine_lacks_is_refused(engine: str, value: str, allowed: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"quantization is '{value}'.*{allowed}"):
        connect(f"{engine}://localhost/index", {"quantization": value})


def test_exact_search_has_no_quantization(engine: str) -> None:
    with pytest.raises(InvalidArgumentError, match="quantization needs dense='hnsw'"):
        connect(f"{engine}://localhost/index", {"quantization": "int8", "dense": "exact"})


@pytest.mark.parametrize(("value", "dimensions", "needs"), [("int4", 65, "an even number"), ("bbq", 32, "at least 64")])
def test_dimensions_that_a_quantization_cannot_take_are_refused(value: str, dimensions: int, needs: str) -> None:
    schema = samples.make_schema(frozenset({"dense"}), dimensions=dimensions)
    with (
        pretending("elasticsearch", "9.0.0", quantization=value) as (backend, made),
        pytest.raises(InvalidArgumentError, match=f"{dimensions} dimensions, .* needs {needs}"),
    ):
        backend.create(schema)
    assert made == []


@pytest.mark.parametrize(
    ("engine", "version", "since"), [("opensearch", "3.0.0", "3.1"), ("elasticsearch", "8.17.3", "8.18")]
)
def test_servers_that_cannot_make_scores_of_quantized_vectors_exact_are_refused(
    engine: str, version: str, since: str
) -> None:
    with (
        pretending(engine, version, *FULL, quantization="int8") as (backend, _),
        pytest.raises(BackendError, match=f"is version {version}, but quantization needs {since} or newer: upgrade"),
    ):
        backend.create(SCHEMA)


@on_elasticsearch
def test_elasticsearch_quantizes_nothing_on_its_own(make: Make) -> None:
    backend = make(dense="hnsw")
    backend.create(samples.make_schema(frozenset({"dense"}), dimensions=768))
    array = np.random.default_rng(2).standard_normal((200, 768)).astype(np.float32)
    array /= np.linalg.norm(array, axis=1, keepdims=True)
    documents = [Document(str(row), "") for row in range(200)]
    backend.load([EncodedBatch(documents, {"dense": DenseVectors(array)})])
    ranking = ask(backend, "dense", array[7], 200)
    right = array @ array[7]
    assert ranking.scores.tolist() == pytest.approx([right[int(id)] for id in ranking.ids], abs=1e-6)


@pytest.mark.parametrize(("version", "known"), [("8.15.0", False), ("9.1.4", False), ("9.2.0", True), ("9.3.1", True)])
def test_elasticsearch_keeps_vectors_where_it_would_leave_them_out(version: str, known: bool) -> None:
    with pretending("elasticsearch", version) as (backend, made):
        backend.create(SCHEMA)
    assert made[0]["settings"].get("mapping.exclude_source_vectors") == (False if known else None)


@on_elasticsearch
def test_vectors_are_kept_by_a_server_that_does_not_tell_its_version(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = make()
    sent: list[str] = []
    real = LuceneBackend.make_index
    monkeypatch.setattr(backend, "_ask_server", Server)
    monkeypatch.setattr(LuceneBackend, "make_index", lambda self, body: (sent.append(str(body)), real(self, body)))
    backend.create(SCHEMA)
    assert "'mapping.exclude_source_vectors': False" in sent[0]
    backend.upsert(samples.encode(samples.random_items(3), SCHEMA))
    (found,) = backend.scan()
    assert found.vectors.keys() == SCHEMA.retrievers.keys()


@contextmanager
def qdrant_server(collection: dict[str, Any] | None) -> Iterator[tuple[str, list[Any]]]:
    """An imitated Qdrant server with `collection` or with none: its place, and the bodies that it gets."""
    made: list[Any] = []

    def rule(exchange: Exchange) -> None:
        made.extend([json.loads(exchange.body)] if exchange.body else [])
        exists = collection is not None and "-terms" not in exchange.path
        result: Any = bool(exchange.body) or collection
        if exchange.path.endswith("/exists"):
            result = {"exists": exists}
        elif "/index/index" in exchange.path:  # of the collection `index`, one for a key of the payload
            result = {"status": "completed"}
        answer = {"version": "1.20.0", "title": "qdrant"} if exchange.path == "/" else {"result": result}
        exchange.reply(200, json.dumps({"status": "ok", "time": 0.0, **answer}).encode())

    with FaultyProxy(None, on="/") as proxy:
        proxy.rule = rule
        yield f"qdrant://{proxy.url.partition('://')[2]}/index", made


@pytest.mark.parametrize(
    ("quantization", "sent"),
    [
        ("int8", {"scalar": {"type": "int8", "always_ram": True}}),
        ("binary", {"binary": {"always_ram": True}}),
        ("product", {"product": {"compression": "x16", "always_ram": True}}),
    ],
)
def test_qdrant_is_asked_for_quantized_vectors_and_says_later_that_it_has_them(
    quantization: str, sent: dict[str, Any]
) -> None:
    schema = samples.make_schema(frozenset({"dense"}))
    with qdrant_server(None) as (place, made):
        connect(place, {"quantization": quantization}).create(schema)
    (body,) = (body for body in made if body.get("vectors"))
    (vectors,) = body["vectors"].values()
    assert vectors["quantization_config"] == sent
    collection = {
        "status": "green",
        "optimizer_status": "ok",
        "segments_count": 1,
        "payload_schema": {},
        "config": {
            "params": {"vectors": body["vectors"]},
            "metadata": body["metadata"],
            "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10000},
            "optimizer_config": {
                "deleted_threshold": 0.2,
                "vacuum_min_vector_number": 1000,
                "default_segment_number": 0,
                "flush_interval_sec": 5,
            },
        },
    }
    with qdrant_server(collection) as (place, _):
        assert connect(place).open() == schema
        assert connect(place, {"quantization": quantization}).open() == schema
        other = "int8" if quantization == "binary" else "binary"
        with pytest.raises(
            InvalidArgumentError, match=f"was made with quantization='{quantization}', not with '{other}'"
        ):
            connect(place, {"quantization": other}).open()


@pytest.mark.parametrize("place", ["qdrant://localhost/index", "qdrant://:memory:/index"])
def test_a_quantization_that_qdrant_lacks_is_refused(place: str) -> None:
    with pytest.raises(
        InvalidArgumentError, match="'int8', 'product' and 'binary', and the embedded Qdrant takes none"
    ):
        connect(place, {"quantization": "int4" if "localhost" in place else "int8"})


# ----------------------------------------------------------------------------------------------------------- faiss


@on_opensearch
def test_faiss_is_refused_by_a_server_that_may_lack_its_library(make: Make) -> None:
    backend = make(dense="hnsw", engine="faiss")
    if FULL[-1] in make().describe()["plugins"]:  # with faiss, `describe` would raise the error below
        pytest.skip("the server is a full distribution, which has the library")
    with pytest.raises(BackendError, match=r"not a full distribution\. .* faiss kills a node"):
        backend.create(SCHEMA)


@pytest.mark.parametrize(
    ("options", "engine", "compression"),
    [
        ({}, "lucene", {}),
        ({"quantization": "int8"}, "lucene", {"compression_level": "4x"}),
        ({"engine": "faiss"}, "faiss", {}),
        ({"engine": "faiss", "quantization": "fp16"}, "faiss", {"compression_level": "2x"}),
        ({"engine": "faiss", "quantization": "binary"}, "faiss", {"compression_level": "32x"}),
    ],
)
def test_a_full_distribution_is_sent_the_engine_that_was_asked_for(
    options: dict[str, str], engine: str, compression: dict[str, str]
) -> None:
    with pretending("opensearch", "3.6.0", *FULL, **options) as (backend, made):
        backend.create(SCHEMA)
    field = made[0]["mappings"]["properties"]["vectors"]["properties"]["dense"]
    method = {"name": "hnsw", "engine": engine, "space_type": "cosinesimil"}
    assert field == {"type": "knn_vector", "dimension": samples.DIMENSIONS, "method": method, **compression}
    assert made[0]["settings"]["knn"] is True


# --------------------------------------------------------------------------------------------------------- seismic


class Sparse:
    """Only learned sparse retrievers, because the others do not depend on the options."""

    @pytest.fixture
    def capabilities(self, connect: Connect) -> Capabilities:
        return replace(connect("index").capabilities, kinds=frozenset({"sparse"}))


@on_opensearch
class TestSeismicBelowItsThreshold(Sparse, RankingTests, StorageTests):
    @pytest.fixture
    def connect(self, make: Make) -> Connect:
        return partial(make, sparse="seismic")


@on_opensearch
class TestSeismic(Sparse, RankingTests, FilterTests, UpdateTests):
    @pytest.fixture
    def connect(self, make: Make) -> Connect:
        return partial(make, sparse="seismic", approximate_threshold=1, query_cut=50)


@pytest.fixture
def mixtures(data_folder: Path) -> tuple[csr_array[np.float32, tuple[int, int]], list[str]]:
    """SPLADE-v3 vectors of 20 questions and of 1,500 documents, mixtures of other questions, and their terms."""
    path = data_folder / "splade_v3_queries" / "msmarco-dev.tsv.gz"
    if not path.is_file():
        pytest.skip(f"no SPLADE vectors at {path}")
    columns: dict[str, int] = {}
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [Counter(line.rstrip("\n").split("\t")[1].split(" ")) for line in lines]
    entries = [
        (columns.setdefault(term, len(columns)), row, count / 100)
        for row, counts in enumerate(rows)
        for term, count in counts.items()
    ]
    column, row, weight = map(np.array, zip(*entries, strict=True))
    vectors = csr_array((weight.astype(np.float32), (row, column)), shape=(len(rows), len(columns)))
    rng = np.random.default_rng(5)
    chosen = rng.integers(20, len(rows), 1500 * 6)
    strength = rng.uniform(0.3, 1.2, len(chosen)).astype(np.float32)
    mixed = csr_array((strength, chosen, np.arange(1501) * 6), shape=(1500, len(rows))) @ vectors
    return csr_array(vstack([vectors[:20], mixed], format="csr")), list(columns)


@on_opensearch
@pytest.mark.parametrize("filtered", [False, True])
def test_seismic_finds_most_of_the_best_documents_of_splade_vectors_with_the_scores_of_exact_search(
    make: Make, mixtures: tuple[csr_array[np.float32, tuple[int, int]], list[str]], filtered: bool
) -> None:
    matrix, terms = mixtures
    queries, vectors = matrix[:20], matrix[20:]
    backend = make(sparse="seismic", approximate_threshold=1, n_postings=300, timeout=120)
    backend.create(samples.make_schema(frozenset({"sparse"})))
    documents = [Document(f"d{row}", "", metadata={"part": row % 5}) for row in range(vectors.shape[0])]
    backend.load([EncodedBatch(documents, {"sparse": SparseVectors(vectors, Vocabulary(terms))})])
    assert "sparse" in backend.capabilities.approximate
    right = (queries @ vectors.T).toarray()
    if filtered:
        right[:, np.arange(right.shape[1]) % 5 != 2] = 0
    found = 0
    for row, scores in enumerate(right):
        query = queries[[row]]
        asked = SparseQuery(tuple(terms[column] for column in query.indices), query.data)
        ranking = ask(backend, "sparse", asked, 10, Filter.parse({"part": 2}) if filtered else None)
        assert ranking.scores.tolist() == pytest.approx([scores[int(id[1:])] for id in ranking.ids], rel=1 / 256)
        found += len({f"d{best}" for best in np.argsort(-scores)[:10]} & set(ranking.ids))
    assert found >= 0.9 * 10 * len(right)


@on_opensearch
@pytest.mark.parametrize("threshold", [None, 1])
def test_terms_that_share_a_number_stay_apart(make: Make, threshold: int | None) -> None:
    one, two = next(pair for pair in combinations(WORDS, 2) if len(set(map(seismic.number_of, pair))) == 1)
    backend = make(sparse="seismic", approximate_threshold=threshold)
    backend.create(SCHEMA)
    put(backend, [Item("a", {}, {one: 1.5}), Item("b", {}, {two: 2.5}), Item("c", {}, {one: 0.5, two: 3.0})], SCHEMA)
    assert list(ask(backend, "sparse", sparse_query({one: 2.0}))) == [("a", 3.0), ("c", 1.0)]
    assert list(ask(backend, "sparse", sparse_query({two: 1.0, one: 1.0}))) == [("c", 3.5), ("b", 2.5), ("a", 1.5)]


@on_opensearch
def test_a_document_written_again_is_found_by_its_new_terms_only(make: Make) -> None:
    backend = make(sparse="seismic", approximate_threshold=1)
    backend.create(SCHEMA)
    put(backend, [Item("a", {}, {"wing": 1.0}), Item("b", {}, {"flow": 1.0})], SCHEMA)
    other = make()
    other.open()
    put(other, [Item("a", {}, {"flow": 2.0})], SCHEMA)
    assert ask(backend, "sparse", sparse_query({"wing": 1.0})).ids == ()
    assert ask(backend, "sparse", sparse_query({"flow": 1.0})).ids == ("a", "b")


@on_opensearch
def test_an_index_remembers_that_it_is_of_seismic(make: Make) -> None:
    make(sparse="seismic", n_postings=500).create(SCHEMA)
    again = make()
    again.open()
    assert again.capabilities.approximate == {"sparse"}
    assert again.describe()["options"]["n_postings"] == 500
    with pytest.raises(InvalidArgumentError, match="made with sparse='seismic', not with 'exact'"):
        make(sparse="exact").open()


@on_opensearch
def test_an_index_without_options_is_what_the_defaults_say(make: Make) -> None:
    make(dense="hnsw").create(SCHEMA)
    make(dense="hnsw", sparse="exact", engine="lucene").open()
    with pytest.raises(InvalidArgumentError, match="made with sparse='exact', not with 'seismic'"):
        make(dense=None, sparse="seismic").open()


@pytest.mark.parametrize(
    ("version", "plugins", "problem"),
    [
        ("3.2.0", FULL, r"is version 3\.2\.0 with the plugin opensearch-neural-search\. .* needs 3\.3 or newer"),
        ("3.6.0", FULL[:1], r"is version 3\.6\.0 without the plugin opensearch-neural-search\. .* install the plugin"),
    ],
)
def test_seismic_is_refused_by_a_server_that_lacks_it(version: str, plugins: tuple[str, ...], problem: str) -> None:
    with (
        pretending("opensearch", version, *plugins, sparse="seismic") as (backend, made),
        pytest.raises(BackendError, match=problem),
    ):
        backend.create(SCHEMA)
    assert made == []


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"sparse": "hnsw"}, "sparse is 'hnsw', but it must be 'exact' or 'seismic'"),
        ({"sparse": "seismic", "n_postings": 0}, "n_postings is 0, but it must be a whole number of at least 1"),
        ({"n_postings": 100}, "n_postings is an option of sparse='seismic'"),
        ({"sparse": "seismic", "query_cut": 2.5}, r"query_cut is 2\.5"),
        ({"sparse": "seismic", "heap_factor": 0}, "heap_factor is 0, but it must be a number above 0"),
    ],
)
def test_options_of_seismic_outside_their_range_are_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidArgumentError, match=problem):
        connect("opensearch://localhost/index", options)


def test_the_two_phase_processor_is_not_for_seismic() -> None:
    with (
        pretending("opensearch", "3.6.0", *FULL, sparse="seismic", two_phase=True) as (backend, _),
        pytest.raises(BackendError, match="leave two_phase out"),
    ):
        backend.create(SCHEMA)
