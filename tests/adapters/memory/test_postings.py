"""Tests of the inverted index: the scores, the order and the ties are those of scipy, in every layout."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from unittest import mock

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from numpy.typing import NDArray
from scipy.sparse import csr_array, hstack, random_array, vstack

from hybridsearch.adapters.memory import postings as postings_module
from hybridsearch.adapters.memory import sparse as module
from hybridsearch.adapters.memory.postings import LexicalWeights, Postings, TermStatistics
from hybridsearch.adapters.memory.sparse import SparseSlice, explain, search
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.vectors import SparseQuery, SparseVectors, Vocabulary
from hybridsearch.weighting import BM25Weighting

VARIANTS = ("lucene", "robertson", "atire", "bm25l", "bm25+")


def vectors_of(matrix: csr_array, prefix: str = "t") -> SparseVectors:
    return SparseVectors(matrix, Vocabulary([f"{prefix}{column}" for column in range(matrix.shape[1])]))


def random_matrix(documents: int, terms: int, density: float, seed: int = 0, levels: int = 6) -> csr_array:
    """Vectors with few distinct values, so that equal scores are common."""
    matrix = csr_array(random_array((documents, terms), density=density, rng=seed, dtype=np.float32))
    matrix.data = np.ceil(matrix.data * levels).astype(np.float32) / 2
    return matrix


def random_queries(number: int, terms: int, length: int, seed: int = 1, unknown: bool = True) -> list[SparseQuery]:
    rng = np.random.default_rng(seed)
    queries = []
    for _ in range(number):
        names = [f"t{column}" for column in rng.choice(terms, size=min(length, terms), replace=False)]
        names += ["not a term"] * unknown
        queries.append(SparseQuery(tuple(names), rng.integers(-1, 5, len(names)).astype(np.float32) / 2))
    return queries


def scipy_scores(matrix: csr_array, query: SparseQuery) -> NDArray[np.float32]:
    """All scores by scipy. The values are multiples of 1/4, so sums are exact in any order."""
    dense = np.zeros(matrix.shape[1], dtype=np.float32)
    for term, weight in zip(query.terms, query.weights, strict=True):
        if term.startswith("t"):
            dense[int(term[1:])] = weight
    return matrix @ dense


def expected(
    matrix: csr_array, query: SparseQuery, k: int, order: NDArray[np.int32], allowed: NDArray[np.bool_] | None = None
) -> tuple[list[int], list[float]]:
    scores = scipy_scores(matrix, query)
    rows = np.flatnonzero((scores > 0) & (True if allowed is None else allowed))
    rows = rows[np.lexsort((order[rows], -scores[rows]))][:k]
    return rows.tolist(), scores[rows].tolist()


def as_lists(hits: tuple[NDArray[np.int32], NDArray[np.float32]]) -> tuple[list[int], list[float]]:
    assert hits[0].dtype == np.int32
    assert hits[1].dtype == np.float32
    return hits[0].tolist(), hits[1].tolist()


def same(left: Postings, right: Postings) -> bool:
    """Whether two are equal, except for the order of the columns."""
    if sorted(left.terms) != sorted(right.terms) or not np.array_equal(left.lengths, right.lengths):
        return False
    for term in left.terms:
        (a, b), (c, d) = (slice_.indptr[slice_.vocabulary.index[term] :][:2].tolist() for slice_ in (left, right))
        if not np.array_equal(left.rows[a:b], right.rows[c:d]):
            return False
        if not np.array_equal(left.values[a:b], right.values[c:d]):
            return False
    return True


@st.composite
def collections(draw: st.DrawFn) -> tuple[csr_array, NDArray[np.int32], NDArray[np.bool_] | None, list[SparseQuery]]:
    documents, terms = draw(st.integers(1, 60)), draw(st.integers(1, 12))
    seed = draw(st.integers(0, 2**31))
    matrix = random_matrix(documents, terms, draw(st.sampled_from([0.0, 0.1, 0.5, 1.0])), seed, draw(st.integers(1, 4)))
    rng = np.random.default_rng(seed)
    allowed = rng.random(documents) < 0.6 if draw(st.booleans()) else None
    queries = random_queries(draw(st.integers(0, 4)), terms, draw(st.integers(0, 12)), seed)
    return matrix, rng.permutation(documents).astype(np.int32), allowed, queries


@given(collections(), st.integers(1, 80))
def test_hits_equal_those_of_scipy_with_ties_masks_and_unknown_terms(
    collection: tuple[csr_array, NDArray[np.int32], NDArray[np.bool_] | None, list[SparseQuery]], k: int
) -> None:
    matrix, order, allowed, queries = collection
    found = search([SparseSlice(Postings.from_vectors(vectors_of(matrix)), order, allowed)], queries, k)
    assert len(found) == len(queries)
    for query, (hits,) in zip(queries, found, strict=True):
        assert as_lists(hits) == expected(matrix, query, k, order, allowed)


@pytest.mark.parametrize("share", [None, 0.5, 0.001])
@pytest.mark.parametrize(("density", "k"), [(0.0005, 10), (0.01, 1), (0.01, 1000), (0.3, 10), (0.3, 30_000)])
def test_hits_over_several_blocks_equal_those_of_scipy(density: float, k: int, share: float | None) -> None:
    matrix = random_matrix(20_001, 60, density)
    rng = np.random.default_rng(2)
    order = rng.permutation(20_001).astype(np.int32)
    allowed = None if share is None else rng.random(20_001) < share
    queries = random_queries(6, 60, 8)
    found = search([SparseSlice(Postings.from_vectors(vectors_of(matrix)), order, allowed)], queries, k)
    for query, (hits,) in zip(queries, found, strict=True):
        assert as_lists(hits) == expected(matrix, query, k, order, allowed)


def zipfian_matrix(documents: int, terms: int, seed: int, spread: float) -> csr_array:
    """Term t is `1 / (1 + t)` times as frequent as the first and weighs more, so that searches skip terms."""
    rng = np.random.default_rng(seed)
    columns = []
    for term in range(terms):
        column = random_array((documents, 1), density=0.9 / (1 + term), rng=rng, dtype=np.float32)
        column.data = np.ceil(column.data * 4 * (1 + term) ** spread).astype(np.float32) / 4
        columns.append(column)
    return csr_array(hstack(columns, format="csr"))


@given(
    seed=st.integers(0, 2**31),
    spread=st.sampled_from([0.0, 0.5, 1.0]),
    k=st.sampled_from([1, 2, 10, 300]),
    share=st.sampled_from([None, 0.5, 0.01]),
    clusters=st.booleans(),
)
def test_terms_that_are_left_out_of_the_walk_change_no_hit(
    seed: int, spread: float, k: int, share: float | None, clusters: bool
) -> None:
    matrix = zipfian_matrix(40_000, 25, seed, spread)
    if clusters:  # documents of one kind are neighbours
        matrix = csr_array(matrix[np.argsort(matrix[:, [3]].toarray()[:, 0], kind="stable")])
    rng = np.random.default_rng(seed)
    order = rng.permutation(40_000).astype(np.int32)
    allowed = None if share is None else rng.random(40_000) < share
    queries = random_queries(4, 25, 10, seed)
    found = search([SparseSlice(Postings.from_vectors(vectors_of(matrix)), order, allowed)], queries, k)
    for query, (hits,) in zip(queries, found, strict=True):
        assert as_lists(hits) == expected(matrix, query, k, order, allowed)


def test_a_document_with_an_equal_score_and_a_smaller_id_displaces_another_at_the_cut() -> None:
    matrix = csr_array(np.ones((30_000, 1), dtype=np.float32))
    order = np.arange(30_000, dtype=np.int32)[::-1].copy()
    query = SparseQuery(("t0",), np.ones(1, dtype=np.float32))
    ((hits,),) = search([SparseSlice(Postings.from_vectors(vectors_of(matrix)), order)], [query], 3)
    assert as_lists(hits) == ([29_999, 29_998, 29_997], [1.0, 1.0, 1.0])


def test_scores_do_not_depend_on_segments_batches_or_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    matrix = csr_array(random_array((30_000, 50), density=0.3, rng=rng, dtype=np.float32))
    whole = Postings.from_vectors(vectors_of(matrix))
    order = rng.permutation(30_000).astype(np.int32)
    names = [f"t{column}" for column in range(50)]
    queries = [
        SparseQuery(tuple(rng.permutation(names)[:20].tolist()), rng.random(20, dtype=np.float32)) for _ in range(40)
    ]
    monkeypatch.setattr(module, "_WORTH_SHARING", 1)
    alone = [as_lists(search([SparseSlice(whole, order)], [query], 50, threads=1)[0][0]) for query in queries]
    for threads in (1, 2, 3):
        batch = search([SparseSlice(whole, order)], queries, 50, threads=threads)
        assert [as_lists(hits) for (hits,) in batch] == alone
        loop = [search([SparseSlice(whole, order)], [query], 50, threads=threads) for query in queries]
        assert [as_lists(hits) for ((hits,),) in loop] == alone

    cuts = [0, 1, 9_000, 9_001, 30_000]
    parts = [
        SparseSlice(
            Postings.from_vectors(vectors_of(csr_array(matrix[a:b]))), order[a:b].argsort().argsort().astype(np.int32)
        )
        for a, b in pairwise(cuts)
    ]
    for found, (rows, scores) in zip(search(parts, queries, 50), alone, strict=True):
        together = [
            (-score, int(order[row + start]), row + start)
            for (part_rows, part_scores), start in zip(found, cuts, strict=False)
            for row, score in zip(part_rows.tolist(), part_scores.tolist(), strict=True)
        ]
        assert [(row, -score) for score, _, row in sorted(together)[:50]] == list(zip(rows, scores, strict=True))


def test_scores_are_float32_sums_in_the_order_of_the_query() -> None:
    matrix = csr_array(np.array([[1e8, 1.0, -1e8]], dtype=np.float32))
    slice_ = SparseSlice(Postings.from_vectors(vectors_of(matrix)), np.zeros(1, dtype=np.int32))
    ones = np.ones(3, dtype=np.float32)
    ((lost,),) = search([slice_], [SparseQuery(("t0", "t1", "t2"), ones)], 1)
    ((kept,),) = search([slice_], [SparseQuery(("t0", "t2", "t1"), ones)], 1)
    assert as_lists(lost) == ([], [])
    assert as_lists(kept) == ([0], [1.0])


def test_empty_queries_and_empty_slices_have_no_hits() -> None:
    empty = SparseSlice(Postings.from_vectors(vectors_of(csr_array((0, 0), dtype=np.float32))), np.empty(0, np.int32))
    blank = SparseSlice(
        Postings.from_vectors(vectors_of(csr_array((4, 2), dtype=np.float32))), np.arange(4, dtype=np.int32)
    )
    queries = [SparseQuery((), np.empty(0, np.float32)), SparseQuery(("t0",), np.ones(1, np.float32))]
    found = search([empty, blank], queries, 10)
    assert [[len(rows) for rows, _ in of_query] for of_query in found] == [[0, 0], [0, 0]]
    assert search([empty, blank], [], 10) == []
    assert search([], queries, 10) == [[], []]


def test_asking_for_no_hits_is_an_error() -> None:
    with pytest.raises(InvalidArgumentError, match="at least 1, not 0"):
        search([], [], 0)


def test_searches_from_many_threads_at_once_agree_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WORTH_SHARING", 1)
    matrix = random_matrix(20_000, 40, 0.2)
    slice_ = SparseSlice(Postings.from_vectors(vectors_of(matrix)), np.arange(20_000, dtype=np.int32))
    queries = random_queries(16, 40, 10)
    alone = [as_lists(hits) for (hits,) in search([slice_], queries, 10)]
    ready = threading.Barrier(16)

    def ask(number: int) -> bool:
        ready.wait()
        own = [as_lists(search([slice_], [queries[number]], 10)[0][0]) for _ in range(5)]
        batch = [as_lists(hits) for (hits,) in search([slice_], queries, 10)]
        return batch == alone and own == [alone[number]] * 5

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(ask, range(16)))


def test_explanations_sum_to_the_scores() -> None:
    rng = np.random.default_rng(4)
    matrix = csr_array(random_array((200, 30), density=0.4, rng=rng, dtype=np.float32))
    slice_ = SparseSlice(Postings.from_vectors(vectors_of(matrix)), np.arange(200, dtype=np.int32))
    query = SparseQuery(("t3", "t1", "unknown", "t7"), np.array([0.3, 1.7, 1.0, 0.9], dtype=np.float32))
    (((rows, scores),),) = search([slice_], [query], 200)
    for row, score, contributions in zip(rows, scores, explain(slice_, query, rows), strict=True):
        present = [term for term in ("t3", "t1", "t7") if matrix[row, int(term[1:])] != 0]
        assert list(contributions) == present
        total = np.float32(0)
        for value in contributions.values():
            total += np.float32(value)
        assert total == score


def test_a_document_without_query_terms_has_an_empty_explanation() -> None:
    slice_ = SparseSlice(
        Postings.from_vectors(vectors_of(csr_array(np.eye(2, dtype=np.float32)))), np.arange(2, dtype=np.int32)
    )
    assert explain(slice_, SparseQuery(("t0",), np.ones(1, np.float32)), [1, 0]) == [{}, {"t0": 1.0}]


def test_empty_columns_and_explicit_zeros_leave_no_posting() -> None:
    matrix = csr_array((np.array([0, 2, 0], np.float32), np.array([0, 1, 2]), np.array([0, 2, 3])), shape=(2, 4))
    postings = Postings.from_vectors(vectors_of(matrix))
    assert postings.terms == ("t1",)
    assert (postings.rows.tolist(), postings.values.tolist(), postings.lengths.tolist()) == ([0], [2.0], [2.0, 0.0])


def test_transposing_equals_scipy() -> None:
    matrix = random_matrix(500, 80, 0.1)
    postings, csc = Postings.from_vectors(vectors_of(matrix)), matrix.tocsc()
    assert np.array_equal(postings.indptr, csc.indptr)
    assert np.array_equal(postings.rows, csc.indices)
    assert np.array_equal(postings.values, csc.data)
    assert np.allclose(postings.lengths, matrix.sum(axis=1))


@given(st.data())
def test_merging_equals_building_from_the_kept_documents(data: st.DataObject) -> None:
    parts, kept = [], []
    for number in range(data.draw(st.integers(1, 4))):
        matrix = random_matrix(data.draw(st.integers(0, 20)), 8, 0.3, seed=number)
        keep = np.random.default_rng(number).random(matrix.shape[0]) < 0.5 if data.draw(st.booleans()) else None
        parts.append((Postings.from_vectors(vectors_of(matrix)), keep))
        kept.append(matrix if keep is None else csr_array(matrix[np.flatnonzero(keep)]))
    piece = data.draw(st.sampled_from([1, 3, postings_module._PIECE]))
    with mock.patch.object(postings_module, "_PIECE", piece):
        merged = Postings.merge(parts)
    assert same(merged, Postings.from_vectors(vectors_of(csr_array(vstack(kept)))))


def test_merging_matches_terms_by_name() -> None:
    one = csr_array(np.array([[1, 2]], dtype=np.float32))
    left = Postings.from_vectors(SparseVectors(one, Vocabulary(["a", "b"])))
    right = Postings.from_vectors(SparseVectors(one, Vocabulary(["b", "c"])))
    merged = Postings.merge([(left, None), (right, None)])
    assert merged.terms == ("a", "b", "c")
    assert merged.to_vectors().matrix.toarray().tolist() == [[1, 2, 0], [0, 1, 2]]


def test_merging_nothing_is_an_empty_index() -> None:
    merged = Postings.merge([])
    assert (merged.documents, merged.terms, len(merged.to_vectors())) == (0, (), 0)


@pytest.mark.parametrize("rows", [None, [3, 4, 5], [70, 2, 2, 99], []])
def test_vectors_come_back_as_they_went_in(rows: list[int] | None) -> None:
    matrix = random_matrix(100, 30, 0.05)
    back = Postings.from_vectors(vectors_of(matrix)).to_vectors(
        None if rows is None else np.array(rows, dtype=np.int64)
    )
    wanted = matrix.toarray() if rows is None else matrix.toarray()[np.array(rows, dtype=np.int64)]
    columns = [int(term[1:]) for term in back.vocabulary.terms]
    assert np.array_equal(back.matrix.toarray(), wanted[:, columns])
    assert columns == np.flatnonzero((wanted != 0).any(axis=0)).tolist()
    assert back.matrix.has_sorted_indices


def test_arrays_go_through_mapped_files(tmp_path: Path) -> None:
    matrix = random_matrix(300, 4, 0.2)
    terms = ["wing", "流れ", "naïve", "lone \ud800"]
    built = Postings.from_vectors(SparseVectors(matrix, Vocabulary(terms)))
    for name, array in built.arrays().items():
        np.save(tmp_path / f"{name}.npy", array)
    arrays = {path.stem: np.load(path, mmap_mode="r") for path in tmp_path.glob("*.npy")}
    opened = Postings.from_arrays(arrays, 300)
    assert same(opened, built)
    assert opened.nbytes == built.nbytes
    assert not opened.values.flags.owndata
    again = Postings.from_arrays(opened.arrays(), 300)
    assert again.terms == tuple(terms)
    order = np.arange(300, dtype=np.int32)
    query = SparseQuery(("流れ", "wing"), np.array([1, 2], dtype=np.float32))
    ((hits,),) = search([SparseSlice(opened, order)], [query], 7)
    ((fresh,),) = search([SparseSlice(built, order)], [query], 7)
    assert as_lists(hits) == as_lists(fresh)


@pytest.mark.parametrize("mask", [False, True])
def test_document_frequencies_count_live_documents(mask: bool) -> None:
    matrix = random_matrix(400, 10, 0.2)
    live = np.random.default_rng(5).random(400) < 0.5 if mask else None
    present = matrix.toarray() != 0
    wanted = [present[:, 2], present[:, 0] & False, present[:, 9]]
    counts = Postings.from_vectors(vectors_of(matrix)).document_frequency(["t2", "unknown", "t9"], live)
    assert counts.dtype == np.int64
    assert counts.tolist() == [int((column & (True if live is None else live)).sum()) for column in wanted]


def test_an_empty_index_has_no_document_frequencies() -> None:
    assert Postings.merge([]).document_frequency(["a"], None).tolist() == [0]


@pytest.mark.parametrize("variant", VARIANTS)
def test_lexical_weights_equal_the_formula_in_double_precision(variant: str) -> None:
    rng = np.random.default_rng(6)
    matrix = csr_array(random_array((300, 40), density=0.2, rng=rng, dtype=np.float32))
    matrix.data = np.ceil(matrix.data * 5).astype(np.float32)
    postings = Postings.from_vectors(vectors_of(matrix))
    k1, b, delta = 1.4, 0.6, 0.7
    own = {"delta": delta} if variant in ("bm25l", "bm25+") else {}
    weighting = BM25Weighting(variant=variant, k1=k1, b=b, **own)
    weights = LexicalWeights(postings, TermStatistics([(postings, None)], weighting))
    assert weights.columns(["t5", "unknown", "t1"]).tolist() == [5, -1, 1]
    weights.columns(postings.terms)

    csc = matrix.astype(np.float64).tocsc()
    lengths = matrix.astype(np.float64).sum(axis=1)
    average = lengths.mean()
    frequency, length = csc.data, lengths[csc.indices]
    norm = 1 - b + b * length / average
    formula = {
        "lucene": frequency / (frequency + k1 * norm),
        "robertson": frequency / (frequency + k1 * norm),
        "atire": frequency * (k1 + 1) / (frequency + k1 * norm),
        "bm25l": (k1 + 1) * (frequency / norm + delta) / (k1 + frequency / norm + delta),
        "bm25+": delta + frequency * (k1 + 1) / (frequency + k1 * norm),
    }[variant]
    assert np.allclose(weights.values, formula, rtol=1e-5)


def test_lexical_weights_do_not_depend_on_when_and_with_what_they_are_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    matrix = random_matrix(500, 30, 0.3)
    matrix.data = np.ceil(matrix.data)
    postings = Postings.from_vectors(vectors_of(matrix))
    statistics = TermStatistics([(postings, None)], BM25Weighting())
    at_once = LexicalWeights(postings, statistics)
    at_once.columns(postings.terms)
    one_by_one = LexicalWeights(postings, statistics)
    for term in reversed(postings.terms):
        one_by_one.columns([term])
    monkeypatch.setattr(postings_module, "_PIECE", 100)
    in_chunks = LexicalWeights(postings, statistics)
    in_chunks.columns(postings.terms)
    for other in (one_by_one, in_chunks):
        assert np.array_equal(at_once.values, other.values)
        assert np.array_equal(at_once.idf, other.idf)


def test_term_statistics_count_the_live_documents_of_all_segments() -> None:
    left, right = random_matrix(200, 10, 0.1, seed=1), random_matrix(300, 10, 0.1, seed=2)
    live = np.random.default_rng(3).random(300) < 0.7
    parts = [(Postings.from_vectors(vectors_of(left)), None), (Postings.from_vectors(vectors_of(right)), live)]
    statistics = TermStatistics(parts, BM25Weighting())
    dense = np.vstack([left.toarray(), right.toarray()[live]]).astype(np.float64)
    n, documents = (dense > 0).sum(axis=0), len(dense)
    idf = np.log(1 + (documents - n + 0.5) / (n + 0.5))
    for _ in range(2):
        assert statistics.idf(["t4", "unknown", "t0"]) == pytest.approx([idf[4], 0.0, idf[0]], rel=1e-12)
    assert statistics.documents == documents
    assert statistics.average_length == pytest.approx(dense.sum() / documents)


def test_a_term_of_deleted_documents_only_has_no_idf() -> None:
    postings = Postings.from_vectors(vectors_of(csr_array(np.eye(2, dtype=np.float32))))
    statistics = TermStatistics([(postings, np.array([True, False]))], BM25Weighting(variant="atire"))
    assert statistics.idf(["t1"]) == [0.0]
    assert TermStatistics([], BM25Weighting()).idf(["t1"]) == [0.0]


@pytest.mark.parametrize("documents", [400, 20_000])
def test_searching_by_lexical_weights_equals_searching_their_values_with_weighed_queries(documents: int) -> None:
    matrix = random_matrix(documents, 20, 0.2)
    postings, order = Postings.from_vectors(vectors_of(matrix)), np.arange(documents, dtype=np.int32)
    statistics = TermStatistics([(postings, None)], BM25Weighting())
    weights = LexicalWeights(postings, statistics)
    weights.columns(postings.terms)
    plain = Postings(postings.indptr, postings.rows, weights.values.copy(), postings.lengths, postings.vocabulary)
    queries = random_queries(5, 20, 6)
    weighed = search([SparseSlice(plain, order)], [statistics.weigh(query) for query in queries], 30)
    slice_ = SparseSlice(postings, order, weights=LexicalWeights(postings, statistics))
    for _ in range(3):  # the first searches have no codes and no rows of values
        found = search([slice_], queries, 30)
        assert [as_lists(hits) for (hits,) in found] == [as_lists(hits) for (hits,) in weighed]


def test_an_explanation_has_the_weights_of_a_slice() -> None:
    postings = Postings.from_vectors(vectors_of(csr_array(np.array([[1], [4]], dtype=np.float32))))
    weights = LexicalWeights(postings, TermStatistics([(postings, None)], BM25Weighting()))
    slice_ = SparseSlice(postings, np.arange(2, dtype=np.int32), weights=weights)
    (contributions,) = explain(slice_, SparseQuery(("t0",), np.ones(1, np.float32)), [0])
    assert contributions == {"t0": weights.values.tolist()[0]} != {"t0": postings.values.tolist()[0]}


def test_a_weight_that_becomes_infinite_changes_no_document_without_the_term() -> None:
    matrix = csr_array(np.array([[1, 1], [0, 1], [1, 0]], dtype=np.float32))
    postings, order = Postings.from_vectors(vectors_of(matrix)), np.arange(3, dtype=np.int32)
    weights = LexicalWeights(postings, TermStatistics([(postings, None)], BM25Weighting(variant="bm25+")))
    weights.columns(postings.terms)
    weights.idf[0] = 1e30
    query = SparseQuery(("t0", "t1"), np.array([1e30, 1], dtype=np.float32))
    with np.errstate(over="ignore"):
        for _ in range(3):
            ((hits,),) = search([SparseSlice(postings, order, weights=weights)], [query], 3)
            assert hits[0].tolist() == [0, 2, 1]
            assert np.isfinite(hits[1][2])
