"""BM25 with a tokenizer of your own."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hybridsearch as hs
from hybridsearch import registry
from hybridsearch.encoders import make_encoder
from hybridsearch.errors import EncodingError, FingerprintMismatchError, InvalidArgumentError


def letters(text: str) -> list[str]:
    return list(text.replace(" ", ""))


def codes(text: str) -> list[str]:
    return re.findall(r"[A-Z]+\d+", text)


def test_a_function_gives_the_terms_as_they_are() -> None:
    encoder = hs.BM25(tokenizer=hs.Tokenizer("codes", codes))
    assert encoder.tokenize("the E13 and The E7, e8") == ["E13", "E7"]
    assert encoder.count_tokens(["E13 E7"]) == [2]
    search = hs.HybridSearch({"codes": encoder})
    search.index([hs.Document("a", "Error E13"), hs.Document("b", "Error E7")])
    assert search.search("What is E7?").ids == ["b"]
    assert "no word" in search.search("What is it?").notes[0]


def test_the_name_is_part_of_the_fingerprint_and_the_function_is_not() -> None:
    one, same, other = (
        hs.BM25(tokenizer=hs.Tokenizer(name, function)).fingerprint()
        for name, function in [("a", letters), ("a", codes), ("b", letters)]
    )
    assert one == same
    assert one.difference(other) == "tokenizer: 'a' against 'b'"
    assert hs.BM25(k1=0.9, tokenizer=hs.Tokenizer("a", letters)).fingerprint() != one


def test_an_index_opens_if_the_name_is_registered_or_the_encoder_is_given(tmp_path: Path) -> None:
    place = tmp_path / "index"
    encoder = hs.BM25(tokenizer=hs.Tokenizer("letters for a test", letters))
    with hs.HybridSearch({"bm25": encoder}, place) as search:
        search.index([hs.Document("a", "xyz"), hs.Document("b", "uvw")])
    with pytest.raises(InvalidArgumentError, match=r"No tokenizer 'letters for a test' is registered: .*retrievers="):
        hs.open(place)
    with pytest.raises(FingerprintMismatchError, match="tokenizer"):
        hs.open(place, retrievers={"bm25": hs.BM25(tokenizer=hs.Tokenizer("others", letters))}).search("y")
    with hs.open(place, retrievers={"bm25": encoder}) as search:
        assert search.search("y").ids == ["a"]
    registry.register("tokenizer", "letters for a test", letters)
    with hs.open(place) as search:
        assert search.search("v").ids == ["b"]
    assert hs.BM25(tokenizer="letters for a test").fingerprint() == encoder.fingerprint()


def test_an_index_opens_by_the_name_that_its_tokenizer_is_registered_under(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry._REGISTERED, "tokenizer", {})
    registry.register("tokenizer", "mine", hs.Tokenizer("another name", letters))
    with hs.HybridSearch({"bm25": hs.BM25(tokenizer="mine")}, tmp_path / "index") as search:
        search.index([hs.Document("a", "xyz")])
    with hs.open(tmp_path / "index") as search:
        assert search.search("y").ids == ["a"]


def test_a_tokenizer_of_another_package_is_found_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        name, value = "cut", "package:cut"

        def load(self) -> Any:
            return letters

    monkeypatch.setattr(registry, "entry_points", lambda group: [Point()] if group == "hybridsearch.tokenizers" else [])
    assert hs.BM25(tokenizer="cut").tokenize("a b") == ["a", "b"]


def test_the_encoder_comes_back_from_its_schema_and_from_pickle() -> None:
    registry.register("tokenizer", "codes for a test", f"{__name__}:codes")
    encoder = hs.BM25(b=0.5, tokenizer="codes for a test", fields={"title": 2, "text": 1})
    again = make_encoder(encoder.schema().encoder or {})
    assert again.fingerprint() == encoder.fingerprint()
    copy = pickle.loads(pickle.dumps(hs.BM25(tokenizer=hs.Tokenizer("codes", codes))))  # noqa: S301
    assert copy.tokenize("E13") == ["E13"]
    assert repr(copy).startswith("BM25(tokenizer=Tokenizer(name='codes'")


@pytest.mark.parametrize("terms", ["ab", None, 7, ["a", ""], ["a", None], [b"a"]])
def test_a_function_that_gives_no_terms_is_refused(terms: Any) -> None:
    encoder = hs.BM25(tokenizer=hs.Tokenizer("bad", lambda _: terms))
    with pytest.raises(InvalidArgumentError, match=r"The tokenizer 'bad' returned .*"):
        encoder.encode_queries(["a"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tokenizer": lambda text: text.split()}, r"needs a name.*hs\.Tokenizer\("),
        ({"tokenizer": letters}, "needs a name"),
        ({"tokenizer": None}, "a version of the rules, an hs.Tokenizer or the name of a registered one"),
        ({"tokenizer": True}, "not True"),
        ({"tokenizer": "unheard of"}, "No tokenizer 'unheard of' is registered"),
        ({"tokenizer": hs.Tokenizer("l", letters), "stop_words": ["a"]}, r"stop_words=\['a'\] has no effect"),
        ({"tokenizer": hs.Tokenizer("l", letters), "language": "german"}, "language='german' has no effect"),
    ],
)
def test_a_tokenizer_that_is_none_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        hs.BM25(**arguments)


@pytest.mark.parametrize(("name", "function"), [("", str.split), (" ", str.split), (None, str.split), ("a", "b")])
def test_a_tokenizer_has_a_name_and_a_function(name: Any, function: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="tokenizer"):
        hs.Tokenizer(name, function)


def test_a_function_that_fails_is_named_with_its_text() -> None:
    def failing(text: str) -> list[str]:
        raise KeyError(text)

    search = hs.HybridSearch({"bm25": hs.BM25(tokenizer=hs.Tokenizer("mine", failing))})
    with pytest.raises(EncodingError, match="The tokenizer 'mine' failed on the text 'wing': KeyError: 'wing'"):
        search.upsert({"id": "a", "text": "wing"})


def test_terms_become_plain_strings_of_valid_unicode() -> None:
    terms = hs.Tokenizer("numpy", lambda text: np.array(text.split()))("red fox")
    assert [(type(term), term) for term in terms] == [(str, "red"), (str, "fox")]
    with pytest.raises(InvalidArgumentError, match="lone surrogate"):
        hs.Tokenizer("bad", lambda _: ["\ud800"])("x")
