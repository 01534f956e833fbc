"""The work that systems share. It is done once, and kept in a work folder.

    rankings/NAME-DIGEST.parquet     rankings of one retriever for all queries
    rerankers/NAME-DIGEST.sqlite     scores of pairs of query and document
    costs/DIGEST.json                times and sizes of one system or retriever

A digest covers everything on which the content depends: queries, index, encoder, depth, filter. A file is complete or
does not exist. So an interrupted comparison, or one with other systems, does only what is new.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hybridsearch import arguments
from hybridsearch.backends import Described, Fingerprint
from hybridsearch.documents import Document
from hybridsearch.encoders import query_digest
from hybridsearch.encoders.cache import EncodingCache
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.evaluation.measures import without
from hybridsearch.evaluation.pipeline import SystemPlan
from hybridsearch.evaluation.plain import from_plain, to_plain
from hybridsearch.progress import progress_bar
from hybridsearch.ranking import EMPTY, PassageScore, Ranking, round_score
from hybridsearch.readers.lines import writable
from hybridsearch.rerank import Reranker, blended, score_pairs, text_read
from hybridsearch.search import HybridSearch
from hybridsearch.vectors import SparseQuery

T = TypeVar("T")

PAIRS = 1024
"""About the number of pairs that are reranked before their scores are saved."""

_ENGINE = ("location", "engine", "version", "options", "seismic")
"""Facts about an engine on which its answers and times depend. Other facts change without an effect on them."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The answers of one retriever.

    Attributes:
        rankings: Rankings by query id.
        vectors: Vectors of the queries, by query id. Only lexical and sparse retrievers have them.
    """

    rankings: Mapping[str, Ranking]
    vectors: Mapping[str, SparseQuery] = field(default_factory=dict)


class Stages:
    """The answers of retrievers and scores of rerankers for one set of queries. Each is made once.

    Args:
        queries: Query id -> text.
        corpus: Documents that no index has. None for none.
        folder: Work folder that keeps everything. None keeps it in memory only.
        show: Whether to show progress bars. None shows them in a terminal.
        exclude_self: Whether the document that has the id of the query is left out of each ranking.

    Raises:
        InvalidArgumentError: The folder cannot be made.
    """

    def __init__(
        self,
        queries: Mapping[str, str],
        corpus: Iterable[Document] | None = None,
        folder: str | Path | None = None,
        show: bool | None = False,
        exclude_self: bool = False,
    ) -> None:
        self.queries = dict(queries)
        self.corpus = corpus
        self.folder = None if folder is None else _make_folder(folder)
        self.show = show
        self.exclude_self = arguments.true_or_false("exclude_self", exclude_self)
        self._asked: dict[Any, tuple[int, Asked]] = {}
        self._with_passages: set[Any] = set()
        self._digests: dict[int, str] = {}
        self._documents: dict[int | None, dict[str, Document | None]] = {}
        self._kept: dict[str, Any] = {}

    # Retrieval

    def retrieve(self, plans: Sequence[SystemPlan]) -> None:
        """Ask each retriever of each index, as deep as any system of `plans` reads it."""
        depths: dict[Any, int] = {}
        sources: dict[Any, tuple[HybridSearch, str, SystemPlan]] = {}
        listed: set[Any] = set()  # those whose passages a reranker reads
        for plan in plans:
            if isinstance(plan.source, HybridSearch):
                for name in plan.retrievers:
                    key = _asked_key(plan.source, plan, name)
                    depths[key] = max(depths.get(key, 0), plan.depth + self.exclude_self)
                    if plan.reranker is not None and plan.source.passages is not None:
                        listed.add(key)
                    sources[key] = (plan.source, name, plan)
        new = [
            key
            for key in sources
            if self._asked.get(key, (0, None))[0] < depths[key] or key in listed - self._with_passages
        ]
        self._with_passages |= listed
        with progress_bar("Searching", range(len(new) * len(self.queries)), self.show, "queries") as advance:
            for key in new:
                search, name, plan = sources[key]
                self._asked[key] = depths[key], self._ask(search, name, depths[key], plan, passages=key in listed)
                advance(len(self.queries))

    def asked(self, plan: SystemPlan, name: str) -> Asked:
        """The answers of one retriever of `plan` to all queries, at least as deep as `plan` reads it."""
        if not isinstance(plan.source, HybridSearch):
            return Asked(plan.source[name])
        return self._asked[_asked_key(plan.source, plan, name)][1]

    def rankings(self, plan: SystemPlan, query: str) -> dict[str, Ranking]:
        """The rankings of one query that `plan` fuses, by retriever name."""
        names = plan.retrievers or plan.source
        return {name: self.ranking(plan, name, query) for name in names}  # type: ignore[union-attr]

    def ranking(self, plan: SystemPlan, name: str, query: str) -> Ranking:
        """The part of a retriever's ranking that `plan` reads, for one query."""
        ranking = self.asked(plan, name).rankings.get(query, EMPTY)
        return (without(ranking, query) if self.exclude_self else ranking).top(plan.depth)

    def _ask(self, search: HybridSearch, name: str, depth: int, plan: SystemPlan, *, passages: bool) -> Asked:
        def ask() -> Asked:
            asks = plan.asks(search, [name], depth)
            answers = (asks if passages else replace(asks, passages=())).ask(self.queries.values())
            requests = dict(zip(self.queries, answers.requests[name], strict=True))
            rankings = dict(zip(self.queries, answers.rankings[name], strict=True))
            bare = {query: replace(ranking, documents=None) for query, ranking in rankings.items()}
            vectors = {query: r.query for query, r in requests.items() if isinstance(r.query, SparseQuery)}
            return Asked(bare, vectors)

        if self.folder is None or not self.queries:
            return ask()
        identity = self.index_digest(search), identity_of(search, name)
        beside = [part for part in ("passages" if passages else "", plan.feedback_of(name)) if part]
        digest = _digest(*identity, self.queries, depth, repr(plan.filter), *beside)
        path = self.folder / "rankings" / f"{name}-{digest}.parquet"
        if path.exists() and (kept := _read_asked(path)) is not None:
            return kept
        asked = ask()
        _write(path, lambda beside: _write_asked(asked, beside))
        return asked

    def index_digest(self, search: HybridSearch) -> str:
        """A digest that changes with every change of the index or engine.

        If the index is not in a folder, its documents are read for it. Without a work folder the digest only tells the
        indexes of this run apart.
        """
        if self.folder is None:
            return str(id(search))
        if id(search) not in self._digests:
            backend = search.backend
            facts = backend.describe() if isinstance(backend, Described) else {}
            engine = [type(backend).__qualname__, *(facts.get(name) for name in _ENGINE)]
            manifest = Path(str(facts.get("location"))) / "manifest.json"
            if manifest.is_file():
                digest = _digest(engine, manifest.read_text(encoding="utf-8"))
            elif backend.capabilities.scan:
                hashes = (_digest(document.to_dict()) for batch in backend.scan() for document in batch.documents)
                digest = _digest(engine, sorted(hashes))
            else:  # changes cannot be seen, so no kept work is used
                digest = uuid.uuid4().hex
            self._digests[id(search)] = digest
        return self._digests[id(search)]

    # Documents

    def documents(self, ids: Iterable[str], plans: Sequence[SystemPlan]) -> dict[str, Document]:
        """The documents of these ids, from the indexes of `plans` in their order, else from the corpus."""
        ids = list(dict.fromkeys(ids))
        found: dict[str, Document] = {}
        for search in [plan.source for plan in plans if isinstance(plan.source, HybridSearch)]:
            found.update(self._look_up(id(search), [id for id in ids if id not in found], search.get))
        found.update(self._look_up(None, [id for id in ids if id not in found], self._from_corpus))
        return found

    def _look_up(
        self, place: int | None, ids: list[str], fetch: Callable[[list[str]], Sequence[Document | None]]
    ) -> dict[str, Document]:
        known = self._documents.setdefault(place, {})
        missing = [id for id in ids if id not in known]
        known.update(zip(missing, fetch(missing) if missing else (), strict=True))
        return {id: document for id in ids if (document := known[id]) is not None}

    def _from_corpus(self, ids: list[str]) -> list[Document | None]:
        wanted: dict[str, Document | None] = dict.fromkeys(ids)
        wanted.update((document.id, document) for document in self.corpus or () if document.id in wanted)
        return list(wanted.values())

    # Reranking

    def rerank(
        self, heads: Mapping[str, tuple[Reranker, Mapping[str, Sequence[Document]]]]
    ) -> dict[str, dict[str, dict[str, float]]]:
        """The scores of rerankers, by system name, query id and document id.

        `heads` has the reranker of each system, and the documents that it reads for each query. Systems whose rerankers
        have the same fingerprint share scores, because a score then depends only on the pair. A reranker without the
        method `fingerprint` reads the documents of each system separately.
        """
        result: dict[str, dict[str, dict[str, float]]] = {}
        groups: dict[str, list[str]] = {}
        for name, (reranker, documents_of) in heads.items():
            if fingerprint := getattr(reranker, "fingerprint", None):
                groups.setdefault(fingerprint().digest, []).append(name)
            else:
                result[name] = self._rerank_alone(reranker, documents_of)
        for names in groups.values():
            reranker = heads[names[0]][0]
            scores = self._rerank_pairs(reranker, [heads[name][1] for name in names])
            for name in names:
                result[name] = {
                    query: {one.id: scores[self.queries[query]][text_read(reranker, one)] for one in documents}
                    for query, documents in heads[name][1].items()
                }
        return result

    def _rerank_alone(
        self, reranker: Reranker, wanted: Mapping[str, Sequence[Document]]
    ) -> dict[str, dict[str, float]]:
        scores = score_pairs(reranker, [self.queries[query] for query in wanted], list(wanted.values()))
        return {
            query: dict(zip((one.id for one in documents), of_query.tolist(), strict=True))
            for (query, documents), of_query in zip(wanted.items(), scores, strict=True)
        }

    def _rerank_pairs(
        self, reranker: Reranker, wanted: Sequence[Mapping[str, Sequence[Document]]]
    ) -> dict[str, dict[str, float]]:
        """The scores, by the text of the query and the text that is read of the document."""
        pairs: dict[str, dict[str, Document]] = {}
        for of_system in wanted:
            for query, documents in of_system.items():
                pairs.setdefault(self.queries[query], {}).update((text_read(reranker, one), one) for one in documents)
        kept = _PairScores(None if self.folder is None else self.folder / "rerankers", reranker)
        known: dict[str, dict[str, float]] = {}
        chunk: dict[str, list[Document]] = {}

        def flush() -> None:
            scores = score_pairs(reranker, list(chunk), list(chunk.values()))
            new = {
                (text, text_read(reranker, document)): score
                for (text, documents), of_query in zip(chunk.items(), scores, strict=True)
                for document, score in zip(documents, of_query.tolist(), strict=True)
            }
            kept.put(new)
            for (text, read), score in new.items():
                known[text][read] = score
            advance(len(new))
            chunk.clear()

        with progress_bar("Reranking", range(sum(map(len, pairs.values()))), self.show, "pairs") as advance:
            for text, by_text in pairs.items():
                known[text] = kept.get(text, by_text)
                advance(len(known[text]))
                chunk[text] = [document for read, document in by_text.items() if read not in known[text]]
                if sum(map(len, chunk.values())) >= PAIRS:
                    flush()
            flush()
        return known

    # Costs

    def keep(self, cls: type[T], what: Sequence[Any], make: Callable[[], T], anew: bool = False) -> T:
        """The result of `make()`, or the result that is kept for `what`. `anew` ignores results of other runs."""
        digest = _digest(cls.__name__, *what)
        if digest not in self._kept:
            self._kept[digest] = make() if self.folder is None else self._found(cls, digest, make, anew)
        kept: T = self._kept[digest]
        return kept

    def _found(self, cls: type[T], digest: str, make: Callable[[], T], anew: bool) -> T:
        path = Path(self.folder or "") / "costs" / f"{digest}.json"
        try:
            if not anew:
                return from_plain(cls, json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            pass
        made = make()
        _write(path, lambda beside: beside.write_text(json.dumps(to_plain(made)), encoding="utf-8"))
        return made


def reordered(fused: Ranking, scores: Mapping[str, float], head: int, blend: float = 0.0) -> Ranking:
    """`fused` as `search` returns it after reranking.

    The first `head` documents are ordered by reranker score. Equal scores keep the fused order. All others follow.
    `blend` is the weight of the fused scores, as in `hybridsearch.rerank.blended`.
    """
    pairs = list(fused)
    final = blended([scores[id] for id, _ in pairs[:head]], [score for _, score in pairs[:head]], blend)
    new = [(id, round_score(score)) for (id, _), score in zip(pairs, final, strict=False)]
    new.sort(key=lambda pair: -pair[1])  # the sort is stable, so equal scores keep the fused order
    new += pairs[head:]
    return Ranking(tuple([id for id, _ in new]), np.array([score for _, score in new], dtype=np.float64))


class _PairScores:
    """The scores of one reranker that a folder keeps. A folder of None keeps nothing."""

    def __init__(self, folder: Path | None, reranker: Reranker) -> None:
        fingerprint: Fingerprint = getattr(reranker, "fingerprint")()  # noqa: B009 - not of the protocol
        self._cache = None if folder is None else EncodingCache(folder, fingerprint)

    def get(self, query: str, texts: Iterable[str]) -> dict[str, float]:
        if self._cache is None:
            return {}
        pairs = {f"{query}\0{text}": text for text in texts}
        return {pairs[pair]: float(np.frombuffer(value, "<f8")[0]) for pair, value in self._cache.get(pairs).items()}

    def put(self, scores: Mapping[tuple[str, str], float]) -> None:
        if self._cache is not None:
            self._cache.put(
                {f"{query}\0{text}": np.array(score, "<f8").tobytes() for (query, text), score in scores.items()}
            )


def _asked_key(search: HybridSearch, plan: SystemPlan, name: str) -> tuple[Any, ...]:
    """A key that is equal for plans that share answers. An approximate search of another depth has other answers."""
    depth = plan.depth if _approximate(search, name) else None
    return id(search), name, repr(plan.filter), depth, plan.feedback_of(name)


def identity_of(search: HybridSearch, name: str) -> list[str]:
    """Everything on which a retriever's answers depend, apart from the documents."""
    read = [] if search.passages is None else [json.dumps(search.passages.to_json(), sort_keys=True)]
    schema = search.backend.open()
    mean = None if schema is None else schema.retrievers[name].average_length
    weighed = [] if mean is None else [repr(mean)]  # other documents before these may have decided the mean length
    digest = query_digest(search.retrievers[name])
    return [name, digest, *_approximate(search, name), *read, *weighed]


def _approximate(search: HybridSearch, name: str) -> list[str]:
    """If the search of a retriever may miss a document: its kind, and what decides how many it misses. Else nothing."""
    schema, can = search.backend.open(), search.backend.capabilities
    kinds = [] if schema is None else [schema.retrievers[name].kind]
    return [text for kind in kinds if kind in can.approximate for text in (kind, can.finds_more.get(kind, ""))]


_SCHEMA = pa.schema(
    {
        "query": pa.string(),
        "ids": pa.list_(pa.string()),
        "scores": pa.list_(pa.float64()),
        "passages": pa.list_(pa.list_(pa.list_(pa.float64()))),
        "terms": pa.list_(pa.string()),
        "weights": pa.list_(pa.float32()),
    }
)


def _write_asked(asked: Asked, path: Path) -> None:
    vectors = [asked.vectors.get(query) for query in asked.rankings]
    columns = {
        "query": list(asked.rankings),
        "ids": [list(ranking.ids) for ranking in asked.rankings.values()],
        "scores": [ranking.scores for ranking in asked.rankings.values()],
        "passages": [
            None if ranking.passages is None else [list(map(list, ranking.passages[id])) for id in ranking.ids]
            for ranking in asked.rankings.values()
        ],
        "terms": [None if vector is None else list(vector.terms) for vector in vectors],
        "weights": [None if vector is None else vector.weights for vector in vectors],
    }
    pq.write_table(pa.table(columns, schema=_SCHEMA), path, write_page_checksum=True)


def _read_asked(path: Path) -> Asked | None:
    """The answers that `_write_asked` wrote. None for a damaged file."""
    try:
        rows = pq.read_table(path, page_checksum_verification=True).to_pylist()
        rankings = {row["query"]: _read_ranking(row) for row in rows}
        vectors = {
            row["query"]: SparseQuery(tuple(row["terms"]), np.array(row["weights"], dtype=np.float32))
            for row in rows
            if row["terms"] is not None
        }
        return Asked(rankings, vectors)
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException):
        return None


def _read_ranking(row: Mapping[str, Any]) -> Ranking:
    ids, of_documents = tuple(row["ids"]), row["passages"]
    passages = of_documents and {
        id: [PassageScore(int(start), int(end), score) for start, end, score in of_document]
        for id, of_document in zip(ids, of_documents, strict=True)
    }
    return Ranking(ids, np.array(row["scores"], dtype=np.float64), None, passages)


def _write(path: Path, write: Callable[[Path], Any]) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write(beside)
        beside.replace(path)


def _digest(*parts: Any) -> str:
    text = json.dumps(parts, ensure_ascii=True, default=repr, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _make_folder(folder: str | Path) -> Path:
    path = arguments.path("The work folder", folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidArgumentError(f"The work folder {path} cannot be made ({error}).") from error
    return path
