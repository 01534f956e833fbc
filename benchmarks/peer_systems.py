"""The libraries that `peers.py` measures, each used as its documentation says, and the measurements of one of them.

`peers.py` runs this file in a process for each measurement, with the Python in which the library is installed:

    PYTHON benchmarks/peer_systems.py index SYSTEM COLLECTION INDEX     # build the index INDEX from a collection
    PYTHON benchmarks/peer_systems.py ask SYSTEM COLLECTION INDEX       # open it and search

The last line is a JSON object. A collection is a folder that `peers.py` made: documents.jsonl and queries.jsonl with
`id` and `text`, and their vectors in documents.npy and queries.npy, which have length 1.
"""

from __future__ import annotations

import json
import logging
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from itertools import cycle, islice
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import numpy as np

K = 10
CANDIDATES = 100
"""Documents that are read from each retriever before the fusion, if the library lets its user choose."""
THREADS = 8
SECONDS = 3.0
"""Time for the queries one at a time, and for those from several threads."""
WARM_UP = 3.0
"""Time for queries before those that are measured."""
FEWEST = 12
"""Queries that are measured even if they take longer."""
SAMPLE = 50
"""Queries whose dense hits are compared with all similarities."""
SMALL = {"hybridsearch-minmax", "langchain", "llamaindex", "qdrant-local"}
"""Systems that are measured on SciFact alone: two differ only in quality, two are not meant for many documents."""
LEXICAL = {"hybridsearch-bm25", "tantivy", "bm25s"}
"""Systems with BM25 alone."""


@dataclass(frozen=True, slots=True)
class Collection:
    """Texts and vectors that are given to each library."""

    ids: list[str]
    texts: list[str]
    vectors: np.ndarray


Found = list[tuple[str, str]]
"""Ids and texts of the first `K` documents of a hybrid query."""


class Index(Protocol):
    """An index that is open for searches."""

    def ask(self, text: str, vector: np.ndarray) -> Found:
        """Search by BM25 and by the vector, and merge both."""

    def dense(self, vector: np.ndarray) -> list[str]:
        """The ids of the first `K` documents by the vector alone. Libraries that have no vectors return []."""


class System(Protocol):
    """A library and its settings.

    Attributes:
        packages: Distributions whose versions count.
        modules: Modules that are imported before anything is measured.
    """

    packages: Sequence[str]
    modules: Sequence[str]

    def build(self, given: Collection, folder: Path) -> None:
        """Index a collection, and keep the index in a folder."""

    def open(self, folder: Path, queries: dict[str, np.ndarray]) -> Index:
        """Open the index. `queries` are the vectors by the text of the query, for libraries that encode themselves."""


def batches(count: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, count, size))


class HybridSearch:
    """BM25 and exact vectors, RRF of 100 candidates each: all as by default."""

    packages = ("hybridsearch", "numba", "numpy")
    modules = ("hybrid_latency", "hybridsearch.search", "hybridsearch.adapters.memory")

    def __init__(self, dense: bool = True, fusion: str | None = None, **options: Any) -> None:
        self.with_vectors, self.fusion, self.options = dense, fusion, options

    def _search(self, vectors: dict[str, np.ndarray], folder: Path) -> Any:
        from hybrid_latency import Precomputed

        import hybridsearch as hs

        retrievers: dict[str, Any] = {"bm25": hs.BM25()}
        if self.with_vectors:
            retrievers["dense"] = Precomputed(vectors)
        return hs.HybridSearch(retrievers, folder, self.fusion, backend_options=self.options or None)

    def build(self, given: Collection, folder: Path) -> None:
        import hybridsearch as hs

        with self._search(dict(zip(given.texts, given.vectors, strict=True)), folder) as search:
            documents = (hs.Document(one, text) for one, text in zip(given.ids, given.texts, strict=True))
            search.index(documents, show_progress_bar=False)

    def open(self, folder: Path, queries: dict[str, np.ndarray]) -> Index:
        search = self._search(queries, folder)
        texts = {vector.tobytes(): text for text, vector in queries.items()} if self.with_vectors else {}

        class Open:
            def ask(self, text: str, vector: np.ndarray) -> Found:
                return [(hit.id, hit.document.text) for hit in search.search(text, K)]

            def dense(self, vector: np.ndarray) -> list[str]:
                if not texts:
                    return []
                return [hit.id for hit in search.search(texts[vector.tobytes()], K, retrievers=["dense"])]

        return Open()


