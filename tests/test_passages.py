"""Tests of passages: spans cover the text, fit into their size, and begin where sentences and headings begin."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import hybridsearch as hs
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.passages import CHARACTERS_A_TOKEN, Counter, Passages, Splitter, counter_of
from hybridsearch.sentences import parts, path_at, sections

WORDS = counter_of({})


def split(text: str, size: int = 8, **options: object) -> list[str]:
    """The passages of a text, counted in words."""
    (passages,) = Splitter(Passages(size=size, **options), WORDS).split([hs.Document("1", text)])
    return [text[start:end] for start, end, _ in passages]


FRAGMENTS = st.sampled_from(
    ["word ", "Dr. ", "Ends. ", "Why? ", "\n", "\r\n", "\n\n", "# Head\n", "\n## Sub\n", "```\n", "| a |\n", "- x\n",
     "| a. B! |\n", "Line\n====\n", "中文。", "สวัสดี", "한국어 ", "नमस्ते ", "e\u0301", "👩\u200d👩\u200d👧", "🇩🇪",
     "\u0301", "\u200b", "\u2028", "\t", "https://a.b/c "]
)  # fmt: skip
TEXTS = st.one_of(
    st.lists(FRAGMENTS, max_size=60).map("".join), st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
)


@settings(deadline=None)
@given(TEXTS, st.integers(8, 40), st.integers(0, 7), st.booleans())
@example("# Head head head head head head head\n\nWord word word word.", 8, 0, True)
def test_the_spans_cover_the_text_in_order_and_have_the_size(
    text: str, size: int, overlap: int, headings: bool
) -> None:
    options = Passages(size=size, overlap=overlap, headings=headings)
    (passages,) = Splitter(options, WORDS).split([hs.Document("1", text)])
    assert passages[0].start == 0
    assert passages[-1].end == len(text)
    for before, after in pairwise(passages):
        assert before.start < after.start <= before.end < after.end
        assert sum(WORDS.count([text[after.start : before.end]])) <= overlap
        assert not text[after.start].isspace()
    assert len(passages) == 1 or all(text[start:end].strip() for start, end, _ in passages)
    for start, end, _ in passages:
        (count,) = WORDS.count([text[start:end]])
        least = -(-len(text[start:end].strip()) // CHARACTERS_A_TOKEN)
        assert max(count, least) <= size or parts(text, start, end, 2) == [end]


@pytest.mark.parametrize("text", ["", " \n\t"])
def test_a_blank_text_is_one_passage(text: str) -> None:
    assert split(text) == [text]


def test_a_heading_begins_a_passage_and_is_read_with_the_next_ones() -> None:
    text = "# Guide\n\nRead me first.\n\n## Linux\n\nRun it now, and wait. Then go on to the next page of it."
    _, read = Splitter(Passages(size=12), WORDS).read([hs.Document("1", text, "Manual")])
    assert [passage.content for passage in read] == [
        "Manual # Guide\n\nRead me first.",
        "Manual > Guide ## Linux\n\nRun it now, and wait.",
        "Manual > Guide > Linux Then go on to the next page of it.",
    ]


def test_headings_in_a_row_and_their_first_sentence_share_a_passage() -> None:
    text = "Before.\n\nGuide\n=====\n\n## Linux ##\n\n" + "word " * 30 + "\n\n## Last"
    passages = split(text, 12)
    assert passages[:2] == ["Before.\n\n", "Guide\n=====\n\n## Linux ##\n\nword "]
    assert passages[-1] == "## Last"


@pytest.mark.parametrize(
    "text",
    [
        "```sh\n# no heading\nmake all\n```\nEnds here.",
        "#hashtag and #another",
        "    # indented code",
        "---\nname: value\n---\nText.",
        "- item\n---\nText.",
        "####### seven",
    ],
)
def test_what_only_looks_like_a_heading_begins_no_passage(text: str) -> None:
    assert [section.path for section in sections(text)] == [()]


def test_headings_are_plain_lines_if_they_are_not_wanted() -> None:
    assert split("# A\n\nOne two.\n\n# B\n\nThree four.", 20, headings=False) == [
        "# A\n\nOne two.\n\n# B\n\nThree four."
    ]


def test_rows_and_lines_of_code_stay_whole() -> None:
    table = "| name | use |\n|---|---|\n| a | for x, y |\n| b | for z |\n"
    assert all(passage.endswith("|\n") for passage in split(table, 14))
    steps = "| 1 | Open it. Wait. |\n| 2 | Is it open? Close it. |\n| 3 | Stop! Go. |\n"
    assert split(steps, 12) == steps.splitlines(keepends=True)
    code = "```\n" + "".join(f"call({i}, x)\n" for i in range(9)) + "```\n"
    assert all(passage.endswith("\n") for passage in split(code, 14))


def test_a_long_row_is_cut_after_cells_and_sentences() -> None:
    row = "| Take the lid, the red one, off. Wait an hour. | Then put the lid on and screw it. |\n"
    assert split(row, 12) == [
        "| Take the lid, the red one, off. ",
        "Wait an hour. | ",
        "Then put the lid on and screw it. |\n",
    ]


def test_a_passage_repeats_whole_sentences_of_the_one_before_it() -> None:
    text = "One two three. Four five six. Seven eight nine. Ten eleven twelve."
    assert split(text, 12, overlap=5) == [
        "One two three. Four five six. Seven eight nine. ",
        "Seven eight nine. Ten eleven twelve.",
    ]
    assert split(text, 12, overlap=3)[1] == "Seven eight nine. Ten eleven twelve."


def test_passages_of_a_section_have_about_the_same_length() -> None:
    eleven = "One two three. " * 11
    for text in (f"{eleven}\n\n# Next\n\nOne.", f"# Head\n\n{eleven}"):
        assert sorted(passage.count("One two three. ") for passage in split(text, 40))[-2:] == [5, 6]


def test_a_long_sentence_is_cut_after_clauses_then_after_words() -> None:
    assert split("The wing lifts well, the tail keeps it level, and it flies.") == [
        "The wing lifts well, ",
        "the tail keeps it level, ",
        "and it flies.",
    ]
    assert split("one two three four five six seven eight nine ten") == [
        "one two three four five ",
        "six seven eight nine ten",
    ]


def test_no_word_of_a_spaced_script_is_cut() -> None:
    long = "x" * 1_000_000
    assert split(f"Before it. {long} after it.") == ["Before it. ", f"{long} ", "after it."]
    assert split("Ünïcödé" * 500) == ["Ünïcödé" * 500]


@pytest.mark.parametrize(
    "run", ["天气公园", "สวัสดีครับ", "ភាសាខ្មែរ", "👩\u200d👩\u200d👧", "e\u0301/", "https://a.b/c?d=e"]
)
def test_a_run_without_spaces_is_cut_between_characters(run: str) -> None:
    passages = split(run * 200)
    assert len(passages) > 1
    assert max(map(len, passages)) <= 8 * CHARACTERS_A_TOKEN
    for passage in passages:
        assert unicodedata.category(passage[0])[0] != "M"
        assert passage[0] != "\u200d" != passage[-1]


TEXTS_OF_SENTENCES = [
    "Dr. Smith arrived late. |He had no excuse.",
    "See e.g. the manual, i.e. page 3. |Then stop.",
    "As Fig. 3 shows, lift grows. |Drag does too (cf. Sec. 2.1 and Eq. (4)).",
    "The value is 3.14. |It rose by 2.5 percent.",
    "J. R. R. Tolkien wrote it. |George W. Bush did not.",
    "Visit https://example.com/a.b?c=d. |Or write to a.b@example.org. |Thanks!",
    '"Is it true?" he asked. |She said "No." |Then she left.',
    "He said: “It works.” |Nobody believed him.",
    "The U.S. economy grew. |The U.K. followed.",
    "At 5 p.m. the train left. |It arrived at 7 a.m. |We slept.",
    "Smith et al. (2004) found this. |Jones et al. did not.",
    "this is lower case. |so is this one. |and this.",
    "Node.js is fast. |ASP.NET is not. |Use file.txt or main.py instead.",
    "今天天气很好。|我们去公园吧！|你来吗？|好的。",
    "「そうです。」|明日行きます。",
    "यह एक वाक्य है। |यह दूसरा है। |क्या यह तीसरा है?",
    "هل هذا صحيح؟ |نعم. |شكرا.",
    "Das ist z. B. ein Test. |Am 3. Oktober war es so weit. |Herr Dr. Meier kam.",
    "El Sr. García vino. |Ver pág. 3. |La Dra. López y la Sra. Ruiz.",
    "It holds approx. 20 litres (see vol. 2, ch. 3). |Incl. tax it costs 5. |Max. load is 9, i. e. little.",
    "The approx. value, resp. its square, is given. |We saw it. |20 of them came.",
    "Это значит, т. е. надо, т.к. так и др. вещи. |См. рис. 3 и табл. 4. |Да.",
    "Das gilt i. d. R. nur u. a. hier. |Nimm ca. 5 bzw. bis max. 7. |Gut.",
    "Det är t.ex. så, dvs. inte nu, kap. 3 och sid. 4 i boken. |Och det är bra.",
    "Il y a env. 20 km, réf. 12 et coll. privée dans le musée. |Elle est là.",
    "O livro tem aprox. 200 págs. e a pág. 3, etc. na mesa. |Ele não foi.",
    "Si legge a pag. 3 e nelle pagg. 20 e 21 che non sono le ultime. |Poi basta.",
    "A könyv kb. 20 oldal, stb. de nem az. |Ez jó.",
    "Bkz. 3, örn. bu ve cilt. 2 için. |Bu iyi bir şey.",
    "¿Qué hora es? |Son las tres. |¡Vamos!",
    "First line without a stop\n\n|Second paragraph here.",
    "- first item\n|- second item\n|- third item",
    "1. Open the lid.\n|2. Press the button.\n|3. Close it.",
    "A sentence that goes\nover two lines. |And another one\nthat does it.",
    "Windows line one.\r\n\r\n|Line two ends. |Yes.",
]
"""Texts with a bar at the end of each sentence."""


@pytest.mark.parametrize("marked", TEXTS_OF_SENTENCES)
def test_sentences_end_where_a_reader_sees_their_end(marked: str) -> None:
    text = marked.replace("|", "")
    bounds = [0, *(end for section in sections(text) for end in section.ends)]
    assert [text[start:end] for start, end in pairwise(bounds)] == marked.split("|")


SHAPES = {
    "sentences": "This is a sentence. Dr. Who said so. ",
    "one word": "a",
    "no ends": "word ",
    "Chinese": "今天天气很好我们",
    "Chinese sentences": "今天天气很好。",
    "Thai": "สวัสดีครับ",
    "blank lines": "\n",
    "lines": "a\n",
    "rows": "| a | b |\n",
    "headings": "# Head\n",
    "sections": "# Head\n\nOne.\n\n",
    "fences": "```\n",
    "signs": "#",
    "marks": "\u0301",
    "quotes": "“",
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_work_grows_with_the_length_of_the_text(shape: str) -> None:
    """A quadratic step would run into the time limit of the tests."""
    read = 0

    def count(texts: Sequence[str]) -> list[int]:
        nonlocal read
        read += sum(map(len, texts))
        return list(WORDS.count(texts))

    text = SHAPES[shape] * (300_000 // len(SHAPES[shape]))
    (passages,) = Splitter(Passages(), Counter(count)).split([hs.Document("1", text)])
    assert (passages[0].start, passages[-1].end) == (0, len(text))
    assert read <= 6 * len(text)


def test_a_text_of_ten_megabytes_is_split() -> None:
    text = "A short sentence of seven words. " * 300_000
    (passages,) = Splitter(Passages(), WORDS).split([hs.Document("1", text)])
    assert passages[-1].end == len(text)
    assert {text[p.start : p.end] for p in passages[:-1]} == {"A short sentence of seven words. " * 18}


def test_title_and_headings_leave_room_for_the_passage() -> None:
    title = "word " * 100
    document = hs.Document("1", "# Outer\n\n## " + "inner " * 50 + "\n\n" + "Text goes on. " * 40, title)
    counter = Counter(WORDS.count, limit=60)
    _, read = Splitter(Passages(size=40), counter).read([document])
    first, *others = (passage.content for passage in read)
    assert first.endswith(title)  # no word of a title is lost
    assert all(WORDS.count([content])[0] <= 60 for content in others)
    assert all(len(passage.text.split()) >= 12 for passage in read[1:-1])


def test_a_long_title_keeps_its_beginning_also_without_spaces() -> None:
    characters = Counter(lambda texts: list(map(len, texts)), limit=60)
    document = hs.Document("1", "Text goes on. " * 20, "天气公园" * 20)
    _, read = Splitter(Passages(size=40), characters).read([document])
    assert all(passage.title.startswith("天气") and len(passage.title) <= 20 for passage in read[1:])
    assert all(len(passage.content.strip()) <= 60 for passage in read[1:])
    for title in ("x" * 80, f"{'x' * 80} {'y' * 80}"):  # no word fits
        _, read = Splitter(Passages(size=40), characters).read([hs.Document("2", document.text, title)])
        assert {passage.title for passage in read} == {""}
        assert read[0].text.endswith(f" {title}")


def test_a_short_document_is_read_as_without_passages() -> None:
    document = hs.Document("1", "  Wings give lift.\n", "On wings ", {"year": 1958})
    spans, read = Splitter(Passages(), WORDS).read([document])
    assert (spans.spans.tolist(), read) == ([[0, 19]], [document])


def test_the_title_is_not_read_twice_if_it_is_the_first_heading() -> None:
    text = "# Guide\n\nRead me.\n\n## Linux\n\nRun it."
    _, read = Splitter(Passages(), WORDS).read([hs.Document("1", text, "Guide")])
    assert [passage.content for passage in read] == ["Guide # Guide\n\nRead me.", "Guide ## Linux\n\nRun it."]


def test_the_path_above_a_passage_is_known_from_its_start() -> None:
    text = "# Guide\n\nRead me.\n\n## Linux\n\nRun it. Then stop."
    starts = [text.index(words) for words in ("# Guide", "Read", "## Linux", "Run", "Then")]
    assert [path_at(text, start) for start in starts] == [
        (), ("Guide",), ("Guide",), ("Guide", "Linux"), ("Guide", "Linux"),
    ]  # fmt: skip


class Model(hs.BM25):
    """An encoder that says how many tokens it reads."""

    def __init__(self, limit: int | None) -> None:
        super().__init__()
        self.limit = limit

    @property
    def max_tokens(self) -> int | None:  # type: ignore[override]
        return self.limit


def test_the_tokens_are_those_of_the_retriever_that_reads_the_fewest() -> None:
    encoders = {"bm25": hs.BM25(), "wide": Model(500), "narrow": Model(200)}
    counter = counter_of(encoders)
    assert (counter.name, counter.limit) == ("narrow", 200)
    assert counter_of(encoders, whole=["narrow"]).name == "wide"
    assert counter_of(encoders, whole=["narrow", "wide"]).name == "bm25"
    assert counter_of(encoders, name="wide").name == "wide"
    assert counter_of(encoders, whole=list(encoders)).name == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 7}, "size is 7, but it must be a whole number of at least 8."),
        ({"size": 20, "overlap": 20}, "overlap is 20, but it must be less than size, which is 20."),
        ({"by": "pages"}, "by is one of sentences, not 'pages'."),
        ({"headings": 1}, "headings is true or false, not 1."),
    ],
)
def test_wrong_settings_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        Passages(**arguments)
    assert str(refused.value) == message


def test_settings_survive_json() -> None:
    given = Passages(100, 10, headings=False, whole=("bm25",))
    assert Passages.from_json({**given.to_json(), "counter": "dense"}) == given
    assert isinstance(counter_of({}), Counter)
