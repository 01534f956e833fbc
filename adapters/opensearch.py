"""OpenSearch: indexes at `opensearch://host:9200/name`, or `opensearch+https://...` for TLS."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import opensearchpy
import orjson
from numpy.typing import NDArray

from hybridsearch.adapters.lucene.backend import DenseMode, LuceneBackend, Server
from hybridsearch.adapters.lucene.connection import Address, Answer, LoopClients, check_number, check_switches
from hybridsearch.adapters.lucene.refusals import no_answer
from hybridsearch.backends import Kind, RetrieverSchema, Schema
from hybridsearch.errors import BackendError, InvalidArgumentError

Json: TypeAlias = Any

_SPACES = {"cosine": "cosinesimil", "dot": "innerproduct", "euclidean": "l2"}
_DEEPEST = 10_000  # of a k-NN query; deeper ones are answered exactly
_KNN, _NEURAL = "opensearch-knn", "opensearch-neural-search"
_FULL_DISTRIBUTION = "opensearch-ml"  # comes with the native libraries, too


class OpenSearchBackend(LuceneBackend):
    """An index in OpenSearch 2.17 or newer, with the plugin opensearch-knn for dense vectors.

    Args:
        location: `opensearch://host:9200/name`; `opensearch+https://` for TLS; several nodes with commas between them.
        dense: "hnsw" (approximate) or "exact"; None for what the index was made with, "hnsw" for a new one.
        engine: of HNSW: "lucene", or "faiss" on nodes that have its native library; None as for `dense`.
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

    def __init__(
        self,
        location: str,
        *,
        dense: DenseMode | None = None,
        engine: Literal["lucene", "faiss"] | None = None,
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
        bulk_threads: int = 2,
    ) -> None:
        if engine not in (None, "lucene", "faiss"):
            raise InvalidArgumentError(f"engine is {engine!r}; it is 'lucene' or 'faiss'.")
        check_number("ef_search", ef_search)
        check_switches(verify=verify, refresh=refresh, two_phase=two_phase)
        super().__init__(
            location,
            dense=dense,
            options={"engine": engine},
            shards=shards,
            replicas=replicas,
            refresh=refresh,
            user=user,
            password=password,
            api_key=api_key,
            ca_file=ca_file,
            verify=verify,
            timeout=timeout,
            bulk_threads=bulk_threads,
        )
        self._ef_search, self._two_phase = ef_search, two_phase

    def make_transport(self) -> OpenSearchTransport:
        return OpenSearchTransport(self.address)

    def check_server(self, server: Server, schema: Schema) -> None:
        if server.version is None:
            return
        if server.version[0] >= 7:
            raise BackendError(
                f"{self.address} is an Elasticsearch server: write elasticsearch:// in place of opensearch://."
            )
        if server.version < self.oldest:
            raise BackendError(
                f"OpenSearch at {self.address} is version {_dotted(server.version)}; hybridsearch needs "
                f"{_dotted(self.oldest)} or newer: upgrade it."
            )
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
        if self._options.get("engine") == "faiss" and _FULL_DISTRIBUTION not in server.plugins:
            raise BackendError(
                f"OpenSearch at {self.address} is not a full distribution, and the engine faiss kills a node that "
                "lacks its native library: use engine='lucene', or the official distribution."
            )

    def settings(self, schema: Schema, server: Server) -> dict[str, Json]:
        dense = any(r.kind == "dense" for r in schema.retrievers.values())
        return {"knn": self.approximate_dense} if dense else {}

    def dense_field(self, retriever: RetrieverSchema) -> Json:
        field = {"type": "knn_vector", "dimension": retriever.dimensions}
        if not self.approximate_dense:
            return field  # with the setting `knn` off there is no graph and no engine
        # The server's default engine is faiss, which kills a node that lacks its library: always say which.
        engine = self._options.get("engine", "lucene")
        space = _SPACES[retriever.metric or "cosine"]
        return {**field, "method": {"name": "hnsw", "engine": engine, "space_type": space}}

    def sparse_field(self) -> Json:
        return {"type": "rank_features"}

    def deepest_dense(self) -> int:
        return 2**31 - 1

    def dense_clause(
        self, path: str, retriever: RetrieverSchema, vector: NDArray[np.float32], k: int, filter: Json | None
    ) -> Json:
        if self.approximate_dense and k <= _DEEPEST:
            clause: dict[str, Json] = {"vector": vector, "k": k}
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
        return self._two_phase

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
            lambda: opensearchpy.AsyncOpenSearch(**self._arguments()), lambda client: client.close()
        )

    def send(self, method: str, path: str, body: bytes | None, content_type: str, timeout: float) -> Answer:
        try:
            return 200, self._client.transport.perform_request(
                method, path, body=body, timeout=timeout, headers=self._headers(content_type)
            )
        except opensearchpy.OpenSearchException as error:
            return self._answer(error, timeout)

    async def asend(self, method: str, path: str, body: bytes | None, content_type: str, timeout: float) -> Answer:
        client = await self._clients.get()
        try:
            return 200, await client.transport.perform_request(
                method, path, body=body, timeout=timeout, headers=self._headers(content_type)
            )
        except opensearchpy.OpenSearchException as error:
            return self._answer(error, timeout)

    def close(self) -> None:
        self._client.close()

    async def aclose(self) -> None:
        await self._clients.close()

    def _headers(self, content_type: str) -> dict[str, str]:
        return {"content-type": content_type, **self._address.headers}

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


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
