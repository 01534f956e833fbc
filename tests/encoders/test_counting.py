"""Texts become the same term frequencies by compiled loops, by Arrow and one text at a time."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridsearch import BM25, CharNGrams
from hybridsearch.encoders import counting
from hybridsearch.encoders.identifiers import ordinary_word
from hybridsearch.encoders.tokens import Rules, stop_words_of
from hybridsearch.vectors import SparseVectors

Bytes = tuple[bytes, ...]


@pytest.fixture(scope="module")
def kernels() -> ModuleType:
    counting.warm_up()
    found = counting.LOOPS.load()
    assert found is not None
    return found


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small batches take the way of large ones, too."""
    monkeypatch.setattr(counting, "_LONG", -1)
    monkeypatch.setattr(counting, "_MANY", 3)


def content(vectors: SparseVectors) -> Bytes:
    matrix = vectors.matrix
    arrays = [part for array in (matrix.data, matrix.indices, matrix.indptr) for part in (array.dtype.str, array)]
    return tuple(bytes(part, "ascii") if isinstance(part, str) else part.tobytes() for part in arrays) + tuple(
        term.encode() for term in vectors.vocabulary.terms
    )


def encoded(encoder: Any, batches: Sequence[Sequence[str]], kernels: ModuleType | None) -> list[Bytes]:
    """Each batch, by one encoder that remembers the chunks of earlier batches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting._fetcher, "kernels", kernels)
        patch.setattr(counting._fetcher, "_over", True)
        return [content(encoder.encode_documents(batch)) for batch in batches]


SPACES = st.sampled_from([chr(code) for code in range(0x3001) if chr(code).isspace()])
NEAR_SPACES = st.sampled_from(
    "\x00\x08\x0e\x1b\x7f\x80\x84\x86\x9f\xa1\u167f\u1681\u180e\u200b\u200c\u2027\u202a\u2030\u3001"
)
WORDS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.text("aB,.( ", max_size=6),
    st.sampled_from(["wing", "Wings,", "(lift)", "get_user", "C++", "10mg", "HTTPServer", "1.5", "state-of-the-art"]),
    st.sampled_from(["I", "İ", "’", "ü" * 65]),
    st.sampled_from(
        ["naïve", "東京タワー", "Straße", "هذا", "ท่วม", "𝒳𝓎", "é" * 40, "x" * 64, "x" * 65, "ü" * 64, "ü" * 65]
    ),
    st.builds("abcdefghijklmnopqrstuvwxyz".__getitem__, st.builds(slice, st.integers(0, 3), st.integers(3, 26))),
    st.builds(lambda word, at: f"{word[:at]}\0{word[at:]}", st.text("ab", max_size=17), st.integers(0, 17)),
)
TEXTS = st.lists(st.one_of(WORDS, SPACES, NEAR_SPACES, st.just(" ")), max_size=25).map("".join)
BATCHES = st.lists(st.lists(TEXTS, min_size=1, max_size=6), min_size=1, max_size=4)


@given(batches=BATCHES, language=st.sampled_from(["english", "turkish", "french", None]), identifiers=st.booleans())
@pytest.mark.usefixtures("large")
def test_compiled_loops_arrow_and_single_texts_give_the_same_bytes(
    kernels: ModuleType, batches: list[list[str]], language: str | None, identifiers: bool
) -> None:
    ways = [encoded(BM25(language, identifiers=identifiers), batches, way) for way in (kernels, None)]
    assert ways[0] == ways[1]
    encoder = BM25(language, identifiers=identifiers)
    for texts in batches:
        counts = [Counter(encoder.tokenize(text)) for text in texts]
        found = encoder.encode_documents(texts)
        assert found.vocabulary.terms == tuple(sorted({term for count in counts for term in count}))
        rows = [dict(zip(found.matrix[[i]].indices, found.matrix[[i]].data, strict=True)) for i in range(len(texts))]
        assert [{found.vocabulary.terms[c]: n for c, n in row.items()} for row in rows] == counts


@given(batches=BATCHES, encoder=st.sampled_from([BM25, CharNGrams]))
def test_short_texts_and_n_grams_have_the_same_bytes_once_the_loops_are_read(
    kernels: ModuleType, batches: list[list[str]], encoder: Callable[[], Any]
) -> None:
    assert encoded(encoder(), batches, kernels) == encoded(encoder(), batches, None)


@pytest.mark.parametrize("file", ["scifact/corpus.jsonl", "medquad/pairs.jsonl", "cranfield/corpus.jsonl"])
def test_they_give_the_same_bytes_for_real_texts(kernels: ModuleType, data_folder: Path, file: str) -> None:
    with (data_folder / file).open(encoding="utf-8") as lines:
        texts = [" ".join(map(str, json.loads(line).values())) for line in islice(lines, 1500)]
    batches = [texts[at : at + 700] for at in range(0, len(texts), 700)]
    encoder = BM25()
    assert encoded(encoder, batches, kernels) == encoded(BM25(), batches, None)
    assert encoded(encoder, batches[:2], kernels) == encoded(encoder, batches[:2], None)


@pytest.mark.usefixtures("large")
def test_a_table_that_grows_keeps_its_chunks(kernels: ModuleType) -> None:
    """There are more chunks than slots at first, of all lengths, and also with the same first sixteen bytes."""
    words = [f"{'x' * (number % 40)}{number}" for number in range(30_000)]
    batches = [[" ".join(words[at : at + 5000])] for at in range(0, len(words), 5000)]
    assert encoded(BM25(), batches * 2, kernels) == encoded(BM25(), batches * 2, None)


@pytest.mark.usefixtures("large")
def test_chunks_with_the_same_hash_are_told_apart(kernels: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long chunk has its hash and its length in its slot. Here another chunk of this length has the same hash."""
    counter = BM25()._documents
    one, other, third = ("a" * 20, "b" * 20, "c" * 16)
    counter._table.counted([f"{one} {third}"], kernels)
    slots, keys, _ = counter._table._table
    encoder = BM25()
    encoder._documents = counter
    keys[:20] = np.frombuffer(other.encode(), np.uint8)  # as if `other` had made this entry
    vectors = encoder.encode_documents([f"{one} {third}"])
    assert counter._table.chunks == 3  # `one` is new
    assert sorted(vectors.vocabulary.terms) == [one, third]
    assert int((slots[:, 2] > 0).sum()) == 3


