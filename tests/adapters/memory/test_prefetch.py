"""Tests of what uses inner modules of numba, for the case that these have changed: a hint, and tiles of products."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import hybridsearch as hs
from hybridsearch.adapters.memory import prefetch, tiles

BROKEN = {
    "the import fails": "import numba.extending; del numba.extending.intrinsic",
    "compiling fails": "import numba.extending; numba.extending.intrinsic = lambda function: function",
}

DOCUMENTS = [{"id": f"d{number}", "text": f"wing {'jet ' * (number % 7)}number{number}"} for number in range(60)]
SEARCH = f"""
import json, hybridsearch as hs
from hybridsearch.adapters.memory import loops
loops.warm_up()
search = hs.HybridSearch({{"bm25": hs.BM25()}})
search.index({DOCUMENTS!r}, show_progress_bar=False)
print(json.dumps([[hit.id, hit.retrievers["bm25"].score] for hit in search.search("jet wing", 20)]))
"""


def python(code: str, cache: Path, **environment: str) -> str:
    settings = {**os.environ, "NUMBA_CACHE_DIR": str(cache), **environment}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=settings, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_tested_numba_gives_the_hint() -> None:
    assert prefetch.HAS_HINT


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
def test_without_the_hint_the_kernels_compile_all_the_same(broken: str, tmp_path: Path) -> None:
    code = f"""
{broken}
import numpy as np, numba
from hybridsearch.adapters.memory import prefetch, tiles

@numba.njit
def read(array, position):
    prefetch.prefetch(array, position)
    return array[position]

print(prefetch.HAS_HINT, read(np.arange(3.0, dtype=np.float32), np.uint64(2)))
"""
    assert python(code, tmp_path) == "False 2.0"


def test_without_the_hint_the_hits_are_the_same(tmp_path: Path) -> None:
    search = hs.HybridSearch({"bm25": hs.BM25()})
    search.index(DOCUMENTS, show_progress_bar=False)
    expected = [[hit.id, hit.retrievers["bm25"].score] for hit in search.search("jet wing", 20)]
    assert json.loads(python(SEARCH, tmp_path, NUMBA_DISABLE_JIT="1")) == expected  # interpreted: no compiler, no hint


def test_the_tested_numba_gives_the_tile() -> None:
    assert tiles.HAS_TILE


@pytest.mark.parametrize(
    ("broken", "processor", "made"),
    [*[(broken, "", False) for broken in BROKEN.values()], ("", "", True), ("", "generic", True)],
    ids=[*BROKEN, "as it is", "without AVX2"],
)
def test_a_tile_has_the_sums_of_products(broken: str, processor: str, made: bool, tmp_path: Path) -> None:
    code = f"""
{broken}
import numpy as np, numba
from hybridsearch.adapters.memory import tiles

@numba.njit
def multiply(codes, queries, out):
    tiles.multiply_tile(codes, 1, queries, 2, out, 3)

rng = np.random.default_rng(0)
codes = rng.integers(-127, 128, (5, 70)).astype(np.int8)
queries = rng.integers(-32767, 32768, (9, 70)).astype(np.int16)
out = np.zeros((4, 6), np.int32)
multiply(codes, queries, out)
print(tiles.HAS_TILE, *out.ravel())
"""
    rng = np.random.default_rng(0)
    codes, queries = rng.integers(-127, 128, (5, 70)), rng.integers(-32767, 32768, (9, 70))
    expected = np.zeros((4, 6), np.int64)
    expected[:, 3:5] = queries[2:6, :64] @ codes[1:3, :64].T
    environment = {"NUMBA_CPU_NAME": processor} if processor else {}
    assert python(code, tmp_path, **environment).split() == [str(made), *map(str, expected.ravel().tolist())]
