"""Highlights are spans of the original text, and a snippet is the best window of it."""

from __future__ import annotations

import gc
import pickle
import re
import time
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO

import pytest
import regex
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console

import hybridsearch as hs
from hybridsearch import sentences
from hybridsearch.adapters.memory import MemoryBackend
from hybridsearch.backends import Capabilities
from hybridsearch.encoders import tokens
from hybridsearch.encoders.char_ngrams import CharNGrams
from hybridsearch.encoders.locating import align, find_terms
from hybridsearch.errors import BackendError, InvalidArgumentError
from hybridsearch.snippets import Highlight, make_snippet

SCRIPTS = [
    "wing", "Wings’", "McWing", "getUserById", "AB-1234/5", "C++", "1.5", "don't", "l'homme", "_x_",
    "Straße", "ﬁsh", "İstanbul", "e\u0301te\u0301", "été", "naïve", "Øre", "½", "㈱", "Ⅷ", "soft\u00adhyphen",
    "東京タワー", "東京ﾀﾜｰ", "ガス", "ｶﾞｽ", "한국어를", "\u1112\u1161\u11ab국", "แมวกินน้ำ", "ພາສາລາວ", "ភាសាខ្មែរ",
    "မြန်မာ",
    "हिन्दी", "العربيّة", "עִבְרִית", "Ελληνικά", "ς", "ὀδυσσεύς", "русский",
    "\U0001f469\u200d\U0001f467", "🇩🇪", "𝔘𝔫𝔦", "a\u200bb", "\u0301x",
]  # fmt: skip
words = st.sampled_from(SCRIPTS) | st.text(max_size=6)
texts = st.lists(words | st.sampled_from([" ", ", ", "-", "/", "\n", "。", ". "]), max_size=12).map("".join)


def search_in(*texts: str, **options: object) -> hs.HybridSearch:
    search = hs.HybridSearch({"bm25": hs.BM25(**options)})  # type: ignore[arg-type]
    documents = [hs.Document(str(number), text) for number, text in enumerate(texts)]
    search.index(documents, show_progress_bar=False)
    return search


def lit(hit: hs.Hit) -> list[str]:
    return [hit.document.text[one.start : one.end] for one in hit.highlights]


@pytest.mark.parametrize(
    ("language", "text", "query", "found"),
    [
        ("english", "A wing, WINGS and winged; a swing.", "wings", ["wing", "WINGS", "winged"]),
        ("english", "The wing's chord, McWing, swing", "wing", ["wing", "Wing"]),
        ("german", "Die Straße, STRASSEN und Gestraße.", "strasse", ["Straße", "STRASSEN"]),
        ("french", "L’homme et les hommes d'hier", "homme", ["homme", "hommes"]),
        ("turkish", "İstanbul'da IŞIK var", "istanbul ışık", ["İstanbul", "IŞIK"]),
        ("english", "ﬁsh, FISH, e\u0301te\u0301", "fish été", ["ﬁsh", "FISH", "e\u0301te\u0301"]),
        ("english", "Mach 1.5, not 11.5 or 1 or 5.", "1.5", ["1.5"]),
        ("english", "東京と京都。東京ﾀﾜｰ", "東京", ["東京", "東京"]),
        ("english", "東京と京都", "京", ["京", "京"]),
        ("english", "한국어를 배우다", "한국어", ["한국", "국어"]),
        ("english", "\u1112\u1161\u11ab\u1100\u116e\u11a8", "한국", ["\u1112\u1161\u11ab\u1100\u116e\u11a8"]),
        ("english", "getUserById, user; C++ or C; 10mg", "user c++ mg", ["User", "user", "C++", "mg"]),
        ("english", "soft\u00adhyphens", "softhyphen", ["soft\u00adhyphens"]),
    ],
)
def test_the_words_whose_terms_matched_light_up(language: str, text: str, query: str, found: list[str]) -> None:
    (hit,) = search_in(text, language=language).search(query)
    assert lit(hit) == found


