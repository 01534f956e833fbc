"""The settings and mappings of a new index. `lines` describes the content of each field."""

from __future__ import annotations

from collections.abc import Mapping

from hybridsearch.adapters.checks import check_dense
from hybridsearch.adapters.lucene import seismic
from hybridsearch.adapters.lucene.dialect import Dialect
from hybridsearch.adapters.lucene.stored.fields import METADATA_MAPPING
from hybridsearch.adapters.lucene.stored.identity import Identity
from hybridsearch.adapters.lucene.wire.connection import Json

MAX_WINDOW = 2**31 - 1
"""The largest number of hits of one search: the setting `index.max_result_window` of our indexes."""

_UNINDEXED = {"type": "keyword", "index": False, "doc_values": False}


def index_body(
    identity: Identity, dialect: Dialect, copies: Mapping[str, int], settings: Mapping[str, Json]
) -> dict[str, Json]:
    """The body of the request that makes an index.

    `copies` has the numbers of shards and replicas. `settings` has the additional settings of the engine.
    """
    schema = identity.schema
    vectors: dict[str, Json] = {}
    texts: dict[str, Json] = {}
    similarity: dict[str, Json] = {}
    for name, retriever in schema.retrievers.items():
        if retriever.kind == "text":
            weighting = dict(retriever.weighting or {})
            texts[name] = {"type": "text", "analyzer": weighting.pop("analyzer", "standard"), "similarity": name}
            similarity[name] = {"type": "BM25", **weighting}
        elif retriever.kind == "dense":
            check_dense(name, retriever)
            vectors[name] = dialect.dense_field(retriever)
        else:
            vectors[name] = dialect.sparse_field()
    rough = dialect.rough_fields(schema)
    stored = {"type": "object", "enabled": False}
    return {
        "settings": {
            **copies,
            "max_result_window": MAX_WINDOW,
            **({"similarity": similarity} if similarity else {}),
            **settings,
        },
        "mappings": {
            "_meta": identity.to_meta(),
            **({"_source": {"excludes": [seismic.MEMBER]}} if rough else {}),
            "dynamic": False,
            "properties": {
                "id": {"type": "keyword"},
                "document": {"type": "binary", "doc_values": True},
                "counts": stored,
                "long_terms": stored,
                "stamp": {"type": "long"},
                "vectors": {"type": "object", "dynamic": False, "properties": vectors},
                "fields": METADATA_MAPPING,
                **({"content": {**_UNINDEXED, "fields": texts}} if texts else {}),
                **({seismic.MEMBER: {"type": "object", "dynamic": False, "properties": rough}} if rough else {}),
            },
        },
    }
