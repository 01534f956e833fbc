"""What encoders and rerankers read of documents: fields, and templates."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hybridsearch as hs
from hybridsearch.encoders.fields import Template, read_fields
from hybridsearch.errors import FingerprintMismatchError, InvalidArgumentError

TEXTS = st.text(st.sampled_from("ab cd\u6771\u4eac,.1"), max_size=12)

DOCUMENT = hs.Document(
    "1",
    "A {title} wing.",
    "Lift",
    {
        "tags": ["wing", "flow"],
        "year": 1958,
        "price": 2.5,
        "whole": 3.0,
        "draft": False,
        "none": None,
        "author": {"name": "Ada", "city": {"of": "London"}},
        "a.b": "dotted",
        "parts": [{"name": "spar"}, {"name": "rib"}],
        "große": "umlaut",
        "id": "AB-12",
    },
)


@pytest.mark.parametrize(
    ("field", "read"),
    [
        ("title", "Lift"),
        ("text", "A {title} wing."),
        ("metadata.tags", "wing, flow"),
        ("metadata.year", "1958"),
        ("metadata.price", "2.5"),
        ("metadata.whole", "3"),
        ("metadata.draft", "false"),
        ("metadata.none", ""),
        ("metadata.unknown", ""),
        ("metadata.author.name", "Ada"),
        ("metadata.author", "Ada, London"),
        ("metadata.author.city", "London"),
        ("metadata.a.b", "dotted"),
        ("metadata.parts", "spar, rib"),
        ("metadata.große", "umlaut"),
        ("metadata.id", "AB-12"),
    ],
)
def test_a_field_is_read_as_text(field: str, read: str) -> None:
    assert read_fields(DOCUMENT, [field]) == [read]
    assert Template(f"<{{{field}}}>").read(DOCUMENT) == (f"<{read}>" if read else "")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{body}", "names 'body'"),
        ("{}", "names ''"),
        ("{ title }", "names ' title '"),
        ("{title!r}", "names 'title!r'"),
        ("{title:>10}", "names"),
        ("{metadata}", "names 'metadata'"),
        ("{metadata.}", "names"),
        ("{metadata.a..b}", "names"),
        ("{title", "has a '{' that"),
        ("{title}}", "has a '}' that"),
        ("{{title}}", "has a '{' that"),
        ("title and text", "has no placeholder"),
        ("", "has no placeholder"),
        (5, "template is a text"),
    ],
)
def test_a_wrong_template_is_an_error_at_once(template: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message.replace("{", r"\{").replace("}", r"\}")):
        Template(template)
    with pytest.raises(InvalidArgumentError):
        hs.Dense("no/such-model", template=template)
    with pytest.raises(InvalidArgumentError):
        hs.Sparse("no/such-model", template=template)
    with pytest.raises(InvalidArgumentError):
        hs.CrossEncoderReranker("no/such-model", template=template)


@given(st.text(), st.text(), st.text())
def test_the_text_of_users_is_never_interpreted(title: str, text: str, tag: str) -> None:
    document = hs.Document("1", text, title, {"tag": tag})
    made = Template("T {title} X {text} Y {metadata.tag} Z").read(document)
    assert made == (f"T {title} X {text} Y {tag} Z" if title.strip() or text.strip() or tag.strip() else "")


def test_a_document_without_values_is_empty() -> None:
    assert Template("Title: {title}. Text: {text}").read(hs.Document("1", " \n")) == ""


def test_dense_reads_the_template_and_keeps_its_vectors(minilm: str, tmp_path: Path) -> None:
    plain, own = (
        hs.Dense(minilm, cache=tmp_path, **options) for options in ({}, {"template": "{title}. Tags: {metadata.tags}"})
    )
    assert own.text_of(DOCUMENT) == "Lift. Tags: wing, flow"
    assert plain.text_of(DOCUMENT) == DOCUMENT.content
    assert "template" not in plain.fingerprint().settings
    assert plain.fingerprint().digest != own.fingerprint().digest
    assert "template='{title}. Tags: {metadata.tags}'" in repr(own)

    vectors = own.encode_fields([DOCUMENT, hs.Document("2", "")])

    expected = plain.encode_documents(["Lift. Tags: wing, flow", ""])
    assert np.array_equal(vectors.array, expected.array)
    assert len(list(tmp_path.glob("*.sqlite"))) == 1, "texts are kept once, whatever the template"
    assert np.array_equal(plain.encode_fields([DOCUMENT]).array, plain.encode_documents([DOCUMENT.content]).array)
    assert pickle.loads(pickle.dumps(own)).text_of(DOCUMENT) == own.text_of(DOCUMENT)  # noqa: S301


def test_an_index_with_a_template_is_opened_with_it(minilm: str, tmp_path: Path) -> None:
    documents = [hs.Document(str(n), "The same text.", metadata={"about": about}) for n, about in enumerate(ABOUTS)]
    with hs.HybridSearch({"dense": hs.Dense(minilm, template="About {metadata.about}")}, tmp_path / "index") as search:
        search.index(documents)

    with hs.open(tmp_path / "index") as search:
        assert search.search("a fruit that monkeys like").ids[0] == "1"
        search.upsert([hs.Document("3", "The same text.", metadata={"about": "plantains and mangos for monkeys"})])
        assert set(search.search("a fruit that monkeys like").ids[:2]) == {"1", "3"}
    with pytest.raises(FingerprintMismatchError, match="template: 'About"):
        hs.open(tmp_path / "index", retrievers={"dense": hs.Dense(minilm)})


@given(
    st.dictionaries(
        st.sampled_from(["title", "text", "metadata.tags", "metadata.by.name"]), st.floats(0.001, 1000), min_size=1
    ),
    st.lists(st.tuples(TEXTS, TEXTS, st.lists(TEXTS, max_size=3), TEXTS), max_size=4),
)
def test_frequencies_are_weighted_sums_over_the_fields(fields: dict[str, float], parts: list[Any]) -> None:
    documents = [
        hs.Document(str(n), text, title, {"tags": tags, "by": {"name": name}})
        for n, (title, text, tags, name) in enumerate(parts)
    ]
    bm25 = hs.BM25(fields=fields)

    vectors = bm25.encode_fields(documents)

    dense = vectors.matrix.toarray()
    assert dense.dtype == np.float32
    assert dense.shape[0] == len(documents)
    for row, (title, text, tags, name) in zip(dense, parts, strict=True):
        read = {"title": [title], "text": [text], "metadata.tags": tags, "metadata.by.name": [name]}
        expected: Counter[str] = Counter()
        for field, weight in fields.items():
            for value in read[field]:
                for term in bm25.tokenize(value):
                    expected[term] += weight  # type: ignore[assignment]
        found = {term: value for term, value in zip(vectors.vocabulary.terms, row.tolist(), strict=True) if value}
        assert found == pytest.approx(dict(expected), rel=1e-6)


def test_weights_of_one_are_title_and_text() -> None:
    documents = [DOCUMENT, hs.Document("2", "wing wing lift", "The Wings"), hs.Document("3", "")]
    fields, plain = hs.BM25(fields={"title": 1, "text": 1}).encode_fields(documents), hs.BM25().encode_fields(documents)
    assert fields.vocabulary.terms == plain.vocabulary.terms
    assert np.array_equal(fields.matrix.toarray(), plain.matrix.toarray())


def test_without_fields_nothing_is_recorded() -> None:
    schema = hs.BM25().schema()
    assert schema.encoder is not None
    assert "fields" not in schema.encoder
    assert "fields" not in schema.fingerprint.settings


@pytest.mark.parametrize(
    "fields",
    [
        {},
        [("title", 3)],
        "title",
        {"body": 1},
        {"metadata": 1},
        {5: 1},
        {"title": 0},
        {"title": -1},
        {"title": True},
        {"title": float("nan")},
        {"title": float("inf")},
        {"title": "3"},
        {"title": 1e6},
    ],
)
def test_wrong_fields_are_an_error_at_once(fields: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"fields|weight"):
        hs.BM25(fields=fields)


def test_an_index_keeps_the_fields(tmp_path: Path) -> None:
    documents = [
        hs.Document("title", "of another thing", "Wings"),
        hs.Document("text", "wings wings", "Another thing"),
        hs.Document("tags", "thing", "thing", {"tags": ["wing", "flow"]}),
    ]
    bm25 = hs.BM25(fields={"title": 5, "text": 1, "metadata.tags": 20})
    with hs.HybridSearch({"bm25": bm25}, tmp_path / "index") as search:
        search.index(documents)
    with hs.open(tmp_path / "index") as search:
        assert repr(search.retrievers["bm25"]) == repr(bm25)
        results = search.search("wing")
        assert results.ids == ["tags", "title", "text"]
        assert [list(explanation.terms["bm25"]) for explanation in results.explain()] == [["wing"]] * 3
        search.upsert([hs.Document("text", "thing", "Wings wings wings")])
        assert search.search("wing").ids == ["text", "tags", "title"]
    with pytest.raises(FingerprintMismatchError, match="fields"):
        hs.open(tmp_path / "index", retrievers={"bm25": hs.BM25()}).search("wing")


ABOUTS = ["rockets and satellites", "bananas", "the law of contracts"]


def test_a_metadata_field_that_no_document_has_is_noted() -> None:
    fields = {"text": 1, "metadata.tags": 2, "metadata.tagz": 2, "metadata.author.city": 1}
    with hs.HybridSearch({"bm25": hs.BM25(fields=fields), "chars": hs.CharNGrams()}) as search:
        note = "bm25 reads metadata.tagz, but no document has this field."
        assert search.upsert([hs.Document("2", "wing"), DOCUMENT]).notes == (note,)
        assert search.upsert([DOCUMENT]).notes == ()  # nothing was encoded
        assert search.upsert(hs.Document("3", "jet", metadata={"tagz": ["engine"]})).notes == ()
        assert search.upsert(hs.Document("4", "jet")).notes == ()
    assert Template("{title} {metadata.a} {metadata.b.c}").metadata_fields == ("a", "b.c")