def test_parts_of_a_name_are_dark_if_they_are_no_terms() -> None:
    (hit,) = search_in("wing-McWings, wing_span", identifiers=False).search("wing")
    assert lit(hit) == ["wing"]


def test_the_terms_of_another_function_light_up_as_they_are_written() -> None:
    (hit,) = search_in(
        "Red-fox, redfox", tokenizer=hs.Tokenizer("letters", lambda text: re.findall("[a-z]+", text.lower()))
    ).search("fox")
    assert lit(hit) == ["fox"]


def test_words_that_synonyms_found_light_up() -> None:
    search = search_in("The automobile and the cars", synonyms={"car": ["automobile"]})
    assert lit(search.search("a car")[0]) == ["automobile", "cars"]


def test_folded_accents_light_up() -> None:
    (hit,) = search_in("A naïve Øre", fold_accents=True).search("naive ore")
    assert lit(hit) == ["naïve", "Øre"]


def test_a_weight_is_what_the_term_adds_to_the_score() -> None:
    (hit,) = search_in("lift of a wing, and lift again").search("wing lift")
    explained = hit.explain().terms["bm25"]
    assert {one.term: one.weight for one in hit.highlights} == explained
    assert {one.retriever for one in hit.highlights} == {"bm25"}
    assert [one.term for one in hit.highlights] == ["lift", "wing", "lift"]


@given(texts, texts)
@example("wing-McWings", "wing")
@example("don't-don", "don")
def test_a_span_gives_its_term_and_each_matched_term_has_a_span(text: str, query: str) -> None:
    encoder = hs.BM25()
    asked = set(encoder.tokenize(query)) | set(encoder.tokenize(text)[:3])
    (places,) = encoder.locate([text], [dict.fromkeys(asked, 1.0)])
    for start, end, term in places:
        assert 0 <= start < end <= len(text)
        assert term in encoder.tokenize(text[start:end])
    assert {term for _, _, term in places} == asked & set(encoder.tokenize(text))
    assert places == sorted(places)


@given(texts, texts, st.booleans(), st.sampled_from([None, "english"]))
@example("wings.WINGS?\u2003“wing”\u00a0getWing ?wing", "wings", False, "english")
def test_the_places_are_those_of_a_search_in_all_words(
    text: str, query: str, folded: bool, language: str | None
) -> None:
    encoder = hs.BM25(language, fold_accents=folded)
    wanted = dict.fromkeys(encoder.encode_queries([f"{query} {text[:9]}"])[0].terms, 1.0)
    assert encoder.locate([text], [wanted]) == find_terms([text], [wanted], encoder.tokenize)


@given(texts.map(lambda text: text * 8), st.data())
def test_a_snippet_cuts_no_character_and_is_in_the_passage(text: str, data: st.DataObject) -> None:
    bounds = st.integers(0, len(text))
    start, end = sorted([data.draw(bounds), data.draw(bounds)])
    spans = st.tuples(st.integers(start, end), st.integers(start, end)).map(sorted).filter(lambda at: at[0] < at[1])
    highlights = [Highlight(*span, 1.0, "bm25", "term") for span in sorted(data.draw(st.lists(spans, max_size=4)))]
    snippet = make_snippet(text, (start, end), highlights, data.draw(st.integers(1, 60)))
    assert snippet.text == text[snippet.start : snippet.end]
    assert bool(snippet.text) == bool(text[start:end].strip())
    assert start <= snippet.start <= snippet.end <= end or not text[start:end].strip()
    assert all(snippet.start <= one.start < one.end <= snippet.end for one in snippet.highlights)
    assert all(0 <= a < b <= len(snippet.text) for a, b in snippet.marks)
    str(snippet)


