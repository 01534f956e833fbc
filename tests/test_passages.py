"""Tests of passages: spans cover the text, fit into their size, and begin where sentences and headings begin."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hybridsearch as hs
from hybridsearch.passages import Counter, Passages, Splitter, counter_of

WORDS = counter_of({})


def split(text: str, size: int = 8, **options: object) -> list[str]:
    """The passages of a text, counted in words."""
    (passages,) = Splitter(Passages(size=size, **options), WORDS).split([hs.Document("1", text)])
    return [text[start:end] for start, end, _ in passages]


FRAGMENTS = st.sampled_from(
    ["word ", "Dr. ", "Ends. ", "Why? ", "\n", "\r\n", "\n\n", "# Head\n", "\n## Sub\n", "```\n", "| a |\n", "- x\n",
     "Line\n====\n", "中文。", "สวัสดี", "한국어 ", "नमस्ते ", "e\u0301", "👩\u200d👩\u200d👧", "🇩🇪", "\u0301",
     "\u200b", "\u2028", "\t", "https://a.b/c "]
)  # fmt: skip
TEXTS = st.one_of(
    st.lists(FRAGMENTS, max_size=60).map("".join), st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
)


@settings(deadline=None)
@given(TEXTS, st.integers(8, 40), st.integers(0, 7), st.booleans())
def test_the_spans_cover_the_text_in_order(text: str, size: int, overlap: int, headings: bool) -> None:
    options = Passages(size=size, overlap=overlap, headings=headings)
    (passages,) = Splitter(options, WORDS).split([hs.Document("1", text)])
    assert passages[0].start == 0
    assert passages[-1].end == len(text)
    for before, after in pairwise(passages):
        assert before.start < after.start <= before.end < after.end
        assert sum(WORDS.count([text[after.start : before.end]])) <= overlap
        assert not text[after.start].isspace()
    assert len(passages) == 1 or all(text[start:end].strip() for start, end, _ in passages)


@pytest.mark.parametrize("text", ["", " \n\t"])
def test_a_blank_text_is_one_passage(text: str) -> None:
    assert split(text) == [text]


def test_a_heading_begins_a_passage_and_is_read_with_the_next_ones() -> None:
    text = "# Guide\n\nRead me first.\n\n## Linux\n\nRun it now, and wait. Then go on to the next page of it."
    _, read = Splitter(Passages(size=12), WORDS).read([hs.Document("1", text, "Manual")])
    assert [passage.content for passage in read] == [
        "Manual # Guide\n\nRead me first.\n\n",
        "Manual > Guide ## Linux\n\nRun it now, and wait. ",
        "Manual > Guide > Linux Then go on to the next page of it.",
    ]


def test_settings_survive_json() -> None:
    given = Passages(100, 10, headings=False, whole=("bm25",))
    assert Passages.from_json({**given.to_json(), "counter": "dense"}) == given
    assert isinstance(counter_of({}), Counter)
