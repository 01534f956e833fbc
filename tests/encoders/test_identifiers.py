"""Names in code, part numbers and quantities are found whole and by their parts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import server_of

from hybridsearch import BM25, Document, HybridSearch
from hybridsearch.encoders.identifiers import may_hold_identifiers, parts_of, wholes_of, without_signed_names

TEXTS = {
    "user": "get_user_by_id returns a row",
    "prose": "The function that gets a user by an id: get user id, user id",
    "factory": "HttpClientFactory makes connections",
    "clients": "An http client of the factory, another http client factory",
    "part": "AB-1234/5 is out of stock",
    "drawer": "AB, 1234 and 5 are in the drawer of 1234 AB 5",
    "machine": "Built for x86_64 and arm64",
    "dose": "Take 10mg at night",
    "c++": "Templates of C++ are hard",
    "c#": "Generics of C# and F#",
    "net": "Runs on .NET 8",
    "fishing": "A net for fish",
    "protein": "p53 is a protein",
    "patients": "53 patients",
    "host": "Send it to www.example.com, or to someone@example.org",
}


CASES: list[tuple[str, str | None, set[str]]] = [  # query, first document, other documents
    ("get_user_by_id", "user", {"prose"}),
    ("getUserById", None, {"user", "prose"}),
    ("user", None, {"user", "prose"}),
    ("HttpClientFactory", "factory", {"clients"}),
    ("httpclientfactory", "factory", set()),
    ("client factory", None, {"clients", "factory"}),
    ("AB-1234/5", "part", {"drawer"}),
    ("ab-1234/5", "part", {"drawer"}),
    ("1234", None, {"drawer", "part"}),
    ("x86", "machine", set()),
    ("x86_64", "machine", set()),
    ("mg", "dose", set()),
    ("10mg", "dose", set()),
    ("10 mg", "dose", set()),
    ("C++", "c++", set()),
    ("c#", "c#", set()),
    ("F#", "c#", set()),
    (".net", "net", {"fishing"}),
    ("p53", "protein", set()),
    ("www.example.com", "host", set()),
    ("someone@example.org", "host", set()),
]


def check(search: HybridSearch, cases: list[tuple[str, str | None, set[str]]]) -> None:
    for (query, first, others), results in zip(cases, search.search_many([case[0] for case in cases]), strict=True):
        assert set(results.ids) == others | ({first} if first else set()), query
        assert first in (None, results.ids[0]), query


def make(place: str) -> HybridSearch:
    search = HybridSearch({"bm25": BM25()}, place)
    search.index([Document(id, text) for id, text in TEXTS.items()])
    return search


@pytest.fixture(scope="module")
def in_memory() -> HybridSearch:
    return make("memory")


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_an_identifier_is_found_first_and_its_parts_find_it(
    in_memory: HybridSearch, case: tuple[str, str | None, set[str]]
) -> None:
    check(in_memory, [case])


@pytest.mark.parametrize("engine", ["opensearch", "elasticsearch"])
def test_servers_find_the_same_identifiers_and_single_characters(
    engine: str, lucene_names: Callable[[str, str], str]
) -> None:
    with make(lucene_names(server_of(engine), "identifiers")) as search:
        check(search, CASES)
        search.upsert([Document("cat", "黒い猫が好きです"), Document("word", "수입품 목록")])
        check(search, [("猫", "cat", set()), ("입", "word", set()), ("黒い猫", "cat", set())])


def test_without_identifiers_words_are_what_they_were() -> None:
    encoder = BM25(identifiers=False)
    text = "get_user_by_id HttpClientFactory C++ 10mg AB-1234/5"
    assert encoder.tokenize(text) == ["get_user_by_id", "httpclientfactori", "c", "10mg", "ab", "1234", "5"]
    assert encoder.tokenize(text) == BM25(tokenizer=2).tokenize(text)


def test_ordinary_hyphens_slashes_numbers_and_capitals_make_no_identifiers() -> None:
    text = "State-of-the-art and/or NASA's iron-clad Mach 1.5 at 12 o'clock. Over."
    assert BM25(None).tokenize(text) == BM25(None, identifiers=False).tokenize(text)


def test_identifiers_keep_letters_of_other_languages() -> None:
    assert BM25(None).tokenize("größeÄndern") == ["grösseändern", "grösse", "ändern"]
    assert BM25(None, fold_accents=True).tokenize("Übersicht_2") == ["ubersicht_2", "ubersicht", "2"]
    assert BM25(None).tokenize("Python言語v3入門") == ["python", "言", "語", "言語", "v3", "入", "門", "入門"]


def test_a_query_does_not_ask_for_parts_that_are_one_letter_or_a_number() -> None:
    assert BM25().encode_queries(["p53 mRNA 10mg"])[0].terms == ("p53", "mrna", "10mg")
    assert set(BM25().tokenize("p53 mRNA 10mg")) == {"p53", "53", "mrna", "rna", "10mg", "10", "mg"}


SIGNS = st.text(st.sampled_from("aZbQ1_+#-./:>&@\\ éÉ") | st.characters(exclude_categories=["Cs"]), max_size=12)


@given(SIGNS)
def test_the_fast_test_for_identifiers_misses_none(text: str) -> None:
    if not may_hold_identifiers(text):
        assert not [*wholes_of(text), *parts_of(text), *parts_of(text, of_query=True)]
        assert without_signed_names(text) == text


@given(SIGNS, st.booleans())
def test_identifiers_only_add_terms_apart_from_names_by_sign(text: str, lowercase: bool) -> None:
    plain, more = (BM25(None, identifiers=flag, lowercase=lowercase).tokenize(text) for flag in (False, True))
    assert all(more)
    if without_signed_names(text) == text:
        assert not [term for term in plain if term not in more]


@given(st.lists(st.text(st.sampled_from("abcXYZ0123"), min_size=1, max_size=5), min_size=2, max_size=5))
def test_the_parts_of_a_name_with_underscores_find_it(parts: list[str]) -> None:
    name = "_".join(parts)
    asked = set(BM25(None).encode_queries([name])[0].terms)
    terms = set(BM25(None).tokenize(name))
    assert name.lower() in asked & terms
    assert asked <= terms
    for part in parts:
        assert part.lower() in terms


@pytest.mark.parametrize("data", ["a" * 10**6, "aB" * 10**5, "1a" * 10**5, "a-" * 10**5, "_" * 10**6, "é+" * 10**5])
def test_a_long_run_of_characters_takes_linear_time_and_gives_no_long_term(data: str) -> None:
    assert max(map(len, BM25(None).tokenize(data)), default=0) <= 255