def test_a_snippet_ends_between_words_and_between_characters() -> None:
    text = "Heat is lost at the surface of a slender wing in a supersonic stream of cold air. " * 3
    for length in range(20, 90, 7):
        window = make_snippet(text, (0, len(text)), [Highlight(100, 104, 1.0, "bm25", "lost")], length)
        assert re.fullmatch(r"(?<!\w)\S.*\S(?!\w)", window.text)
        assert text[window.start - 1 : window.start] in ("", " ")
        assert text[window.end : window.end + 1] in ("", " ")
        assert len(window.text) <= length
    flags = "🇩🇪\U0001f469\u200d\U0001f467e\u0301แม่" * 40
    graphemes = {found.start() for found in regex.finditer(r"\X", flags)} | {len(flags)}
    for length in range(10, 40):
        window = make_snippet(flags, (0, len(flags)), [], length)
        assert {window.start, window.end} <= graphemes


def test_the_best_window_has_the_heaviest_distinct_terms() -> None:
    text = "lift lift lift lift. " + "Nothing here. " * 20 + "The wing gives lift. " + "Nothing more. " * 20
    snippet = search_in(text).search("wing lift")[0].snippet(60)
    assert snippet.text.startswith("The wing gives lift.")
    assert [text[one.start : one.end] for one in snippet.highlights] == ["wing", "lift"]
    assert str(snippet).startswith("…The wing")
    assert str(snippet).endswith("…")


def test_a_snippet_without_highlights_is_the_beginning() -> None:
    search = hs.HybridSearch({"bm25": hs.BM25()})
    search.index([hs.Document("a", "One two three. " * 30, "a wing")], show_progress_bar=False)
    (hit,) = search.search("wing")
    assert hit.highlights == ()
    assert hit.snippet(50).start == 0
    assert hit.snippet(10_000).text == hit.document.text.strip()


@pytest.mark.parametrize(
    ("text", "length", "first"),
    [
        ("The wing lifts.", 1, "The"),
        ("e\u0301te\u0301 chaud", 1, "e\u0301te\u0301"),
        ("日本語", 2, "日本"),
        ("x" * 300, 200, "x" * 240),
    ],
)
def test_a_snippet_without_highlights_that_is_shorter_than_the_first_word_is_not_empty(
    text: str, length: int, first: str
) -> None:
    assert make_snippet(text, (0, len(text)), [], length).text == first


