"""Text in many scripts becomes the terms that its readers would search for."""

from __future__ import annotations

import itertools
import re
import threading
import unicodedata
from collections import defaultdict
from string import ascii_lowercase

import pytest
import Stemmer
from hypothesis import given
from hypothesis import strategies as st
from servers import address_of, call

from hybridsearch import BM25, Document, HybridSearch
from hybridsearch.encoders import make_encoder
from hybridsearch.encoders.stopwords import STOP_WORDS
from hybridsearch.encoders.tokens import LANGUAGES, MAX_WORD, Rules
from hybridsearch.errors import InvalidArgumentError

PLAIN = BM25(None, identifiers=False)


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("", []),
        (" \t\n\x00", []),
        ("Hello, World!", ["hello", "world"]),
        ("state-of-the-art", ["state", "of", "the", "art"]),
        ("O'Neil and ‘rock’n’roll’", ["o'neil", "and", "rock'n'roll"]),
        ("dogs' ''quoted'' _emphasis_ snake_case ___ '", ["dogs", "quoted", "emphasis", "snake_case"]),
        (
            "Python 3.11, 0.05. 1.5mm a.b end.Start ..5",
            ["python", "3.11", "0.05", "1.5mm", "a", "b", "end", "start", "5"],
        ),
        ("co\u00adoperate \ufeffstart", ["cooperate", "start"]),
        ("ﬁnd Ｆｕｌｌ ２０２５ m²", ["find", "full", "2025", "m2"]),
        ("Straße STRASSE", ["strasse", "strasse"]),
        ("cafe\u0301 café", ["café", "café"]),
        ("Ελληνικά ΣΊΣΥΦΟΣ", ["ελληνικά", "σίσυφοσ"]),
        ("Привет, мир", ["привет", "мир"]),
        ("हिन्दी में खोज", ["हिन्दी", "में", "खोज"]),
        ("مُحَمَّد ٢٠٢٥", ["مُحَمَّد", "2025"]),
        ("می\u200cخواهم", ["میخواهم"]),
        ("שָׁלוֹם", ["שָׁלוֹם"]),
        ("東京都", ["東", "京", "都", "東京", "京都"]),
        ("Python言語3.11入門", ["python", "言", "語", "言語", "3.11", "入", "門", "入門"]),
        ("火", ["火"]),
        ("ﾊﾟﾝ・スーパー", ["パ", "ン", "パン", "ス", "ー", "パ", "ー", "スー", "ーパ", "パー"]),
        ("한국어 검색", ["한", "국", "어", "한국", "국어", "검", "색", "검색"]),
    ],
)
def test_terms_without_a_language(text: str, terms: list[str]) -> None:
    assert PLAIN.tokenize(text) == [unicodedata.normalize("NFKC", term) for term in terms]


def test_thai_is_cut_into_pairs_of_letters_that_keep_their_marks() -> None:
    assert PLAIN.tokenize("ท่วมบ้าน") == ["ท่", "ว", "ม", "บ้", "า", "น", "ท่ว", "วม", "มบ้", "บ้า", "าน"]


@pytest.mark.parametrize(
    ("language", "text", "terms"),
    [
        ("english", "The wings weren't fluttering; it's Bernoulli's law", ["wing", "flutter", "bernoulli", "law"]),
        ("french", "L’homme qu'il aime à l'hôtel", ["homm", "aim", "hôtel"]),
        ("italian", "dell'arte", ["arte"]),
        ("german", "die Häuser der Straße", ["haus", "strass"]),
        ("turkish", "ISPARTA İstanbul", ["ısparta", "istanbul"]),
        ("russian", "и книги", ["книг"]),
        ("arabic", "كِتَاب كتاب", ["كتاب", "كتاب"]),
    ],
)
def test_stems_and_stop_words_follow_the_language(language: str, text: str, terms: list[str]) -> None:
    stem = Stemmer.Stemmer(language).stemWord
    assert BM25(language).tokenize(text) == [stem(term) for term in terms]


def test_stop_words_are_compared_without_case_and_accents_as_the_text_is() -> None:
    assert BM25(None, stop_words=["The", "été"], fold_accents=True).tokenize("THE Été passe") == ["passe"]
    assert BM25("english", lowercase=False, stemming=False).tokenize("The Wings") == ["Wings"]


