"""The base class of all fusions, with weights, sums and the order of equal scores."""

from __future__ import annotations

import itertools
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hybridsearch.arguments import number, shown
from hybridsearch.errors import HybridSearchError, InvalidArgumentError, NoRetrieverError, RetrieverError
from hybridsearch.fusion.fused import Fused
from hybridsearch.ranking import EMPTY, Ranking
from hybridsearch.readers.lines import writable


class Fusion(ABC):
    """Base class of fusions, which merge the rankings of several retrievers into one ranking.

    The fused score of a document is the sum of its contributions, one from each retriever that has the document in its
    ranking. A subclass needs the method `contributions`. Register the subclass by `hybridsearch.registry.register` if a
    saved index must find it again. It is registered by its `name`.

    Args:
        weights: Weights by retriever name, at least 0, with a weight for each retriever that is fused. None gives all
            retrievers the same weight. The weight 0 leaves a retriever out.

    Raises:
        InvalidArgumentError: A weight is negative or not finite, or all weights are 0.
    """

    name: ClassVar[str]
    """Name of the fusion in an index. The default is the name of the class."""

    weights: dict[str, float] | None = None
    """Weights by retriever name. None if all retrievers have the same weight."""

    tuned_on: frozenset[str] = frozenset()
    """Digests of the queries that `hs.tune` chose the fusion by (`hybridsearch.evaluation.tuned.kept_digests`)."""

    @property
    def keeps_order(self) -> bool:
        """Whether the first hits of a single ranking are its first documents, with any number of candidates.

        A search by one retriever then reads no more candidates than it shows.
        """
        return False

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        if weights is not None:
            if not isinstance(weights, Mapping) or not all(isinstance(name, str) for name in weights):
                raise InvalidArgumentError(
                    f"weights are numbers by retriever name, such as {{'bm25': 1, 'dense': 2}}, not {shown(weights)}."
                )
            sentence = "{name} is {value}, but a weight must be a number >= 0."
            self.weights = {
                name: float(number(f"The weight of {name!r}", weight, least=0, below=1e300, sentence=sentence))
                for name, weight in weights.items()
            }
            if not any(self.weights.values()):
                raise NoRetrieverError("All fusion weights are 0, so nothing could be found: raise one of them.")

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in vars(cls):  # an inherited name would stand for the base class
            cls.name = cls.__name__

    @abstractmethod
    def contributions(self, rankings: Mapping[str, Ranking]) -> dict[str, NDArray[np.float64]]:
        """Compute what each document of each ranking adds to its fused score.

        Args:
            rankings: Rankings of one query by retriever name. Retrievers with weight 0 are left out.

        Returns:
            By retriever name, one finite float64 number for each document, in the order of the ranking.
        """

    def fuse(self, rankings: Mapping[str, Ranking]) -> Ranking:
        """Merge the rankings of one query.

        Scores are compared with 12 significant digits, so that the order of the retrievers has no effect. Documents
        with equal scores are ordered by id.

        Args:
            rankings: Rankings by retriever name, one of each retriever that was asked. A ranking may be empty.

        Returns:
            The fused ranking.
        """
        return self.fused(rankings).ranking()

    def explain(self, rankings: Mapping[str, Ranking]) -> tuple[Ranking, dict[str, dict[str, float]]]:
        """Merge the rankings of one query, and return the contributions too.

        Args:
            rankings: Rankings by retriever name, one of each retriever that was asked. A ranking may be empty.

        Returns:
            The fused ranking, and the contributions by retriever name and document id.
        """
        fused = self.fused(rankings)
        used = {name: ranking for name, ranking in rankings.items() if name in fused.contributions}
        contributions = {
            name: dict(zip(used[name].ids, values.tolist(), strict=True))
            for name, values in fused.contributions.items()
        }
        return fused.ranking(), contributions

    def fused(self, rankings: Mapping[str, Ranking]) -> Fused:
        """Merge the rankings of one query as `fuse` does, but only as far as hits are needed.

        Args:
            rankings: Rankings by retriever name, one of each retriever that was asked. A ranking may be empty.

        Returns:
            The fused ranking, from which the first hits can be taken.
        """
        used = {name: ranking for name, ranking in rankings.items() if self.weight(name) > 0}
        return Fused(used, self._checked(used))

    def _checked(self, rankings: Mapping[str, Ranking]) -> dict[str, NDArray[np.float64]]:
        """The checked contributions. Raises RetrieverError if `contributions` fails or gives a wrong result."""
        try:
            given = {name: np.asarray(of, dtype=np.float64) for name, of in self.contributions(rankings).items()}
        except HybridSearchError:
            raise
        except Exception as error:
            raise RetrieverError(f"The fusion {self!r} failed: {type(error).__name__}: {error}") from error
        for name in {**rankings, **given}:
            values = given.get(name, EMPTY.scores)  # an empty ranking may be left out
            if name not in rankings or values.shape != (len(rankings[name]),) or not np.isfinite(values).all():
                raise RetrieverError(
                    f"The fusion {self!r} did not give one finite number for each document of {name!r}: repair its "
                    "method contributions."
                )
        return given

    def weight(self, retriever: str) -> float:
        """Look up the weight of one retriever.

        Raises:
            InvalidArgumentError: `weights` has no weight for the retriever.
        """
        if self.weights is None:
            return 1.0
        if retriever not in self.weights:
            raise InvalidArgumentError(
                f"The fusion has weights for {', '.join(map(repr, self.weights))} but none for {retriever!r}: "
                f"give {retriever!r} a weight (0 leaves the retriever out)."
            )
        return self.weights[retriever]

    def to_json(self) -> dict[str, Any]:
        """Convert the fusion to a dict that JSON can hold: `{"type": name, **constructor arguments}`.

        If the fusion was tuned, the dict also has `tuned_on`. `make_fusion` makes the fusion again.
        """
        tuned_on = {"tuned_on": " ".join(sorted(self.tuned_on))} if self.tuned_on else {}
        return {"type": self.name, "weights": self.weights, **tuned_on}

    def save(self, path: str | Path) -> None:
        """Write the fusion to a small JSON file. Every argument `fusion` takes the file's path.

        Args:
            path: Path of the file. Its name must end with `.json`.

        Raises:
            InvalidArgumentError: The name ends in another way.
            StorageError: The file cannot be written.
        """
        check_file(path)
        with writable(path) as place:
            place.write_text(json.dumps(self.to_json()) + "\n", encoding="utf-8")

    def __repr__(self) -> str:
        described = {key: value for key, value in self.to_json().items() if key not in ("type", "tuned_on")}
        arguments = {key: value for key, value in described.items() if value is not None}
        return f"{type(self).__name__}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"