class LanceDB:
    """Table on disk, full-text index with stems and stop words, RRF of 100 candidates each."""

    packages = ("lancedb",)
    modules = ("lancedb", "lancedb.rerankers")

    def __init__(self, index: str | None = None) -> None:
        self.index = index

    def build(self, given: Collection, folder: Path) -> None:
        import lancedb
        import pyarrow as pa

        rows = pa.FixedSizeListArray.from_arrays(pa.array(given.vectors.ravel()), given.vectors.shape[1])
        data = pa.table({"id": given.ids, "text": given.texts, "vector": rows})
        table = lancedb.connect(folder).create_table("documents", data)
        table.create_fts_index("text")  # English stems, stop words and lower case, as by default
        if self.index:
            table.create_index(metric="dot", vector_column_name="vector", index_type=self.index)

    def open(self, folder: Path, queries: dict[str, np.ndarray]) -> Index:
        import lancedb
        from lancedb.rerankers import RRFReranker

        table, reranker = lancedb.connect(folder).open_table("documents"), RRFReranker()

        class Open:
            def ask(self, text: str, vector: np.ndarray) -> Found:
                query = table.search(query_type="hybrid").vector(vector).text(text).distance_type("dot")
                found = query.select(["id", "text"]).rerank(reranker).limit(CANDIDATES).to_arrow().slice(0, K)
                return list(zip(found["id"].to_pylist(), found["text"].to_pylist(), strict=True))

            def dense(self, vector: np.ndarray) -> list[str]:
                found = table.search(vector).distance_type("dot").select(["id"]).limit(K).to_arrow()
                return found["id"].to_pylist()

        return Open()


class Chroma:
    """PersistentClient, HNSW as by default. The open-source release has no BM25 and no fusion: vectors alone."""

    packages = ("chromadb",)
    modules = ("chromadb",)

    def _client(self, folder: Path) -> Any:
        import chromadb

        return chromadb.PersistentClient(str(folder), chromadb.Settings(anonymized_telemetry=False))

    def build(self, given: Collection, folder: Path) -> None:
        client = self._client(folder)
        made = client.create_collection("documents", configuration={"hnsw": {"space": "cosine"}})
        for part in batches(len(given.ids), client.get_max_batch_size()):
            made.add(ids=given.ids[part], embeddings=given.vectors[part], documents=given.texts[part])

    def open(self, folder: Path, queries: dict[str, np.ndarray]) -> Index:
        collection = self._client(folder).get_collection("documents")

        class Open:
            def ask(self, text: str, vector: np.ndarray) -> Found:
                found = collection.query(query_embeddings=vector[None], n_results=K, include=["documents"])
                return list(zip(found["ids"][0], found["documents"][0], strict=True))

            def dense(self, vector: np.ndarray) -> list[str]:
                return collection.query(query_embeddings=vector[None], n_results=K, include=[])["ids"][0]

        return Open()


