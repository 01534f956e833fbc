"""Character n-grams find misspelt words, and equal plain counting."""

from __future__ import annotations

import json
import pickle
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import server_of

import hybridsearch as hs
from hybridsearch.encoders import Counting, Encoder, make_encoder
from hybridsearch.encoders.spec import make_encoders
from hybridsearch.errors import InvalidArgumentError

DOCUMENTS = [
    hs.Document("boundary", "The laminar boundary layer"),
    hs.Document("lift", "Lift of a wing at low speed"),
    hs.Document("flutter", "Flutter of thin panels"),
    hs.Document("zürich", "Eine Reise nach Zürich"),
    hs.Document("cat", "黒い猫が好きです"),
]


def ngrams(text: str, n: int) -> Counter[str]:
    words = [f"_{word}_" for word in text.casefold().split()]
    return Counter(word[i : i + n] for word in words for i in range(max(1, len(word) - n + 1)))


@given(st.lists(st.text("abcdeé ", max_size=30), max_size=5), st.integers(2, 8))
def test_the_counts_are_those_of_plain_counting(texts: list[str], n: int) -> None:
    encoder = hs.CharNGrams(n)
    vectors = encoder.encode_documents(texts)
    rows = vectors.matrix.toarray()
    for row, text in zip(rows, texts, strict=True):
        plain = ngrams(text.replace("é", "e"), n)
        assert {vectors.vocabulary.terms[i]: row[i] for i in np.flatnonzero(row)} == plain
        query = encoder.encode_queries([text])[0]
        assert dict(zip(query.terms, query.weights.tolist(), strict=True)) == plain


@given(st.text(), st.integers(2, 8))
def test_any_text_gives_ngrams_that_are_not_empty_and_not_long(text: str, n: int) -> None:
    terms = hs.CharNGrams(n).tokenize(text)
    assert all(0 < len(term) <= n for term in terms)
    assert bool(terms) == any(map(str.isalnum, unicodedata.normalize("NFKC", text)))


def test_scores_are_those_of_bm25s() -> None:
    encoder = hs.CharNGrams()
    texts = [document.text for document in DOCUMENTS]
    peer = bm25s.BM25(method="lucene", k1=2.0, b=0.75, dtype="float64")
    peer.index([encoder.tokenize(text) for text in texts], show_progress=False)
    search = hs.HybridSearch({"chars": encoder})
    search.index([hs.Document(document.id, document.text) for document in DOCUMENTS])
    found = search.search("laminer boundry leyer wings", fusion=hs.ScoreFusion("none"))
    expected = dict(zip([d.id for d in DOCUMENTS], peer.get_scores(encoder.tokenize(found.query)), strict=True))
    assert {hit.id: pytest.approx(hit.score, rel=1e-5) for hit in found} == {i: s for i, s in expected.items() if s}


CASES = [
    ("laminer boundry leyer", "boundary"),
    ("fluter of pannels", "flutter"),
    ("SPEEED", "lift"),
    ("Zurich", "zürich"),
    ("zürrich", "zürich"),
    ("猫", "cat"),
    ("黒い猫", "cat"),
]


def check(search: hs.HybridSearch) -> None:
    for (query, first), results in zip(CASES, search.search_many([query for query, _ in CASES]), strict=True):
        assert results.ids[0] == first, query


def test_misspelt_words_and_single_characters_find_the_right_ones(tmp_path: Path) -> None:
    with hs.HybridSearch({"bm25": hs.BM25(), "chars": hs.CharNGrams()}, tmp_path / "index") as search:
        search.index(DOCUMENTS)
        check(search)
        assert "chars: the query has no word" in " ".join(search.search("?!").notes)
    with hs.open(tmp_path / "index") as search:
        assert repr(search.retrievers["chars"]) == "CharNGrams(n=4, k1=2.0, b=0.75)"
        check(search)


@pytest.mark.parametrize("engine", ["opensearch", "elasticsearch"])
def test_servers_rank_as_the_embedded_engine_does(engine: str, lucene_names: Callable[[str, str], str]) -> None:
    here = hs.HybridSearch({"chars": hs.CharNGrams()})
    here.index(DOCUMENTS)
    with hs.HybridSearch({"chars": hs.CharNGrams()}, lucene_names(server_of(engine), "chars")) as there:
        there.index(DOCUMENTS)
        check(there)
        for query, _ in CASES:
            assert there.search(query).ids == here.search(query).ids


def test_the_encoder_comes_back_from_json_and_from_pickle() -> None:
    encoder = hs.CharNGrams(np.int64(3), k1=1.0, b=0.5)
    schema = encoder.schema()
    assert schema.kind == "lexical"
    for copy in (make_encoder(json.loads(json.dumps(schema.encoder))), pickle.loads(pickle.dumps(encoder))):  # noqa: S301
        assert isinstance(copy, Encoder)
        assert copy.fingerprint() == encoder.fingerprint()
        assert repr(copy) == repr(encoder)
    others = [hs.CharNGrams(), hs.CharNGrams(3, b=0.5), hs.CharNGrams(3, k1=1.0)]
    assert len({one.fingerprint().digest for one in [encoder, *others]}) == 4


def test_the_encoder_counts_words_for_passages() -> None:
    encoder = hs.CharNGrams()
    assert isinstance(encoder, Counting)
    assert encoder.count_tokens(["The laminar layer", ""]) == [3, 0]
    assert encoder.max_tokens is None


def test_the_places_are_words_of_which_at_least_a_third_matched() -> None:
    encoder = hs.CharNGrams()
    text = "The laminar boundary, the boundless laminate of Zürich, and a border line."
    terms = dict.fromkeys(encoder.tokenize("laminer boundry zurick"), 1.0)
    (places,) = encoder.locate([text], [terms])
    assert {text[place.start : place.end] for place in places} == {
        "laminar",
        "boundary",
        "boundless",
        "laminate",
        "Zürich",
    }
    assert {place.term for place in places} <= terms.keys()
    assert encoder.locate([text], [{}]) == [[]]


@pytest.mark.parametrize("arguments", [{"n": 1}, {"n": 9}, {"n": 2.5}, {"k1": -1}, {"b": 2}])
def test_an_argument_outside_its_range_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        hs.CharNGrams(**arguments)


def test_the_command_line_knows_the_retriever() -> None:
    assert repr(make_encoders("bm25,chars", "english")["chars"]) == repr(hs.CharNGrams())
    with pytest.raises(InvalidArgumentError, match="chars takes no model"):
        make_encoders("chars=3", "english")


def test_fusion_with_bm25_lowers_no_clean_queries(data_folder: Path) -> None:
    dataset = hs.load_dataset(str(data_folder / "cranfield"))
    search = hs.HybridSearch({"bm25": hs.BM25(), "chars": hs.CharNGrams()})
    search.index(dataset.corpus)
    alone = hs.evaluate(hs.Pipeline(search, retrievers=["bm25"]), dataset)
    both = hs.evaluate(search, dataset)
    assert both.means["nDCG@10"].mean >= alone.means["nDCG@10"].mean >= 0.385