def check_file(path: str | Path) -> None:
    """Raises InvalidArgumentError unless an argument `fusion` would take `path` as the path of a file."""
    if not str(path).endswith(".json"):
        raise InvalidArgumentError(f"The file of a fusion has a name that ends with .json, unlike {str(path)!r}.")


def checked_samples(samples: Iterable[Mapping[str, Ranking]]) -> list[Mapping[str, Ranking]]:
    """The rankings of some queries by retriever name, as `HybridSearch.rankings` returns them.

    Raises:
        InvalidArgumentError: There is no query, or two queries have different retrievers, or `samples` is something
            else, such as texts.
    """
    found = list(samples)
    for sample in found:
        if not isinstance(sample, Mapping) or not all(isinstance(one, Ranking) for one in sample.values()):
            raise InvalidArgumentError(
                f"A sample has the rankings of a query by retriever name, as search.rankings(queries) gives, but it is "
                f"{shown(sample)}."
            )
    if not found or not found[0] or any(sample.keys() != found[0].keys() for sample in found):
        raise InvalidArgumentError(
            "The samples have no query, or two queries have different retrievers: give rankings of one or more queries "
            "by the same retrievers."
        )
    return found


def weightings(retrievers: int, most: int, steps: int) -> NDArray[np.float64]:
    """Sets of weights with the sum 1. Equal weights come first.

    Args:
        retrievers: Number of weights in a set.
        most: Number of sets that is not exceeded, unless there are more retrievers.
        steps: Largest number of equal steps into which the sum is cut. There are fewer if these gave too many sets.

    Returns:
        An array of shape (sets, retrievers).

    >>> [len(weightings(retrievers, 500, 20)) for retrievers in (2, 3, 6)]
    [22, 232, 463]
    """
    steps = max(s for s in range(1, steps + 1) if s == 1 or math.comb(s + retrievers - 1, retrievers - 1) <= most)
    places = steps + retrievers - 1  # stars and bars: each set of bars distributes the steps in one way
    bars = itertools.combinations(range(places), retrievers - 1)
    rows = [(np.diff([-1, *one, places]) - 1) / steps for one in bars]
    return np.array([np.full(retrievers, 1 / retrievers), *rows])
