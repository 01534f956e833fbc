"""Haystack: a document store, retrievers, a ranker, and `EmbeddingsEncoder` for the embeddings of documents.

A search logs its notes as warnings of the logger `hybridsearch.integrations.haystack`, because a list of documents has
no place for them. A note says for example that an optional retriever failed.
"""

from hybridsearch.errors import MissingExtraError

try:
    import haystack  # noqa: F401
except ImportError as error:
    raise MissingExtraError("haystack-ai", "haystack", "hybridsearch.integrations.haystack") from error

from hybridsearch.integrations.haystack.ranker import HybridSearchRanker as HybridSearchRanker
from hybridsearch.integrations.haystack.records import EmbeddingsEncoder as EmbeddingsEncoder
from hybridsearch.integrations.haystack.retrievers import HybridSearchContextRetriever as HybridSearchContextRetriever
from hybridsearch.integrations.haystack.retrievers import (
    HybridSearchEmbeddingRetriever as HybridSearchEmbeddingRetriever,
)
from hybridsearch.integrations.haystack.retrievers import HybridSearchRetriever as HybridSearchRetriever
from hybridsearch.integrations.haystack.store import HybridSearchDocumentStore as HybridSearchDocumentStore
