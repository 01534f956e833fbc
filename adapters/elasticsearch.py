"""Elasticsearch: indexes at `elasticsearch://host:9200/name`, or `elasticsearch+https://...` for TLS."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import elastic_transport
import elasticsearch
import numpy as np
from numpy.typing import NDArray

from hybridsearch.adapters.lucene.backend import DenseMode, LuceneBackend
from hybridsearch.adapters.lucene.dialect import Server
from hybridsearch.adapters.lucene.wire.channel import JSON, LINES, SMILE
from hybridsearch.adapters.lucene.wire.connection import Address, Answer, Json, check_switches
from hybridsearch.adapters.lucene.wire.proxies import ProxiedPool, ProxiedSession, proxy_for
from hybridsearch.adapters.lucene.wire.refusals import no_answer
from hybridsearch.adapters.steps import LoopClients
from hybridsearch.backends import Kind, RetrieverSchema, Schema
from hybridsearch.errors import BackendError, InvalidArgumentError

_SIMILARITIES = {"cosine": "cosine", "dot": "max_inner_product", "euclidean": "l2_norm"}
_FORMULAS = {  # of the scores of a `knn` query
    "cosine": "(1 + cosineSimilarity(params.query, params.field)) / 2",
    "dot": "double dot = dotProduct(params.query, params.field); return dot < 0 ? 1 / (1 - dot) : dot + 1;",
    "euclidean": "1 / (1 + Math.pow(l2norm(params.query, params.field), 2))",
}
_DEEPEST = 10_000  # num_candidates
_QUANTIZATIONS = ("int8", "int4", "bbq")
_LEAST_BBQ = 64  # dimensions
_PAINLESS = "lang-painless"  # the module that computes the scores of exact searches; full distributions have it
_WITHOUT_VECTORS = "mapping.exclude_source_vectors"
_OVERSAMPLED = 3  # candidates of quantized vectors for one hit


class ElasticsearchBackend(LuceneBackend):
    """A backend that keeps an index in Elasticsearch 8.15 or newer.

    The free basic licence is enough. The Python client may be version 8 or 9. For an existing index, leave out the
    options of new indexes, or give the values that it was made with. Other values raise InvalidArgumentError.

    Args:
        location: URL of the index: `elasticsearch://host:9200/name`, or `elasticsearch+https://host:9200/name` for TLS.
            Commas separate several nodes of one cluster. A URL without a host (`elasticsearch:///name`) uses the
            server in the environment variable HYBRIDSEARCH_ELASTICSEARCH_URL, such as https://host:9200.
        dense: How dense vectors are searched: "hnsw" (fast, approximate) or "exact" (compares all vectors). Default
            None: "hnsw" for a new index. An existing index keeps the value that it was made with.
        quantization: Compression of the dense vectors that HNSW compares: "int8", "int4" or "bbq" (1 bit). It saves
            memory. The best candidates are scored again with the full vectors, which stay on disk. Needs Elasticsearch
            8.18 or newer. Default None: no compression of a new index. An existing index keeps the value that it was
            made with.
        shards: Number of primary shards of a new index. Default None: 1. If an existing index has another number, it
            is refused.
        replicas: Number of copies of each shard of a new index. Each copy takes as much disk as the shard. Default
            None: 1. If an existing index has another number, it is refused.
        refresh: Whether a search, count or scan first makes visible what this object has written. Default True. With
            False, the engine decides when that becomes visible.
        user: User name. Default None: from the URL, else from HYBRIDSEARCH_ELASTICSEARCH_USER.
        password: Password of the user. Default None: from the URL, else from HYBRIDSEARCH_ELASTICSEARCH_PASSWORD. No
            message shows it.
        api_key: API key, in place of user and password. Default None: from HYBRIDSEARCH_ELASTICSEARCH_API_KEY. No
            message shows it.
        auth: None. "aws" is refused, because AWS offers no Elasticsearch of a version that hybridsearch supports.
        ca_file: Path of the certificate (PEM) of the authority that signed the server's certificate. Only with TLS.
            Default None: from HYBRIDSEARCH_ELASTICSEARCH_CA, else the authorities that the system trusts.
        verify: Whether the server's certificate is checked. Default True. False accepts any certificate.
        timeout: Seconds to wait for an answer, above 0. Default 30.
        ef_search: Least number of candidates that an HNSW search keeps. Default 100. A larger number finds more of the
            nearest vectors and takes longer.
        prune: Whether searches of learned sparse retrievers leave out the query terms that matter least, by a rule of
            Elasticsearch. Default False. True is faster and approximate.
        bulk_threads: Number of requests that are sent at the same time while documents are written. Default 3.

    Raises:
        InvalidArgumentError: The location or an option is not usable.
    """

    engine = "Elasticsearch"
    oldest = (8, 15)
    rescores_since = (8, 18)

    def __init__(
        self,
        location: str,
        *,
        dense: DenseMode | None = None,
        quantization: Literal["int8", "int4", "bbq"] | None = None,
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
        prune: bool = False,
        bulk_threads: int = 3,
    ) -> None:
        if quantization not in (None, *_QUANTIZATIONS):
            raise InvalidArgumentError(
                f"quantization is {quantization!r}, but it must be one of {', '.join(_QUANTIZATIONS)}."
            )
        check_switches(prune=prune)
        super().__init__(
            location,
            dense=dense,
            options={"quantization": quantization},
            defaults={},
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
        self._prune = prune

    def make_transport(self) -> ElasticsearchTransport:
        return ElasticsearchTransport(self.address)

    def settings(self, schema: Schema, server: Server) -> dict[str, Json]:
        # Since 9.2 vectors are left out of `_source` by default, where `scan` reads them.
        newer = server.version is None or server.version >= (9, 2)
        return {_WITHOUT_VECTORS: False} if newer else {}

    def make_index(self, body: dict[str, Json]) -> None:
        try:
            super().make_index(body)
        except BackendError as error:
            if _WITHOUT_VECTORS not in str(error):
                raise
            del body["settings"][_WITHOUT_VECTORS]  # the server is older, and did not tell its version
            super().make_index(body)

    def dense_field(self, retriever: RetrieverSchema) -> Json:
        # Without a type, servers quantize vectors of 384 or more dimensions by default.
        kind = "hnsw" if self.approximate_dense else "flat"
        quantization, dimensions = self._options.get("quantization"), retriever.dimensions or 0
        if (quantization == "int4" and dimensions % 2) or (quantization == "bbq" and dimensions < _LEAST_BBQ):
            allowed = "an even number of dimensions" if quantization == "int4" else f"at least {_LEAST_BBQ} dimensions"
            raise InvalidArgumentError(
                f"A dense retriever has {dimensions} dimensions, but quantization={quantization!r} needs {allowed}: "
                "use 'int8', or leave quantization out."
            )
        return {
            "type": "dense_vector",
            "dims": retriever.dimensions,
            "similarity": _SIMILARITIES[retriever.metric or "cosine"],
            "index_options": {"type": f"{quantization}_{kind}" if quantization else kind},
        }

    def sparse_field(self) -> Json:
        return {"type": "sparse_vector"}

    def deepest_dense(self) -> int:
        return _DEEPEST

    def dense_clause(
        self,
        path: str,
        retriever: RetrieverSchema,
        vector: NDArray[np.float32],
        k: int,
        filter: Json | None,
    ) -> Json:
        candidates = min(max(k, self._ef_search), _DEEPEST)
        clause: dict[str, Json] = {"field": path, "query_vector": vector, "k": k, "num_candidates": candidates}
        if "quantization" in self._options:
            clause["rescore_vector"] = {"oversample": _OVERSAMPLED}
        return {"knn": clause if filter is None else {**clause, "filter": filter}}

    def exact_clause(
        self, path: str, retriever: RetrieverSchema, vector: NDArray[np.float32], filter: Json | None = None
    ) -> Json:
        conditions = [{"exists": {"field": path}}, *([] if filter is None else [filter])]
        script = {"source": _FORMULAS[retriever.metric or "cosine"], "params": {"field": path, "query": vector}}
        return {"script_score": {"query": {"bool": {"filter": conditions}}, "script": script}}

    @property
    def approximate_sparse(self) -> bool:
        return self._prune

    @property
    def exact_on_request(self) -> bool:
        server = self._server or Server()
        return not self.approximate_dense or server.version is None or _PAINLESS in server.modules

    @property
    def finds_more(self) -> dict[Kind, str]:
        return {**super().finds_more, "sparse": "prune: leave it out."}

    def sparse_clause(self, path: str, weights: Mapping[str, float], *, pruned: bool) -> Json:
        prune = self._prune and pruned  # always sent, because newer versions prune by default
        return {"sparse_vector": {"field": path, "query_vector": weights, "prune": prune}}

    def term_clause(self, path: str, term: str) -> Json:
        return {"term": {path: term}}


class ElasticsearchTransport:
    """Raw requests through elasticsearch-py.

    They are plain JSON, which servers of every version accept from clients of every version.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._client = elasticsearch.Elasticsearch(**self._arguments(_node(address)))
        self._clients: LoopClients[elasticsearch.AsyncElasticsearch] = LoopClients(
            lambda: elasticsearch.AsyncElasticsearch(**self._arguments(_AsyncNode)), lambda client: client.close()
        )

    def send(self, method: str, path: str, body: bytes | None, content_type: str, timeout: float) -> Answer:
        try:
            answer = self._client.transport.perform_request(
                method, path, body=body, request_timeout=timeout, headers=self._address.request_headers(content_type)
            )
        except elastic_transport.TransportError as error:
            raise self._no_answer(error, timeout) from error
        return answer.meta.status, answer.body or b""

    async def asend(self, method: str, path: str, body: bytes | None, content_type: str, timeout: float) -> Answer:
        client = await self._clients.get()
        try:
            answer = await client.transport.perform_request(
                method, path, body=body, request_timeout=timeout, headers=self._address.request_headers(content_type)
            )
        except elastic_transport.TransportError as error:
            raise self._no_answer(error, timeout) from error
        return answer.meta.status, answer.body or b""

    def close(self) -> None:
        self._client.close()

    async def aclose(self) -> None:
        await self._clients.close()

    def _arguments(self, node: type[elastic_transport.BaseNode]) -> dict[str, Any]:
        address = self._address
        context = address.ssl_context()
        return {
            "node_class": node,
            "hosts": address.urls,
            **({} if context is None else {"ssl_context": context} if address.verify else {"verify_certs": False}),
            "request_timeout": address.timeout,
            "serializers": {kind: _Raw() for kind in (JSON, LINES, SMILE, "text/*")},
            "max_retries": len(address.hosts),  # after a connection error, the client tries another node
            "retry_on_status": (),
            "connections_per_node": 32,
        }

    def _no_answer(self, error: elastic_transport.TransportError, timeout: float) -> BackendError:
        timed_out = isinstance(error, elastic_transport.ConnectionTimeout)
        return no_answer(self._address, error, timeout=timeout, timed_out=timed_out)


def _node(address: Address) -> type[elastic_transport.BaseNode]:
    """The class of nodes that use the proxy of the environment."""

    class Node(elastic_transport.Urllib3HttpNode):
        def __init__(self, config: elastic_transport.NodeConfig) -> None:
            super().__init__(config)
            if proxy := proxy_for(self.scheme, self.host, self.port):
                size, context = config.connections_per_node, address.ssl_context()
                self.pool: Any = ProxiedPool(
                    proxy, self.host, self.port, context, maxsize=size, timeout=address.timeout
                )

    return Node


class _AsyncNode(elastic_transport.AiohttpHttpNode):
    """The same in an event loop."""

    def _create_aiohttp_session(self) -> None:
        super()._create_aiohttp_session()
        if proxy := proxy_for(self.scheme, self.host, self.port):
            self.session: Any = ProxiedSession(proxy, self.session, self.scheme)


class _Raw(elastic_transport.Serializer):
    """Leaves bodies as they are, because orjson reads them later."""

    mimetype = "application/json"

    def loads(self, data: bytes) -> Any:
        return data

    def dumps(self, data: Any) -> bytes:
        return bytes(data)