@pytest.mark.usefixtures("large")
def test_an_error_in_the_rules_leaves_no_chunk_without_terms(
    kernels: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = BM25()
    table = encoder._documents._table
    terms_of = table._terms_of

    def interrupted(chunk: str) -> Any:
        if chunk == "wing":
            raise KeyboardInterrupt
        return terms_of(chunk)

    monkeypatch.setattr(counting._fetcher, "kernels", kernels)
    monkeypatch.setattr(table, "_terms_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        encoder.encode_documents(["lift wing flow"])
    monkeypatch.setattr(table, "_terms_of", terms_of)
    assert encoder.encode_documents(["flow wing"]).vocabulary.terms == ("flow", "wing")


@pytest.mark.usefixtures("large")
def test_threads_share_a_table(kernels: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting._fetcher, "kernels", kernels)
    rng = np.random.default_rng(0)
    batches = [[" ".join(f"w{n}" for n in rng.integers(3000, size=400)) for _ in range(5)] for _ in range(40)]
    shared, start = BM25(), threading.Barrier(4)

    def work(own: Sequence[Sequence[str]]) -> list[Bytes]:
        start.wait()
        return [content(shared.encode_documents(batch)) for batch in own]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(work, [batches[number::4] for number in range(4)]))
    assert found == [encoded(BM25(), batches[number::4], None) for number in range(4)]


def test_no_call_compiles_anything_more(kernels: ModuleType) -> None:
    encoder = BM25()
    encoded(encoder, [["wing " * 9000], ["wing lift " * 9000, "x" * 70]], kernels)
    assert [len(getattr(kernels, name).signatures) for name in ("find_chunks", "count_terms", "sort_rows")] == [1] * 3


@given(
    word=st.from_regex(r"\A\(*([A-Z]?[a-z]*|[A-Z]+|[0-9]+)[.,:;)]*\Z"),
    language=st.sampled_from(["english", "turkish", "french", None]),
    lowercase=st.booleans(),
    of_query=st.booleans(),
)
def test_ordinary_words_have_the_terms_that_all_words_have(
    word: str, language: str | None, lowercase: bool, of_query: bool
) -> None:
    for identifiers in (False, True):
        rules = Rules(language, stop_words_of(language), lowercase=lowercase, identifiers=identifiers)
        split, stem = rules.splitter(of_query=of_query), rules.stemmer()
        assert rules.terms_maker(of_query=of_query)(word) == list(filter(None, map(stem, split(word))))


@pytest.mark.parametrize(
    "text", ["mRNA", "C++", ".NET", "a1", "1.5", "x_y", "word's", "wörd", "１２", "", "()", "a.b", "[a]", "٣"]
)
def test_other_texts_are_no_ordinary_words(text: str) -> None:
    assert ordinary_word(text) == ""


def test_indexing_that_takes_long_reads_the_compiled_loops(kernels: ModuleType) -> None:
    code = """
import sys
import hybridsearch as hs
from hybridsearch.encoders import counting
counting._fetcher.patience = -1
encoder = hs.BM25()
texts = [f"wing{number} lift and drag" for number in range(3000)]
before = encoder.encode_documents(texts)
counting._fetcher._thread.join()
after = encoder.encode_documents(texts)
print(counting._fetcher.kernels is not None, (before.matrix != after.matrix).nnz, "numba" in sys.modules)
"""
    assert program(code) == "True 0 True"


def test_few_texts_load_no_compiler() -> None:
    code = "import sys, hybridsearch as hs; hs.BM25().encode_documents(['wing'] * 9000); print('numba' in sys.modules)"
    assert program(code) == "False"


def test_a_forked_process_makes_its_own_table(kernels: ModuleType, in_a_fork: Callable[..., Any]) -> None:
    """A thread of the parent may be in the middle of a change to the table."""
    encoder, texts = BM25(), ["wing lift " * 3000]
    before = str(encoded(encoder, [texts], kernels))
    assert encoder._documents._table.chunks == 2
    assert in_a_fork(lambda: encoder._documents._table.chunks) == 0
    assert in_a_fork(lambda: str(encoded(encoder, [texts], kernels))) == before


def program(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()