class Txtai:
    """Embeddings with `hybrid` and `content`, which merge normalised scores half and half, as by default.

    It reads 100 candidates from each for 10 hits. Threads take turns, because all share one cursor of SQLite.
    """

    packages = ("txtai", "faiss-cpu")
    modules = ("txtai",)

    def __init__(self, **faiss: Any) -> None:
        self.faiss = faiss

    def build(self, given: Collection, folder: Path) -> None:
        from txtai import Embeddings

        vectors = dict(zip(given.texts, given.vectors, strict=True))
        settings = {"faiss": self.faiss} if self.faiss else {}
        embeddings = Embeddings(
            method="external",
            transform=lambda texts: np.stack([vectors[text] for text in texts]),
            hybrid=True,
            content=True,
            **settings,
        )
        embeddings.index(zip(given.ids, given.texts, strict=True))
        embeddings.config["transform"] = None  # a function is not saved
        embeddings.save(str(folder))

    def open(self, folder: Path, queries: dict[str, np.ndarray]) -> Index:
        from txtai import Embeddings

        transform = lambda texts: np.stack([queries[text] for text in texts])  # noqa: E731
        embeddings = Embeddings().load(str(folder), config={"transform": transform})
        texts, turns = {vector.tobytes(): text for text, vector in queries.items()}, Lock()

        class Open:
            def ask(self, text: str, vector: np.ndarray) -> Found:
                with turns:
                    return [(one["id"], one["text"]) for one in embeddings.search(text, K)]

            def dense(self, vector: np.ndarray) -> list[str]:
                return [one["id"] for one in embeddings.search(texts[vector.tobytes()], K, weights=1.0)]

        return Open()


class Haystack:
    """InMemoryDocumentStore, a pipeline of both retrievers with 100 candidates each, DocumentJoiner with RRF."""

    packages = ("haystack-ai",)
    modules = ("haystack.document_stores.in_memory", "haystack.components.joiners")

    def _store(self) -> Any:
        from haystack.document_stores.in_memory import InMemoryDocumentStore

        return InMemoryDocumentStore()

    def build(self, given: Collection, folder: Path) -> None:
        from haystack import Document

        store = self._store()
        rows = zip(given.ids, given.texts, given.vectors.tolist(), strict=True)
        store.write_documents([Document(id=one, content=text, embedding=vector) for one, text, vector in rows])
        folder.mkdir()
        store.save_to_disk(str(folder / "store.json"))

    def open(self, folder: Path, queries: dict[str, np.ndarray]) -> Index:
        from haystack import Pipeline
        from haystack.components.joiners import DocumentJoiner
        from haystack.components.retrievers.in_memory import InMemoryBM25Retriever, InMemoryEmbeddingRetriever

        store = self._store().load_from_disk(str(folder / "store.json"))
        by_vector = InMemoryEmbeddingRetriever(store, top_k=CANDIDATES)
        pipeline = Pipeline()
        pipeline.add_component("bm25", InMemoryBM25Retriever(store, top_k=CANDIDATES))
        pipeline.add_component("dense", by_vector)
        pipeline.add_component("joiner", DocumentJoiner(join_mode="reciprocal_rank_fusion", top_k=K))
        pipeline.connect("bm25", "joiner")
        pipeline.connect("dense", "joiner")

        class Open:
            def ask(self, text: str, vector: np.ndarray) -> Found:
                given = {"bm25": {"query": text}, "dense": {"query_embedding": vector.tolist()}}
                return [(one.id, one.content) for one in pipeline.run(given)["joiner"]["documents"]]

            def dense(self, vector: np.ndarray) -> list[str]:
                found = by_vector.run(query_embedding=vector.tolist(), top_k=K)
                return [one.id for one in found["documents"]]

        return Open()


