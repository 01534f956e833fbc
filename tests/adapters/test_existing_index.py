"""`examples/existing_index.py` searches an index that another program made, on real servers."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("opensearchpy", reason="pip install 'hybridsearch[opensearch]'")
pytest.importorskip("elasticsearch", reason="pip install 'hybridsearch[elasticsearch]'")

from elasticsearch import Elasticsearch
from opensearchpy import OpenSearch
from servers import address_of, call

import hybridsearch as hs
from hybridsearch.backends import Fingerprint, RetrieverSchema
from hybridsearch.errors import BackendError, FilterError, InvalidArgumentError
from hybridsearch.filters import Filter
from hybridsearch.vectors import DenseVectors

PRODUCTS: list[dict[str, Any]] = [
    {"name": "Down jacket", "description": "Warm and light, for winter", "brand": "Nord", "price": 189.5, "new": True},
    {"name": "Rain jacket", "description": "Keeps you dry", "brand": "Nord", "price": 99, "new": False},
    {"name": "Running shoes", "description": "Light, for a long run", "brand": "Tempo", "price": 120, "new": True},
    {"name": "Wool hat", "description": "Warm, from sheep", "price": 25},
]
FIELDS: dict[str, Any] = {
    "name": {"type": "text"},
    "description": {"type": "text"},
    "brand": {"type": "text", "fields": {"keyword": {"type": "keyword"}}},
    "price": {"type": "float"},
    "new": {"type": "boolean"},
}
METADATA = ["brand", "price", "new"]


class Letters:
    """How often each letter comes, as a vector of unit length."""

    def encode_documents(self, texts: Sequence[str], *, show_progress_bar: bool = False) -> DenseVectors:
        return DenseVectors(np.array([letters(text) for text in texts], dtype=np.float32))

    def encode_queries(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        return [letters(text) for text in texts]

    def fingerprint(self) -> Fingerprint:
        return Fingerprint("letters", {})

    def schema(self) -> RetrieverSchema:
        return RetrieverSchema("dense", self.fingerprint(), dimensions=26, metric="cosine")


def letters(text: str) -> NDArray[np.float32]:
    counts = np.array([text.lower().count(chr(97 + letter)) for letter in range(26)], dtype=np.float32)
    return np.asarray(counts / (np.linalg.norm(counts) or 1), dtype=np.float32)


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module."""
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2] / "examples")
    import existing_index  # type: ignore[import-not-found,unused-ignore]

    yield existing_index
    del sys.modules["existing_index"]


Open = Callable[..., Any]


@pytest.fixture
def open_products(
    engine: str, server: str, lucene_names: Callable[[str, str], str], example: Any
) -> Iterator[Callable[..., Any]]:
    """Makes the index as a shop would, and opens it."""
    if "+https" in server:
        pytest.skip("the example connects without TLS")
    name = lucene_names(server, "products").rpartition("/")[2]
    ours = engine == "opensearch"
    method = {"name": "hnsw", "engine": "lucene", "space_type": "cosinesimil"}
    opensearch = {"type": "knn_vector", "dimension": 26, "method": method}
    vector = opensearch if ours else {"type": "dense_vector", "dims": 26, "similarity": "cosine"}
    settings = {"number_of_replicas": 0, **({"knn": True} if ours else {})}
    address = address_of(f"{server}/{name}")
    mappings = {"properties": {**FIELDS, "embedding": vector}}
    call(address, "PUT", address.path, {"settings": settings, "mappings": mappings})
    for number, product in enumerate(PRODUCTS):
        embedding = letters(f"{product['name']}\n{product['description']}").tolist()
        call(address, "PUT", f"{address.path}/_doc/p{number}?refresh=true", {**product, "embedding": embedding})
    url = address.urls[0]
    made: list[Any] = []

    def open_products(encoders: dict[str, Any] | None = None, **options: Any) -> hs.HybridSearch:
        encoders = encoders or {"bm25": hs.NativeBM25(), "dense": Letters()}
        client = OpenSearch(url) if ours else Elasticsearch(url)
        backend = example.ExistingIndex if ours else example.ExistingElasticsearchIndex
        fields = {"match": ["name^2", "description"], "text": "description", "title": "name", "metadata": METADATA}
        place = backend(client, name, encoders, **{**fields, "vectors": {"dense": "embedding"}, **options})
        made.append(place)
        return hs.HybridSearch(encoders, place)

    yield open_products
    for place in made:
        place.close()


def documents() -> list[hs.Document]:
    return [
        hs.Document(
            f"p{number}",
            one["description"],
            one["name"],
            metadata={name: one[name] for name in METADATA if name in one},
        )
        for number, one in enumerate(PRODUCTS)
    ]


