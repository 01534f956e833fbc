"""Hybrid search over an index of OpenSearch or Elasticsearch that another program made. It only reads.

Run it: `python examples/existing_index.py http://localhost:9200 products "a warm jacket"`. `main` names the fields.

The engine ranks by its own BM25 over fields of text, and by the vectors that the index has. Fusion, explanations,
reranking and evaluation are those of hybridsearch. Any object with the methods of `hybridsearch.backends.Backend` is a
backend, so this is a class to copy and to change.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import hybridsearch as hs
from hybridsearch.backends import Capabilities, Request, Schema
from hybridsearch.errors import BackendError, FilterError, InvalidArgumentError
from hybridsearch.filters import And, Compare, Condition, Filter, Instant, Not, Or
from hybridsearch.ranking import EMPTY, Ranking
from hybridsearch.vectors import TextQuery

DEEPEST = 10_000  # hits of one search, by the default of both engines
NUMBERS = ("byte", "short", "integer", "long", "unsigned_long", "half_float", "float", "double", "scaled_float")
VALUES: dict[str, Any] = {"keyword": str, "boolean": bool, **dict.fromkeys(NUMBERS, int | float)}


class ExistingIndex:
    """An index that hybridsearch did not make, as a backend that only reads.

    Args:
        client: `opensearchpy.OpenSearch` or `elasticsearch.Elasticsearch`. `close` closes it.
        index: Name of the index.
        encoders: Encoders by retriever name: `hs.NativeBM25()` for the engine's BM25, and the encoder that made the
            vectors of the index. Nothing can check that it is the same one.
        match: Fields that BM25 searches, such as `["name^2", "description"]`.
        vectors: Field with the vectors, by retriever name.
        text, title: Fields that become `Document.text` and `Document.title`.
        metadata: Fields that become `Document.metadata`.
    """

    capabilities = Capabilities(
        kinds=frozenset({"text", "dense"}),
        delete=False,
        explain=False,
        scan=False,
        persistent=True,
        approximate=frozenset({"dense"}),
        atomic_batches=False,
    )

    def __init__(
        self,
        client: Any,
        index: str,
        encoders: Mapping[str, Any],
        *,
        match: Sequence[str],
        text: str,
        title: str | None = None,
        metadata: Sequence[str] = (),
        vectors: Mapping[str, str] | None = None,
    ) -> None:
        self._client, self._index, self._match, self._vectors = client, index, list(match), dict(vectors or {})
        self._text, self._title, self._metadata = text, title, list(metadata)
        self._source = [text, *([title] if title else []), *metadata]
        self._schema = Schema({name: encoder.schema() for name, encoder in encoders.items()})
        self._types: dict[str, str] = {}

    def open(self) -> Schema | None:
        """Read the mapping of the index, and check that the vectors can be compared."""
        if not self._client.indices.exists(index=self._index):
            return None
        fields: dict[str, Any] = {}
        for found in self._client.indices.get_mapping(index=self._index).values():
            fields |= flat(found["mappings"].get("properties", {}))
        for name, retriever in self._schema.retrievers.items():
            field = fields.get(self._vectors.get(name, ""), {})
            if retriever.kind == "dense" and retriever.dimensions != field.get("dimension", field.get("dims")):
                raise InvalidArgumentError(
                    f"The encoder of {name!r} makes vectors of {retriever.dimensions} dimensions, but the field for it "
                    f"is {field or 'not in the mapping'}: name another field or encoder."
                )
        self._types = {path: field.get("type", "object") for path, field in fields.items()}
        return self._schema

    def search(self, requests: Sequence[Request]) -> list[Ranking]:
        """Answer all requests with one `_msearch`."""
        bodies = [self._body(request) for request in requests]
        lines = [line for body in bodies if body for line in ({"allow_partial_search_results": False}, body)]
        answers = iter(self._client.msearch(index=self._index, body=lines)["responses"] if lines else ())
        return [self._ranking(next(answers)) if body else EMPTY for body in bodies]

    def fetch(self, ids: Sequence[str]) -> list[hs.Document | None]:
        found: dict[str, hs.Document] = {}
        for start in range(0, len(ids), 1000):
            query = {"ids": {"values": list(ids[start : start + 1000])}}
            body = {"query": query, "size": 1000, "_source": self._source}
            hits = self._client.search(index=self._index, body=body)["hits"]["hits"]
            found.update((hit["_id"], self._document(hit)) for hit in hits)
        return [found.get(id) for id in ids]

    def count(self, filter: Filter | None = None) -> int:
        query = {"match_all": {}} if filter is None else self._compiled(filter.condition)
        return int(self._client.count(index=self._index, body={"query": query})["count"])

    def refresh(self) -> None:
        """Nothing to do: nothing is written."""

    def close(self) -> None:
        self._client.close()

    def create(self, schema: Schema) -> None:
        raise BackendError(f"There is no index {self._index!r}: check its name.")

    def upsert(self, batch: object) -> None:
        raise BackendError(f"The index {self._index!r} belongs to another program, and is only read.")

    def delete(self, ids: Sequence[str]) -> int:
        raise BackendError(f"The index {self._index!r} belongs to another program, and is only read.")

    def scan(self, batch_size: int = 1024) -> Iterator[Any]:
        raise BackendError(f"The index {self._index!r} has no vectors of all retrievers: index its documents instead.")

    def explain(self, request: Request, ids: Sequence[str]) -> list[dict[str, float]]:
        raise BackendError("The engine does not tell which terms matched.")

    def knn(self, field: str, vector: list[float], k: int, filter: list[Any]) -> dict[str, Any]:
        """The query of OpenSearch for the nearest vectors."""
        return {
            "knn": {field: {"vector": vector, "k": k, **({"filter": {"bool": {"filter": filter}}} if filter else {})}}
        }

    def _body(self, request: Request) -> dict[str, Any] | None:
        """What is asked for. None if there can be no hit."""
        if request.k > DEEPEST:
            raise InvalidArgumentError(f"The engine gives at most {DEEPEST:,} hits, and {request.k:,} were asked for.")
        filter = [] if request.filter is None else [self._compiled(request.filter.condition)]
        if isinstance(request.query, TextQuery):
            words = {"multi_match": {"query": request.query.text, "fields": self._match}}
            query: dict[str, Any] = {"bool": {"must": [words], "filter": filter}}
        elif not request.query.any():
            return None
        else:
            query = self.knn(self._vectors[request.retriever], request.query.tolist(), int(request.k), filter)
        return {"query": query, "size": int(request.k), "_source": self._source, "track_total_hits": False}

    def _ranking(self, answer: Any) -> Ranking:
        """The hits in order of score. Equal scores are in the order of ids, but the engine chose them at the cut."""
        if "error" in answer:
            raise BackendError(f"The engine refused a search of {self._index!r}: {answer['error']}.")
        hits = {hit["_id"]: hit for hit in answer["hits"]["hits"]}
        ranking = Ranking.from_scores({id: hit["_score"] for id, hit in hits.items()})
        return Ranking(ranking.ids, ranking.scores, {id: self._document(hit) for id, hit in hits.items()})

    def _document(self, hit: Any) -> hs.Document:
        source = hit.get("_source", {})
        metadata = {name: source[name] for name in self._metadata if name in source}
        return hs.Document(
            hit["_id"], source.get(self._text) or "", source.get(self._title or "") or "", metadata=metadata
        )

    def _compiled(self, condition: Condition) -> dict[str, Any]:
        match condition:
            case And(parts):
                return {"bool": {"filter": [self._compiled(part) for part in parts]}}
            case Or(parts):
                return {"bool": {"should": [self._compiled(part) for part in parts], "minimum_should_match": 1}}
            case Not(part):
                return {"bool": {"must_not": [self._compiled(part)]}}
            case Compare():
                return self._compared(condition)

    def _compared(self, compare: Compare) -> dict[str, Any]:
        values = list(compare.value) if isinstance(compare.value, tuple) else [compare.value]
        if compare.path == "id" and compare.operator in ("$eq", "$in"):
            return {"ids": {"values": values}}
        path = self._title if compare.path == "title" and self._title else compare.path
        field = next((name for name in (path, f"{path}.keyword") if self._types.get(name) in VALUES), None)
        if field is None or compare.operator == "$contains":
            kind = self._types.get(path, "not in the mapping")
            raise FilterError(
                f"A filter {compare.operator} on {path!r} is not possible: the field is {kind}. Filters compare fields "
                f"of type keyword, boolean or a number, by all operators but $contains."
            )
        absent = {"bool": {"must_not": [{"exists": {"field": field}}]}}
        if compare.operator == "$exists":
            return {"exists": {"field": field}} if compare.value else absent
        kind, given = VALUES[self._types[field]], [value for value in values if value is not None]
        if any(not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool) for value in given) or any(
            isinstance(key, Instant) for key in compare.keys
        ):
            raise FilterError(f"The field {field!r} is {self._types[field]}, and cannot be compared with {values}.")
        if compare.operator not in ("$eq", "$in"):
            if values[0] == -sys.float_info.max:  # how a search asks whether a field has any number
                return {"exists": {"field": field}}
            return {"range": {field: {compare.operator.removeprefix("$"): values[0]}}}
        equal = {"terms": {field: given}}
        return {"bool": {"should": [equal, absent]}} if None in values else equal


class ExistingElasticsearchIndex(ExistingIndex):
    """The same with the query of Elasticsearch for the nearest vectors."""

    def knn(self, field: str, vector: list[float], k: int, filter: list[Any]) -> dict[str, Any]:
        candidates = min(max(2 * k, 100), DEEPEST)
        clause = {"field": field, "query_vector": vector, "k": k, "num_candidates": candidates}
        return {"knn": {**clause, "filter": filter}}


def flat(properties: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The fields of a mapping by dotted path. Fields in `nested` objects need queries of their own and are left out."""
    fields: dict[str, Any] = {}
    for name, field in properties.items():
        fields[prefix + name] = field
        if field.get("type") != "nested":
            fields |= flat({**field.get("properties", {}), **field.get("fields", {})}, f"{prefix}{name}.")
    return fields


def main(url: str, index: str, query: str) -> None:
    """Change the names of fields, the model, and for Elasticsearch the client and the class."""
    from opensearchpy import OpenSearch

    encoders = {"bm25": hs.NativeBM25(), "dense": hs.Dense("sentence-transformers/all-MiniLM-L6-v2")}
    place = ExistingIndex(
        OpenSearch(url),
        index,
        encoders,
        match=["name^2", "description"],
        vectors={"dense": "embedding"},
        title="name",
        text="description",
    )
    with hs.HybridSearch(encoders, place) as search:
        print(search.search(query))


if __name__ == "__main__":
    main(*sys.argv[1:])
