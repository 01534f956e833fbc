"""The settings and mappings of a new index. `lines` describes the content of each field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hybridsearch.adapters.checks import check_dense
from hybridsearch.adapters.lucene import impacts, seismic
from hybridsearch.adapters.lucene.dialect import Dialect
from hybridsearch.adapters.lucene.stored.fields import METADATA_MAPPING
from hybridsearch.adapters.lucene.stored.identity import Identity
from hybridsearch.adapters.lucene.wire.connection import Json

MAX_WINDOW = 2**31 - 1
"""The largest number of hits of one search: the setting `index.max_result_window` of our indexes."""

PASSAGES = "passages"
"""The nested field with one object for each passage of a document."""

_UNINDEXED = {"type": "keyword", "index": False, "doc_values": False}
_STORED = {"type": "object", "enabled": False}
_NUMBER = {"type": "integer", "index": False}
_UNLIMITED = {"mapping.nested_objects.limit": MAX_WINDOW, "max_inner_result_window": MAX_WINDOW}
"""Settings of an index with passages: any number of passages in a document, and in a hit."""


def index_body(
    identity: Identity, dialect: Dialect, copies: Mapping[str, int], settings: Mapping[str, Json]
) -> dict[str, Json]:
    """The body of the request that makes an index.

    `copies` has the numbers of shards and replicas. `settings` has the additional settings of the engine.
    """
    schema = identity.schema
    of_document, of_passage = _Fields(), _Fields()
    similarity: dict[str, Json] = {}
    for name, retriever in schema.retrievers.items():
        fields = of_passage if retriever.passages else of_document
        if retriever.kind == "text":
            weighting = dict(retriever.weighting or {})
            fields.texts[name] = {"type": "text", "analyzer": weighting.pop("analyzer", "standard"), "similarity": name}
            similarity[name] = {"type": "BM25", **weighting}
        elif retriever.kind == "dense":
            check_dense(name, retriever)
            fields.vectors[name] = dialect.dense_field(retriever)
        elif dialect.impacts and retriever.passages:
            fields.impacts[name] = impacts.FIELD
        else:
            fields.vectors[name] = dialect.sparse_field()
    rough = dialect.rough_fields(schema)
    # The texts of passages are parts of `document`, so they are indexed and not stored.
    unstored = {"content": of_passage.texts, impacts.MEMBER: of_passage.impacts}
    excluded = [*([seismic.MEMBER] if rough else []), *(f"{PASSAGES}.{name}" for name, of in unstored.items() if of)]
    if of_passage.impacts:
        similarity[impacts.NAME] = impacts.SIMILARITY
    return {
        "settings": {
            **copies,
            "max_result_window": MAX_WINDOW,
            **({"similarity": similarity} if similarity else {}),
            **({"analysis": impacts.ANALYSIS} if of_passage.impacts else {}),
            **({} if schema.passages is None else _UNLIMITED),
            **settings,
        },
        "mappings": {
            "_meta": identity.to_meta(),
            **({"_source": {"excludes": excluded}} if excluded else {}),
            "dynamic": False,
            "properties": {
                "id": {"type": "keyword"},
                "document": {"type": "binary", "doc_values": True},
                "stamp": {"type": "long"},
                "fields": METADATA_MAPPING,
                **of_document.mapping(),
                **({} if schema.passages is None else {PASSAGES: of_passage.nested(), "length": _NUMBER}),
                **({seismic.MEMBER: {"type": "object", "dynamic": False, "properties": rough}} if rough else {}),
            },
        },
    }


@dataclass(frozen=True, slots=True)
class _Fields:
    """The fields of what retrievers read: of documents, or of passages."""

    vectors: dict[str, Json] = field(default_factory=dict)
    texts: dict[str, Json] = field(default_factory=dict)
    impacts: dict[str, Json] = field(default_factory=dict)

    def mapping(self) -> dict[str, Json]:
        of_impacts = {"type": "object", "dynamic": False, "properties": self.impacts}
        return {
            "counts": _STORED,
            "long_terms": _STORED,
            "vectors": {"type": "object", "dynamic": False, "properties": self.vectors},
            **({"content": {**_UNINDEXED, "fields": self.texts}} if self.texts else {}),
            **({impacts.MEMBER: of_impacts} if self.impacts else {}),
        }

    def nested(self) -> Json:
        """The mapping of `PASSAGES`. Lucene stores a document and its nested objects as one block."""
        return {
            "type": "nested",
            "dynamic": False,
            "properties": {"start": _NUMBER, "end": _NUMBER, **self.mapping()},
        }
