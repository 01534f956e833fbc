"""The result of tuning: the recommended fusion, the values that support it, and its file."""

from __future__ import annotations

import html
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridsearch.evaluation import formats
from hybridsearch.evaluation.plain import from_plain, to_plain
from hybridsearch.evaluation.results import ALPHA
from hybridsearch.evaluation.statistics import Interval
from hybridsearch.fusion import RRF, Fusion, ScoreFusion, make_fusion
from hybridsearch.fusion.base import check_file
from hybridsearch.fusion.files import TUNED, content_of_tune, read_content
from hybridsearch.readers.lines import writable
from hybridsearch.tables import Grid, rich_tables

if TYPE_CHECKING:
    from rich.console import RenderableType

KEPT = 1000
"""Number of query digests that a fusion keeps at most. They take 13 kB in each index."""

DIGITS = 12
"""Number of hexadecimal digits of a digest."""


@dataclass(frozen=True, slots=True)
class Fold:
    """One part of the queries, and how good the choice of all other queries is on it.

    Attributes:
        queries: Number of queries of the fold.
        fusion: Fusion that was chosen on all other queries.
        candidates: Number of candidates that was chosen on all other queries.
        value: Mean of the measure of this choice, on this fold.
        best_single: Best retriever on all other queries.
        best_single_value: Mean of the measure of that retriever, on this fold.
    """

    queries: int
    fusion: Fusion
    candidates: int
    value: float
    best_single: str
    best_single_value: float


@dataclass(frozen=True, slots=True)
class Rival:
    """A system that the tuned fusion is compared with, on the same queries.

    Attributes:
        name: Name of a retriever, a name of `UNTUNED`, or "calibrated".
        held_out: Mean of the measure, with its interval.
        difference: Mean of the tuned fusion minus this mean, with its interval.
        p_value: p-value of the paired t test of both.
    """

    name: str
    held_out: Interval
    difference: Interval
    p_value: float

    @property
    def beaten(self) -> bool:
        """Whether the tuned fusion is significantly better than this system."""
        return self.difference.mean > 0 and self.p_value < ALPHA

    @property
    def wins(self) -> bool:
        """Whether this system is significantly better than the tuned fusion."""
        return self.difference.mean < 0 and self.p_value < ALPHA

    @property
    def same(self) -> bool:
        """Whether this system and the tuned fusion have the same value on each query."""
        return self.difference.low == self.difference.mean == self.difference.high == 0

    @property
    def verdict(self) -> str:
        """The tuned fusion compared with this system: "better", "not significantly better" or "not better"."""
        return "better" if self.beaten else "not significantly better" if self.difference.mean > 0 else "not better"


@dataclass(frozen=True, slots=True)
class Shift:
    """Why the tuned weights are near equal weights, or far from them.

    Attributes:
        best: Weights that are the best on the queries, by retriever name. They are mostly better by chance than on
            other queries, so the tuned weights lie between equal weights and these.
        equal: How likely equal weights are on the queries, divided by how likely `best` is, from 0 to 1 (see
            `hybridsearch.evaluation.shrinkage.likelihoods`). Near 1, the queries say little about the weights.
    """

    best: Mapping[str, float]
    equal: float


