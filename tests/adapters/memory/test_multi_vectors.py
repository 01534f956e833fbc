"""Tests of late interaction in the memory backend, compared with numpy in float64."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hybridsearch.adapters.memory import MemoryBackend, loops, plain
from hybridsearch.adapters.memory.multi_vectors import TokenMatrix, TokenQuery
from hybridsearch.backends import Request, Schema
from hybridsearch.errors import IndexCorruptedError, InvalidArgumentError
from hybridsearch.testing.samples import Item, encode, make_schema
from hybridsearch.vectors import MultiVectors

SCHEMA: Schema = make_schema(frozenset({"multi_vector"}))
DIMENSIONS = 24


def maxsim(vectors: MultiVectors, query: NDArray[np.float32]) -> NDArray[np.float64]:
    """The scores of all rows. A row without vectors has minus infinity."""
    rows = [vectors.of_row(row).astype(np.longdouble) for row in range(len(vectors))]
    wide = query.astype(np.longdouble)
    return np.array([float((row @ wide.T).max(axis=0).sum()) if len(row) else -np.inf for row in rows])


def random_vectors(rng: np.random.Generator, rows: int, dimensions: int, most: int = 7) -> MultiVectors:
    """Rows of 0 to `most` vectors."""
    counts = rng.integers(0, most + 1, rows)
    return MultiVectors.of([rng.standard_normal((count, dimensions)) for count in counts], dimensions)


@given(st.data())
def test_scores_and_order_are_those_of_numpy(compiled_loops: ModuleType, data: st.DataObject) -> None:
    """Vectors of few whole numbers make ties. Near ones differ by less than float32 tells. Scales test the bounds."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    dimensions, rows = data.draw(st.sampled_from([1, 3, 16, 33])), data.draw(st.integers(1, 90))
    vectors = random_vectors(rng, rows, dimensions, data.draw(st.sampled_from([1, 9, 40])))
    kind = data.draw(st.sampled_from(["any", "few", "near"]))
    scale = data.draw(st.sampled_from([1.0, 1e-6, 3e4 if kind == "few" else 100.0]))
    array = vectors.array.astype(np.float32)
    if kind != "any":
        array = rng.integers(-2, 3, array.shape) / np.float32(2)
    if kind == "near":
        array[::3] = np.nextafter(array[::3].astype(np.float16), np.float16(9)).astype(np.float32)
    vectors = MultiVectors((array * np.float32(scale)).astype(np.float16), vectors.offsets)
    query = rng.standard_normal((data.draw(st.sampled_from([1, 2, 16, 17, 40])), dimensions)).astype(np.float32)
    if kind != "any":
        query = np.rint(query)
    query *= np.float32(data.draw(st.sampled_from([1.0, 1e-30, 1e30])))
    k, order = data.draw(st.integers(1, 100)), rng.permutation(rows).astype(np.int32)
    matrix = TokenMatrix.from_vectors(vectors)
    found, scores = matrix.best(TokenQuery.of(query), np.arange(rows), k, order)
    right = maxsim(vectors, query)
    hits = np.flatnonzero(np.isfinite(right)) if query.any() else np.empty(0, np.int64)
    assert len(found) == min(k, len(hits))
    scales = np.linalg.norm(query.astype(np.float64), axis=1).sum() * matrix.longest.astype(np.float64)
    np.testing.assert_allclose(scores, right[found], rtol=0, atol=1e-14 * scales.max(initial=0.0) * dimensions)
    assert found.tolist() == found[np.lexsort((order[found], -scores))].tolist()
    all_scores = matrix.score(TokenQuery.of(query), np.arange(rows))
    if query.any():
        assert found.tolist() == hits[np.lexsort((order[hits], -all_scores[hits]))][:k].tolist()
        assert scores.tobytes() == all_scores[found].tobytes()


@settings(max_examples=min(settings.default.max_examples, 50))
@given(seed=st.integers(0, 2**32), exact=st.booleans())
def test_numpy_and_compiled_loops_agree_but_for_rounding(compiled_loops: ModuleType, seed: int, exact: bool) -> None:
    rng = np.random.default_rng(seed)
    vectors = random_vectors(rng, 40, 33)
    if exact:
        vectors = MultiVectors(np.rint(vectors.array), vectors.offsets)
    rows, number = np.flatnonzero(vectors.counts), int(rng.integers(1, 35))
    query = TokenQuery.of(rng.standard_normal((number, 33)).astype(np.float32))
    shape = len(rows), len(query.blocks) * plain.WIDTH
    found = []
    for loop in (compiled_loops.most_similar, plain.most_similar):
        tops, seconds, places = np.empty(shape, np.float32), np.empty(shape, np.float32), np.empty(shape, np.int32)
        tokens = vectors.array.view(np.uint16)
        for array in (tokens, vectors.offsets):
            array.flags.writeable = False
        loop(tokens, vectors.offsets, rows, query.blocks, 0, len(rows), tops, seconds, places)
        found.append((tops, seconds, places))
    errors = query.errors * 7 * 6  # no vector of 33 normal numbers is longer than 42
    for ours, theirs in zip(found[0][:2], found[1][:2], strict=True):
        assert (np.abs(np.maximum(ours, -1e9) - np.maximum(theirs, -1e9))[:, :number] <= errors).all()
    sure = (found[1][0] - found[1][1])[:, :number] > 2 * errors
    assert (found[0][2][:, :number] == found[1][2][:, :number])[sure].all()


