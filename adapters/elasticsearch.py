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
from hybridsearch.adapters.lucene.wire.refusals import no_answer
from hybridsearch.adapters.steps import LoopClients
from hybridsearch.backends import Kind, RetrieverSchema, Schema
from hybridsearch.errors import BackendError, InvalidArgumentError

_SIMILARITIES = {"cosine": "cosine", "dot": "max_inner_product", "euclidean": "l2_norm"}
_DEEPEST = 10_000  # num_candidates
_QUANTIZATIONS = ("int8", "int4", "bbq")
_LEAST_BBQ = 64
_WITHOUT_VECTORS = "mapping.exclude_source_vectors"
_OVERSAMPLED = 3  # candidates of quantized vectors for one hit


class ElasticsearchBackend(LuceneBackend):
    """An index in Elasticsearch 8.15 or newer; the basic licence is enough. The client may be of version 8 or 9.

    Args:
        location: `elasticsearch://host:9200/name`; `elasticsearch+https://` for TLS; several nodes with commas between.
            Without a host, `elasticsearch:///name`, on the server of HYBRIDSEARCH_ELASTICSEARCH_URL, such as
            https://host:9200.
        dense: "hnsw" (approximate) or "exact"; None for what the index was made with, "hnsw" for a new one.
        quantization: of the dense vectors that HNSW compares, for less memory: "int8", "int4" or "bbq" (1 bit); needs
            Elasticsearch 8.18. The best candidates are scored again by the full vectors. None for what the index was
            made with, none for a new one.
        shards, replicas: of a new index.
        refresh: whether a search, count or scan first makes what this object has written visible.
        user, password, api_key: who asks; else from the URL, else from HYBRIDSEARCH_ELASTICSEARCH_USER, _PASSWORD,
            _API_KEY. Never shown.
        ca_file: of the authority that signed the server's certificate; else from HYBRIDSEARCH_ELASTICSEARCH_CA.
        verify: False accepts any certificate.
        timeout: seconds that an answer may take.
        ef_search: how many candidates a HNSW search keeps at least; more finds more and takes longer.
        prune: leave out the query terms of learned sparse retrievers that matter least, by the engine's own rule:
            faster and approximate.
        bulk_threads: requests on their way at one time while documents are written.

    Raises:
        InvalidArgumentError: the location or an option is not usable.
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
        prune: bool = False,
        bulk_threads: int = 3,
    ) -> None:
        if quantization not in (None, *_QUANTIZATIONS):
            raise InvalidArgumentError(f"quantization is {quantization!r}; it is one of {', '.join(_QUANTIZATIONS)}.")
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
            del body["settings"][_WITHOUT_VECTORS]  # of an older server, which did not tell its version
            super().make_index(body)

    def dense_field(self, retriever: RetrieverSchema) -> Json:
        # Without a type, servers quantize vectors of 384 and more dimensions on their own.
        kind = "hnsw" if self.approximate_dense else "flat"
        quantization, dimensions = self._options.get("quantization"), retriever.dimensions or 0
        if (quantization == "int4" and dimensions % 2) or (quantization == "bbq" and dimensions < _LEAST_BBQ):
            allowed = "an even number of dimensions" if quantization == "int4" else f"at least {_LEAST_BBQ} dimensions"
            raise InvalidArgumentError(
                f"A dense retriever has {dimensions} dimensions, and quantization={quantization!r} takes {allowed}: "
                "use 'int8', or leave it out."
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
        self, path: str, retriever: RetrieverSchema, vector: NDArray[np.float32], k: int, filter: Json | None
    ) -> Json:
        candidates = min(max(k, self._ef_search), _DEEPEST)
        clause: dict[str, Json] = {"field": path, "query_vector": vector, "k": k, "num_candidates": candidates}
        if "quantization" in self._options:
            clause["rescore_vector"] = {"oversample": _OVERSAMPLED}
        return {"knn": clause if filter is None else {**clause, "filter": filter}}

    @property
    def approximate_sparse(self) -> bool:
        return self._prune

    def sparse_clause(self, path: str, weights: Mapping[str, float], kind: Kind) -> Json:
        prune = self._prune and kind == "sparse"  # said explicitly, as newer versions prune by default
        return {"sparse_vector": {"field": path, "query_vector": weights, "prune": prune}}

    def term_clause(self, path: str, term: str) -> Json:
        return {"term": {path: term}}


class ElasticsearchTransport:
    """elasticsearch-py, for raw requests: in plain JSON, which servers of every version take from every client."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._client = elasticsearch.Elasticsearch(**self._arguments())
        self._clients: LoopClients[elasticsearch.AsyncElasticsearch] = LoopClients(
            lambda: elasticsearch.AsyncElasticsearch(**self._arguments()), lambda client: client.close()
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

    def _arguments(self) -> dict[str, Any]:
        address = self._address
        context = address.ssl_context()
        return {
            "hosts": address.urls,
            **({} if context is None else {"ssl_context": context} if address.verify else {"verify_certs": False}),
            "request_timeout": address.timeout,
            "serializers": {kind: _Raw() for kind in (JSON, LINES, SMILE, "text/*")},
            "max_retries": len(address.hosts),  # after a connection error, on another node
            "retry_on_status": (),
            "connections_per_node": 32,
        }

    def _no_answer(self, error: elastic_transport.TransportError, timeout: float) -> BackendError:
        timed_out = isinstance(error, elastic_transport.ConnectionTimeout)
        return no_answer(self._address, error, timeout=timeout, timed_out=timed_out)


class _Raw(elastic_transport.Serializer):
    """Leaves bodies as they are; orjson reads them later."""

    mimetype = "application/json"

    def loads(self, data: bytes) -> Any:
        return data

    def dumps(self, data: Any) -> bytes:
        return bytes(data)
