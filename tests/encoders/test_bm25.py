"""BM25 agrees with bm25s and rank-bm25, and its encoder with plain counting."""

from __future__ import annotations

import itertools
import json
import math
import pickle
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from pathlib import Path
from typing import Any, get_args

import bm25s
import ir_measures
import numpy as np
import pytest
import rank_bm25
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import hybridsearch as hs
from hybridsearch import BM25
from hybridsearch.encoders import Encoder, counting, make_encoder
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.ranking import Ranking
from hybridsearch.vectors import SparseVectors
from hybridsearch.weighting import BM25Weighting, Variant

TEXTS = [
    "the wing of a wing lifts",
    "flow past a wing at high speed",
    "boundary layer flow and heat flow and more flow",
    "heat",
    "the boundary of the wing",
    "speed of sound",
    "sound waves past a wing at speed",
]
QUERY = ["flow", "wing", "flow", "heat", "boundary", "sound"]
PLAIN = BM25(None)


def scores(
    weighting: BM25Weighting, vectors: SparseVectors, query: list[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The scores of all documents in float64, and the idf of each term."""
    matrix = vectors.matrix
    lengths = np.asarray(matrix.sum(axis=1), dtype=np.float32)
    weighted = matrix.copy()
    weighted.data = weighting.term_weights(
        matrix.data, np.repeat(lengths, np.diff(matrix.indptr)), float(lengths.mean(dtype=np.float64))
    )
    idf = weighting.idf(np.bincount(matrix.indices, minlength=matrix.shape[1]), matrix.shape[0])
    asked = np.zeros(matrix.shape[1])
    for term, count in Counter(query).items():
        if term in vectors.vocabulary.index:
            asked[vectors.vocabulary.index[term]] = count
    return weighted.astype(np.float64) @ (asked * idf), idf


def of_missing_terms(weighting: BM25Weighting, vectors: SparseVectors) -> NDArray[np.float64]:
    """What bm25s and rank-bm25 add to each document for query terms that it does not have (tf = 0)."""
    k1, delta = weighting.k1, weighting.delta or 0.0
    at_zero = {"bm25l": (k1 + 1) * delta / (k1 + delta), "bm25+": delta}.get(weighting.variant, 0.0)
    _, idf = scores(weighting, vectors, QUERY)
    held = vectors.matrix.toarray() > 0
    columns = [vectors.vocabulary.index[term] for term in QUERY]
    return (~held[:, columns] * idf[columns] * at_zero).sum(axis=1)


@pytest.mark.parametrize("variant", get_args(Variant))
@pytest.mark.parametrize(("k1", "b"), [(1.2, 0.75), (0.9, 0.4), (2.0, 1.0), (0.5, 0.0)])
def test_every_variant_equals_bm25s_up_to_its_scores_for_missing_terms(variant: Variant, k1: float, b: float) -> None:
    weighting = BM25Weighting(variant, k1, b)
    vectors = PLAIN.encode_documents(TEXTS)
    peer = bm25s.BM25(method=variant, k1=k1, b=b, delta=weighting.delta or 0.5, dtype="float64")
    peer.index([PLAIN.tokenize(text) for text in TEXTS], show_progress=False)
    ours, _ = scores(weighting, vectors, QUERY)
    np.testing.assert_allclose(ours + of_missing_terms(weighting, vectors), peer.get_scores(QUERY), rtol=1e-6)


def test_bm25_plus_equals_rank_bm25_up_to_its_scores_for_missing_terms() -> None:
    weighting = BM25Weighting("bm25+", 1.5, 0.75)
    vectors = PLAIN.encode_documents(TEXTS)
    peer = rank_bm25.BM25Plus([PLAIN.tokenize(text) for text in TEXTS], k1=1.5, b=0.75)
    ours, _ = scores(weighting, vectors, QUERY)
    np.testing.assert_allclose(ours + of_missing_terms(weighting, vectors), peer.get_scores(QUERY), rtol=1e-6)


def test_bm25l_equals_rank_bm25_where_its_extra_factor_of_the_frequency_is_one() -> None:
    texts = [" ".join(dict.fromkeys(text.split())) for text in TEXTS]
    peer = rank_bm25.BM25L([text.split() for text in texts], k1=1.5, b=0.75)
    ours, _ = scores(BM25Weighting("bm25l", 1.5, 0.75), PLAIN.encode_documents(texts), QUERY)
    np.testing.assert_allclose(ours, peer.get_scores(QUERY), rtol=1e-6)


def test_atire_equals_rank_bm25_okapi_given_the_same_idf() -> None:
    weighting = BM25Weighting("atire", 1.5, 0.75)
    vectors = PLAIN.encode_documents(TEXTS)
    peer = rank_bm25.BM25Okapi([PLAIN.tokenize(text) for text in TEXTS], k1=1.5, b=0.75)
    ours, idf = scores(weighting, vectors, QUERY)
    peer.idf = dict(zip(vectors.vocabulary.terms, idf, strict=True))  # its formula is robertson's with another minimum
    np.testing.assert_allclose(ours, peer.get_scores(QUERY), rtol=1e-6)


def test_the_idf_of_robertson_is_that_of_rank_bm25_where_neither_floors_it() -> None:
    vectors = PLAIN.encode_documents(TEXTS)
    idf = BM25Weighting("robertson").idf(np.bincount(vectors.matrix.indices), len(TEXTS))
    other = rank_bm25.BM25Okapi([PLAIN.tokenize(text) for text in TEXTS]).idf
    above = [i for i, value in enumerate(idf) if value > 0]
    assert len(above) > 10
    np.testing.assert_allclose(idf[above], [other[vectors.vocabulary.terms[i]] for i in above])


def test_a_term_in_most_documents_never_counts_against_one() -> None:
    for variant in get_args(Variant):
        assert BM25Weighting(variant).idf(np.array([9, 10]), 10).min() >= 0


def test_a_weight_depends_on_its_own_inputs_alone() -> None:
    rng = np.random.default_rng(0)
    tf, length = rng.integers(1, 50, 1000).astype(np.float32), rng.integers(50, 900, 1000).astype(np.float32)
    for variant in get_args(Variant):
        weighting = BM25Weighting(variant)
        whole = weighting.term_weights(tf, length, 217.3)
        parts = [weighting.term_weights(tf[i : i + 7], length[i : i + 7], 217.3) for i in range(0, 1000, 7)]
        assert whole.dtype == np.float32
        np.testing.assert_array_equal(whole, np.concatenate(parts))
        idf = weighting.idf(np.arange(1, 501), 1000)
        np.testing.assert_array_equal(idf, [weighting.idf(np.array([n]), 1000)[0] for n in range(1, 501)])


@pytest.mark.parametrize("variant", get_args(Variant))
@given(tf=st.floats(0.125, 1e6, width=32), length=st.floats(1, 1e6, width=32), k1=st.floats(0.01, 5), b=st.floats(0, 1))
def test_no_weight_exceeds_the_largest(variant: Variant, tf: float, length: float, k1: float, b: float) -> None:
    weighting = BM25Weighting(variant, k1, b)
    weight = weighting.term_weights(np.float32([tf]), np.float32([length]), 10.0)[0]
    assert weight <= weighting.largest * (1 + 1e-5)
    most = weighting.term_weights(np.float32([1e9]), np.float32([10]), 10.0)[0]
    assert most == pytest.approx(weighting.largest, rel=1e-4)


def test_nothing_divides_by_zero_where_all_documents_are_empty() -> None:
    empty = np.zeros(0, dtype=np.float32)
    for variant in get_args(Variant):
        assert BM25Weighting(variant).term_weights(empty, empty, 0.0).shape == (0,)


@pytest.mark.parametrize(
    "arguments",
    [
        {"variant": "okapi"},
        {"k1": -0.1},
        {"k1": math.inf},
        {"k1": math.nan},
        {"k1": "1.2"},
        {"b": 1.1},
        {"b": True},
        {"delta": 0.5},
        {"variant": "bm25l", "delta": -1.0},
        {"language": "klingon"},
        {"stop_words": "the"},
        {"stop_words": [1]},
        {"stop_words": None},
        {"stemming": "no"},
        {"bigrams": None},
    ],
)
def test_an_argument_outside_its_range_is_refused_by_name(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match=next(reversed(arguments))):
        BM25(**arguments)


def test_an_unknown_language_is_answered_with_the_known_ones() -> None:
    with pytest.raises(InvalidArgumentError, match=r"'en'.*english.*swedish.*None"):
        BM25("en")


def test_documents_become_term_counts_whose_sum_is_their_length() -> None:
    texts = [*TEXTS, "", "  ", "wing"]
    vectors = PLAIN.encode_documents(texts)
    assert vectors.matrix.dtype == np.float32
    assert vectors.matrix.has_canonical_format
    assert list(vectors.vocabulary.terms) == sorted(vectors.vocabulary.terms)
    rows = vectors.matrix.toarray()
    for row, text in zip(rows, texts, strict=True):
        found = {vectors.vocabulary.terms[column]: row[column] for column in np.flatnonzero(row)}
        assert found == Counter(text.split())


def test_a_batch_does_not_depend_on_what_was_encoded_before() -> None:
    encoder = BM25()
    fresh = encoder.encode_documents(TEXTS[3:])
    encoder.encode_documents(TEXTS)
    again = encoder.encode_documents(TEXTS[3:])
    assert again.vocabulary.terms == fresh.vocabulary.terms
    assert (again.matrix != fresh.matrix).nnz == 0


@pytest.mark.parametrize("strange", ["", "\ud800 half a character"], ids=["unicode", "not unicode"])
def test_many_texts_get_the_terms_of_each_text_alone(strange: str) -> None:
    """Arrow splits many texts at once, and Python splits one text: at the same spaces, in any script."""
    spaces = [chr(code) for code in range(0x3100) if chr(code).isspace() or code in (0, 0x7F, 0x180E, 0x200B, 0xFEFF)]
    texts = [f" wing{space}flow{space}{space}x86_64 caf\u00e9{space}" for space in spaces] + ["", " ", strange]
    texts += [f"a wing{space}flow" for space in spaces if space.isascii()] + ["w" * 100 + " lift. " * 5_000]
    encoder = BM25()
    for many in (texts, [text for text in texts if text.isascii()]):
        vectors = encoder.encode_documents(many)
        assert vectors.matrix.has_canonical_format
        assert [dict(row) for row in encoder.decode(vectors)] == [Counter(encoder.tokenize(text)) for text in many]


def test_texts_are_split_at_all_white_space_of_unicode_however_many_texts_there_are() -> None:
    """Texts with the usual spaces alone are split in a faster way."""
    spaces = [chr(code) for code in range(0x110000) if chr(code).isspace()]
    assert sorted(counting._RARE_SPACES) == [space for space in spaces if space not in " \t\n\r\v\f"]
    for space in [*spaces, "\u200b"]:
        for word in ("cafe", "caf\u00e9"):
            text = f"{word}{space}wing flow\n" * 2_000
            (row,) = PLAIN.decode(PLAIN.encode_documents([text]))
            assert dict(row) == Counter(PLAIN.tokenize(text))


def test_the_remembered_words_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "MAX_REMEMBERED_CHUNKS", 10)
    encoder = BM25()
    expected = [BM25().tokenize(text) for text in TEXTS]
    assert [encoder.tokenize(text) for text in TEXTS] == expected
    vectors = [encoder.encode_documents([text]) for text in TEXTS]
    assert [Counter(dict(encoder.decode(v)[0])) for v in vectors] == [Counter(terms) for terms in expected]


def test_no_texts_and_no_terms_are_fine() -> None:
    assert PLAIN.encode_documents([]).matrix.shape == (0, 0)
    assert PLAIN.encode_documents(["", "!"]).matrix.shape == (2, 0)
    assert PLAIN.encode_queries([""])[0].terms == ()


def test_queries_hold_distinct_terms_in_order_with_their_counts() -> None:
    query = PLAIN.encode_queries(["flow wing flow heat"])[0]
    assert query.terms == ("flow", "wing", "heat")
    assert query.weights.dtype == np.float32
    assert query.weights.tolist() == [2.0, 1.0, 1.0]
    assert PLAIN.decode(query) == [("flow", 2.0), ("heat", 1.0), ("wing", 1.0)]


@pytest.mark.parametrize("texts", ["one string", [b"bytes"], [None], iter(["read once"]), 5])
def test_texts_that_are_no_list_of_strings_are_refused(texts: Any) -> None:
    for encode in (PLAIN.encode_documents, PLAIN.encode_queries):
        with pytest.raises(InvalidArgumentError, match="texts"):
            encode(texts)


def test_the_progress_bar_writes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(PLAIN.encode_documents(TEXTS, show_progress_bar=True)) == len(TEXTS)
    assert capsys.readouterr().out == ""


CHOICES: list[dict[str, Any]] = [
    {},
    {"language": "german"},
    {"language": None},
    {"variant": "robertson"},
    {"variant": "bm25l"},
    {"variant": "bm25l", "delta": 0.6},
    {"k1": 0.9},
    {"b": 0.4},
    {"stemming": False},
    {"stop_words": False},
    {"stop_words": ["the", "of"]},
    {"lowercase": False},
    {"fold_accents": True},
    {"bigrams": False},
    {"identifiers": False},
    {"tokenizer": 2},
]


def test_every_choice_is_part_of_the_fingerprint() -> None:
    digests = {BM25(**choice).fingerprint().digest for choice in CHOICES}
    assert len(digests) == len(CHOICES)
    one, other = BM25().fingerprint(), BM25(k1=0.9).fingerprint()
    assert one.difference(other) == "k1: 1.2 against 0.9"


def test_the_order_of_stop_words_and_the_spelling_of_numbers_change_nothing() -> None:
    assert BM25(stop_words=["of", "the"]).fingerprint() == BM25(stop_words=("the", "of", "the")).fingerprint()
    assert BM25(stop_words=iter(["of", "the"])).fingerprint() == BM25(stop_words=["of", "the"]).fingerprint()  # type: ignore[arg-type]
    assert BM25(b=1).fingerprint().digest == BM25(b=1.0).fingerprint().digest


@pytest.mark.parametrize("choice", CHOICES)
def test_the_encoder_comes_back_from_json_and_from_pickle(choice: dict[str, Any]) -> None:
    encoder = BM25(**choice)
    schema = encoder.schema()
    assert schema.kind == "lexical"
    assert schema.weighting is not None
    assert BM25Weighting(**schema.weighting) == encoder.weighting
    copies = [make_encoder(json.loads(json.dumps(schema.encoder))), pickle.loads(pickle.dumps(encoder))]  # noqa: S301
    for again in copies:
        assert isinstance(again, Encoder)
        assert again.fingerprint() == encoder.fingerprint()
        assert repr(again) == repr(encoder)


class Reversed(BM25):
    """An encoder that finds words from behind."""

    def __init__(self, mark: str) -> None:
        super().__init__("german", stop_words=False)
        self.mark = mark

    def encode_documents(self, texts: Sequence[str], *, show_progress_bar: bool = False) -> SparseVectors:
        return super().encode_documents([text[::-1] for text in texts])


def test_a_subclass_keeps_its_class_and_is_never_taken_for_bm25(tmp_path: Path) -> None:
    encoder = Reversed("!")
    copies = [pickle.loads(pickle.dumps(encoder)), copy(encoder), encoder.with_synonyms(None)]  # noqa: S301
    for again in copies:
        assert (type(again), again.mark, repr(again)) == (Reversed, "!", "Reversed('german', stop_words=False)")
        assert again.encode_documents(["gulf"]).vocabulary.terms == ("flug",)
    with hs.HybridSearch({"bm25": encoder}, tmp_path / "index") as search:
        search.index([hs.Document("a", "gulf")])
    with pytest.raises(InvalidArgumentError, match=r"'bm25' \(bm25 .* pass it, as in open"):
        hs.open(tmp_path / "index")
    with hs.open(tmp_path / "index", retrievers={"bm25": encoder}) as opened:
        assert opened.search("Flug").ids == ["a"]


def test_the_representation_names_what_differs_from_the_defaults() -> None:
    assert repr(BM25()) == "BM25('english')"
    assert repr(BM25(None, k1=0.9, bigrams=False)) == "BM25(None, k1=0.9, bigrams=False)"


def test_threads_that_encode_at_once_get_what_one_gets() -> None:
    texts = [f"{a} {b} {a}ing" for a, b in itertools.product(["lift", "drag", "flow", "heat"], range(50))]
    expected = BM25().encode_documents(texts)
    encoder = BM25()
    with ThreadPoolExecutor(8) as pool:
        for vectors in pool.map(encoder.encode_documents, [texts] * 16):
            assert vectors.vocabulary.terms == expected.vocabulary.terms
            assert (vectors.matrix != expected.matrix).nnz == 0


@pytest.mark.parametrize(("name", "least"), [("scifact", 0.679), ("cranfield", 0.385)])
def test_real_collections_are_ranked_as_well_as_published(data_folder: Path, name: str, least: float) -> None:
    folder = data_folder / name
    documents = list(map(json.loads, (folder / "corpus.jsonl").read_text("utf-8").splitlines()))
    lines = (folder / "queries.jsonl").read_text("utf-8").splitlines()
    queries = {line["_id"]: line["text"] for line in map(json.loads, lines)}
    rows = [row.split("\t") for row in (folder / "qrels" / "test.tsv").read_text().splitlines()[1:]]
    qrels = [ir_measures.Qrel(query, document, int(grade)) for query, document, grade in rows]
    encoder = BM25()
    vectors = encoder.encode_documents([f"{document.get('title', '')} {document['text']}" for document in documents])
    run = []
    for query in {qrel.query_id for qrel in qrels}:
        found, _ = scores(encoder.weighting, vectors, encoder.tokenize(queries[query]))
        hits = [(documents[row]["_id"], found[row]) for row in np.flatnonzero(found > 0)]
        ranking = Ranking.from_scores(hits, k=10)
        run += [ir_measures.ScoredDoc(query, id, 1 / rank) for rank, (id, _) in enumerate(ranking, start=1)]
    ndcg = ir_measures.nDCG @ 10
    assert ir_measures.calc_aggregate([ndcg], qrels, run)[ndcg] >= least