def test_folded_accents_leave_vowel_signs_and_voiced_kana_alone() -> None:
    fold = BM25(None, fold_accents=True).tokenize
    assert fold("naïve Ångström Żółć") == ["naive", "angstrom", "zolc"]
    assert fold("हिन्दी") == ["हिन्दी"]
    assert fold("がぎ") == ["が", "ぎ", "がぎ"]
    assert fold("مُحَمَّد") == ["محمد"]


def test_folded_accents_are_those_of_lucene(opensearch_url: str) -> None:
    """All letters of Latin-1, Latin Extended-A and Vietnamese, except those that NFKC turns into two characters."""
    codes = [*range(0xC0, 0x180), *range(0x1EA0, 0x1EFA)]
    letters = [chr(c) for c in codes if chr(c).isalpha() and len(unicodedata.normalize("NFKC", chr(c))) == 1]
    analysis = {"tokenizer": "whitespace", "filter": ["asciifolding", "lowercase"], "text": " ".join(letters)}
    answer = call(address_of(f"{opensearch_url}/any"), "POST", "/_analyze", analysis)
    assert BM25(None, fold_accents=True).tokenize(" ".join(letters)) == [token["token"] for token in answer["tokens"]]


def test_case_is_ignored_where_lower_case_has_a_dot_more() -> None:
    assert BM25().tokenize("İstanbul ISTANBUL istanbul i\u0307stanbul") == ["istanbul"] * 4
    assert BM25("turkish", stemming=False).tokenize("İstanbul istanbul") == ["istanbul"] * 2


@pytest.mark.parametrize("character", ["火", "山", "입", "ท"])
def test_one_character_of_an_unspaced_script_finds_the_words_that_hold_it(character: str) -> None:
    search = HybridSearch({"bm25": BM25()})
    search.index(
        [Document("a", "富士火山"), Document("b", "수입품"), Document("c", "ท่วมบ้าน ทาง"), Document("d", "mountain")]
    )
    assert [hit.id for hit in search.search(character)] == [{"火": "a", "山": "a", "입": "b", "ท": "c"}[character]]


def test_a_query_is_cut_into_pairs_so_that_the_order_of_characters_counts() -> None:
    assert BM25().encode_queries(["富士山 山"])[0].terms == ("富士", "士山", "山")


def test_the_first_version_of_the_rules_gives_the_terms_that_it_gave() -> None:
    """An index whose schema names no version was made with the first version, and is opened with it."""
    first, folding = (make_encoder({"type": "bm25", "language": None, "fold_accents": fold}) for fold in (False, True))
    assert isinstance(first, BM25)
    assert isinstance(folding, BM25)
    assert first.tokenize("東京都 İstanbul") == ["東京", "京都", "i\u0307stanbul"]
    assert folding.tokenize("Łódź") == ["łodz"]
    assert make_encoder(first.schema().encoder or {}).fingerprint() == first.fingerprint()
    assert BM25(tokenizer=1).fingerprint().digest == "bca9ad89a46c"
    assert BM25(tokenizer=2).fingerprint().digest == "1e9288e65e50"
    assert BM25(tokenizer=2).tokenize("x86_64 AB-12") == ["x86_64", "ab", "12"]
    with pytest.raises(InvalidArgumentError, match="upgrade hybridsearch"):
        BM25(tokenizer=99)


def test_without_bigrams_a_run_is_one_word() -> None:
    assert BM25(None, bigrams=False).tokenize("東京都 は") == ["東京都", "は"]


def test_a_word_is_cut_where_engines_refuse_longer_ones() -> None:
    assert PLAIN.tokenize("x" * 100_000) == ["x" * MAX_WORD]
    assert PLAIN.tokenize("é" * 100_000) == ["é" * MAX_WORD]


def test_every_stop_word_list_belongs_to_a_stemmer_and_drops_its_own_words() -> None:
    assert set(STOP_WORDS) <= set(LANGUAGES)
    for language, words in STOP_WORDS.items():
        assert BM25(language).tokenize(" ".join(sorted(words))) == []


@given(st.text(), st.sampled_from([None, *LANGUAGES]), st.booleans(), st.booleans(), st.booleans())
def test_any_text_gives_terms_that_are_not_empty(
    text: str, language: str | None, lowercase: bool, fold: bool, bigrams: bool
) -> None:
    encoder = BM25(language, lowercase=lowercase, fold_accents=fold, bigrams=bigrams)
    terms = encoder.tokenize(text)
    assert all(terms)
    assert not any(map(str.isspace, "".join(terms)))