class LangChain:
    """EnsembleRetriever over BM25Retriever (rank-bm25) and FAISS (flat), 100 candidates each.

    BM25Retriever keeps no index, so opening makes it again. `words` splits texts as its other users do: words in lower
    case, without stop words, as stems. By default, BM25Retriever splits at white space only.
    """

    packages = ("langchain-classic", "langchain-community", "rank-bm25", "faiss-cpu")
    modules = ("langchain_classic.retrievers", "langchain_community.vectorstores", "faiss")

    def __init__(self, words: bool) -> None:
        self.words = words

    def _embeddings(self, vectors: dict[str, np.ndarray]) -> Any:
        from langchain_core.embeddings import Embeddings

        class Given(Embeddings):
            def embed_documents(self, texts: list[str]) -> list[list[float]]:
                return [vectors[text].tolist() for text in texts]

            def embed_query(self, text: str) -> list[float]:
                return vectors[text].tolist()

        return Given()

    def build(self, given: Collection, folder: Path) -> None:
        from langchain_community.vectorstores import FAISS
        from langchain_community.vectorstores.utils import DistanceStrategy

        store = FAISS.from_embeddings(
            zip(given.texts, given.vectors, strict=True),
            self._embeddings({}),
            metadatas=[{"id": one} for one in given.ids],
            ids=given.ids,
            distance_strategy=DistanceStrategy.MAX_INNER_PRODUCT,
        )
        self._lexical(store)
        store.save_local(str(folder))

    def _lexical(self, store: Any) -> Any:
        from langchain_community.retrievers import BM25Retriever

        split = {"preprocess_func": word_splitter()} if self.words else {}
        return BM25Retriever.from_documents(list(store.docstore._dict.values()), k=CANDIDATES, **split)

    def open(self, folder: Path, queries: dict[str, np.ndarray]) -> Index:
        from langchain_classic.retrievers import EnsembleRetriever
        from langchain_community.vectorstores import FAISS
        from langchain_community.vectorstores.utils import DistanceStrategy

        store = FAISS.load_local(
            str(folder),
            self._embeddings(queries),
            allow_dangerous_deserialization=True,
            distance_strategy=DistanceStrategy.MAX_INNER_PRODUCT,
        )
        dense = store.as_retriever(search_kwargs={"k": CANDIDATES})
        retriever = EnsembleRetriever(retrievers=[self._lexical(store), dense], weights=[0.5, 0.5], id_key="id")

        class Open:
            def ask(self, text: str, vector: np.ndarray) -> Found:
                return [(one.metadata["id"], one.page_content) for one in retriever.invoke(text)[:K]]

            def dense(self, vector: np.ndarray) -> list[str]:
                return [one.metadata["id"] for one in store.similarity_search_by_vector(vector.tolist(), k=K)]

        return Open()


def word_splitter() -> Callable[[str], list[str]]:
    """Words in lower case, without the English stop words of bm25s, as stems."""
    import re

    import Stemmer
    from bm25s.stopwords import STOPWORDS_EN

    pattern, stem, stop = re.compile(r"(?u)\b\w\w+\b"), Stemmer.Stemmer("english"), set(STOPWORDS_EN)
    return lambda text: stem.stemWords([word for word in pattern.findall(text.lower()) if word not in stop])


