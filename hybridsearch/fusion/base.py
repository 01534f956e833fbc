"""What every fusion shares: weights, sums and ties. A fusion adds what each listed document earns."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hybridsearch.arguments import number, shown
from hybridsearch.errors import HybridSearchError, InvalidArgumentError, RetrieverError
from hybridsearch.ranking import EMPTY, Ranking, round_score
from hybridsearch.readers.lines import writable


class Fusion(ABC):
    """How rankings are merged: the fused score of a document is the sum of what it earns from each retriever.

    A fusion of your own that an index is to find again is registered (`hybridsearch.registry.register`) by its `name`,
    which is that of its class unless it has another.

    Args:
        weights: non-negative weight by retriever name, with an entry for every retriever that is fused; None = all
            equal. Weight 0 is the same as leaving the retriever out.

    Raises:
        InvalidArgumentError: a weight is negative, not finite, or all are 0.
    """

    name: ClassVar[str]

    weights: dict[str, float] | None = None

    tuned_on: frozenset[str] = frozenset()
    """Digests of the queries that `hs.tune` chose it by: `hybridsearch.evaluation.tuned.kept_digests`."""

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        if weights is not None:
            if not isinstance(weights, Mapping) or not all(isinstance(name, str) for name in weights):
                raise InvalidArgumentError(
                    f"weights are numbers by retriever name, such as {{'bm25': 1, 'dense': 2}}, not {shown(weights)}."
                )
            sentence = "{name} is {value}; weights are numbers >= 0."
            self.weights = {
                name: float(number(f"The weight of {name!r}", weight, least=0, below=1e300, sentence=sentence))
                for name, weight in weights.items()
            }
            if not any(self.weights.values()):
                raise InvalidArgumentError("All fusion weights are 0, so nothing could be found; raise one of them.")

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in vars(cls):  # the name of its base class would be found again as that class
            cls.name = cls.__name__

    @abstractmethod
    def contributions(self, rankings: Mapping[str, Ranking]) -> dict[str, NDArray[np.float64]]:
        """What each document of each ranking earns, parallel to that ranking's ids; no ranking has weight 0 here."""

    def fuse(self, rankings: Mapping[str, Ranking]) -> Ranking:
        """The fused ranking of one query.

        Sums are exactly rounded and compared after rounding to 12 significant digits, so that the order of the
        retrievers cannot decide; equal scores are ordered by document id.

        Args:
            rankings: by retriever name; all of those asked, also the empty ones.
        """
        return self.explain(rankings)[0]

    def explain(self, rankings: Mapping[str, Ranking]) -> tuple[Ranking, dict[str, dict[str, float]]]:
        """The fused ranking, and by retriever name and document id what each listing contributed to its score."""
        used = {name: ranking for name, ranking in rankings.items() if self.weight(name) > 0}
        contributions = {
            name: dict(zip(used[name].ids, values.tolist(), strict=True))
            for name, values in self._checked(used).items()
        }
        parts: dict[str, list[float]] = {}
        for of_retriever in contributions.values():
            for id, value in of_retriever.items():
                parts.setdefault(id, []).append(value)
        if not parts:
            return EMPTY, contributions
        scores = [round_score(math.fsum(values)) for values in parts.values()]
        return Ranking.from_scores(zip(parts, scores, strict=True)), contributions

    def _checked(self, rankings: Mapping[str, Ranking]) -> dict[str, NDArray[np.float64]]:
        """`contributions`, checked. Raises RetrieverError if it fails or does not give finite numbers."""
        try:
            given = {name: np.asarray(of, dtype=np.float64) for name, of in self.contributions(rankings).items()}
        except HybridSearchError:
            raise
        except Exception as error:
            raise RetrieverError(f"The fusion {self!r} failed: {type(error).__name__}: {error}") from error
        for name, values in given.items():
            if name not in rankings or values.shape != (len(rankings[name]),) or not np.isfinite(values).all():
                raise RetrieverError(f"The fusion {self!r} gave no finite number for each document of {name!r}.")
        return given

    def weight(self, retriever: str) -> float:
        """The weight of one retriever. Raises InvalidArgumentError where `weights` leaves it open."""
        if self.weights is None:
            return 1.0
        if retriever not in self.weights:
            raise InvalidArgumentError(
                f"The fusion has weights for {', '.join(map(repr, self.weights))} but none for {retriever!r}: "
                "give it one (0 leaves the retriever out)."
            )
        return self.weights[retriever]

    def to_json(self) -> dict[str, Any]:
        """`{"type": name, **constructor arguments}`, with `tuned_on` if there is any; `make_fusion` is its inverse."""
        tuned_on = {"tuned_on": " ".join(sorted(self.tuned_on))} if self.tuned_on else {}
        return {"type": self.name, "weights": self.weights, **tuned_on}

    def save(self, path: str | Path) -> None:
        """Write a small JSON file, which is taken wherever a fusion is. Raises StorageError where that fails."""
        with writable(path) as place:
            place.write_text(json.dumps(self.to_json()) + "\n", encoding="utf-8")

    def __repr__(self) -> str:
        described = {key: value for key, value in self.to_json().items() if key not in ("type", "tuned_on")}
        arguments = {key: value for key, value in described.items() if value is not None}
        return f"{type(self).__name__}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"
