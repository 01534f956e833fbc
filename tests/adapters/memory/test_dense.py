"""Tests of exact dense search, compared with numpy in float64."""

from __future__ import annotations

from types import ModuleType
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from hybridsearch.adapters.memory import dense, loops
from hybridsearch.adapters.memory.codes import CodedQueries, Codes
from hybridsearch.adapters.memory.dense import DenseMatrix
from hybridsearch.errors import IndexCorruptedError
from hybridsearch.vectors import DenseVectors, Metric

METRICS = get_args(Metric)


def oracle(array: NDArray[np.float32], query: NDArray[np.float32], metric: Metric) -> NDArray[np.float64]:
    """The scores in extended precision. Rows that are not hits have -inf."""
    x, q = array.astype(np.longdouble), query.astype(np.longdouble)
    scores = -np.sqrt(((x - q) ** 2).sum(axis=1)) if metric == "euclidean" else (x * q).sum(axis=1)
    scores[~array.any(axis=1)] = -np.inf
    return scores.astype(np.float64)


def random_matrix(rows: int, dimensions: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((rows, dimensions), dtype=np.float32)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("rows", [1, 9, 1000, 40_000])
def test_hits_are_those_of_a_full_sort_in_float64(metric: Metric, rows: int) -> None:
    array = random_matrix(rows, 48)
    order = np.random.default_rng(1).permutation(rows).astype(np.int32)
    matrix = DenseMatrix.from_vectors(DenseVectors(array, metric))
    for query in random_matrix(3, 48, seed=2):
        [(found, scores)] = matrix.search(query[None], 10, order, None)
        expected = oracle(array, query, metric)
        assert found.tolist() == np.lexsort((order, -expected))[:10].tolist()
        assert scores == pytest.approx(expected[found], rel=1e-12)


@given(st.data())
def test_close_scores_ties_zeros_and_extreme_scales_are_ordered_exactly(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    metric = data.draw(st.sampled_from(METRICS))
    base = rng.integers(-2, 3, size=(5, 4)).astype(np.float32)
    scale = np.float32(data.draw(st.sampled_from([1.0, 1e-30, 1e-42, 1e18, 1e30])))
    with np.errstate(under="ignore"):
        array = base[rng.integers(0, 5, size=300)] * scale
    array[::7] += (rng.random(4) * 1e-7).astype(np.float32) * scale
    query = rng.integers(-2, 3, size=4).astype(np.float32)
    k = data.draw(st.integers(1, 400))
    order = rng.permutation(300).astype(np.int32)
    allowed = None if data.draw(st.booleans()) else rng.random(300) < data.draw(st.sampled_from([0.0, 0.05, 0.9]))
    [(found, scores)] = DenseMatrix.from_vectors(DenseVectors(array, metric)).search(query[None], k, order, allowed)
    wide = array.astype(np.float64)
    expected = -np.sqrt(((wide - query) ** 2).sum(axis=1)) if metric == "euclidean" else (wide * query).sum(axis=1)
    possible = array.any(axis=1) & query.any() & (True if allowed is None else allowed)
    rows = np.flatnonzero(possible)
    assert found.tolist() == rows[np.lexsort((order[rows], -expected[rows]))][:k].tolist()
    assert scores == pytest.approx(expected[found], rel=1e-12, abs=0)


@pytest.mark.parametrize("metric", METRICS)
def test_scores_do_not_depend_on_batch_filter_or_segment(metric: Metric) -> None:
    array, queries = random_matrix(20_000, 100), random_matrix(40, 100, seed=3)
    whole = DenseMatrix.from_vectors(DenseVectors(array, metric))
    order = np.arange(20_000, dtype=np.int32)
    together = whole.search(queries, 15, order, None)
    mask = np.zeros(20_000, dtype=np.bool_)
    for query, (rows, scores) in zip(queries, together, strict=True):
        [(alone, alone_scores)] = whole.search(query[None], 15, order, None)
        assert alone.tolist() == rows.tolist()
        assert alone_scores.tolist() == scores.tolist()
        mask[:] = False
        mask[rows] = True
        [(filtered, filtered_scores)] = whole.search(query[None], 15, order, mask)
        assert (filtered.tolist(), filtered_scores.tolist()) == (rows.tolist(), scores.tolist())
        small = DenseMatrix.from_vectors(DenseVectors(array[rows], metric))
        [(_, small_scores)] = small.search(query[None], 15, order[:15], None)
        assert small_scores.tolist() == scores.tolist()


SCALES = [1.0, 1e-3, 1e3, 1e-18, 1e-30, 1e-42, 1e18, 1e30, 3e37]


def adversarial(rng: np.random.Generator, kind: str, rows: int, dimensions: int) -> NDArray[np.float32]:
    """Vectors whose scores are hard to tell apart, or whose codes are coarse."""
    array = rng.standard_normal((rows, dimensions))
    if kind == "ties":
        array = array[rng.integers(0, max(1, rows // 20), rows)]
    elif kind == "near ties":
        array = array[:1] + 1e-7 * array
    elif kind == "whole numbers":
        array = np.rint(array)
    elif kind == "one hot dimension":
        array[:, rng.integers(dimensions)] = 1000 * rng.choice([-1, 1])
    elif kind == "lengths from 1e-20 to 1e20":
        array *= 10.0 ** rng.integers(-20, 21, (rows, 1))
    elif kind == "numbers from 1e-10 to 1e10":
        array *= 10.0 ** rng.integers(-10, 11, (rows, dimensions))
    array[rng.random(rows) < 0.1] = 0
    return array.astype(np.float32)


KINDS = (
    *("random", "ties", "near ties", "whole numbers", "one hot dimension"),
    *("lengths from 1e-20 to 1e20", "numbers from 1e-10 to 1e10"),
)


@pytest.mark.parametrize("compiled", [True, False])
@given(data=st.data())
def test_hits_and_scores_are_to_the_last_bit_those_of_scoring_all_rows(
    compiled: bool, compiled_loops: ModuleType, data: st.DataObject
) -> None:
    """The bounds of int8 codes leave out no hit, whatever the vectors are."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**31)))
    rows = data.draw(st.sampled_from([1, 5, 300, 700]))
    dimensions = data.draw(st.sampled_from([1, 2, 31, 64, 97]))
    metric = data.draw(st.sampled_from(METRICS))
    kind, kind_of_queries = data.draw(st.sampled_from(KINDS)), data.draw(st.sampled_from(KINDS))
    scale, scale_of_queries = data.draw(st.sampled_from(SCALES)), data.draw(st.sampled_from(SCALES))
    k = data.draw(st.sampled_from([1, 3, 100, 1000]))
    with np.errstate(over="ignore", under="ignore"):
        array = adversarial(rng, kind, rows, dimensions) * np.float32(scale)
        queries = adversarial(rng, kind_of_queries, data.draw(st.sampled_from([1, 2, 9])), dimensions)
        queries[: data.draw(st.integers(0, 1))] = array[rng.integers(rows)] / np.float32(scale)
        queries *= np.float32(scale_of_queries)
    array, queries = (np.nan_to_num(part, posinf=3e38, neginf=-3e38) for part in (array, queries))
    order = rng.permutation(rows).astype(np.int32)
    allowed = None if data.draw(st.booleans()) else rng.random(rows) < data.draw(st.sampled_from([0.0, 0.05, 0.9]))
    owners = np.sort(rng.integers(0, rows // 3 + 1, rows)).astype(np.int32) if data.draw(st.booleans()) else None
    matrix = DenseMatrix.from_vectors(DenseVectors(array, metric))
    parts = 3 if data.draw(st.booleans()) else 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loops._fetcher, "kernels", compiled_loops if compiled else None)
        patch.setattr(dense, "_WORTH_SHARING", 0 if parts > 1 else 1 << 40)
        patch.setattr(dense, "_MANY", data.draw(st.sampled_from([0, 128])))
        patch.setattr(dense, "_FEW", data.draw(st.sampled_from([0, 1 << 20])))
        patch.setattr(dense.threads, "WORKERS", parts)
        found = matrix.search(queries, k, order, allowed, owners)
    possible = np.flatnonzero(array.any(axis=1) & (True if allowed is None else allowed))
    for query, (best, scores) in zip(queries, found, strict=True):
        expected, expected_scores = matrix.best(query, possible, k, order, owners)
        assert best.tolist() == expected.tolist()
        assert scores.tobytes() == expected_scores.tobytes()


@given(st.integers(0, 2**31), st.sampled_from(KINDS), st.sampled_from(KINDS), st.sampled_from(METRICS))
def test_each_score_is_between_its_bounds(seed: int, kind: str, kind_of_queries: str, metric: Metric) -> None:
    rng = np.random.default_rng(seed)
    array, queries = adversarial(rng, kind, 50, 33), adversarial(rng, kind_of_queries, 4, 33)
    norms = np.linalg.norm(array.astype(np.float64), axis=1)
    coded = CodedQueries.of(queries, metric, float(norms.max()) * 1.001)
    matrix = DenseMatrix.from_vectors(DenseVectors(array, metric))
    uppers, _ = matrix._rows(None, None, 1).bounds(matrix.codes, coded, 1)
    for query, upper, factors, bounded in zip(queries, uppers, coded.factors, coded.bounded.tolist(), strict=True):
        if not bounded or not query.any():
            continue
        x, q = array.astype(np.longdouble), query.astype(np.longdouble)
        power = np.longdouble(2.0) ** -np.frexp(np.linalg.norm(query.astype(np.float64)))[1]
        scores = ((x * q).sum(axis=1) - (metric == "euclidean") * (x * x).sum(axis=1) / 2) * power
        rows = array.any(axis=1)
        assert (upper[rows] >= scores[rows]).all()
        assert np.isneginf(upper[~rows]).all()
        assert factors[1] <= 1.001  # the bounds are not wider than need be: |q| is 1 at most


@given(st.integers(0, 2**31), st.sampled_from([1, -1]), st.sampled_from(METRICS), st.integers(1, 70))
def test_bounds_hold_where_they_are_reached(seed: int, sign: int, metric: Metric, dimensions: int) -> None:
    """A query along what the codes of a row leave out gives the largest possible error."""
    array = random_matrix(1, dimensions, seed)
    codes = Codes.of(array)
    left_out = array - codes.scales[:, None].astype(np.float64) * codes.values
    query = (sign * left_out).astype(np.float32)
    length = float(np.linalg.norm(query.astype(np.float64)))
    if length < 1e-6:
        return
    matrix = DenseMatrix.from_vectors(DenseVectors(array, metric))
    uppers, floors = matrix._rows(None, None, 1).bounds(matrix.codes, CodedQueries.of(query, metric, 100.0), 1)
    score = float(
        (array.astype(np.float64) * query).sum() - (metric == "euclidean") * (array.astype(float) ** 2).sum() / 2
    )
    score *= 2.0 ** -np.frexp(length)[1]
    assert floors[0] <= score <= uppers[0, 0]


def test_few_rows_are_scored_in_float32() -> None:
    """Without this, the bounds could be as wide as they like."""
    array = random_matrix(20_000, 384)
    array /= np.linalg.norm(array, axis=1, keepdims=True)
    matrix = DenseMatrix.from_vectors(DenseVectors(array))
    [rows] = matrix._near(array[:1] + array[1:2], 100, matrix._rows(None, None, 1))
    assert 100 <= len(rows) < 300


@pytest.mark.parametrize(("stored", "rows", "k"), [(True, 5, 5), (False, 5, 5), (True, 1000, 2)])
def test_a_damaged_vector_is_an_error_that_says_so(stored: bool, rows: int, k: int) -> None:
    """Of 1,000 rows, 100 are allowed. So few are scored approximately at once, which must not hide the damage."""
    matrix = DenseMatrix.from_vectors(DenseVectors(random_matrix(rows, 3)))
    if stored:
        matrix.arrays()  # makes the codes
    matrix.array[2, 1] = np.nan
    allowed = np.arange(rows) < 100
    with pytest.raises(IndexCorruptedError, match="contains NaN"):
        matrix.search(random_matrix(1, 3), k, np.arange(rows, dtype=np.int32), allowed)


def test_all_zero_rows_and_queries_are_no_hits() -> None:
    array = random_matrix(50, 6)
    array[::2] = 0
    for metric in METRICS:
        matrix = DenseMatrix.from_vectors(DenseVectors(array, metric))
        found = matrix.search(np.stack([array[1], np.zeros(6, np.float32)]), 50, np.arange(50, dtype=np.int32), None)
        assert sorted(found[0][0].tolist()) == list(range(1, 50, 2))
        assert len(found[1][0]) == 0


def test_merging_keeps_the_rows_that_are_wanted() -> None:
    array = random_matrix(30, 5)
    matrix = DenseMatrix.from_vectors(DenseVectors(array, "dot"))
    keep = np.arange(30) % 3 == 0
    merged = DenseMatrix.merge([(matrix, keep), (matrix, None)])
    assert np.array_equal(merged.array, np.concatenate([array[keep], array]))
    assert np.array_equal(merged.norms, np.concatenate([matrix.norms[keep], matrix.norms]))
    assert np.array_equal(merged.codes.values, Codes.of(merged.array).values)


def test_an_index_without_codes_is_searched_alike() -> None:
    """Indexes of earlier versions have no codes."""
    matrix = DenseMatrix.from_vectors(DenseVectors(random_matrix(500, 20)))
    arrays = matrix.arrays()
    older = {name: arrays[name] for name in ("vectors", "norms")}
    order, queries = np.arange(500, dtype=np.int32), random_matrix(3, 20, seed=1)
    found = matrix.search(queries, 7, order, None)
    for stored in (arrays, older):
        for (rows, scores), expected in zip(
            DenseMatrix.from_arrays(stored, 500, 20, "cosine").search(queries, 7, order, None), found, strict=True
        ):
            assert (rows.tolist(), scores.tolist()) == (expected[0].tolist(), expected[1].tolist())
    assert DenseMatrix.from_arrays(older, 500, 20, "cosine").arrays().keys() == arrays.keys()


@pytest.mark.parametrize(
    ("metric", "lengths"), [*((metric, "alike") for metric in METRICS), ("dot", "of many magnitudes")]
)
def test_a_graph_finds_nearly_all_hits_with_their_exact_scores(metric: Metric, lengths: str) -> None:
    pytest.importorskip("usearch", reason="pip install 'hybridsearch[hnsw]'")
    rng = np.random.default_rng(0)
    array = random_matrix(3000, 24) * (1 if lengths == "alike" else np.float32(10) ** rng.uniform(-2, 3, (3000, 1)))
    array[::50] = 0
    matrix = DenseMatrix.from_vectors(DenseVectors(array.astype(np.float32), metric))
    matrix.build_graph()
    assert matrix.graph is not None
    assert matrix.graph._small == (lengths == "alike")
    stored = DenseMatrix.from_arrays(matrix.arrays(), 3000, 24, metric)
    order, queries = np.arange(3000, dtype=np.int32), random_matrix(20, 24, seed=5)
    found = 0
    for query, (rows, scores) in zip(queries, matrix.search(queries, 10, order, None), strict=True):
        [(near, near_scores)] = stored.search_graph(query[None], 10, order, None)
        exact = dict(zip(rows.tolist(), scores.tolist(), strict=True))
        found += len(exact.keys() & set(near.tolist()))
        assert all(
            exact.get(row, score) == score for row, score in zip(near.tolist(), near_scores.tolist(), strict=True)
        )
    assert found >= 190


@pytest.mark.parametrize("filled", [0, 1, 3000])
def test_a_graph_that_reaches_too_few_rows_is_left_for_the_exact_search(filled: int) -> None:
    pytest.importorskip("usearch", reason="pip install 'hybridsearch[hnsw]'")
    array = random_matrix(3000, 4)
    array[filled:] = 0
    matrix = DenseMatrix.from_vectors(DenseVectors(array, "dot"))
    matrix.build_graph()
    order, live = np.arange(3000, dtype=np.int32), np.arange(3000) % 2 == 0
    query = random_matrix(1, 4, seed=5)
    for allowed, k in [(None, 3000), (live, 3000), (live, 1499)]:
        [(near, _)], [(exact, _)] = (
            matrix.search_graph(query, k, order, allowed),
            matrix.search(query, k, order, allowed),
        )
        assert len(near) == len(exact)
        assert filled == 3000 or near.tolist() == exact.tolist()