class LlamaIndex:
    """QueryFusionRetriever (reciprocal_rerank) over BM25Retriever (bm25s, stems) and vectors, 100 candidates each.

    The vectors are in the default store, SimpleVectorStore, or in FaissVectorStore (flat).
    """

    packages = ("llama-index-core", "llama-index-retrievers-bm25", "llama-index-vector-stores-faiss", "faiss-cpu")
    modules = ("llama_index.core", "llama_index.retrievers.bm25", "llama_index.vector_stores.faiss")

    def __init__(self, faiss: bool) -> None:
        self.faiss = faiss

    def _model(self, queries: dict[str, np.ndarray]) -> Any:
        from llama_index.core import MockEmbedding

        class Given(MockEmbedding):
            def _get_query_embedding(self, query: str) -> list[float]:
                return queries[query].tolist()

        return Given(embed_dim=384)

    def build(self, given: Collection, folder: Path) -> None:
        import faiss
        import Stemmer
        from llama_index.core import StorageContext, VectorStoreIndex
        from llama_index.core.schema import TextNode
        from llama_index.retrievers.bm25 import BM25Retriever
        from llama_index.vector_stores.faiss import FaissVectorStore

        rows = zip(given.ids, given.texts, given.vectors.tolist(), strict=True)
        nodes = [TextNode(id_=one, text=text, embedding=vector) for one, text, vector in rows]
        store = {"vector_store": FaissVectorStore(faiss.IndexFlatIP(given.vectors.shape[1]))} if self.faiss else {}
        context = StorageContext.from_defaults(**store)
        VectorStoreIndex(nodes, storage_context=context, embed_model=self._model({}))
        context.persist(str(folder))
        stem = Stemmer.Stemmer("english")
        bm25 = BM25Retriever.from_defaults(nodes=nodes, similarity_top_k=CANDIDATES, stemmer=stem, language="english")
        bm25.persist(str(folder / "bm25"))

    def open(self, folder: Path, queries: dict[str, np.ndarray]) -> Index:
        from llama_index.core import StorageContext, load_index_from_storage
        from llama_index.core.llms import MockLLM
        from llama_index.core.retrievers import QueryFusionRetriever
        from llama_index.core.schema import QueryBundle
        from llama_index.retrievers.bm25 import BM25Retriever
        from llama_index.vector_stores.faiss import FaissVectorStore

        store = {"vector_store": FaissVectorStore.from_persist_dir(str(folder))} if self.faiss else {}
        context = StorageContext.from_defaults(persist_dir=str(folder), **store)
        index = load_index_from_storage(context, embed_model=self._model(queries))
        retrievers = [
            index.as_retriever(similarity_top_k=CANDIDATES),
            BM25Retriever.from_persist_dir(str(folder / "bm25")),
        ]
        fused = QueryFusionRetriever(
            retrievers,
            llm=MockLLM(),
            mode="reciprocal_rerank",
            similarity_top_k=K,
            num_queries=1,  # the query alone, none made by a language model
            use_async=False,
        )
        few = index.as_retriever(similarity_top_k=K)

        class Open:
            def ask(self, text: str, vector: np.ndarray) -> Found:
                return [(one.node.node_id, one.text) for one in fused.retrieve(text)]

            def dense(self, vector: np.ndarray) -> list[str]:
                return [one.node.node_id for one in few.retrieve(QueryBundle("", embedding=vector.tolist()))]

        return Open()


class QdrantEdge:
    """A shard in the process, optimised, with its own BM25. RRF of 100 candidates each, with k = 2 as documented."""

    packages = ("qdrant-edge-py",)
    modules = ("qdrant_edge",)

    def __init__(self, exact: bool) -> None:
        self.exact = exact

    def build(self, given: Collection, folder: Path) -> None:
        import qdrant_edge as edge

        folder.mkdir()
        config = edge.EdgeConfig(
            vectors={"dense": edge.EdgeVectorParams(size=given.vectors.shape[1], distance=edge.Distance.Cosine)},
            sparse_vectors={"bm25": edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)},
        )
        shard, bm25 = edge.EdgeShard.create(str(folder), config), edge.Bm25(edge.Bm25Config(language="english"))
        rows = enumerate(zip(given.ids, given.texts, given.vectors, strict=True))
        while some := list(islice(rows, 1000)):
            points = [
                edge.Point(n, {"dense": vector.tolist(), "bm25": bm25.embed_document(text)}, {"id": one, "text": text})
                for n, (one, text, vector) in some
            ]
            shard.update(edge.UpdateOperation.upsert_points(points))
        shard.optimize()
        shard.close()

    def open(self, folder: Path, queries: dict[str, np.ndarray]) -> Index:
        import qdrant_edge as edge

        shard, bm25 = edge.EdgeShard.load(str(folder)), edge.Bm25(edge.Bm25Config(language="english"))
        params = edge.SearchParams(exact=True) if self.exact else None

        class Open:
            def ask(self, text: str, vector: np.ndarray) -> Found:
                by_word = edge.Query.Nearest(bm25.embed_query(text), using="bm25")
                by_vector = edge.Query.Nearest(vector.tolist(), using="dense")
                both = [
                    edge.Prefetch(query=by_word, limit=CANDIDATES),
                    edge.Prefetch(query=by_vector, limit=CANDIDATES, params=params),
                ]
                request = edge.QueryRequest(prefetches=both, query=edge.Fusion.Rrf(k=2), limit=K, with_payload=True)
                return [(one.payload["id"], one.payload["text"]) for one in shard.query(request)]

            def dense(self, vector: np.ndarray) -> list[str]:
                nearest = edge.Query.Nearest(vector.tolist(), using="dense")
                request = edge.QueryRequest(query=nearest, limit=K, params=params, with_payload=True)
                return [one.payload["id"] for one in shard.query(request)]

        return Open()


