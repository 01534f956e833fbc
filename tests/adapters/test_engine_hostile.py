"""Tests of strings that a parser, a path, a mapping or a terminal could mistake for something else."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable, Iterator, Sequence

import pytest
from sent import assert_holds

pytest.importorskip("opensearchpy", reason="pip install 'hybridsearch[opensearch]'")
pytest.importorskip("elasticsearch", reason="pip install 'hybridsearch[elasticsearch]'")

import hybridsearch as hs
from hybridsearch.adapters.lucene.backend import LuceneBackend
from hybridsearch.backends import Request
from hybridsearch.documents import MAX_ID_BYTES
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.filters import Filter, composed
from hybridsearch.testing import samples
from hybridsearch.testing.samples import Item, sparse_query

SCHEMA = samples.make_schema(frozenset({"lexical", "sparse"}), average_length=samples.FROZEN_LENGTH)
AT_ONCE = 500
LONGEST_BOUND = 8000  # characters of a string in the bound of a range
PIECES = [
    "'", '"', "{", "}", "[", "]", "(", ")", "<", ">", "\\", "/", "*", "?", "~", "^", ":", "|", "&&", "||", "!", "+",
    "-", "=", "=~", "=[", "=+", '="', "#", "%", ",", ";", "$", "@", "_", "`", ".", "..", "...", "a.b",
    "../../etc/passwd", "C:\\con", "file:///", "%00", "%2e%2e%2f", "%s%n", "{{7*7}}", "${jndi:ldap://x/a}",
    "<script>", "<!--", "]]>", "&amp;", "'; DROP TABLE x;--", " OR 1=1", "AND", "OR", "NOT", " TO ", "[* TO *]",
    "*:*", "_exists_:", "_id", "_source", "_all", "_doc/", "_bulk", '{"index":{}}\n',
    '"}}\n{"delete":{"_id":"d1"}}\n', "$ne", "$where", "$gt", "__proto__", "null", "None", "true", "NaN", "-Infinity",
    "1e309", "-0", "007", "9223372036854775808", "0x1F", "2020-01-01", "1.0", "\x00", "\x01", "\x07", "\x08",
    "\x1b[31m", "\x7f", "\x85", "\r\n", "\n", "\r", "\t", "\v", "\f", " ", "  ", "\u00a0", "\u2028", "\u2029",
    "\u200b", "\u200d", "\u200e", "\u200f", "\u202e", "\u2066", "\u00ad", "\ufeff", "\ufffe", "\uffff", "\ufffd",
    "\U0010ffff", "\U00010000", "\ud7ff", "\ue000", "\uff61", "\uff0f", "\uff0e", "é", "e\u0301", "Å", "\u212b", "ß",
    "ẞ", "İ", "ı", "ﬁ", "ς", "Σ", "\u0345", "日本語", "한국", "ไทย", "שלום", "مرحبا", "\u0627\u200c\u0644",
    "\U0001f600", "\U0001f469\u200d\U0001f469\u200d\U0001f467", "\U0001f1e9\U0001f1ea", "\u0301" * 30,
    "[MASK]", "##ing",
]  # fmt: skip
SURROGATES = ["\ud800", "\udfff", "\udc80", "\ude00\ud83d"]
"""Lone surrogates. Documents refuse them, because they are not valid text, but a token of a model may have them."""


def hostile_strings(count: int) -> list[str]:
    """This number of distinct strings, always the same. Most of them differ only slightly from another one."""
    rng = random.Random(count)
    strings: dict[str, None] = {}
    while len(strings) < count:
        parts = rng.choices(PIECES, k=rng.randint(1, 5))
        if rng.random() < 0.05:
            parts.insert(rng.randint(0, len(parts)), rng.choice(SURROGATES))
        if rng.random() < 0.02:
            parts *= rng.choice([40, 400, 2000])
        string = "".join(parts)
        near = [
            string.swapcase(), string + " ", " " + string, string + "\x00", string[:-1], string[::-1], string * 2,
            unicodedata.normalize("NFC", string), unicodedata.normalize("NFKD", string), string.strip(),
        ]  # fmt: skip
        for one in (string, *rng.sample(near, 2)):
            if one and one not in ("value", "id", "here"):
                strings[one] = None
    return list(strings)[:count]


def is_text(string: str) -> bool:
    return string.encode(errors="replace") == string.encode("utf-8", "surrogatepass")


def item_of(number: int, string: str) -> Item:
    """A document with `string` in every possible place. The term "common" finds it too."""
    terms = {string: 1, "common": 1}
    if not is_text(string):
        return Item(f"surrogate{number}", terms, terms)
    id = string if len(string.encode()) <= MAX_ID_BYTES else f"long{number}"
    return Item(id, terms, terms, text=string, title=string[:50], metadata={"value": string, string: "here"})


def questions(item: Item) -> Iterator[Request]:
    """Queries and filters that only this document matches, also in other forms of the same string."""
    string = string_of(item)
    everything = sparse_query({"common": 1.0})
    yield Request("lexical", sparse_query({string: 1.0}), 10)
    yield Request("sparse", sparse_query({string: 1.0}), 10)
    yield Request("sparse", everything, 10, Filter.parse({"id": item.id}))
    if item.metadata:
        yield Request("sparse", everything, 10, Filter.parse({"value": string}))
        if len(string) < LONGEST_BOUND:
            yield Request("lexical", everything, 10, Filter.parse({"value": {"$gte": string, "$lte": string}}))
        if not string.startswith("$"):  # no filter can name it
            yield Request("sparse", everything, 10, Filter.parse({string: "here"}))
            yield Request("sparse", everything, 10, Filter.parse({string: {"$exists": True}}))


def string_of(item: Item) -> str:
    (string,) = item.counts.keys() - {"common"}
    return string


def right(items: Sequence[Item], item: Item, question: Request) -> set[str]:
    """The ids that match a query or a filter of `item`."""
    if question.filter is None:
        return {item.id}
    string = composed(string_of(item))
    alike = [one for one in items if f"{composed(string_of(one))}.".startswith(f"{string}.")]
    return {one.id for one in {one.id: one for one in [item, *alike]}.values() if question.filter.matches(one.document)}


@pytest.fixture
def backend(make: Callable[..., LuceneBackend]) -> LuceneBackend:
    backend = make(timeout=120.0)
    backend.create(SCHEMA)
    return backend


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_hostile_strings_come_back_equal_and_are_found_and_deleted_each_by_itself(
    backend: LuceneBackend, count: int
) -> None:
    items = [item_of(number, string) for number, string in enumerate(hostile_strings(count))]
    assert len({item.id for item in items}) == count
    backend.load(samples.encode(items[start : start + AT_ONCE], SCHEMA) for start in range(0, count, AT_ONCE))
    assert_holds(backend, items, SCHEMA)
    wrong = []
    for start in range(0, count, AT_ONCE):
        asked = [(item, question) for item in items[start : start + AT_ONCE] for question in questions(item)]
        rankings = backend.search([question for _, question in asked])
        wrong += [
            (item.id, question.retriever, question.filter, ranking.ids[:3])
            for (item, question), ranking in zip(asked, rankings, strict=True)
            if set(ranking.ids) != right(items, item, question)
        ]
    assert not wrong, f"{len(wrong)}, such as {wrong[0]!r:.300}"
    gone, kept = items[::2], items[1::2]
    assert backend.delete([item.id for item in gone[:50]]) == 50
    assert backend.delete([gone[50].id]) == 1
    assert backend.delete([item.id for item in gone]) == len(gone) - 51
    assert_holds(backend, kept, SCHEMA)
    assert backend.fetch([item.id for item in gone]) == [None] * len(gone)


def test_hostile_filters_find_what_their_definition_says(backend: LuceneBackend) -> None:
    strings = [string for string in hostile_strings(300) if len(string) < 1000]
    items = [item_of(number, string) for number, string in enumerate(strings)]
    backend.load([samples.encode(items, SCHEMA)])
    operators = ("$contains", "$gt", "$lt", "$ne")
    asked = [Filter.parse({"value": {operator: string}}) for string in strings[::6] for operator in operators]
    asked += [Filter.parse({"id": {operator: string}}) for string in strings[1::6] for operator in operators]
    everything = sparse_query({"common": 1.0})
    rankings = backend.search([Request("sparse", everything, len(items), filter) for filter in asked])
    for filter, ranking in zip(asked, rankings, strict=True):
        assert set(ranking.ids) == {item.id for item in items if filter.matches(item.document)}, filter


def test_halves_of_characters_are_ids_and_values_of_no_document(backend: LuceneBackend) -> None:
    backend.load([samples.encode([samples.plain("\ufffd", metadata={"value": "\ufffd"}), samples.plain("?")], SCHEMA)])
    assert backend.fetch(SURROGATES) == [None] * len(SURROGATES)
    assert backend.delete(SURROGATES) == 0
    for string in SURROGATES:
        for field in ("id", "value", string):
            assert backend.count(Filter.parse({field: string})) == 0
    assert backend.count() == 2


def test_hostile_queries_are_answered(server: str, lucene_names: Callable[[str, str], str]) -> None:
    strings = [string for string in hostile_strings(300) if len(string) < 1000]  # OpenSearch takes 1,024 words
    documents = [hs.Document(f"d{n}", string) for n, string in enumerate(strings) if is_text(string)]
    with hs.HybridSearch(
        {"bm25": hs.BM25(), "native": hs.NativeBM25()}, backend=lucene_names(server, "queries")
    ) as search:
        search.index(documents, show_progress_bar=False)
        ids = {document.id for document in documents}
        for string in strings:
            if is_text(string):
                assert set(search.search(string).ids) <= ids
            else:
                with pytest.raises(InvalidArgumentError, match="lone surrogate"):
                    search.search(string)