@dataclass(frozen=True, slots=True)
class Tuned:
    """The result of `tune`: which fusion to use, and how good it is on queries that had no part in the choice.

    It prints as tables with a recommendation. Give `fusion` and `candidates` to `HybridSearch`. On the command line,
    `--fusion` takes the file of `save`.

    Attributes:
        fusion: Recommended fusion. It is `tuned`, unless the best single retriever or a fusion of `untuned` is
            significantly better on the held-out queries, or the best single retriever has the same value on each of
            them. A single retriever is a fusion in which all other retrievers have the weight 0.
        candidates: Number of documents to read from each retriever with `fusion`.
        tuned: Fusion that was chosen on all queries, recommended or not.
        tuned_candidates: Number of documents to read from each retriever with `tuned`.
        measure: Name of the measure that was maximised. All values are of this measure.
        dataset: Name of the data set.
        queries: Number of queries.
        held_out: Mean of the tuned fusion on queries that had no part in choosing it, with its interval.
        best_single: Best single retriever on all queries, with its mean on all queries, as `compare` measures it. It
            was chosen on the queries on which it is measured. So tuning can look worse than it is, but never better.
        untuned: Fusions that need no judgements: "rrf" and "minmax" with equal weights, and "calibrated", which
            computes its weights from the same queries. Each retriever is read 100 documents deep.
        folds: Choices of the folds. If they differ much, there are too few queries for a sure choice.
        shift: Why the weights of `tuned` are near equal weights, or far from them. None in files of earlier versions.
    """

    fusion: Fusion
    candidates: int
    tuned: Fusion
    tuned_candidates: int
    measure: str
    dataset: str
    queries: int
    held_out: Interval
    best_single: Rival
    untuned: tuple[Rival, ...]
    folds: tuple[Fold, ...] = ()
    shift: Shift | None = None

    @property
    def better(self) -> bool:
        """Whether the tuned fusion is significantly better than the best single retriever and the best of `untuned`."""
        return self.best_single.beaten and self.best_untuned.beaten

    @property
    def best_untuned(self) -> Rival:
        """The best fusion of `untuned`."""
        return max(self.untuned, key=lambda rival: rival.held_out.mean)

    @property
    def preferred(self) -> Rival | None:
        """The system that is recommended in place of the tuned fusion. None if the tuned fusion is recommended.

        It is the best system that is significantly better than the tuned fusion. If there is none, it is the best
        single retriever, if this has the same value on each query: it is simpler. In files of earlier versions, it is
        the best single retriever or else the best fusion of `untuned`, if `tuned` is not significantly better.
        """
        if self.shift is None:
            return next((rival for rival in (self.best_single, self.best_untuned) if not rival.beaten), None)
        better = [rival for rival in (self.best_single, *self.untuned) if rival.wins]
        if not better and self.best_single.same:
            return self.best_single
        return max(better, key=lambda rival: rival.held_out.mean, default=None)

    @property
    def moved(self) -> float:
        """Share of the weight of `tuned` that moved from some retrievers to others, compared with equal weights.

        It is 0 for equal weights, 0.1 for the weights 0.6 and 0.4, and 0.5 for one of two retrievers alone.
        """
        weights = list((self.tuned.weights or {}).values()) or [1.0]
        total = sum(weights)
        return round(sum(abs(weight / total - 1 / len(weights)) for weight in weights) / 2, 6)

    @property
    def recommended(self) -> str:
        """Name of the recommended fusion, such as "dense alone" or "bm25:0.4+dense:0.6+minmax with 100 candidates"."""
        rival = self.preferred
        if rival is not None:
            return f"{rival.name} {'alone' if rival is self.best_single else 'without tuning'}"
        weights = self.tuned.weights or {}
        if sum(weight > 0 for weight in weights.values()) == 1:
            return f"{_written(self.tuned)} alone"
        return f"{_written(self.tuned)} with {self.tuned_candidates} candidates"

    @property
    def recommendation(self) -> str:
        """What to use and why, in some sentences for people."""
        single, untuned = self.best_single, self.best_untuned
        because = ""
        if self.preferred is not None:
            tuned_is_worse = "it is significantly better than the tuned fusion"
            because = f", because {tuned_is_worse if self.preferred.wins else 'tuning is not significantly better'}"
        return (
            f"Use {self.recommended}{because}. On {self.queries:,} held-out queries the tuned fusion is "
            f"{single.verdict} than {single.name}, the best single retriever ({self._figures(single)}). It is "
            f"{untuned.verdict} than {untuned.name} without tuning ({self._figures(untuned)}).{self._of_shift()}"
        )

    def _of_shift(self) -> str:
        """How far the weights moved, and why."""
        if self.shift is None:
            return ""
        best = make_fusion({**self.tuned.to_json(), "weights": dict(self.shift.best)})
        moved = f"{self.moved:.0%} of the weight" if self.moved else "no weight"
        return (
            f" Tuning moved {moved} away from equal weights: {_written(best)} is the best on these queries, and equal "
            f"weights are {formats.figure(self.shift.equal, 2)} times as likely."
        )

    def _figures(self, rival: Rival) -> str:
        means = f"{formats.figure(self.held_out.mean)} against {formats.figure(rival.held_out.mean)}"
        sure = f"{formats.signed_interval(rival.difference)}, {formats.p_value(rival.p_value)}"
        return f"{self.measure} {means}, {formats.difference(rival.difference.mean, 4)} {sure}"

    def to_dict(self) -> dict[str, Any]:
        """Convert the result to a dict that JSON can hold. `Tuned.from_dict` converts it back."""
        return {
            "type": TUNED,
            "fusion": self.fusion.to_json(),
            "candidates": self.candidates,
            "recommendation": self.recommendation,
            **to_plain(self, ("fusion", "candidates")),
            "tuned": self.tuned.to_json(),
            "folds": [to_plain(fold) | {"fusion": fold.fusion.to_json()} for fold in self.folds],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Tuned:
        """Make a result from a dict that `to_dict` made.

        Raises:
            InvalidArgumentError: `data` has another form.
        """
        with content_of_tune():
            if data["type"] != TUNED:
                raise ValueError(f"its type is {data['type']!r:.40}")
            kept = {key: value for key, value in data.items() if key not in ("type", "recommendation")}
            for key in ("fusion", "tuned"):
                kept[key] = make_fusion(data[key])
            kept["held_out"] = Interval(**data["held_out"])
            kept["best_single"] = from_plain(Rival, data["best_single"])
            kept["untuned"] = tuple(from_plain(Rival, rival) for rival in data["untuned"])
            kept["shift"] = None if data.get("shift") is None else from_plain(Shift, data["shift"])
            kept["folds"] = tuple(Fold(**{**fold, "fusion": make_fusion(fold["fusion"])}) for fold in data["folds"])
            return cls(**kept)

    def save(self, path: str | Path) -> None:
        """Write the result to a JSON file. `HybridSearch(fusion=...)`, `--fusion` and `load_tuned` read it.

        Raises:
            InvalidArgumentError: The name of the file does not end with `.json`.
            StorageError: The file cannot be written.
        """
        check_file(path)
        with writable(path) as place:
            place.write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")

    def __repr__(self) -> str:
        figure = f"{self.measure} {formats.figure(self.held_out.mean)} held out"
        return f"Tuned({self.tuned!r}, {self.tuned_candidates} candidates: {figure}; use {self.fusion!r})"

    def __str__(self) -> str:
        return self.recommendation

    def __rich__(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        return Group(rich_tables(self._grids()), Text(self.recommendation))

    def _repr_html_(self) -> str:
        return "".join(grid.to_html() for grid in self._grids()) + f"<p>{html.escape(self.recommendation)}</p>"

    def _grids(self) -> list[Grid]:
        def mean(of: Interval) -> list[str]:
            return [formats.figure(of.mean), formats.interval(of)]

        def row(rival: Rival, what: str) -> list[list[str]]:
            gain = [formats.difference(rival.difference.mean, 4), formats.signed_interval(rival.difference)]
            return [[rival.name, what], mean(rival.held_out), gain, [formats.p_value(rival.p_value)]]

        chosen = [_written(self.tuned), f"{self.tuned_candidates} candidates"]
        figures = Grid(
            f"{self.dataset}: {self.queries:,} held-out queries",
            ["system", self.measure, "tuned gains", "p"],
            [
                [["tuned", *chosen], mean(self.held_out), [""], [""]],
                row(self.best_single, "best single retriever"),
                *(row(rival, "untuned") for rival in self.untuned),
            ],
        )
        rows = []
        for fold in self.folds:
            single, value = formats.figure(fold.best_single_value), formats.figure(fold.value)
            cells = [[value], [fold.best_single], [single], [f"{fold.queries:,}"]]
            rows.append([[_written(fold.fusion), f"{fold.candidates} candidates"], *cells])
        columns = ["tuned", self.measure, "best single", self.measure, "queries"]
        folds = Grid("Choices of each fold, made on all other queries and measured on the fold", columns, rows)
        return [figures, folds]


def load_tuned(path: str | Path) -> Tuned:
    """Read a result of `tune` from a file that `Tuned.save` wrote.

    Raises:
        InvalidArgumentError: There is no such file, or it holds something else.
    """
    return Tuned.from_dict(read_content(path))


def kept_digests(queries: Collection[str]) -> frozenset[str]:
    """The digests that a fusion keeps of its tuning queries: the `KEPT` smallest ones of `Dataset.query_digests`."""
    return frozenset(sorted(queries)[:KEPT])


def share_tuned_on(queries: Collection[str], tuned_on: Collection[str]) -> float:
    """The share of `queries` on which a fusion was tuned, from 0 to 1.

    The share is exact if the fusion was tuned on fewer than `KEPT` queries. Else it is an estimate from the queries
    whose digests would be among the kept ones. If a fusion was tuned on 10,000 queries and 50 of them are measured,
    it finds none of these once in 200 times. It is never 0 if `queries` are all tuning queries. The probability that
    digests are equal by chance is 2.5e-8 for 7,000 queries. Files of the first version have shorter digests. There, a
    share that can be chance counts as 0.

    Args:
        queries: Digests of the queries (`Dataset.query_digests`).
        tuned_on: Digests that `kept_digests` returned, or the first eight digits of each query's digest.

    >>> share_tuned_on(["0a" * 6, "1b" * 6], kept_digests(["0a" * 6])), share_tuned_on(["0a" * 6], ["0a" * 4])
    (0.5, 1.0)
    """
    if not tuned_on:
        return 0.0
    length, last = len(next(iter(tuned_on))), max(tuned_on)
    sampled = length == DIGITS and len(tuned_on) == KEPT
    looked_at = {digest[:length] for digest in queries if not sampled or digest <= last}
    seen = len(looked_at.intersection(tuned_on))
    chance = len(looked_at) * len(tuned_on) / 16**length
    return seen / len(looked_at) if seen > 10 * chance else 0.0


def _written(fusion: Fusion) -> str:
    """The text of a weighted fusion, as `compare --systems` takes it.

    >>> _written(ScoreFusion("minmax", {"bm25": 0.3, "dense": 0.7, "sparse": 0.0}))
    'bm25:0.3+dense:0.7+minmax'
    """
    weights = {name: weight for name, weight in (fusion.weights or {}).items() if weight}
    if len(weights) == 1:
        return next(iter(weights))
    kind = f"rrf:{fusion.k:g}" if isinstance(fusion, RRF) else fusion.name
    if isinstance(fusion, ScoreFusion):
        kind = fusion.normalization
    equal = len(set(weights.values())) == 1
    return "+".join([*(name if equal else f"{name}:{weight:g}" for name, weight in weights.items()), kind])
