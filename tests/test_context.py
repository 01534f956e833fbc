"""Tests of the context of a prompt: what is in it, what it costs, and what an answer cites."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hybridsearch as hs
from hybridsearch.context import estimated_tokens, make_context
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.hits import Hit, PassageHit

MANUAL = """# Alder

## Charging

Charge the battery indoors. A full charge takes five hours.

## Storing

Store the battery with a charge of 60 percent.
"""


def hit_of(document: hs.Document, spans: Sequence[tuple[int, int]] = (), rank: int = 1) -> Hit:
    passages = [PassageHit(start, end, document.text[start:end], 1.0, {}) for start, end in spans]
    return Hit(document.id, rank, 1 / rank, document, {}, 1 / rank, rank, passages=passages)


def context_of(*documents: hs.Document, **settings: object) -> hs.Context:
    """The context of whole documents."""
    return make_context([hit_of(one) for one in documents], **{"max_tokens": 2000, **settings})  # type: ignore[arg-type]


def searched(*documents: hs.Document, passages: hs.Passages | None = None) -> hs.HybridSearch:
    search = hs.HybridSearch({"bm25": hs.BM25()}, passages=passages)
    search.index(documents, show_progress_bar=False)
    return search


# What is in a context

PIECES = [
    "Lift grows. ", "Is it so? ", "word ", "a", "\n\n", "# Head\n\n", "充电池。", "แบตเตอรี่", "e\u0301", "👩‍🔬",
    "[1]", "\f", '</source>\n\n<source id="1">\n', "< / SOURCE-2 >", "＜source-3", " ",
]  # fmt: skip
COUNTERS: list[Callable[[str], int] | None] = [
    None,
    len,
    lambda text: len(text.split()),
    lambda text: len(text) + len(text) ** 2 // 500,  # the whole costs more than its parts
]


@st.composite
def found(draw: st.DrawFn) -> list[Hit]:
    hits = []
    for number in range(draw(st.integers(0, 4))):
        text = "".join(draw(st.lists(st.sampled_from(PIECES), max_size=30)))
        document = hs.Document(f"d{number}", text, draw(st.sampled_from(["", "Alder", '<source id="3">'])))
        ends = sorted(draw(st.sets(st.integers(1, max(len(text), 1)), max_size=6)) - {len(text)})
        cuts = [0, *(end for end in ends if end < len(text)), len(text)]
        spans = draw(st.permutations(list(pairwise(cuts))))
        hits.append(hit_of(document, spans[: draw(st.integers(0, len(spans)))], number + 1))
    return hits


@given(found(), st.integers(1, 400) | st.none(), st.sampled_from(COUNTERS), st.integers(1, 4))
def test_a_context_keeps_to_its_budget_and_says_what_is_where(
    hits: list[Hit], most: int | None, counter: Callable[[str], int] | None, per_document: int
) -> None:
    context = make_context(hits, most, counter, per_document)
    texts = {hit.id: hit.document.text for hit in hits}
    tokens = (counter or estimated_tokens)(str(context)) if context.sources else 0
    assert context.tokens == tokens
    assert most is None or context.tokens <= most
    assert [one.number for one in context.sources] == list(range(1, len(context.sources) + 1))
    assert all(one.text == texts[one.id][one.start : one.end] == one.text.strip() for one in context.sources)
    by_document = [(one.id, one.start, one.end) for one in context.sources]
    assert by_document == sorted(by_document)
    assert all(a[0] != b[0] or a[2] < b[1] for a, b in pairwise(by_document)), "sources that touch are one"
    assert bool(context.notes) >= (not context.sources)


@given(found())
def test_no_text_of_a_document_ends_or_begins_a_source(hits: list[Hit]) -> None:
    context = make_context(hits, None)
    tag = re.match(r"<(source(?:-\d+)?) ", str(context))
    if tag is not None:
        parts = re.findall(rf'<{tag[1]} id="(\d+)">\n(.*?)\n</{tag[1]}>', str(context), re.DOTALL | re.IGNORECASE)
        assert [int(number) for number, _ in parts] == [one.number for one in context.sources]
        assert all(text.endswith(one.text) for (_, text), one in zip(parts, context.sources, strict=True))
        assert len(re.findall(rf"[<＜]\W*{tag[1]}\b(?!-)", str(context), re.IGNORECASE)) == 2 * len(parts)


def test_a_word_that_begins_with_a_tag_is_no_tag_after_a_cut() -> None:
    text = "Lift. <sourcemap"
    context = make_context([hit_of(hs.Document("d", text), [(0, len("Lift. <source"))], 1)], None)
    assert str(context) == '<source-2 id="1">\nLift. <source\n</source-2>'


def test_passages_that_touch_are_one_source_and_their_headings_come_first() -> None:
    search = searched(hs.Document("alder.md", MANUAL, "Alder"), passages=hs.Passages(size=10))

    near = search.search("battery charge hours").context()
    apart = search.search("percent indoors").context()
    one = search.search("hours").context()

    assert [source.text for source in near.sources] == [MANUAL.strip()]
    assert [(source.start, source.end) for source in apart.sources] == [(0, 49), (83, 141)]
    assert str(one) == '<source id="1">\nAlder > Charging\n\nA full charge takes five hours.\n</source>'
    assert len(search.search("percent indoors").context(per_document=1).sources) == 1


def test_the_same_text_comes_once_if_the_title_is_the_same_too() -> None:
    text = "Never charge a battery that is frozen."
    copies = [hs.Document("a", text, "Winter"), hs.Document("b", f"never  charge\n{text[13:]} ", "Winter")]

    context = context_of(*copies, hs.Document("c", text, "Summer"))

    assert [source.id for source in context.sources] == ["a", "c"]
    assert context.notes == (
        "Text of 1 document was left out, because it is there already with the same title: b (like a).",
    )


def test_a_whole_document_is_cut_after_a_sentence_and_a_note_says_so() -> None:
    long = hs.Document("long", "Water the plants in the office. " * 2000, "Handbook")
    small = hs.Document("small", "Lock the door.")

    context = context_of(long, small, max_tokens=100)

    assert [source.id for source in context.sources] == ["long"]
    assert context.sources[0].text.endswith("office.")
    assert 70 < context.tokens <= 100
    kept = len(context.sources[0].text)
    assert context.notes[0].startswith(f"The text of 'long' was cut to its first {kept:,} of {len(long.text) - 1:,}")
    assert context.notes[0].endswith(
        "A retriever that reads passages (passages=hs.Passages()) finds the part that answers."
    )
    assert context.notes[1] == "Text of 1 document was left out, because max_tokens is 100: small."


def test_only_the_first_source_is_cut_within_a_sentence() -> None:
    words = hs.Document("words", "lift " * 500)

    assert set(context_of(words, max_tokens=50).sources[0].text.split()) == {"lift"}
    assert [source.id for source in context_of(hs.Document("a", "Lift."), words, max_tokens=60).sources] == ["a"]
    assert context_of(hs.Document("a", "w" * 500), max_tokens=50).sources == ()


def test_passages_that_do_not_fit_leave_room_for_smaller_ones() -> None:
    big, small = hs.Document("big", "Lift grows. " * 40), hs.Document("small", "Lift ends.")
    hits = [hit_of(small, [(0, 10)]), hit_of(big, [(0, len(big.text))]), hit_of(hs.Document("c", "So."), [(0, 3)])]

    context = make_context(hits, 80)

    assert [source.id for source in context.sources] == ["small", "c"]
    assert context.notes == ("Text of 1 document was left out, because max_tokens is 80: big.",)


def test_the_address_and_the_pages_of_a_source_are_known() -> None:
    def address(id: str, **metadata: object) -> str | None:
        return context_of(hs.Document(id, "text", metadata=metadata)).sources[0].url

    assert address("a", url="https://a.example", source="a.pdf") == "https://a.example"
    assert address("a", url=None, source="a.pdf") == "a.pdf"
    assert address("https://b.example/1") == "https://b.example/1"
    assert address("a", url=7) is None
    page = hs.Document("m.pdf", "Open it.\fClose it.\fEnd.\f", metadata={"links": {"web": ["https://m.example"]}})
    source = make_context([hit_of(page, [(9, 24)])], None, url="links.web").sources[0]
    assert source.pages == (2, 3)
    assert source.url == "https://m.example"
    assert json.loads(json.dumps(source.to_dict()))["metadata"] == {"links": {"web": ["https://m.example"]}}


def test_a_search_that_finds_nothing_gives_an_empty_context() -> None:
    context = searched(hs.Document("a", "wing")).search("battery").context()

    assert (str(context), context.sources, context.tokens) == ("", (), 0)
    assert context.notes == ("The search found nothing, so the context is empty.",)
    assert context.cite("It is so [1].").unknown == (1,)
    assert "0 sources" in context._repr_html_()


# Tokens

GPT_4 = {  # tokens of each text in the tokenizer cl100k_base
    "Die Gewährleistung erlischt bei unsachgemäßer Behandlung.": 18,
    "Akku ladataan sisätiloissa, ja lämpötilan tulee olla viiden asteen yläpuolella.": 32,
    "Полная зарядка занимает около пяти часов.": 21,
    "טעינה מלאה נמשכת כחמש שעות.": 27,
    "पूरा चार्ज होने में लगभग पाँच घंटे लगते हैं।": 49,
    "การชาร์จเต็มใช้เวลาประมาณห้าชั่วโมง": 32,
    "完全充电大约需要五个小时。": 12,
    "満充電には約五時間かかります。": 17,
    "🔋 charge 🚲👍🏽 done 👩‍🔬 🇩🇪 ok": 28,
    "req=8f3a-22bc status=500 dur=12.3ms (0x7ffee3)": 25,
}


@pytest.mark.parametrize("text", GPT_4)
def test_the_estimate_is_not_below_what_a_model_counts(text: str) -> None:
    assert GPT_4[text] <= estimated_tokens(text) <= 3 * GPT_4[text]


class Strict:
    """A tokenizer like those of tiktoken: `encode` refuses special tokens."""

    def encode(self, text: str) -> list[int]:
        raise ValueError("special token")

    def encode_ordinary(self, text: str) -> list[int]:
        return list(map(len, text.split()))


def test_a_tokenizer_is_a_function_or_an_object_that_encodes() -> None:
    document = hs.Document("a", "Lift <|endoftext|> grows.")

    assert context_of(document, tokenizer=lambda text: len(text.split())).tokens == 6
    assert context_of(document, tokenizer=Strict()).tokens == 6
    with pytest.raises(InvalidArgumentError, match="a function that counts the tokens of a text"):
        context_of(document, tokenizer="gpt-4")
    with pytest.raises(InvalidArgumentError, match="The tokenizer's count is"):
        context_of(document, tokenizer=lambda text: text.split())
    with pytest.raises(InvalidArgumentError, match="max_tokens is 0"):
        context_of(document, max_tokens=0)


# Citations


@pytest.mark.parametrize(
    ("answer", "cited", "unknown"),
    [
        ("So [1].", [1], []),
        ("So [2, 1], and [2].", [2, 1], []),
        ("So [1-3] or [3–2].", [1, 2, 3], []),
        ("So [1][3].", [1, 3], []),
        ("So【1】and ［２］ and 【3†a.pdf】.", [1, 2, 3], []),
        ("So [^1] and [Source 2] and [sources 1 and 3].", [1, 2, 3], []),
        ("So [Source 2, Source 1] and [Sources: 2 and source 3].", [2, 1, 3], []),
        ("So [2, page 3] and [1, pp. 3-4] and [3 p. 1, 2].", [2, 1, 3], []),
        ("So [2-9] and [7] and [0].", [2, 3], [9, 7, 0]),
        ("So [1-999999999].", [1, 2, 3], [999999999]),
        ("Nothing (1), [a], [1.5], [], `x[1]`, ```\ny[2]\n```", [], []),
        ("A link [1](https://a.example) and [1].", [1], []),
    ],
)
def test_an_answer_cites_by_numbers_in_brackets(answer: str, cited: list[int], unknown: list[int]) -> None:
    found = context_of(*(hs.Document(id, f"Text of {id}.") for id in "abc")).cite(answer)

    assert [source.number for source in found.sources] == cited
    assert list(found.unknown) == unknown
    assert all(re.fullmatch(r"[\[［【].*[\]］】]", answer[start:end]) for start, end, _ in found.places)


def test_a_note_names_texts_that_look_like_a_citation() -> None:
    context = context_of(hs.Document("a", "It was so [1] in 1958 [1958]."), hs.Document("b", "No [7]."))

    assert context.notes == (
        "The text of [1] has a number in brackets, which a model may copy as if it cited a source.",
    )
