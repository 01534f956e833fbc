"""The first hits of a fused ranking are those of the whole ranking, also near ties."""

import copy
import math
from collections.abc import Sequence

import numpy as np
import pytest

from hybridsearch.documents import Document
from hybridsearch.fusion.fused import Fused
from hybridsearch.ranking import Ranking, round_score


class Library:
    """A source whose keys are numbers of documents. It counts the ids that are read."""

    def __init__(self) -> None:
        self.read = 0

    def ids_of(self, keys: Sequence[int]) -> list[str]:
        self.read += len(keys)
        return [f"d{key * 7 % 101}" for key in keys]

    def documents_of(self, keys: Sequence[int], ids: Sequence[str]) -> list[Document]:
        return [Document(id, f"text {key}") for id, key in zip(ids, keys, strict=True)]


@pytest.mark.parametrize("retrievers", [1, 2, 3])
@pytest.mark.parametrize("lazy", ["", "a", "abc"])
def test_the_first_hits_are_those_of_the_whole_ranking(retrievers: int, lazy: str) -> None:
    rng = np.random.default_rng(retrievers)
    for _ in range(100):
        library, rankings, contributions = Library(), {}, {}
        for name in "abc"[:retrievers]:
            keys = rng.permutation(101)[: rng.integers(0, 60)]
            ranking = Ranking.lazy(library, keys, np.arange(len(keys), 0.0, -1))
            rankings[name] = ranking if name in lazy else Ranking(tuple(library.ids_of(keys.tolist())), ranking.scores)
            values = rng.integers(-3, 4, len(keys)) / 3 * (1 + rng.integers(-2, 3, len(keys)) * 2e-13)
            contributions[name] = np.sort(values)[::-1] if rng.random() < 0.5 else values
        fused = Fused(rankings, contributions)
        parts: dict[str, list[float]] = {}
        for name, values in contributions.items():
            for (id, _), value in zip(copy.deepcopy(rankings[name]), values.tolist(), strict=True):
                parts.setdefault(id, []).append(value)
        right = sorted((-round_score(math.fsum(own)), id) for id, own in parts.items())
        for count in (1, 5, 20, 200, None):
            assert [(-hit.score, hit.id) for hit in fused.top(count)] == right[:count]
        hits = fused.top(3)
        for hit in hits:
            assert {name: (part.rank, part.score) for name, part in fused.parts(hit.key).items()} == {
                name: (ranking.ids.index(hit.id) + 1, ranking.scores[ranking.ids.index(hit.id)])
                for name, ranking in rankings.items()
                if hit.id in ranking.ids
            }


def test_only_the_ids_of_the_first_hits_are_read() -> None:
    library = Library()
    ranking = Ranking.lazy(library, np.arange(100), np.arange(100.0, 0, -1))
    fused = Fused({"a": ranking}, {"a": 1 / np.arange(1.0, 101)})
    hits = fused.top(10)
    assert library.read == 10
    assert [document.text for document in fused.documents(hits) or ()] == [f"text {n}" for n in range(10)]
    assert len(ranking.top(5)) == 5
    assert library.read == 10


def test_a_lazy_ranking_is_like_any_other() -> None:
    library = Library()
    ranking = Ranking.lazy(library, np.array([3, 1]), np.array([2.0, 1.0]))
    same = Ranking(("d21", "d7"), np.array([2.0, 1.0]))
    assert copy.deepcopy(ranking) == same == ranking
    assert ranking.ids == ("d21", "d7")
    assert ranking.located is None
    with pytest.raises(AttributeError, match="documentz"):
        _ = ranking.documentz  # type: ignore[attr-defined]
