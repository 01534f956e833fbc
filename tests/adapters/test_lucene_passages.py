"""Tests of passages in OpenSearch and Elasticsearch, with an oracle that scores each passage as a document."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from servers import call

pytest.importorskip("opensearchpy", reason="pip install 'hybridsearch[opensearch]'")
pytest.importorskip("elasticsearch", reason="pip install 'hybridsearch[elasticsearch]'")

import hybridsearch as hs
from hybridsearch.adapters.lucene.backend import LuceneBackend
from hybridsearch.adapters.lucene.wire.channel import Call, Channel
from hybridsearch.adapters.opensearch import OpenSearchBackend
from hybridsearch.backends import Kind, Request, RetrieverSchema, Schema
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.filters import Filter
from hybridsearch.places import connect
from hybridsearch.ranking import PassageScore, Ranking
from hybridsearch.testing import oracles, samples
from hybridsearch.testing.base import case
from hybridsearch.testing.samples import Item
from hybridsearch.testing.storage import ODD_TERMS
from hybridsearch.vectors import EncodedBatch, PassageSpans, QueryVector, SparseQuery, TextQuery, Vectors

Make = Callable[..., LuceneBackend]
KINDS: tuple[Kind, ...] = ("lexical", "sparse", "dense")
LENGTH = 10  # characters of a passage

_WHOLE = samples.make_schema(frozenset(KINDS), average_length=samples.FROZEN_LENGTH)


def schema_of(names: Sequence[str] = (*KINDS, *(f"whole-{kind}" for kind in KINDS)), **changed: Any) -> Schema:
    """A schema with a retriever of passages for each kind, and with another retriever that reads whole documents."""
    retrievers: dict[str, RetrieverSchema] = {}
    for name in names:
        whole, _, kind = name.rpartition("-")
        retrievers[name] = replace(_WHOLE.retrievers[kind], passages=not whole)
    return Schema(retrievers, {}, {"size": 10, **changed})


SCHEMA = schema_of()


@dataclass(frozen=True)
class Long:
    """A document of passages. Each passage is an item, and so is the whole document."""

    whole: Item
    passages: Sequence[Item]


def encode(documents: Sequence[Long], schema: Schema = SCHEMA) -> EncodedBatch:
    """The batch that encoders would give to a backend."""
    vectors: dict[str, Vectors] = {}
    for name, retriever in schema.retrievers.items():
        items = [item for of in documents for item in (of.passages if retriever.passages else [of.whole])]
        vectors[name] = samples.encode(items, Schema({name: retriever})).vectors[name]
    spans = [[(i * LENGTH, (i + 1) * LENGTH) for i in range(len(of.passages))] for of in documents]
    return EncodedBatch([of.whole.document for of in documents], vectors, PassageSpans.of(spans))


def long(id: str, passages: Sequence[Item], **parts: Any) -> Long:
    """A document of these passages, with the words and the vector of the last one."""
    last = passages[-1]
    whole = Item(id, last.counts, last.weights, last.vector, text="123456789 " * len(passages), **parts)
    return Long(whole, [replace(item, id=f"{id} {number}") for number, item in enumerate(passages)])


def random_documents(count: int = 40, seed: int = 0, prefix: str = "d") -> list[Long]:
    """Documents of one to six passages. Some passages are empty, and some are twice in a document."""
    rng = np.random.default_rng(seed)
    items = iter(samples.random_items(6 * count, seed))
    documents = []
    for number in range(count):
        passages = [next(items) for _ in range(int(rng.integers(1, 7)))]
        if number % 5 == 0:
            passages[0] = Item("empty")
        if number % 7 == 0:
            passages.append(passages[0])
        documents.append(long(f"{prefix}{number}", passages, metadata={"parity": ("even", "odd")[number % 2]}))
    return documents


def right_passages(
    kind: Kind, documents: Sequence[Long], query: QueryVector, statistics: Sequence[Long] | None = None
) -> dict[str, list[PassageScore]]:
    """All passages that are hits, best first, by document. `statistics` are the documents that idf is made from."""
    everything = [item for of in statistics or documents for item in of.passages]
    scores = oracles.right_scores(kind, everything, query, average_length=samples.FROZEN_LENGTH)
    found = {}
    for of in documents:
        hits = [
            PassageScore(i * LENGTH, (i + 1) * LENGTH, scores[item.id])
            for i, item in enumerate(of.passages)
            if item.id in scores
        ]
        if hits:
            found[of.whole.id] = sorted(hits, key=lambda hit: (-hit.score, hit.start))
    return found


def check(
    backend: LuceneBackend,
    documents: Sequence[Long],
    kind: Kind,
    query: QueryVector,
    k: int = 10,
    listed: int = 3,
    parity: str | None = None,
) -> None:
    """Assert that the backend, which has exactly these documents, answers as the oracle does."""
    among = [of for of in documents if parity in (None, of.whole.metadata.get("parity"))]
    right = right_passages(kind, among, query, documents)
    filter = None if parity is None else Filter.parse({"parity": parity})
    with case(kind=kind, query=query, k=k, listed=listed, parity=parity):
        (ranking,) = backend.search([Request(kind, query, k, filter, passages=listed)])
        best = {id: hits[0].score for id, hits in right.items()}
        tolerance, approximate = backend.capabilities.score_tolerance[kind], kind in backend.capabilities.approximate
        oracles.check_ranking(ranking, best, k, tolerance=tolerance, approximate=approximate)
        check_passages(ranking, right, listed, tolerance)


def check_passages(
    ranking: Ranking, right: Mapping[str, Sequence[PassageScore]], listed: int, tolerance: float
) -> None:
    """Assert that the ranking lists the best passages. Two passages may change places if their scores are so near."""
    assert (ranking.passages is None) == (listed == 0)
    for id, score in ranking if listed else ():
        found = (ranking.passages or {})[id]
        of_span = {(passage.start, passage.end): passage.score for passage in right[id]}
        assert len(found) == min(listed, len(right[id]))
        assert len({passage[:2] for passage in found}) == len(found)
        assert list(found) == sorted(found, key=lambda passage: (-passage.score, passage.start))
        assert found[0].score == score
        for passage, best in zip(found, right[id], strict=False):
            assert passage.score == pytest.approx(of_span[passage[:2]], rel=tolerance, abs=tolerance)
            assert passage.score == pytest.approx(best.score, rel=2 * tolerance, abs=2 * tolerance)


def fill(backend: LuceneBackend, documents: Sequence[Long], schema: Schema = SCHEMA) -> LuceneBackend:
    backend.create(schema)
    backend.upsert(encode(documents, schema))
    return backend


@pytest.fixture(params=["exact", "hnsw"])
def mode(request: pytest.FixtureRequest) -> str:
    """How dense vectors are searched."""
    return str(request.param)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """The requests that are sent to the engine."""
    sent: list[Call] = []
    original = Channel.send

    def send(self: Channel, call: Call) -> Any:
        sent.append(call)
        return original(self, call)

    monkeypatch.setattr(Channel, "send", send)
    return sent


# ------------------------------------------------------------------------------------------------------------ ranking


def test_documents_are_ranked_by_their_best_passage(make: Make, mode: str) -> None:
    documents = random_documents()
    backend = fill(make(dense=mode), documents)
    for kind in KINDS:
        for query in samples.random_queries(kind):
            for k, listed in ((10, 3), (1000, 0), (3, 1), (1000, 100)):
                check(backend, documents, kind, query, k, listed)
            for parity in ("even", "odd"):
                check(backend, documents, kind, query, 5, 3, parity)


def test_a_retriever_of_whole_documents_stands_beside_those_of_passages(make: Make, mode: str) -> None:
    documents = random_documents()
    backend = fill(make(dense=mode), documents)
    wholes = [of.whole for of in documents]
    for kind in KINDS:
        for query in samples.random_queries(kind):
            (ranking,) = backend.search([Request(f"whole-{kind}", query, 10, passages=3)])
            right = oracles.right_scores(kind, wholes, query, average_length=samples.FROZEN_LENGTH)
            tolerance = backend.capabilities.score_tolerance[kind]
            approximate = kind in backend.capabilities.approximate
            oracles.check_ranking(ranking, right, 10, tolerance=tolerance, approximate=approximate)
            assert ranking.passages is None


def test_a_search_is_one_request(make: Make, mode: str, sent: list[Call]) -> None:
    backend = fill(make(dense=mode), random_documents())
    # Ties at a cut would need a second request, so there is no cut.
    requests = [Request(name, query, 1000, passages=3) for name in KINDS for query in samples.random_queries(name, 1)]
    backend.search(requests)
    sent.clear()
    rankings = backend.search(requests)
    assert [call.path.rpartition("/")[2] for call in sent] == ["_msearch"]
    for ranking in rankings:
        assert pickle.loads(pickle.dumps(ranking)).passages == ranking.passages  # noqa: S301
    assert all(set(ranking.documents or ()) == set(ranking.ids) for ranking in rankings)


@pytest.mark.parametrize("share", [0.5, 1e9])
def test_frequent_terms_alone_make_no_hit_unless_they_may(
    make: Make, monkeypatch: pytest.MonkeyPatch, sent: list[Call], share: float
) -> None:
    rare, common = samples.random_items(2)
    words = [{"common": 1, "rare": number % 4 // 3} for number in range(80)]
    items = [replace(common, counts={term: count for term, count in of.items() if count}) for of in words]
    documents = [long(f"d{number}", [items[number], rare, items[number - 1]]) for number in range(80)]
    backend = fill(make(), documents)
    monkeypatch.setattr("hybridsearch.adapters.lucene.query.maxscore._LEAST", 0)
    monkeypatch.setattr("hybridsearch.adapters.lucene.query.maxscore._SHARE", share)
    query = samples.sparse_query({"common": 1.0, "rare": 1.0})
    wholes = oracles.right_scores(
        "lexical", [of.whole for of in documents], query, average_length=samples.FROZEN_LENGTH
    )
    for k in (10, 70):
        for listed in (0, 3):
            check(backend, documents, "lexical", query, k, listed)
        sent.clear()
        (ranking,) = backend.search([Request("whole-lexical", query, k)])
        oracles.check_ranking(ranking, wholes, k, tolerance=backend.capabilities.score_tolerance["lexical"])
        filtered = [b'"filter"' in (call.body or b"") for call in sent]
        assert any(filtered) == (k == 10 or share > 1)
        assert filtered[-1] == (k == 10)


def test_searches_that_leave_frequent_terms_out_are_right(
    make: Make, monkeypatch: pytest.MonkeyPatch, sent: list[Call]
) -> None:
    monkeypatch.setattr("hybridsearch.adapters.lucene.query.maxscore._LEAST", 0)
    documents = random_documents(200)
    backend = fill(make(), documents)
    for query in samples.random_queries("lexical", 10):
        for k, listed in ((3, 0), (3, 3), (10, 2)):
            check(backend, documents, "lexical", query, k, listed)
    assert any(b'"filter"' in (call.body or b"") for call in sent)  # some searches left terms out


def test_a_list_of_passages_comes_with_its_documents(make: Make, mode: str, sent: list[Call]) -> None:
    documents = random_documents()
    backend = fill(make(dense=mode), documents)
    for kind in KINDS:
        request = Request(kind, samples.random_queries(kind, 1)[0], 20, passages=3)
        (ranking,) = backend.search([request])
        others = [of.whole.id for of in documents if of.whole.id not in ranking.ids]
        sent.clear()
        read, (listed,) = backend.fetch_passages([request], [[*ranking.ids, *others]])
        assert len(sent) == 1
        assert len((sent[0].body or b"").splitlines()) == (4 if kind == "lexical" else 1)  # searches and headers
        assert set(read) == {of.whole.id for of in documents}
        assert set(listed or ()) >= set(ranking.ids)


def test_long_documents_do_not_come_with_the_hits(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = fill(make(), random_documents())
    request = Request("dense", samples.random_queries("dense", 1)[0], 10, passages=1)
    (without,) = backend.search([replace(request, passages=0)])
    assert without.documents is None  # they come with their passages later
    first, second = backend.search([request]), backend.search([request])
    assert first == second
    assert first[0].documents is None  # the lengths are not known yet
    assert set(second[0].documents or ()) == set(second[0].ids)
    monkeypatch.setattr("hybridsearch.adapters.lucene.query.search.WITH_CHARACTERS", 500)
    (third,) = backend.search([request])
    assert (third, third.documents) == (second[0], None)


def test_documents_of_equal_score_are_ordered_by_id_at_the_cut(make: Make) -> None:
    same, other = samples.random_items(2)
    documents = [long(f"d{number:02}", [other, same, same]) for number in range(30)]
    backend = fill(make(dense="exact"), documents)
    for kind in KINDS:
        query: QueryVector = same.vector if same.vector is not None and kind == "dense" else sparse_of(kind, same)
        (ranking,) = backend.search([Request(kind, query, 7, passages=2)])
        assert ranking.ids == tuple(f"d{number:02}" for number in range(7))
        for passages in (ranking.passages or {}).values():
            assert [passage.start for passage in passages] == [LENGTH, 2 * LENGTH]
            assert passages[0].score == passages[1].score


def sparse_of(kind: Kind, item: Item) -> SparseQuery:
    return samples.sparse_query(dict.fromkeys(item.counts if kind == "lexical" else item.weights, 1.0))


def test_a_dense_search_deeper_than_one_request_is_made_in_parts(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = random_documents(60)
    backend = make(dense="exact")
    monkeypatch.setattr(type(backend), "deepest_dense", lambda self: 10)
    monkeypatch.setattr("hybridsearch.adapters.lucene.query.search.PART_DOCUMENTS", 7)
    fill(backend, documents)
    for query in samples.random_queries("dense", 3):
        check(backend, documents, "dense", query, 1000, 3)
        check(backend, documents, "dense", query, 25, 3, "odd")


def test_quantized_passages_are_scored_again(make: Make, engine: str) -> None:
    documents = random_documents()
    backend = fill(make(dense="hnsw", quantization="int8"), documents)
    for query in samples.random_queries("dense"):
        right = right_passages("dense", documents, query)
        (ranking,) = backend.search([Request("dense", query, 10, passages=3)])
        best = {id: hits[0].score for id, hits in right.items()}
        rough = 0.2 if engine == "elasticsearch" else 1e-5  # it scores one passage of each document again
        oracles.check_ranking(ranking, best, 10, tolerance=rough, approximate=True)
        check_passages(ranking, right, 3, rough)


def test_all_numbers_of_bm25_follow_updates(make: Make) -> None:
    documents = random_documents(30)
    backend = fill(make(), documents)
    queries = samples.random_queries("lexical", 4)
    for query in queries:
        check(backend, documents, "lexical", query)
    backend.delete([of.whole.id for of in documents[:10]])
    changed = random_documents(15, seed=5)[10:] + random_documents(5, seed=6, prefix="new")
    backend.upsert(encode(changed))
    left = {of.whole.id: of for of in [*documents[10:], *changed]}
    for query in queries:
        check(backend, list(left.values()), "lexical", query)
    assert backend.count() == len(left)


@pytest.mark.parametrize("options", [{}, {"shards": 3}])
def test_filters_and_counts_speak_of_documents(make: Make, options: dict[str, Any]) -> None:
    documents = random_documents()
    backend = fill(make(**options), documents)
    assert backend.count() == len(documents)
    assert backend.count(Filter.parse({"parity": "odd"})) == len(documents) // 2
    assert backend.count(Filter.parse({"$not": {"parity": "odd"}})) == len(documents) // 2
    assert backend.delete([documents[0].whole.id, "unknown"]) == 1
    for kind in KINDS:
        for query in samples.random_queries(kind, 3):
            check(backend, documents[1:], kind, query, 1000, 2, "even")


def test_matched_terms_are_those_of_the_best_passage(make: Make) -> None:
    documents = random_documents()
    backend = fill(make(), documents)
    ids = [of.whole.id for of in documents]
    for kind in ("lexical", "sparse"):
        for query in samples.random_queries(kind, 4):
            request = Request(kind, query, 1000)
            (ranking,) = backend.search([request])
            scores = dict(ranking)
            for id, terms in zip(ids, backend.explain(request, ids), strict=True):
                assert sum(terms.values()) == pytest.approx(scores.get(id, 0.0), rel=1 / 128)
    assert backend.explain(Request("whole-sparse", samples.random_queries("sparse", 1)[0], 10), ["unknown"]) == [{}]


# ------------------------------------------------------------------------------------------------------------- storage


def test_scan_gives_the_passages_back(make: Make, mode: str) -> None:
    documents = [*random_documents(), long("one", [Item("empty")])]
    terms = {"a b.c%": 2, "": 1, "long " * 100: 3, "~x": 1}
    odd = Item("odd", terms, {term: float(count) for term, count in terms.items()}, samples.unit(np.ones(24)))
    documents.append(long("odd", [odd, Item("empty"), odd]))
    backend = fill(make(dense=mode), documents)
    right = encode(documents)
    place = {document.id: row for row, document in enumerate(right.documents)}
    batches = list(backend.scan(13))
    assert all(len(batch) <= 13 for batch in batches)
    found = 0
    for batch in batches:
        rows = [place[document.id] for document in batch.documents]
        found += len(rows)
        assert batch.documents == [right.documents[row] for row in rows]
        assert batch.passages is not None
        assert right.passages is not None
        expected = right.passages.take(rows)
        assert np.array_equal(batch.passages.offsets, expected.offsets)
        assert np.array_equal(batch.passages.spans, expected.spans)
        for name, retriever in SCHEMA.retrievers.items():
            taken = right.passages.rows(rows) if retriever.passages else np.array(rows)
            vectors, wanted = batch.vectors[name], right.vectors[name]
            if retriever.kind == "dense":
                assert np.array_equal(vectors.array, wanted.array[taken])  # type: ignore[union-attr]
            else:
                assert as_dicts(vectors) == [as_dicts(wanted)[row] for row in taken.tolist()]
    assert found == len(documents)


def as_dicts(vectors: Any) -> list[dict[str, float]]:
    matrix, terms = vectors.matrix, vectors.vocabulary.terms
    starts = matrix.indptr.tolist()
    return [
        {terms[column]: value for column, value in zip(matrix.indices[a:b], matrix.data[a:b].tolist(), strict=True)}
        for a, b in pairwise(starts)
    ]


def test_an_upsert_leaves_no_passage_of_the_old_text(make: Make, mode: str) -> None:
    old, new = samples.random_items(2)
    backend = fill(make(dense=mode), [long("a", [old] * 5)])
    backend.upsert(encode([long("a", [new])]))
    (ranking,) = backend.search([Request("dense", new.vector, 10, passages=100)])  # type: ignore[arg-type]
    assert [len(passages) for passages in (ranking.passages or {}).values()] == [1]
    (batch,) = backend.scan()
    assert batch.passages is not None
    assert len(batch.passages) == 1
    stored = call(backend.address, "GET", f"{backend.address.path}/_search?size=10")
    assert stored["hits"]["total"]["value"] == 1


def test_deleting_by_filter_leaves_no_passage_behind(make: Make) -> None:
    documents = random_documents()
    backend = fill(make(), documents)
    assert backend.delete_by_filter(Filter.parse({"parity": "even"})) == 20
    left = [of for of in documents if of.whole.metadata["parity"] == "odd"]
    assert {document.id for batch in backend.scan() for document in batch.documents} == {of.whole.id for of in left}
    for kind in KINDS:
        check(backend, left, kind, samples.random_queries(kind, 1)[0], 100)


def test_loading_and_reweighing_count_passages(make: Make) -> None:
    documents = random_documents(80)
    schema = schema_of(("lexical", "whole-lexical"))
    unset = {name: replace(of, average_length=None) for name, of in schema.retrievers.items()}
    schema = replace(schema, retrievers=unset)
    backend = make()
    backend.create(schema)
    backend.load(encode(documents[start : start + 8], schema) for start in range(0, 80, 8))
    averages = backend.reweigh()
    passages = [sum(item.counts.values()) for of in documents for item in of.passages]
    wholes = [sum(of.whole.counts.values()) for of in documents]
    assert averages == pytest.approx({"lexical": np.mean(passages), "whole-lexical": np.mean(wholes)})
    again = make()
    assert again.open() == replace(schema, retrievers=backend.open().retrievers)  # type: ignore[union-attr]
    items = [item for of in documents for item in of.passages]
    for query in samples.random_queries("lexical", 3):
        right = oracles.right_scores("lexical", items, query)
        (ranking,) = again.search([Request("lexical", query, 20)])
        best = dict(ranking)
        for of in documents:
            found = max((right.get(item.id, 0.0) for item in of.passages), default=0.0)
            if of.whole.id in best:
                assert best[of.whole.id] == pytest.approx(found, rel=1 / 128)


def test_a_document_of_ten_thousand_passages_is_one_document(make: Make, mode: str) -> None:
    items = samples.random_items(500)
    huge = long("huge", [items[number % 500] for number in range(12_000)])
    documents = [*random_documents(10), huge]
    backend = fill(make(dense=mode), documents)
    assert backend.count() == len(documents)
    for kind in KINDS:
        for query in samples.random_queries(kind, 2):
            check(backend, documents, kind, query, 20, 3)
            check(backend, documents, kind, query, 20, 3, "odd")
    for batch in backend.scan():
        assert batch.passages is not None
    assert backend.delete(["huge"]) == 1
    for kind in KINDS:
        check(backend, documents[:-1], kind, samples.random_queries(kind, 1)[0], 20, 3)


def test_an_index_without_passages_is_as_it_was(make: Make) -> None:
    backend = make()
    backend.create(_WHOLE)
    (found,) = call(backend.address, "GET", backend.address.path).values()
    assert "passages" not in found["mappings"]["properties"]
    assert "nested_objects" not in str(found["settings"])


def test_terms_of_all_characters_are_found_in_passages(make: Make) -> None:
    terms = [*ODD_TERMS, "", "\ud800", "\ud83d\ude00", "~", "%", "%41", "\u3000", "\u2028", "\x1f", "wing.7", "y" * 250]
    weights = {term: float(np.float32(1 / (number + 3))) for number, term in enumerate(terms)}
    backend = fill(make(), [long("odd", [Item("empty"), Item("all", dict.fromkeys(terms, 1), weights)])])
    for kind in ("lexical", "sparse"):
        rankings = backend.search([Request(kind, samples.sparse_query({term: 1.0}), 10, passages=1) for term in terms])
        for term, ranking in zip(terms, rankings, strict=True):
            assert ranking.ids == ("odd",), (kind, term)
            if kind == "sparse":
                assert ranking.scores == pytest.approx([weights[term]], rel=1 / 128), term
    (stored,) = call(backend.address, "POST", f"{backend.address.path}/_mget", {"ids": ["odd"]})["docs"]
    assert all("impacts" not in passage for passage in stored["_source"]["passages"])


def test_an_index_of_the_layout_before_keeps_its_fields(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = random_documents()
    with monkeypatch.context() as earlier:
        earlier.setattr(OpenSearchBackend, "impacts", False)
        old = fill(make(), documents[:20])
    (found,) = call(old.address, "GET", old.address.path).values()
    assert "impacts" not in found["mappings"]["properties"]["passages"]["properties"]
    meta = found["mappings"]["_meta"]
    meta["hybridsearch"]["version"] = 6
    call(old.address, "PUT", f"{old.address.path}/_mapping", {"_meta": meta})
    backend = make()
    assert backend.open() == SCHEMA
    backend.upsert(encode(documents[20:]))
    for kind in KINDS:
        for query in samples.random_queries(kind, 3):
            check(backend, documents, kind, query)


def test_seismic_is_refused_for_passages(lucene_names: Callable[[str, str], str], opensearch_url: str) -> None:
    backend = connect(lucene_names(opensearch_url, "seismic"), {"replicas": 0, "sparse": "seismic"})
    with pytest.raises(InvalidArgumentError, match=r"finds whole documents.*whole=\('sparse',\)"):
        backend.create(SCHEMA)
    backend.create(schema_of(("lexical", "whole-sparse")))
    backend.close()


def test_the_engine_analyses_the_texts_of_passages(make: Make) -> None:
    text = RetrieverSchema(
        "text", hs.NativeBM25().fingerprint(), weighting={"analyzer": "standard", "k1": 1.2, "b": 0.75}
    )
    schema = Schema({"native": replace(text, passages=True), "whole": text}, {}, {"size": 10})
    backend = make()
    backend.create(schema)
    documents = [hs.Document("a", "wing wing flow heat"), hs.Document("b", "flow flow"), hs.Document("c", "")]
    spans = PassageSpans.of([[(0, 10), (10, 15), (15, 19)], [(0, 9)], [(0, 0)]])
    native = hs.NativeBM25()
    vectors = {"native": native.encode_documents([""] * 5), "whole": native.encode_documents([""] * 3)}
    backend.upsert(EncodedBatch(documents, vectors, spans))
    flow, heat = backend.search([Request("native", TextQuery(word), 10, passages=3) for word in ("flow", "heat")])
    assert {id: [passage[:2] for passage in hits] for id, hits in (flow.passages or {}).items()} == {
        "b": [(0, 9)],
        "a": [(10, 15)],
    }
    assert [passage[:2] for passage in (heat.passages or {})["a"]] == [(15, 19)]
    (stored,) = call(backend.address, "POST", f"{backend.address.path}/_mget", {"ids": ["a"]})["docs"]
    assert all("content" not in passage for passage in stored["_source"]["passages"])
