"""The standard tests of LangChain for retrievers and vector stores, unchanged, on three engines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("langchain_tests", reason="pip install langchain-tests")

from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests import RetrieversIntegrationTests, VectorStoreIntegrationTests

import hybridsearch as hs
from hybridsearch.integrations.langchain import EmbeddingsEncoder, HybridSearchRetriever, HybridSearchVectorStore

ENGINES = ["memory", "opensearch", "elasticsearch"]


def place(engine: str, names: Callable[[str, str], str], request: pytest.FixtureRequest) -> str:
    return engine if engine == "memory" else names(request.getfixturevalue(f"{engine}_url"), "langchain")


@pytest.fixture(scope="class", params=ENGINES)
def search_by_vectors(
    lucene_names_of_class: Callable[[str, str], str], request: pytest.FixtureRequest
) -> Iterator[hs.HybridSearch]:
    embeddings = VectorStoreIntegrationTests.get_embeddings()
    retrievers = {"bm25": hs.BM25(), "dense": EmbeddingsEncoder(embeddings)}
    with hs.HybridSearch(retrievers, place(request.param, lucene_names_of_class, request)) as search:
        yield search


class TestVectorStore(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, search_by_vectors: hs.HybridSearch) -> Iterator[VectorStore]:  # type: ignore[override]
        store = HybridSearchVectorStore(search_by_vectors)
        yield store
        if search_by_vectors.count():
            store.delete(filter={"id": {"$exists": True}})


@pytest.fixture(scope="class", params=ENGINES)
def search(
    lucene_names_of_class: Callable[[str, str], str], request: pytest.FixtureRequest
) -> Iterator[hs.HybridSearch]:
    with hs.HybridSearch({"bm25": hs.BM25()}, place(request.param, lucene_names_of_class, request)) as search:
        search.upsert([{"id": f"{n}", "text": f"Wing number {n}"} for n in range(5)])
        yield search


class TestRetriever(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _search_of_test(self, search: hs.HybridSearch) -> None:
        self.search = search

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return HybridSearchRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"search": self.search}

    @property
    def retriever_query_example(self) -> str:
        return "wing"
