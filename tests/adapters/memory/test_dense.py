"""Tests of exact dense search, compared with numpy in float64."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hybridsearch.adapters.memory.dense import DenseMatrix
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


@settings(max_examples=min(settings.default.max_examples, 200))
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
