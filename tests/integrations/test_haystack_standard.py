"""The standard tests of Haystack for document stores, unchanged, on three engines."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

pytest.importorskip("haystack", reason="pip install haystack-ai")

from haystack import Document
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy
from haystack.testing import document_store as suites
from haystack.testing import document_store_async as async_suites

import hybridsearch as hs
from hybridsearch.integrations.haystack import EmbeddingsEncoder, HybridSearchDocumentStore

pytestmark = pytest.mark.filterwarnings("ignore:The .* documents so far have")  # the tests share one index


@pytest.fixture(scope="class", params=["memory", "opensearch", "elasticsearch"])
def store_of_class(
    lucene_names_of_class: Callable[[str, str], str], request: pytest.FixtureRequest
) -> Iterator[HybridSearchDocumentStore]:
    engine = request.param
    url = None if engine == "memory" else request.getfixturevalue(f"{engine}_url")
    place = engine if url is None else lucene_names_of_class(url, "haystack")
    store = HybridSearchDocumentStore(place, retrievers={"bm25": hs.BM25(), "dense": EmbeddingsEncoder(768)})
    yield store
    store.close()


@pytest.fixture
def document_store(store_of_class: HybridSearchDocumentStore) -> Iterator[HybridSearchDocumentStore]:
    yield store_of_class
    store_of_class.delete_all_documents()


class TestDocumentStore(
    suites.CountDocumentsByFilterTest,
    suites.CountUniqueMetadataByFilterTest,
    suites.GetMetadataFieldMinMaxTest,
    suites.GetMetadataFieldUniqueValuesTest,
    suites.GetMetadataFieldsInfoTest,
    suites.DocumentStoreBaseExtendedTests,
):
    @pytest.fixture
    def document_store(self, document_store: HybridSearchDocumentStore) -> HybridSearchDocumentStore:
        return document_store

    def test_write_documents(self, document_store: HybridSearchDocumentStore) -> None:  # each store defines its default
        document = Document(content="test doc")
        assert document_store.write_documents([document]) == 1
        with pytest.raises(DuplicateDocumentError):
            document_store.write_documents([document], DuplicatePolicy.NONE)


class TestDocumentStoreAsync(
    async_suites.CountDocumentsAsyncTest,
    async_suites.CountDocumentsByFilterAsyncTest,
    async_suites.CountUniqueMetadataByFilterAsyncTest,
    async_suites.DeleteAllAsyncTest,
    async_suites.DeleteByFilterAsyncTest,
    async_suites.DeleteDocumentsAsyncTest,
    async_suites.FilterDocumentsAsyncTest,
    async_suites.GetMetadataFieldMinMaxAsyncTest,
    async_suites.GetMetadataFieldUniqueValuesAsyncTest,
    async_suites.GetMetadataFieldsInfoAsyncTest,
    async_suites.UpdateByFilterAsyncTest,
    async_suites.WriteDocumentsAsyncTest,
    suites.FilterableDocsFixtureMixin,
):
    async def test_write_documents_async(self, document_store: HybridSearchDocumentStore) -> None:  # type: ignore[override]
        document = Document(content="test doc")
        assert await document_store.write_documents_async([document]) == 1
        with pytest.raises(DuplicateDocumentError):
            await document_store.write_documents_async([document], DuplicatePolicy.NONE)
