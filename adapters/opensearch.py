"""OpenSearch: indexes at `opensearch://host:9200/name`, or `opensearch+https://...` for TLS."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import opensearchpy
import orjson
from numpy.typing import NDArray

from hybridsearch.adapters.lucene import impacts, seismic
from hybridsearch.adapters.lucene.backend import DenseMode, LuceneBackend
from hybridsearch.adapters.lucene.dialect import Server, dotted
from hybridsearch.adapters.lucene.wire.aws import Signer
from hybridsearch.adapters.lucene.wire.connection import Address, Answer, Json, check_switches
from hybridsearch.adapters.lucene.wire.multisearch import Search
from hybridsearch.adapters.lucene.wire.proxies import ProxiedPool, ProxiedSession, proxy_for
from hybridsearch.adapters.lucene.wire.refusals import no_answer
from hybridsearch.adapters.steps import LoopClients
from hybridsearch.arguments import number, one_of, whole_number
from hybridsearch.backends import Kind, RetrieverSchema, Schema
from hybridsearch.errors import BackendError, InvalidArgumentError

_SPACES = {"cosine": "cosinesimil", "dot": "innerproduct", "euclidean": "l2"}
_DEEPEST = 10_000  # hits of a k-NN query; a deeper search is answered exactly
_KNN, _NEURAL = "opensearch-knn", "opensearch-neural-search"
_FULL_DISTRIBUTION = "opensearch-ml"  # this plugin comes with the distribution that has the native libraries
_SEISMIC_SINCE, _DERIVES_SINCE = (3, 3), (3, 0)
_COMPRESSION = {"lucene": {"int8": "4x"}, "faiss": {"fp16": "2x", "binary": "32x"}}
_OVERSAMPLED = 3  # candidates of quantized vectors for one hit


class OpenSearchBackend(LuceneBackend):
    """A backend that keeps an index in OpenSearch 2.17 or newer.

    Dense vectors need the plugin opensearch-knn. For an existing index, leave out the options of new indexes, or give
    the values that it was made with. Other values raise InvalidArgumentError.

    Args:
        location: URL of the index: `opensearch://host:9200/name`, or `opensearch+https://host:9200/name` for TLS.
            Commas separate several nodes of one cluster. A URL without a host (`opensearch:///name`) uses the server
            in the environment variable HYBRIDSEARCH_OPENSEARCH_URL, such as https://host:9200.
        dense: How dense vectors are searched: "hnsw" (fast, approximate) or "exact" (compares all vectors). Default
            None: "hnsw" for a new index. An existing index keeps the value that it was made with.
        engine: Library that does HNSW: "lucene", or "faiss", which needs its native library on every node. Default
            None: "lucene" for a new index. An existing index keeps the value that it was made with.
        quantization: Compression of the dense vectors that HNSW compares: "int8" (engine lucene, 7 bits per number),
            "fp16" or "binary" (engine faiss). It saves memory. The best candidates are scored again with the full
            vectors, which stay on disk. Needs OpenSearch 3.1 or newer. Default None: no compression of a new index. An
            existing index keeps the value that it was made with.
        sparse: How learned sparse vectors are searched: "exact", or "seismic", which is approximate and made for
            millions of documents. The scores are the same. "seismic" takes more disk, because the vectors are stored
            for exact search too: searches with a filter stay exact. Needs OpenSearch 3.3 or newer with the plugin
            opensearch-neural-search. Default None: "exact" for a new index. An existing index keeps the value that it
            was made with.
        n_postings: Number of documents that SEISMIC keeps for each term in each segment: the documents in which the
            term weighs most. Only for a new index with sparse="seismic". Default None: 0.05 % of the documents.
        approximate_threshold: Number of documents from which SEISMIC searches a segment. Smaller segments are searched
            exactly. Only for a new index with sparse="seismic". Default None: 1,000,000 documents.
        query_cut: Number of query terms that SEISMIC uses to find candidates: the terms with the largest weights. All
            terms count in the score. Default 10. A larger number finds more and takes longer.
        heap_factor: How carefully SEISMIC searches, above 0. Default 1.0. With a larger number it skips fewer clusters
            of documents: it finds more and takes longer.
        shards: Number of primary shards of a new index. Default None: 1. If an existing index has another number, it
            is refused.
        replicas: Number of copies of each shard of a new index. Each copy takes as much disk as the shard. Default
            None: 1. If an existing index has another number, it is refused.
        refresh: Whether a search, count or scan first makes visible what this object has written. Default True. With
            False, the engine decides when that becomes visible.
        user: User name. Default None: from the URL, else from HYBRIDSEARCH_OPENSEARCH_USER.
        password: Password of the user. Default None: from the URL, else from HYBRIDSEARCH_OPENSEARCH_PASSWORD. No
            message shows it.
        api_key: API key, in place of user and password. Default None: from HYBRIDSEARCH_OPENSEARCH_API_KEY. No message
            shows it.
        auth: "aws" to sign requests to Amazon OpenSearch Service or OpenSearch Serverless with the credentials that
            botocore finds. It takes the place of user and password. Needs the extra aws. If the URL has no port, it is
            443. Default None: from HYBRIDSEARCH_OPENSEARCH_AUTH.
        ca_file: Path of the certificate (PEM) of the authority that signed the server's certificate. Only with TLS.
            Default None: from HYBRIDSEARCH_OPENSEARCH_CA, else the authorities that the system trusts.
        verify: Whether the server's certificate is checked. Default True. False accepts any certificate.
        timeout: Seconds to wait for an answer, above 0. Default 30.
        ef_search: Least number of candidates that an HNSW search keeps. Default 100. A larger number finds more of the
            nearest vectors and takes longer.
        two_phase: Whether learned sparse vectors are searched in two phases. The terms with the largest weights find
            documents. Then all terms score these documents. Default False. True is faster and approximate. Needs the
            plugin opensearch-neural-search and sparse="exact".
        bulk_threads: Number of requests that are sent at the same time while documents are written. Default 3.

    Raises:
        InvalidArgumentError: The location or an option is not usable.
    """

    engine = "OpenSearch"
    oldest = (2, 17)
    rescores_since = (3, 1)
    impacts = True

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
        shards: int | None = None,
        replicas: int | None = None,
        refresh: bool = True,
        user: str | None = None,
        password: str | None = None,
        api_key: str | None = None,
        auth: Literal["aws"] | None = None,
        ca_file: str | Path | None = None,
        verify: bool = True,
        timeout: float = 30.0,
        ef_search: int = 100,
        two_phase: bool = False,
        bulk_threads: int = 3,
    ) -> None:
        one_of("engine", engine, (None, "lucene", "faiss"))
        if sparse not in (None, "exact", "seismic"):
            raise InvalidArgumentError(f"sparse is {sparse!r}, but it must be 'exact' or 'seismic' (approximate).")
        known = _COMPRESSION[engine or "lucene"]
        if quantization is not None and quantization not in list(known):
            raise InvalidArgumentError(
                f"quantization is {quantization!r}, but with the engine {engine or 'lucene'} it must be "
                f"{' or '.join(map(repr, known))}."
            )
        built = {"n_postings": n_postings, "approximate_threshold": approximate_threshold}
        given = {name: value for name, value in built.items() if value is not None}
        for name, count in {"query_cut": query_cut, **given}.items():
            whole_number(name, count)
        if given and sparse != "seismic":
            name = next(iter(given))
            raise InvalidArgumentError(
                f"{name} is an option of sparse='seismic': give sparse='seismic' too, or leave {name} out."
            )
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
            auth=auth,
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
                f"{'with' if _NEURAL in server.plugins else 'without'} the plugin {_NEURAL}. sparse='seismic' needs "
                f"{dotted(_SEISMIC_SINCE)} or newer with that plugin on every node: upgrade the server or install the "
                "plugin, or use sparse='exact'."
            )
        if self.rough_sparse and self._two_phase:
            raise BackendError("two_phase needs sparse='exact', but this index has 'seismic': leave two_phase out.")
        if self._options["engine"] == "faiss" and _FULL_DISTRIBUTION not in server.plugins:
            raise BackendError(
                f"OpenSearch at {self.address} is not a full distribution. The engine faiss kills a node that does "
                "not have its native library: use engine='lucene', or install the full distribution."
            )

    def settings(self, schema: Schema, server: Server) -> dict[str, Json]:
        kinds = {retriever.kind for retriever in schema.retrievers.values()}
        settings: dict[str, Json] = {"knn": self.approximate_dense} if "dense" in kinds else {}
        if self.approximate_dense and settings and server.version is not None and server.version >= _DERIVES_SINCE:
            settings["knn.derived_source.enabled"] = False  # True saves half of the disk and costs a third of the speed
        return {**settings, "sparse": True} if "sparse" in kinds and self.rough_sparse else settings

    def dense_field(self, retriever: RetrieverSchema) -> Json:
        field = {"type": "knn_vector", "dimension": retriever.dimensions}
        if not self.approximate_dense:
            return field  # there is no graph and no engine, because the setting `knn` is off
        # Always name the engine. The server's default is faiss, which kills a node that does not have its library.
        engine, quantization = self._options["engine"], self._options.get("quantization")
        # Only new indexes come here. An existing index with faiss was made after all nodes were seen to have it.
        if engine == "faiss" and self._server is not None and self._server.version is None:
            raise BackendError(
                f"The user may not read _nodes of OpenSearch at {self.address}. The engine faiss kills a node that "
                "does not have its native library, and _nodes tells which nodes have it: use a user with the "
                "permission cluster:monitor/nodes/info, or engine='lucene'."
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
        sparse = {name: retriever for name, retriever in schema.retrievers.items() if retriever.kind == "sparse"}
        if by_passage := [name for name, retriever in sparse.items() if retriever.passages]:
            raise InvalidArgumentError(
                f"sparse='seismic' finds whole documents, but retriever {by_passage[0]!r} reads passages: use "
                f"sparse='exact', or let it read whole documents (whole=({by_passage[0]!r},))."
            )
        return dict.fromkeys(sparse, field)

    def deepest_dense(self) -> int:
        return 2**31 - 1

    def dense_clause(
        self,
        path: str,
        retriever: RetrieverSchema,
        vector: NDArray[np.float32],
        k: int,
        filter: Json | None,
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
        return self.exact_clause(path, retriever, vector, None if retriever.passages else filter)

    def scoring_clause(
        self, path: str, retriever: RetrieverSchema, vector: NDArray[np.float32], *, listed: bool
    ) -> Json | None:
        # Of quantized vectors, the search scores only one passage of each document again. To list passages, the server
        # does the whole search again, which takes longer than to compare the few vectors of the documents.
        again = self.approximate_dense and (listed or "quantization" in self._options)
        return self.exact_clause(path, retriever, vector) if again else None

    def exact_clause(
        self, path: str, retriever: RetrieverSchema, vector: NDArray[np.float32], filter: Json | None = None
    ) -> Json:
        conditions = [{"exists": {"field": path}}, *([] if filter is None else [filter])]
        space = _SPACES[retriever.metric or "cosine"]
        script = {"field": path, "query_value": vector, "space_type": space}
        return {
            "script_score": {
                "query": {"bool": {"filter": conditions}},
                "script": {"lang": "knn", "source": "knn_score", "params": script},
            }
        }

    def sparse_clause(self, path: str, weights: Mapping[str, float], *, pruned: bool) -> Json:
        if impacts.is_path(path):
            return impacts.clause(path, weights)
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

    @property
    def finds_more(self) -> dict[Kind, str]:
        seismic = f"query_cut (now {self._query_cut}) or heap_factor (now {self._heap_factor:g}): raise one of them."
        return {**super().finds_more, "sparse": seismic if self.rough_sparse else "two_phase: leave it out."}

    def rough_search(self, retriever: str, weights: Mapping[str, float], k: int, clause: Json) -> Search:
        return seismic.search(retriever, weights, k, clause, self._query_cut, self._heap_factor)

    def pipeline(self, kind: Kind) -> dict[str, Json]:
        if not self._two_phase or kind != "sparse":
            return {}
        return {"search_pipeline": {"request_processors": [{"neural_sparse_two_phase_processor": {"enabled": True}}]}}

    def term_clause(self, path: str, term: str) -> Json:
        if impacts.is_path(path):
            return {"term": {path: term}}
        return {"rank_feature": {"field": f"{path}.{term}", "linear": {}}}


class OpenSearchTransport:
    """Raw requests through opensearch-py."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._signer = None if address.auth is None else Signer(address)
        self._client = opensearchpy.OpenSearch(**self._arguments(_Connection))
        self._clients: LoopClients[opensearchpy.AsyncOpenSearch] = LoopClients(
            lambda: opensearchpy.AsyncOpenSearch(**self._arguments(_AsyncConnection)), _close_all
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

    def _arguments(self, connection: type[opensearchpy.Connection]) -> dict[str, Any]:
        address = self._address
        context = address.ssl_context()
        return {
            "connection_class": connection,
            "signer": self._signer,
            "hosts": [
                {"host": host.strip("[]"), "port": port, "url_prefix": address.prefix} for host, port in address.hosts
            ],
            "use_ssl": context is not None,
            **({} if context is None else {"ssl_context": context}),
            "timeout": address.timeout,
            "serializer": _Raw(),
            "max_retries": len(address.hosts),  # after a connection error, the client tries another node
            "retry_on_status": (),
            "pool_maxsize": 32,
        }

    def _answer(self, error: opensearchpy.OpenSearchException, timeout: float) -> Answer:
        """The HTTP status and the body of the error. Raises BackendError if it has none."""
        if not isinstance(error, opensearchpy.TransportError):  # the answer is not JSON
            return 200, str(error)
        if isinstance(error.status_code, int):
            info = error.info
            return error.status_code, info if isinstance(info, str) else orjson.dumps(info)
        timed_out = isinstance(error, opensearchpy.ConnectionTimeout)
        raise no_answer(self._address, error, timeout=timeout, timed_out=timed_out) from error


class _Silent(opensearchpy.Connection):
    """Leaves the answers to refused requests out of the log if requests are signed.

    An answer of AWS may repeat the signed headers, and with them the session token.
    """

    _signer: Signer | None

    def log_request_fail(
        self,
        method: str,
        full_url: str,
        path: str,
        body: Any,
        duration: float,
        status_code: int | None = None,
        response: str | None = None,
        exception: Exception | None = None,
    ) -> None:
        told = response if self._signer is None else None
        super().log_request_fail(method, full_url, path, body, duration, status_code, told, exception)


class _Connection(_Silent, opensearchpy.Urllib3HttpConnection):
    """A connection that uses the proxy of the environment, and signs its requests if there is a `signer`."""

    def __init__(self, *, signer: Signer | None, **options: Any) -> None:
        super().__init__(**options)
        self._signer = signer
        if proxy := proxy_for(self.scheme, self.hostname, self.port):
            context, size = options.get("ssl_context"), options["pool_maxsize"]

            def make() -> ProxiedPool:
                return ProxiedPool(proxy, self.hostname, self.port, context, maxsize=size, timeout=self.timeout)

            self._urllib3_pool_factory, self.pool = make, make()

    def perform_request(
        self,
        method: str,
        url: str,
        params: Any = None,
        body: bytes | None = None,
        timeout: float | None = None,
        ignore: Collection[int] = (),
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        if self._signer is not None:
            headers = {**(headers or {}), **self._signer.headers(method, f"{self.host}{self.url_prefix}{url}", body)}
        return super().perform_request(method, url, params, body, timeout, ignore, headers)


class _AsyncConnection(_Silent, opensearchpy.AIOHttpConnection):
    """The same as `_Connection`, in an event loop."""

    def __init__(self, *, signer: Signer | None, **options: Any) -> None:
        super().__init__(**options)
        self._signer = signer
        self._proxy = proxy_for(self.scheme, self.hostname, self.port)

    async def perform_request(
        self,
        method: str,
        url: str,
        params: Any = None,
        body: bytes | None = None,
        timeout: float | None = None,
        ignore: Collection[int] = (),
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        if self._signer is not None:
            whole = f"{self.host}{self.url_prefix}{url}"
            signed = await asyncio.to_thread(self._signer.headers, method, whole, body)  # it may renew credentials
            headers = {**(headers or {}), **signed}
        return await super().perform_request(method, url, params, body, timeout, ignore, headers)

    async def _create_aiohttp_session(self) -> None:
        await super()._create_aiohttp_session()
        if self._proxy is not None:
            self.session = ProxiedSession(self._proxy, self.session, self.scheme)


class _Raw(opensearchpy.serializer.JSONSerializer):
    """Leaves bodies as they are, because orjson reads them later."""

    def loads(self, s: str) -> Any:
        return s

    def dumps(self, data: Any) -> Any:
        return data


async def _close_all(client: opensearchpy.AsyncOpenSearch) -> None:
    """Close all connections. `close` of the client leaves out the connections to nodes that it takes for dead."""
    pool = client.transport.connection_pool
    for connection in getattr(pool, "orig_connections", ()):
        await connection.close()
    await client.close()