def test_an_existing_index_is_searched_fused_and_explained(open_products: Open) -> None:
    search = open_products()
    results = search.search("a warm jacket", top_k=4)
    query = letters("a warm jacket")
    cosines = {one.id: float(letters(f"{one.title}\n{one.text}") @ query) for one in documents()}
    dense = search.search("a warm jacket", retrievers=["dense"])
    assert dense.ids == sorted(cosines, key=lambda id: -cosines[id])
    assert results[0].retrievers["bm25"].rank == 1
    assert results[0].document == next(one for one in documents() if one.id == results[0].id)
    assert "bm25: rank 1" in str(results[0].explain())
    assert set(search.search("jacket", retrievers=["bm25"]).ids) == {"p0", "p1"}
    assert [one.ids for one in search.search_many(["jacket", ""])][1] == []


@pytest.mark.parametrize(
    "filter",
    [
        {"brand": "Nord"},
        {"brand": {"$ne": "Nord"}},
        {"brand": {"$in": ["Tempo", None]}},
        {"brand": {"$exists": False}},
        {"brand": {"$gt": "Nord"}},
        {"price": {"$gte": 99, "$lt": 120.0}},
        {"price": 189.5},
        {"new": True},
        {"new": {"$nin": [False]}},
        {"id": {"$in": ["p0", "p3", "none"]}},
        {"$or": [{"price": {"$lt": 50}}, {"$not": {"brand": "Nord"}}]},
    ],
    ids=str,
)
def test_filters_find_the_documents_that_they_match(open_products: Open, filter: dict[str, Any]) -> None:
    search = open_products()
    matched = {one.id for one in documents() if Filter.parse(filter).matches(one)}
    for retrievers in (["bm25"], ["dense"]):
        found = set(search.search("warm light jacket shoes dry", filter=filter, retrievers=retrievers).ids)
        assert found == matched
    assert search.count(filter) == len(matched)


@pytest.mark.parametrize(
    ("filter", "said"),
    [
        ({"colour": "red"}, "'colour' is not possible: the field is not in the mapping"),
        ({"description": "dry"}, "'description' is not possible: the field is text"),
        ({"brand": {"$contains": "o"}}, r"\$contains on 'brand' is not possible"),
        ({"price": "99"}, r"'price' is float, and cannot be compared with \['99'\]"),
        ({"new": 1}, "'new' is boolean"),
        ({"brand": "2024-03-01T00:30:00Z"}, "cannot be compared"),
    ],
)
def test_a_filter_that_the_index_cannot_answer_is_refused(
    open_products: Open, filter: dict[str, Any], said: str
) -> None:
    with pytest.raises(FilterError, match=said):
        open_products().search("jacket", filter=filter)


def test_an_existing_index_is_evaluated_like_any_other(open_products: Open) -> None:
    search = open_products()
    dataset = hs.Dataset("shop", queries={"q": "warm jacket"}, qrels={"q": {"p0": 1}})
    systems = {"bm25": hs.Pipeline(search, ["bm25"]), "both": hs.Pipeline(search)}
    comparison = hs.compare(systems, dataset, measures=["RR@10"])
    assert comparison.systems[0].means["RR@10"].mean == 1.0


def test_nothing_is_ever_written(open_products: Open, tmp_path: Path) -> None:
    search = open_products()
    with pytest.raises(BackendError, match="belongs to another program"):
        search.index([{"id": "p0", "text": "mine"}])
    with pytest.raises(BackendError, match="cannot delete"):
        search.delete("p0")
    with pytest.raises(BackendError):
        hs.copy(search.backend, tmp_path / "copy", retrievers=["dense"])
    assert search.count() == len(PRODUCTS)
    assert search.get(["p0", "none"]) == [documents()[0], None]


def test_vectors_of_another_size_are_refused(open_products: Open) -> None:
    with pytest.raises(InvalidArgumentError, match=r"makes vectors of 26 dimensions, but the field for it is"):
        open_products(vectors={"dense": "name"})


def test_too_many_hits_are_refused(open_products: Open) -> None:
    with pytest.raises(InvalidArgumentError, match="at most 10,000 hits"):
        open_products().search("jacket", candidates=10_001)


@pytest.mark.parametrize("engine", ["opensearch"])
def test_the_program_prints_what_it_finds(
    open_products: Open, example: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = open_products().backend
    monkeypatch.setattr(example.hs, "Dense", lambda _: Letters())
    host = place._client.transport.hosts[0]

    example.main(f"http://{host['host']}:{host['port']}", place._index, "rain jacket")

    assert re.search(r"Rain jacket\n +Keeps you dry", capsys.readouterr().out)
