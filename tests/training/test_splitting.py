"""Training data and judged queries are split into parts that share nothing."""

from __future__ import annotations

import pkgutil
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hybridsearch as hs
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.training.data import Kind, TrainingData, split

pytest.importorskip("datasets", reason="pip install 'hybridsearch[training]'")


def test_no_submodule_takes_the_place_of_a_name_that_the_package_offers() -> None:
    import hybridsearch.training.data as package

    offered = {name for name, value in vars(package).items() if not isinstance(value, ModuleType)}
    names = ["Kind", "TrainingData", "is_retrieval", "normalized", "read_training_data", "split", "with_queries"]
    assert offered >= set(names)
    assert offered.isdisjoint(module.name for module in pkgutil.iter_modules(package.__path__))


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=30, max_size=120),
    st.integers(0, 5),
)
@settings(max_examples=15, deadline=None)
def test_no_text_is_on_two_sides_of_a_split(rows: list[tuple[int, int]], seed: int) -> None:
    pairs = {
        "anchor": [f"q{a}" for a, _ in rows],
        "positive": [f" Text {b}" if a % 2 else f"text {b}" for a, b in rows],
    }
    pairs = {"anchor": [*pairs["anchor"], "u", "v", "w"], "positive": [*pairs["positive"], "1", "2", "3"]}
    parts = split(TrainingData.from_columns(Kind.PAIRS, pairs), (0.6, 0.2, 0.2), seed)
    sides = [{text.strip().lower() for row in part.rows for text in row.values()} for part in parts]
    assert not sides[0] & sides[1]
    assert not (sides[0] | sides[1]) & sides[2]
    assert sorted(text for part in parts for text in part.rows["anchor"]) == sorted(pairs["anchor"])


def test_a_split_has_the_fractions_asked_for_and_is_the_same_each_time() -> None:
    pairs = {"anchor": [f"q{n}" for n in range(1000)], "positive": [f"d{n // 2}" for n in range(1000)]}
    data = TrainingData.from_columns(Kind.PAIRS, pairs, name="many", ids={"query_id": [str(n) for n in range(1000)]})
    first, again, other = split(data), split(data), split(data, seed=1)
    assert [len(part) for part in first] == [900, 10, 90]
    assert [part.name for part in first] == ["many/train", "many/dev", "many/test"]
    assert [part.rows[:] for part in first] == [part.rows[:] for part in again]
    assert first[2].rows[:] != other[2].rows[:]
    for part in first:
        assert part.ids is not None
        assert [f"q{id}" for id in part.ids["query_id"]] == part.rows["anchor"][:]


def test_a_dataset_is_split_by_its_queries_and_their_documents(tiny_dataset: hs.Dataset) -> None:
    twins = {f"again-{id}": text.upper() for id, text in tiny_dataset.queries.items()}
    others = {f"other-{id}": f"Tell me about {id}" for id in tiny_dataset.queries}
    of_others = {f"other-{id}": {**grades, "wing-0": 0} for id, grades in tiny_dataset.qrels.items()}
    of_twins = {id: {f"elsewhere-{number}": 1} for number, id in enumerate(twins)}
    queries = {**tiny_dataset.queries, **twins, **others}
    dataset = hs.Dataset("tiny", queries, {**tiny_dataset.qrels, **of_twins, **of_others}, tiny_dataset.corpus)
    parts = split(dataset, (0.5, 0.25, 0.25))

    assert [part.name for part in parts] == ["tiny/train", "tiny/dev", "tiny/test"]
    assert [len(part.queries) for part in parts] == [60, 30, 30]
    assert all(part.qrels.keys() == part.queries.keys() and part.corpus is tiny_dataset.corpus for part in parts)
    texts = [{text.lower() for text in part.queries.values()} for part in parts]
    found = [{id for grades in part.qrels.values() for id, grade in grades.items() if grade} for part in parts]
    for sides in (texts, found):
        assert not sides[0] & sides[1] | sides[0] & sides[2] | sides[1] & sides[2]


def test_documents_of_lists_are_not_on_two_sides() -> None:
    lists = {
        "query": ["q1", "q2", "q3", "q4"],
        "docs": [["a", "b"], ["c"], ["B", "d"], ["e"]],
        "labels": [[1.0, 0.0], [1.0], [1.0, 0.0], [1.0]],
    }
    parts = split(TrainingData.from_columns(Kind.LISTS, lists), (0.4, 0.3, 0.3))
    assert sorted(sorted(part.rows["query"]) for part in parts) == [["q1", "q3"], ["q2"], ["q4"]]


@pytest.mark.parametrize("fractions", [(0.9, 0.1), (0.9, 0.2, 0.1), (1.0, 0.0, 0.0)])
def test_fractions_that_are_none_are_refused(fractions: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="above 0 that sum to 1"):
        split(TrainingData.from_columns(Kind.TEXTS, {"text": ["a", "b", "c"]}), fractions)


def test_what_was_made_of_one_document_is_on_one_side() -> None:
    texts = [f"text {number}" for number in range(60)]
    ids = {"document_id": [str(number // 3) for number in range(60)]}
    data = TrainingData.from_columns(Kind.PAIRS, {"anchor": texts, "positive": [f"to {one}" for one in texts]}, ids=ids)

    sides = [set(part.ids["document_id"]) for part in split(data, (0.6, 0.2, 0.2)) if part.ids is not None]

    assert sum(map(len, sides)) == len(set.union(*sides)) == 20


def test_rows_that_all_share_a_text_cannot_be_split() -> None:
    pairs = {"anchor": [f"q{n}" for n in range(9)], "positive": ["yes"] * 9}
    with pytest.raises(InvalidArgumentError, match="share texts and form only 1 group"):
        split(TrainingData.from_columns(Kind.PAIRS, pairs))


@pytest.mark.parametrize("fractions", [(float("nan"), 0.25, 0.25), (0.5, float("nan"), 0.5), (0.5, 0.5, 0.0)])
def test_fractions_that_are_no_shares_are_refused(fractions: tuple[float, float, float]) -> None:
    data = TrainingData.from_columns(Kind.PAIRS, {"anchor": ["a", "b", "c"], "positive": ["d", "e", "f"]})
    with pytest.raises(InvalidArgumentError, match="Give three numbers above 0 that sum to 1"):
        split(data, fractions)