@given(
    st.text(st.characters(max_codepoint=127)), st.sampled_from([None, "english", "french", "turkish"]), st.booleans()
)
def test_the_fast_path_for_ascii_gives_the_terms_of_the_general_one(
    text: str, language: str | None, lowercase: bool
) -> None:
    split = Rules(language, frozenset(), lowercase=lowercase).splitter()
    assert split(f"{text} ж") == [*split(text), "ж"]
    assert split(f"{text} क़") == [*split(text), *split("क़")]


@given(st.text(), st.sampled_from([None, "english", "french", "turkish"]), st.booleans())
def test_the_terms_of_a_text_are_those_of_its_parts_between_white_space(
    text: str, language: str | None, of_query: bool
) -> None:
    rules = Rules(language, frozenset())
    terms = rules.terms_maker(of_query=of_query)
    assert terms(text) == [term for chunk in text.split() for term in terms(chunk)]


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_equivalent_unicode_spellings_give_the_same_terms(text: str) -> None:
    composed, apart = unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)
    assert PLAIN.tokenize(composed) == PLAIN.tokenize(apart)


def test_many_threads_share_one_encoder() -> None:
    words = [f"running{i}s flows{i % 97}" for i in range(2000)]
    expected = [BM25().tokenize(word) for word in words]
    encoder, found = BM25(), {}

    def work(thread: int) -> None:
        found[thread] = [encoder.tokenize(word) for word in (words if thread % 2 else words[::-1])]

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found[thread] == (expected if thread % 2 else expected[::-1]) for thread in range(8))


@pytest.mark.parametrize("language", [None, "english"])
def test_each_word_is_found_by_its_terms(language: str | None) -> None:
    rules = Rules(language, frozenset(), identifiers=True)
    terms = rules.terms_maker()
    starts = ["".join(letters) for size in (1, 2) for letters in itertools.product(ascii_lowercase, repeat=size)]
    starts += [
        "".join(letters) for letters in itertools.islice(itertools.product(ascii_lowercase, repeat=3), 0, None, 3)
    ]
    ends = ["", "s", "ing", "ed", "eds", "ies", "ly", "ogist", "ying", "ness", "ational", "izations", "abilities", "'s"]
    words = [start + end for start in starts for end in ends]
    shown = [word.title() if number % 2 else f"{word})." for number, word in enumerate(words)]
    alike = defaultdict[tuple[str, bool], list[str]](list)  # words whose terms are looked for by the same letters
    for word in shown:
        (term,) = terms(word)
        alike[term[:3], len(term) > 3].append(word)
    for of_start in alike.values():
        found = rules.chunks_finder(set(terms(of_start[0])))(" ".join(of_start))
        assert [chunk for _, chunk in found] == of_start


def test_other_words_are_left_out_and_names_are_not() -> None:
    text = "drag  Lift, with\n(lift.Wing)\u3000getWing X-wing wíng DRAG lift1 a 𝒲ing lift"
    found = [(at, chunk) for at, chunk in Rules("english", frozenset(), identifiers=True).chunks_finder({"wing"})(text)]
    assert [chunk for _, chunk in found] == [
        "(lift.Wing)", "getWing", "X-wing", "wíng", "𝒲ing",
    ]  # fmt: skip
    assert all(text[at:].startswith(chunk) for at, chunk in found)
    everything = [(match.start(), match.group()) for match in re.finditer(r"\S+", text)]
    assert [*Rules("turkish", frozenset()).chunks_finder({"wing"})(text)] == everything
    assert [*Rules("english", frozenset()).chunks_finder({"wing"})(" \n")] == []


@given(st.text(st.sampled_from("aAwW.,(1?é \u2003\n"), max_size=40))
def test_chunks_are_those_between_white_space(text: str) -> None:
    rules = Rules("english", frozenset())
    terms = rules.terms_maker()
    wanted = {"a", "w", "aw", "wa", "wawa", "1"}
    expected = [(match.start(), match.group()) for match in re.finditer(r"\S+", text)]
    found = list(rules.chunks_finder(wanted)(text))
    assert set(found) <= set(expected)
    assert not [chunk for chunk in set(expected) - set(found) if wanted & set(terms(chunk[1]))]