def test_scores_do_not_depend_on_the_loops_or_on_threads(
    compiled_loops: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    matrix = TokenMatrix.from_vectors(random_vectors(rng, 400, 64, most=40))
    query, order = TokenQuery.of(rng.standard_normal((9, 64)).astype(np.float32)), np.arange(400, dtype=np.int32)
    (rows, scores), together = matrix.best(query, np.arange(400), 50, order), matrix.score(query, np.arange(400))
    monkeypatch.setattr("hybridsearch.adapters.memory.multi_vectors._WORTH_SHARING", 1)
    monkeypatch.setattr("hybridsearch.adapters.memory.threads.WORKERS", 5)
    assert matrix.score(query, np.arange(400)).tobytes() == together.tobytes()
    monkeypatch.setattr(loops._fetcher, "kernels", None)
    again, same = matrix.best(query, np.arange(400), 50, order)
    assert (again.tolist(), same.tobytes()) == (rows.tolist(), scores.tobytes())
    alone = [matrix.score(query, np.array([row]))[0] for row in rows.tolist()]
    assert alone == scores.tolist()


def clustered(count: int) -> list[Item]:
    """Items whose means tell little: each has one vector in its own direction, and many in a common one."""
    rng = np.random.default_rng(3)
    items = []
    for number in range(count):
        tokens = rng.standard_normal((6, DIMENSIONS))
        tokens[1:] = np.ones(DIMENSIONS) + 0.1 * tokens[1:]
        tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
        items.append(Item(f"d{number}", tokens=tokens.astype(np.float32)))
    return items


def test_the_documents_with_the_nearest_means_are_compared_whatever_the_segments_are(tmp_path: Path) -> None:
    items = clustered(300)
    one, many = (MemoryBackend(tmp_path / name, multi_vector_candidates=20) for name in ("one", "many"))
    for backend, size in ((one, 300), (many, 60)):
        backend.create(SCHEMA)
        for start in range(0, 300, size):
            backend.upsert(encode(items[start : start + size], SCHEMA))
    vectors = encode(items, SCHEMA).vectors["multi_vector"]
    assert isinstance(vectors, MultiVectors)
    means = vectors.pooled()
    for query in np.random.default_rng(1).standard_normal((5, 2, DIMENSIONS)).astype(np.float32):
        right = maxsim(vectors, query)
        near = np.argsort(-(means @ query.mean(axis=0)))[:20]
        expected = [f"d{row}" for row in near[np.argsort(-right[near])]]
        for backend in (one, many):
            rankings = backend.search([Request("multi_vector", query, k) for k in (10, 20)])
            assert [list(ranking.ids) for ranking in rankings] == [expected[:10], expected]
            (exact,) = backend.search([Request("multi_vector", query, 20, exact=True)])
            assert list(exact.ids) == [f"d{row}" for row in np.argsort(-right)[:20]]
        (deep,) = one.search([Request("multi_vector", query, 200)])
        assert len(deep) == 200
    one.close()
    many.close()


def test_the_capabilities_say_whether_all_documents_are_compared() -> None:
    assert MemoryBackend().capabilities.approximate == {"multi_vector"}
    assert "now 256" in MemoryBackend().capabilities.finds_more["multi_vector"]
    assert MemoryBackend(multi_vector_candidates=None).capabilities.approximate == frozenset()
    with pytest.raises(InvalidArgumentError, match="multi_vector_candidates"):
        MemoryBackend(multi_vector_candidates=0)


def test_token_vectors_are_mapped_from_the_folder_and_damage_is_named(tmp_path: Path) -> None:
    items = [*clustered(4200), Item("none")]
    backend = MemoryBackend(tmp_path / "index")
    backend.create(SCHEMA)
    backend.upsert(encode(items, SCHEMA))
    backend.close()
    again = MemoryBackend(tmp_path / "index")
    again.open()
    assert again.count() == 4201
    (path,) = (tmp_path / "index").glob("segments/*/retriever-0.tokens.npy")
    assert path.stat().st_size < 4200 * 6 * DIMENSIONS * 2 + 1000
    again.close()
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(IndexCorruptedError, match=r"retriever-0\.tokens\.npy"):
        MemoryBackend(tmp_path / "index").open()
    starts = path.with_name("retriever-0.starts.npy")
    content = np.load(starts)
    content[5] = 10**9
    np.save(starts, content)
    with pytest.raises(IndexCorruptedError, match=r"retriever-0\.starts\.npy"):
        MemoryBackend(tmp_path / "index", verify=False).open()