def test_a_long_document_takes_linear_time() -> None:
    text = "lift and drag of the slender wing. " * 30_000  # 1 MB with 60,000 matches

    def seconds(part: str) -> float:
        (hit,) = search_in(part).search("wing lift")
        gc.disable()  # a collection looks at the objects of all tests
        try:
            started = time.process_time()
            assert len(hit.highlights) == 2 * part.count("wing")
            hit.snippet()
            return time.process_time() - started
        finally:
            gc.enable()

    assert seconds(text) < 40 * max(seconds(text[: len(text) // 10]), 0.01)


def test_latin_and_greek_texts_need_no_slow_patterns(monkeypatch: pytest.MonkeyPatch) -> None:
    """The patterns for marks and unspaced scripts take 50 ms in a new process, as long as 100 snippets."""
    for module, name in ((tokens, "_unspaced_run"), (tokens, "_words_with_marks"), (sentences, "cuttable")):
        monkeypatch.setattr(module, name, None)
    text = "Thé µ-opioid β1-wings, naïve x86_64 “lift”. " * 9
    (hit,) = search_in(text).search("wings")
    assert hit.snippet(50).text == "Thé µ-opioid β1-wings, naïve x86_64 “lift”. Thé"


@pytest.mark.parametrize(
    "text", ["a b", "a  b", "a,b", "_a", "é-é", "²x", "…x", "a\u0301", "天b", "c\u200dd", " \u0e33"]
)
def test_the_quick_answer_where_to_cut_is_that_of_the_pattern(text: str) -> None:
    for place in range(len(text) + 1):
        assert sentences.is_cuttable(text, place) == (sentences.cuttable().match(text, place) is not None)


def test_highlights_and_snippets_survive_as_spans_and_hits_without_an_index_say_so() -> None:
    (hit,) = search_in("a wing").search("wing")
    assert hit.snippet().to_dict() == {
        "text": "a wing",
        "start": 0,
        "end": 6,
        "highlights": [{"start": 2, "end": 6, "weight": hit.highlights[0].weight, "retriever": "bm25", "term": "wing"}],
    }
    copied = pickle.loads(pickle.dumps(hit))  # noqa: S301
    assert copied == hit
    with pytest.raises(BackendError, match="search again"):
        copied.snippet()
    with pytest.raises(InvalidArgumentError, match="length"):
        hit.snippet(0)


def test_printed_results_show_snippets_also_after_the_index_is_closed() -> None:
    with search_in("Nothing here. " * 30 + "A wing.") as search:
        results, later = search.search("wing"), search.search("wing")
        assert "A wing." in str(results)
    assert "A wing." in str(results)  # the highlights are known
    assert "Nothing here." in str(later)


def test_highlights_are_bold_in_a_terminal_and_plain_in_a_file() -> None:
    results = search_in("a slender [red]wing[/red]").search("wing")
    screen, file = StringIO(), StringIO()
    Console(file=screen, force_terminal=True, width=80).print(results)
    Console(file=file, width=80).print(results, results[0].snippet())
    assert "[red]\x1b[1mwing\x1b[0m[/red]" in screen.getvalue()
    assert "\x1b" not in file.getvalue()
    assert "a slender [red]wing[/red]" in file.getvalue()


@pytest.mark.parametrize("width", [40, 60, 100])
def test_a_narrow_terminal_shows_the_place_that_matched(width: int) -> None:
    search = hs.HybridSearch({"bm25": hs.BM25()})
    text = "Nothing is said here about it. " * 5 + "Then the wing separates. " + "Nothing more. " * 5
    search.index([hs.Document("a", text, "A long title that has the whole line")], show_progress_bar=False)
    screen = StringIO()
    Console(file=screen, width=width).print(search.search("wing"))
    assert "wing" in screen.getvalue().split("\n", 1)[1]


class Tags(HTMLParser):
    """The tags of a page and the texts in `mark`."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.marked: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)
        if tag == "mark":
            self.marked.append("")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.get_starttag_text() == "<mark>" and self.marked and not self.marked[-1]:
            self.marked[-1] = data


def test_a_notebook_marks_words_and_runs_no_markup_of_a_document() -> None:
    results = search_in("<script>alert(1)</script> <b>wing</b> & 'wings' \"<img src=x onerror=alert(1)>").search(
        "wing script img"
    )
    for page in (results._repr_html_(), results[0].snippet()._repr_html_()):
        found = Tags(page)
        assert found.tags.isdisjoint({"script", "b", "img"})
        assert found.marked == ["script", "script", "wing", "wings", "img"]
        assert "<script>alert(1)</script> <b>wing</b> & 'wings' \"<img" in found.text


def test_other_tokens_are_aligned_with_the_text() -> None:
    text = "我来到北京清华大学"
    tokens = ["我", "来到", "北京", "清华大学"]
    assert [text[a:b] for a, b, _ in align(text, tokens, {"北京", "清华大学"})] == ["北京", "清华大学"]
    assert align("İs. is", ["is", "is"], ["is"]) == [(4, 6, "is")]
    assert find_terms(["anything"], [[]], lambda text: []) == [[]]


HEADACHE = "The weather was fine on that day. Cephalalgia often comes with nausea. Nobody knows why."


@pytest.fixture(scope="module")
def neural(splade: str, minilm: str) -> hs.HybridSearch:
    search = hs.HybridSearch({"sparse": hs.Sparse(splade, cache=False), "dense": hs.Dense(minilm, cache=False)})
    documents = [hs.Document("pain", HEADACHE), hs.Document("wing", "Wings give lift. An aircraft has wings.")]
    search.index(documents, show_progress_bar=False)
    return search


def test_a_sparse_model_lights_up_the_word_that_gives_the_dimension(neural: hs.HybridSearch) -> None:
    (hit,) = neural.search("headache", retrievers=["sparse"])
    assert lit(hit) == ["Cephalalgia"]
    assert {one.term: pytest.approx(one.weight) for one in hit.highlights} == hit.explain().terms["sparse"]
    assert hit.snippet(models=False).highlights == ()  # no token of the text is a dimension of the query


def test_without_a_run_of_the_model_words_with_the_dimensions_token_light_up(neural: hs.HybridSearch) -> None:
    hit = neural.search("aircraft wings", retrievers=["sparse"])[0]
    quick = [hit.document.text[one.start : one.end] for one in hit.snippet(models=False).highlights]
    assert {"Wings", "wings"} <= set(quick) <= set(lit(hit))


def test_a_dense_model_lights_up_the_nearest_sentence(neural: hs.HybridSearch) -> None:
    hit = neural.search("Which illness is accompanied by nausea?", retrievers=["dense"])[0]
    assert lit(hit) == ["Cephalalgia often comes with nausea."]
    assert hit.highlights[0].term is None
    assert -1 <= hit.highlights[0].weight <= 1
    assert hit.snippet(40).text == "Cephalalgia often comes with nausea."
    assert hit.snippet(40, models=False).text.startswith("The weather")


def test_printing_runs_no_model(neural: hs.HybridSearch, monkeypatch: pytest.MonkeyPatch) -> None:
    results = neural.search("headache")
    monkeypatch.setattr("hybridsearch.encoders.sparse.forward", None)
    monkeypatch.setattr("hybridsearch.encoders.dense.outputs", None)
    assert "Cephalalgia" in str(results)
    assert "Cephalalgia" in results._repr_html_()


def test_highlights_of_neighbours_are_found_together(neural: hs.HybridSearch, monkeypatch: pytest.MonkeyPatch) -> None:
    results = neural.search("nausea")
    calls = []
    encode = neural.retrievers["dense"].encode_documents
    monkeypatch.setattr(
        neural.retrievers["dense"], "encode_documents", lambda texts: calls.append(texts) or encode(texts)
    )
    for _ in range(2):
        assert [len(hit.highlights) > 0 for hit in results] == [True] * len(results)
    assert len(calls) == 1


def test_passages_bound_the_highlights_and_the_window() -> None:
    search = hs.HybridSearch({"bm25": hs.BM25()}, passages=hs.Passages(size=8))
    text = "One wing is here and there. " + "Nothing is said about it now. " * 10 + "Lift of the wing grows. It ends."
    search.index([hs.Document("a", text)], show_progress_bar=False)
    (hit,) = search.search("wing lift")
    assert hit.passage is not None
    assert lit(hit) == ["Lift", "wing"]
    snippet = hit.snippet(1000)
    assert (snippet.start, snippet.end) == (hit.passage.start, hit.passage.start + len(hit.passage.text.strip()))
    assert str(snippet).startswith("…Lift of the wing")
    assert {one.term: one.weight for one in hit.highlights} == hit.explain().terms["bm25"]


def test_words_of_which_most_n_grams_matched_light_up() -> None:
    search = hs.HybridSearch({"chars": CharNGrams()})
    search.index([hs.Document("a", "The velocity in a laminar boundary layer.")], show_progress_bar=False)
    (hit,) = search.search("laminer boundry leyer")
    assert {"laminar", "boundary"} <= set(lit(hit)) <= {"laminar", "boundary", "layer"}


def test_the_words_of_an_analyzer_of_an_engine_are_guessed_only_if_its_rules_are_known() -> None:
    texts, terms = ["Wings of a wing"], [{"a wing": 1.0}]
    assert [place.term for place in hs.NativeBM25("english").locate(texts, terms)[0]] == ["wing", "wing"]
    assert [place.start for place in hs.NativeBM25("standard").locate(texts, terms)[0]] == [9, 11]
    assert hs.NativeBM25("my-own").locate(texts, terms) == [[]]


class Silent(MemoryBackend):
    """A backend that cannot explain."""

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, explain=False)


def test_without_explanations_a_weight_is_that_of_the_query() -> None:
    search = hs.HybridSearch({"bm25": hs.BM25()}, Silent())
    search.index([hs.Document("a", "a wing lifts")], show_progress_bar=False)
    (hit,) = search.search("wing wing lift")
    assert [(one.term, one.weight) for one in hit.highlights] == [("wing", 2.0), ("lift", 1.0)]