class QdrantLocal:
    """The Python client with a path, which its documentation means for tests: numpy in the process, exact.

    It computes no BM25 itself, so the sparse vectors are those of Qdrant Edge. RRF of 100 candidates each.
    """

    packages = ("qdrant-client", "qdrant-edge-py")
    modules = ("qdrant_client", "qdrant_edge")

    def build(self, given: Collection, folder: Path) -> None:
        from qdrant_client import QdrantClient, models

        bm25, client = self._bm25(), QdrantClient(path=str(folder))
        size = given.vectors.shape[1]
        client.create_collection(
            "documents",
            vectors_config={"dense": models.VectorParams(size=size, distance=models.Distance.COSINE)},
            sparse_vectors_config={"bm25": models.SparseVectorParams(modifier=models.Modifier.IDF)},
        )
        rows = enumerate(zip(given.ids, given.texts, given.vectors, strict=True))
        client.upload_points(
            "documents",
            (
                models.PointStruct(
                    id=n,
                    vector={"dense": vector.tolist(), "bm25": self._sparse(bm25.embed_document(text))},
                    payload={"id": one, "text": text},
                )
                for n, (one, text, vector) in rows
            ),
        )
        client.close()

    def _bm25(self) -> Any:
        import qdrant_edge as edge

        return edge.Bm25(edge.Bm25Config(language="english"))

    def _sparse(self, vector: Any) -> Any:
        from qdrant_client import models

        return models.SparseVector(indices=vector.indices, values=vector.values)

    def open(self, folder: Path, queries: dict[str, np.ndarray]) -> Index:
        from qdrant_client import QdrantClient, models

        bm25, client, sparse = self._bm25(), QdrantClient(path=str(folder)), self._sparse

        class Open:
            def ask(self, text: str, vector: np.ndarray) -> Found:
                by_word = models.Prefetch(query=sparse(bm25.embed_query(text)), using="bm25", limit=CANDIDATES)
                by_vector = models.Prefetch(query=vector, using="dense", limit=CANDIDATES)
                fusion = models.FusionQuery(fusion=models.Fusion.RRF)
                found = client.query_points("documents", prefetch=[by_word, by_vector], query=fusion, limit=K)
                return [(one.payload["id"], one.payload["text"]) for one in found.points]

            def dense(self, vector: np.ndarray) -> list[str]:
                found = client.query_points("documents", query=vector, using="dense", limit=K)
                return [one.payload["id"] for one in found.points]

        return Open()


class Tantivy:
    """BM25 with the English analyser `en_stem`, index on disk in one segment."""

    packages = ("tantivy",)
    modules = ("tantivy",)

    def build(self, given: Collection, folder: Path) -> None:
        import tantivy

        schema = tantivy.SchemaBuilder()
        schema.add_text_field("id", stored=True, tokenizer_name="raw", index_option="basic")
        schema.add_text_field("text", stored=True, tokenizer_name="en_stem", index_option="freq")
        folder.mkdir()
        writer = tantivy.Index(schema.build(), path=str(folder)).writer(1_000_000_000)
        for one, text in zip(given.ids, given.texts, strict=True):
            writer.add_document(tantivy.Document(id=one, text=text))
        writer.commit()
        writer.wait_merging_threads()

    def open(self, folder: Path, queries: dict[str, np.ndarray]) -> Index:
        import tantivy

        index = tantivy.Index.open(str(folder))
        searcher = index.searcher()

        class Open:
            def ask(self, text: str, vector: np.ndarray) -> Found:
                query, _ = index.parse_query_lenient(text, ["text"])
                documents = [searcher.doc(address) for _, address in searcher.search(query, K).hits]
                return [(one["id"][0], one["text"][0]) for one in documents]

            def dense(self, vector: np.ndarray) -> list[str]:
                return []

        return Open()


