"""OpenSearch: indexes at `opensearch://host:9200/name`, or `opensearch+https://...` for TLS."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import opensearchpy
import orjson
from numpy.typing import NDArray

from hybridsearch.adapters.lucene import seismic
from hybridsearch.adapters.lucene.backend import DenseMode, LuceneBackend
from hybridsearch.adapters.lucene.dialect import Search, Server, dotted
from hybridsearch.adapters.lucene.wire.connection import Address, Answer, Json, check_switches
from hybridsearch.adapters.lucene.wire.refusals import no_answer
from hybridsearch.adapters.steps import LoopClients
from hybridsearch.arguments import number, one_of, whole_number
from hybridsearch.backends import Kind, RetrieverSchema, Schema
from hybridsearch.errors import BackendError, InvalidArgumentError

_SPACES = {"cosine": "cosinesimil", "dot": "innerproduct", "euclidean": "l2"}
_DEEPEST = 10_000  # of a k-NN query; deeper ones are answered exactly
_KNN, _NEURAL = "opensearch-knn", "opensearch-neural-search"
_FULL_DISTRIBUTION = "opensearch-ml"  # comes with the native libraries, too
_SEISMIC_SINCE, _DERIVES_SINCE = (3, 3), (3, 0)
_COMPRESSION = {"lucene": {"int8": "4x"}, "faiss": {"fp16": "2x", "binary": "32x"}}
_OVERSAMPLED = 3  # candidates of quantized vectors for one hit


class OpenSearchBackend(LuceneBackend):
    """An index in OpenSearch 2.17 or newer, with the plugin opensearch-knn for dense vectors.

    Args:
        location: `opensearch://host:9200/name`; `opensearch+https://` for TLS; several nodes with commas between them.
            Without a host, `opensearch:///name`, on the server of HYBRIDSEARCH_OPENSEARCH_URL, such as https://host:9200.
        dense: "hnsw" (approximate) or "exact"; None for what the index was made with, "hnsw" for a new one.
        engine: of HNSW: "lucene", or "faiss" on nodes that have its native library; None as for `dense`.
        quantization: of the dense vectors that HNSW compares, for less memory: "int8" (engine lucene; of 7 bits),
            "fp16" or "binary" (faiss); needs OpenSearch 3.1. The best candidates are scored again by the full vectors.
            None for what the index was made with, none for a new one.
        sparse: of learned sparse retrievers: "exact", or "seismic", which is approximate, made for millions of
            documents, and takes more room, as searches with a filter stay exact; scores are the same. Needs OpenSearch
            3.3 with the plugin opensearch-neural-search. None for what the index was made with, "exact" for a new one.
        n_postings: of a new index with seismic: how many documents a term keeps in each segment, those where it weighs
            most; None for 0.05 % of them.
        approximate_threshold: of a new index with seismic: smaller segments are searched exactly; None for 1,000,000
            documents.
        query_cut: how many of a query's terms, the heaviest, seismic looks documents up by. All count in the score.
        heap_factor: above 0; the more, the fewer clusters of documents seismic leaves out.
        shards, replicas: of a new index.
        refresh: whether a search, count or scan first makes what this object has written visible.
        user, password, api_key: who asks; else from the URL, else from HYBRIDSEARCH_OPENSEARCH_USER, _PASSWORD,
            _API_KEY. Never shown.
        ca_file: of the authority that signed the server's certificate; else from HYBRIDSEARCH_OPENSEARCH_CA.
        verify: False accepts any certificate.
        timeout: seconds that an answer may take.
        ef_search: how many candidates a HNSW search keeps at least; more finds more and takes longer.
        two_phase: search learned sparse vectors by a query's heaviest terms first, and only what these find by all of
            its terms: faster and approximate. Needs the plugin opensearch-neural-search.
        bulk_threads: requests on their way at one time while documents are written.

    Raises:
        InvalidArgumentError: the location or an option is not usable.
    """

    engine = "OpenSearch"
    oldest = (2, 17)
    rescores_since = (3, 1)

    def __init__(
        self,
        location: str,
        *,
        dense: DenseMode | None = None,
        engine: Literal["lucene", "faiss"] | None = None,
        quantization: Literal["int8", "fp16", "binary"] | None = None,
        sparse: Literal["exact", "seismic"] | None = None,
        n_postings: int | None = None,
        approximate_threshold: int | None = None,
        query_cut: int = 10,
        heap_factor: float = 1.0,
        shards: int = 1,
        replicas: int = 1,
        refresh: bool = True,
        user: str | None = None,
        password: str | None = None,
        api_key: str | None = None,
        ca_file: str | Path | None = None,
        verify: bool = True,
        timeout: float = 30.0,
        ef_search: int = 100,
        two_phase: bool = False,
        bulk_threads: int = 3,
    ) -> None:
        one_of("engine", engine, (None, "lucene", "faiss"))
        if sparse not in (None, "exact", "seismic"):
            raise InvalidArgumentError(f"sparse is {sparse!r}; it is 'exact' or 'seismic' (approximate).")
        known = _COMPRESSION[engine or "lucene"]
        if quantization is not None and quantization not in list(known):
            raise InvalidArgumentError(
                f"quantization is {quantization!r}; with the engine {engine or 'lucene'} it is "
                f"{' or '.join(map(repr, known))}."
            )
        built = {"n_postings": n_postings, "approximate_threshold": approximate_threshold}
        given = {name: value for name, value in built.items() if value is not None}
        for name, count in {"query_cut": query_cut, **given}.items():
            whole_number(name, count)
        if given and sparse != "seismic":
            raise InvalidArgumentError(f"{next(iter(given))} is of sparse='seismic': say that too, or leave it out.")
        number("heap_factor", heap_factor, above=0)
        check_switches(two_phase=two_phase)
        super().__init__(
            location,
            dense=dense,
            options={"engine": engine, "quantization": quantization, "sparse": sparse, **built},
            defaults={"engine": "lucene", "sparse": "exact"},
            shards=shards,
            replicas=replicas,
            refresh=refresh,
            user=user,
            password=password,
            api_key=api_key,
            ca_file=ca_file,
            verify=verify,
            timeout=timeout,
            ef_search=ef_search,
            bulk_threads=bulk_threads,
        )
        self._two_phase, self._query_cut, self._heap_factor = two_phase, query_cut, heap_factor

    def make_transport(self) -> OpenSearchTransport:
        return OpenSearchTransport(self.address)

    def check_server(self, server: Server, schema: Schema) -> None:
        super().check_server(server, schema)
        if server.version is None:
            return
        if _KNN not in server.plugins and any(r.kind == "dense" for r in schema.retrievers.values()):
            raise BackendError(
                f"OpenSearch at {self.address} has no plugin {_KNN}, which dense vectors need: install it on every "
                f"node (bin/opensearch-plugin install {_KNN}), or use no dense retriever."
            )
        if self._two_phase and _NEURAL not in server.plugins:
            raise BackendError(
                f"OpenSearch at {self.address} has no plugin {_NEURAL}, which two_phase needs: install it on every "
                "node, or leave two_phase out."
            )
        if self.rough_sparse and (server.version < _SEISMIC_SINCE or _NEURAL not in server.plugins):
            raise BackendError(
                f"OpenSearch at {self.address} is version {server} "
                f"{'with' if _NEURAL in server.plugins else 'without'} the plugin {_NEURAL}; sparse='seismic' needs "
                f"{dotted(_SEISMIC_SINCE)} or newer with it on every node: upgrade or install it, or use "
                "sparse='exact'."
            )
        if self.rough_sparse and self._two_phase:
            raise BackendError("two_phase is for sparse='exact', and this index has 'seismic': leave two_phase out.")
        if self._options["engine"] == "faiss" and _FULL_DISTRIBUTION not in server.plugins:
            raise BackendError(
                f"OpenSearch at {self.address} is not a full distribution, and the engine faiss kills a node that "
                "lacks its native library: use engine='lucene', or the official distribution."
            )

    def settings(self, schema: Schema, server: Server) -> dict[str, Json]:
        kinds = {retriever.kind for retriever in schema.retrievers.values()}
        settings: dict[str, Json] = {"knn": self.approximate_dense} if "dense" in kinds else {}
        if self.approximate_dense and settings and server.version is not None and server.version >= _DERIVES_SINCE:
            settings["knn.derived_source.enabled"] = False  # saves half of the disk, and costs a third of the speed
        return {**settings, "sparse": True} if "sparse" in kinds and self.rough_sparse else settings

    def dense_field(self, retriever: RetrieverSchema) -> Json:
        field = {"type": "knn_vector", "dimension": retriever.dimensions}
        if not self.approximate_dense:
            return field  # with the setting `knn` off there is no graph and no engine
        # The server's default engine is faiss, which kills a node that lacks its library: always say which.
        engine, quantization = self._options["engine"], self._options.get("quantization")
        # Asked of new indexes alone: those that have faiss were made where all nodes were seen to have it.
        if engine == "faiss" and self._server is not None and self._server.version is None:
            raise BackendError(
                f"Whoever asks OpenSearch at {self.address} may not read _nodes, and the engine faiss kills a node "
                "that lacks its native library: ask as a user with the right to cluster:monitor/nodes/info, or use "
                "engine='lucene'."
            )
        if quantization is not None:
            field["compression_level"] = _COMPRESSION[engine][quantization]
        space = _SPACES[retriever.metric or "cosine"]
        return {**field, "method": {"name": "hnsw", "engine": engine, "space_type": space}}

    def sparse_field(self) -> Json:
        return {"type": "rank_features"}

    def rough_fields(self, schema: Schema) -> dict[str, Json]:
        if not self.rough_sparse:
            return {}
        field = seismic.field(self._options.get("n_postings"), self._options.get("approximate_threshold"))
        return {name: field for name, retriever in schema.retrievers.items() if retriever.kind == "sparse"}

    def deepest_dense(self) -> int:
        return 2**31 - 1

    def dense_clause(
        self, path: str, retriever: RetrieverSchema, vector: NDArray[np.float32], k: int, filter: Json | None
    ) -> Json:
        if self.approximate_dense and k <= _DEEPEST:
            clause: dict[str, Json] = {"vector": vector, "k": k}
            if "quantization" in self._options:
                clause["rescore"] = {"oversample_factor": _OVERSAMPLED}
            if self._ef_search > k:
                clause["method_parameters"] = {"ef_search": self._ef_search}
            if filter is not None:
                clause["filter"] = filter
            return {"knn": {path: clause}}
        conditions = [{"exists": {"field": path}}, *([] if filter is None else [filter])]
        space = _SPACES[retriever.metric or "cosine"]
        script = {"field": path, "query_value": vector, "space_type": space}
        return {
            "script_score": {
                "query": {"bool": {"filter": conditions}},
                "script": {"lang": "knn", "source": "knn_score", "params": script},
            }
        }

    def sparse_clause(self, path: str, weights: Mapping[str, float], kind: Kind) -> Json:
        if self._server is not None and _NEURAL in self._server.plugins:
            return {"neural_sparse": {path: {"query_tokens": weights}}}
        clauses = [
            {"rank_feature": {"field": f"{path}.{term}", "linear": {}, "boost": weight}}
            for term, weight in weights.items()
        ]
        return {"bool": {"should": clauses, "minimum_should_match": 1}}

    @property
    def approximate_sparse(self) -> bool:
        return self._two_phase or self.rough_sparse

    @property
    def rough_sparse(self) -> bool:
        return bool(self._options["sparse"] == "seismic")

    def rough_search(self, retriever: str, weights: Mapping[str, float], k: int, clause: Json) -> Search:
        return seismic.search(retriever, weights, k, clause, self._query_cut, self._heap_factor)

    def pipeline(self, kind: Kind) -> dict[str, Json]:
        if not self._two_phase or kind != "sparse":
            return {}
        return {"search_pipeline": {"request_processors": [{"neural_sparse_two_phase_processor": {"enabled": True}}]}}

    def term_clause(self, path: str, term: str) -> Json:
        return {"rank_feature": {"field": f"{path}.{term}", "linear": {}}}


class OpenSearchTransport:
    """opensearch-py, for raw requests."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._client = opensearchpy.OpenSearch(**self._arguments())
        self._clients: LoopClients[opensearchpy.AsyncOpenSearch] = LoopClients(
            lambda: opensearchpy.AsyncOpenSearch(**self._arguments()), _close_all
        )

    def send(self, method: str, path: str, body: bytes | None, content_type: str, timeout: float) -> Answer:
        try:
            return 200, self._client.transport.perform_request(
                method, path, body=body, timeout=timeout, headers=self._address.request_headers(content_type)
            )
        except opensearchpy.OpenSearchException as error:
            return self._answer(error, timeout)

    async def asend(self, method: str, path: str, body: bytes | None, content_type: str, timeout: float) -> Answer:
        client = await self._clients.get()
        try:
            return 200, await client.transport.perform_request(
                method, path, body=body, timeout=timeout, headers=self._address.request_headers(content_type)
            )
        except opensearchpy.OpenSearchException as error:
            return self._answer(error, timeout)

    def close(self) -> None:
        self._client.close()

    async def aclose(self) -> None:
        await self._clients.close()

    def _arguments(self) -> dict[str, Any]:
        address = self._address
        context = address.ssl_context()
        return {
            "hosts": [
                {"host": host.strip("[]"), "port": port, "url_prefix": address.prefix} for host, port in address.hosts
            ],
            "use_ssl": context is not None,
            **({} if context is None else {"ssl_context": context}),
            "timeout": address.timeout,
            "serializer": _Raw(),
            "max_retries": len(address.hosts),  # after a connection error, on another node
            "retry_on_status": (),
            "pool_maxsize": 32,
        }

    def _answer(self, error: opensearchpy.OpenSearchException, timeout: float) -> Answer:
        """The error's HTTP status and body, if it has them."""
        if not isinstance(error, opensearchpy.TransportError):  # an answer of another type than JSON
            return 200, str(error)
        if isinstance(error.status_code, int):
            info = error.info
            return error.status_code, info if isinstance(info, str) else orjson.dumps(info)
        timed_out = isinstance(error, opensearchpy.ConnectionTimeout)
        raise no_answer(self._address, error, timeout=timeout, timed_out=timed_out) from error


class _Raw(opensearchpy.serializer.JSONSerializer):
    """Leaves bodies as they are; orjson reads them later."""

    def loads(self, s: str) -> Any:
        return s

    def dumps(self, data: Any) -> Any:
        return data


async def _close_all(client: opensearchpy.AsyncOpenSearch) -> None:
    """The client's own `close` leaves out connections to nodes that it takes for dead."""
    pool = client.transport.connection_pool
    for connection in getattr(pool, "orig_connections", ()):
        await connection.close()
    await client.close()