class Bm25s:
    """BM25 with numba, English stop words and stems, index and texts mapped from disk."""

    packages = ("bm25s", "numba", "PyStemmer")
    modules = ("bm25s", "Stemmer")

    def build(self, given: Collection, folder: Path) -> None:
        import bm25s
        import Stemmer

        stem = Stemmer.Stemmer("english")
        index = bm25s.BM25(method="lucene", backend="numba")
        index.index(bm25s.tokenize(given.texts, stopwords="en", stemmer=stem, show_progress=False), show_progress=False)
        corpus = [{"id": one, "text": text} for one, text in zip(given.ids, given.texts, strict=True)]
        index.save(str(folder), corpus=corpus, show_progress=False)

    def open(self, folder: Path, queries: dict[str, np.ndarray]) -> Index:
        import bm25s
        import Stemmer

        index = bm25s.BM25.load(str(folder), load_corpus=True, mmap=True)
        stem = Stemmer.Stemmer("english")

        class Open:
            def ask(self, text: str, vector: np.ndarray) -> Found:
                words = bm25s.tokenize(text, stopwords="en", stemmer=stem, show_progress=False)
                found = index.retrieve(words, k=K, show_progress=False, n_threads=0)
                return [(one["id"], one["text"]) for one in found.documents[0]]

            def dense(self, vector: np.ndarray) -> list[str]:
                return []

        return Open()


SYSTEMS: dict[str, tuple[str, System]] = {
    "hybridsearch": ("hybridsearch", HybridSearch()),
    "hybridsearch-minmax": ("hybridsearch, min-max", HybridSearch(fusion="minmax")),
    "hybridsearch-hnsw": ("hybridsearch, HNSW", HybridSearch(hnsw=True)),
    "qdrant-edge": ("Qdrant Edge, exact", QdrantEdge(exact=True)),
    "qdrant-edge-hnsw": ("Qdrant Edge, HNSW", QdrantEdge(exact=False)),
    "qdrant-local": ("Qdrant client, local mode", QdrantLocal()),
    "lancedb": ("LanceDB, no vector index", LanceDB()),
    "lancedb-hnsw": ("LanceDB, IVF_HNSW_SQ", LanceDB("IVF_HNSW_SQ")),
    "txtai": ("txtai, IVF", Txtai()),
    "txtai-flat": ("txtai, flat", Txtai(components="IDMap,Flat")),
    "llamaindex": ("LlamaIndex, SimpleVectorStore", LlamaIndex(faiss=False)),
    "llamaindex-faiss": ("LlamaIndex, FAISS", LlamaIndex(faiss=True)),
    "langchain": ("LangChain, split at spaces", LangChain(words=False)),
    "langchain-words": ("LangChain, stems", LangChain(words=True)),
    "haystack": ("Haystack", Haystack()),
    "chroma": ("Chroma, vectors alone", Chroma()),
    "hybridsearch-bm25": ("hybridsearch, BM25 alone", HybridSearch(dense=False)),
    "tantivy": ("tantivy", Tantivy()),
    "bm25s": ("bm25s", Bm25s()),
}
"""The name in tables, and the system, by the name for `--systems`."""


def read_lines(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def read_collection(folder: Path) -> Collection:
    lines = read_lines(folder / "documents.jsonl")
    return Collection([one["id"] for one in lines], [one["text"] for one in lines], np.load(folder / "documents.npy"))


def read_queries(folder: Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """Ids of the queries, and their vectors by text."""
    lines = read_lines(folder / "queries.jsonl")
    return [one["id"] for one in lines], dict(
        zip([one["text"] for one in lines], np.load(folder / "queries.npy"), strict=True)
    )


def megabytes(field: str) -> float:
    """Memory of this process: `VmRSS` is what it holds now, `VmHWM` is the most that it held."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[field].split()[0]) / 1024


def index(system: System, collection: Path, folder: Path) -> dict[str, Any]:
    given = read_collection(collection)
    before = megabytes("VmRSS")
    started = time.perf_counter()
    system.build(given, folder)
    seconds = time.perf_counter() - started
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {
        "documents_a_second": len(given.ids) / seconds,
        "index_mb": megabytes("VmHWM"),
        "before_mb": before,
        "disk_mb": size / 2**20,
    }


def ask(system: System, collection: Path, folder: Path) -> dict[str, Any]:
    ids, queries = read_queries(collection)
    imported = megabytes("VmRSS")
    started = time.perf_counter()
    opened = system.open(folder, queries)
    opened.ask(*next(iter(queries.items())))
    seconds = time.perf_counter() - started
    latencies, rankings = one_at_a_time(opened, queries, all_of_them=len(ids) if "scifact" in collection.name else 0)
    alone = statistics.median(latencies)
    throughput = together(opened, queries, max(FEWEST, THREADS, min(2000, int(SECONDS / alone))))
    held = megabytes("VmRSS")
    return {
        "open_s": seconds,
        "latencies_ms": [1000 * one for one in latencies],
        "queries_a_second": throughput,
        "search_mb": held,
        "imports_mb": imported,
        "recall": recall(opened, collection, list(queries.values())[:SAMPLE]),
        "rankings": dict(zip(ids, rankings, strict=False)),
        "versions": {package: version(package) for package in system.packages},
    }


def one_at_a_time(
    index: Index, queries: dict[str, np.ndarray], all_of_them: int
) -> tuple[list[float], list[list[str]]]:
    """Seconds of each query, and the ids that each query found first.

    After `WARM_UP` seconds of queries that do not count, queries are asked in turn for `SECONDS`, but at least `FEWEST`
    or `all_of_them`.
    """
    deadline = time.perf_counter() + WARM_UP
    for text, vector in cycle(queries.items()):
        index.ask(text, vector)
        if time.perf_counter() > deadline:
            break
    latencies: list[float] = []
    rankings: list[list[str]] = []
    deadline = time.perf_counter() + SECONDS
    while True:
        for text, vector in queries.items():
            started = time.perf_counter()
            found = index.ask(text, vector)
            now = time.perf_counter()
            latencies.append(now - started)
            if len(rankings) < len(queries):
                rankings.append([one for one, _ in found])
            if now > deadline and len(latencies) >= max(FEWEST, all_of_them):
                return latencies, rankings


def together(index: Index, queries: dict[str, np.ndarray], count: int) -> float:
    """Queries a second if `THREADS` threads ask `count` queries."""
    asked = [list(queries.items())[n % len(queries)] for n in range(count)]
    with ThreadPoolExecutor(THREADS) as pool:
        started = time.perf_counter()
        list(pool.map(lambda query: index.ask(*query), asked))
        return count / (time.perf_counter() - started)


def recall(index: Index, collection: Path, queries: Sequence[np.ndarray]) -> float | None:
    """The part of the dense hits that are among the `K` most similar vectors. None if there are no dense hits."""
    if not index.dense(queries[0]):
        return None
    vectors = np.load(collection / "documents.npy", mmap_mode="r")
    rows = {one["id"]: row for row, one in enumerate(read_lines(collection / "documents.jsonl"))}
    right = 0
    for query in queries:
        similarities = vectors @ query
        least = np.partition(similarities, -K)[-K] - 1e-6  # equal but for rounding
        right += sum(similarities[rows[one]] >= least for one in index.dense(query))
    return float(right / (K * len(queries)))


def main() -> None:
    verb, name, collection, folder = sys.argv[1:]
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    system = SYSTEMS[name][1]
    for module in system.modules:
        import_module(module)
    measured = {"index": index, "ask": ask}[verb](system, Path(collection), Path(folder))
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
