"""What tuning found: the fusion it recommends, with the figures that say why, and its file."""

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
from hybridsearch.fusion.files import TUNED, content_of_tune, read_content
from hybridsearch.readers.lines import writable
from hybridsearch.tables import Grid, rich_tables

if TYPE_CHECKING:
    from rich.console import RenderableType

KEPT = 1000
"""Digests that a fusion remembers, at most. They take 13 kB in each index."""

DIGITS = 12
"""Hexadecimal digits of a digest."""


@dataclass(frozen=True, slots=True)
class Fold:
    """One fold: what the other queries chose, and how that did on this fold's.

    Attributes:
        queries: how many the fold has.
        fusion, candidates: chosen on all other queries.
        value: mean of the measure on this fold.
        best_single: the best retriever on all other queries.
        best_single_value: its mean on this fold.
    """

    queries: int
    fusion: Fusion
    candidates: int
    value: float
    best_single: str
    best_single_value: float


@dataclass(frozen=True, slots=True)
class Rival:
    """What the tuned fusion is measured against, on the same queries.

    Attributes:
        name: a retriever, one of `UNTUNED`, or "calibrated".
        held_out: its figure.
        difference: held-out figure of the tuned fusion minus this one's.
        p_value: of the paired t test of the two.
    """

    name: str
    held_out: Interval
    difference: Interval
    p_value: float

    @property
    def beaten(self) -> bool:
        """Whether the tuned fusion is better, significantly."""
        return self.difference.mean > 0 and self.p_value < ALPHA

    @property
    def verdict(self) -> str:
        """What the tuned fusion is, compared with this one."""
        return "better" if self.beaten else "not significantly better" if self.difference.mean > 0 else "not better"


@dataclass(frozen=True, slots=True)
class Tuned:
    """What was learned. `HybridSearch(fusion=..., candidates=...)` takes the first two; the command line a file.

    Attributes:
        fusion: recommended: the best single retriever (weight 0 for the others) unless it is beaten; else the best
            one of `untuned` unless that is beaten; else `tuned`.
        candidates: how deep each retriever is to be read for it.
        tuned, tuned_candidates: the best fusion found on all queries, recommended or not.
        measure: what was maximised, and all figures are of.
        dataset, queries: whose queries, and how many.
        held_out: of the tuned fusion, on queries that had no part in choosing it.
        best_single: the best retriever on all queries; its figure is that of the best retriever chosen and measured as
            the fusion was.
        untuned: those of `UNTUNED` and "calibrated", read `UNTUNED_CANDIDATES` deep.
        folds: what each fold chose; that they differ shows how unsure the choice is.
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

    @property
    def better(self) -> bool:
        """Whether the tuned fusion is the one recommended."""
        return self.best_single.beaten and self.best_untuned.beaten

    @property
    def best_untuned(self) -> Rival:
        """The best one of `untuned`."""
        return max(self.untuned, key=lambda rival: rival.held_out.mean)

    @property
    def recommendation(self) -> str:
        """What to do, and why, for people."""
        single, untuned = self.best_single, self.best_untuned
        if not single.beaten:
            use = f"{single.name} alone"
        elif not untuned.beaten:
            use = f"{untuned.name} untuned, over which tuning gains nothing"
        else:
            use = f"{_written(self.tuned)} with {self.tuned_candidates} candidates"
        return (
            f"Use {use}. On {self.queries:,} held-out queries the tuned fusion is {single.verdict} than {single.name}, "
            f"the best single retriever ({self._figures(single)}), and {untuned.verdict} than {untuned.name} untuned "
            f"({self._figures(untuned)})."
        )

    def _figures(self, rival: Rival) -> str:
        means = f"{formats.figure(self.held_out.mean)} against {formats.figure(rival.held_out.mean)}"
        sure = f"{formats.signed_interval(rival.difference)}, {formats.p_value(rival.p_value)}"
        return f"{self.measure} {means}, {formats.difference(rival.difference.mean, 4)} {sure}"

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able dict; `Tuned.from_dict` is its inverse."""
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
        """The inverse of `to_dict`. Raises InvalidArgumentError where `data` is something else."""
        with content_of_tune():
            if data["type"] != TUNED:
                raise ValueError(f"its type is {data['type']!r:.40}")
            kept = {key: value for key, value in data.items() if key not in ("type", "recommendation")}
            for key in ("fusion", "tuned"):
                kept[key] = make_fusion(data[key])
            kept["held_out"] = Interval(**data["held_out"])
            kept["best_single"] = from_plain(Rival, data["best_single"])
            kept["untuned"] = tuple(from_plain(Rival, rival) for rival in data["untuned"])
            kept["folds"] = tuple(Fold(**{**fold, "fusion": make_fusion(fold["fusion"])}) for fold in data["folds"])
            return cls(**kept)

    def save(self, path: str | Path) -> None:
        """Write a small JSON file. Raises StorageError where that is not possible."""
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
        folds = Grid("What each fold was measured with, chosen on the other queries", columns, rows)
        return [figures, folds]


def load_tuned(path: str | Path) -> Tuned:
    """What `Tuned.save` wrote. Raises InvalidArgumentError where there is no such file, or it holds something else."""
    return Tuned.from_dict(read_content(path))


def kept_digests(queries: Collection[str]) -> frozenset[str]:
    """What a fusion remembers of the queries that it was tuned on: the `KEPT` smallest of `Dataset.query_digests`."""
    return frozenset(sorted(queries)[:KEPT])


def share_tuned_on(queries: Collection[str], tuned_on: Collection[str]) -> float:
    """The share of `queries` that a fusion was tuned on, from 0 to 1; exact for fewer than `KEPT` tuned queries.

    Of more, the share is that of the queries whose digests would be among the kept ones. It misses a query with the
    probability that its digest is not: for 50 queries of 10,000 that were tuned on, all are missed once in 200 times.
    It is never 0 for the same queries. Digests of 48 bits collide by chance with a probability of 2.5e-8 for 7,000
    queries. Records of the first version have 32 bits, and all queries: what may be chance counts as none.

    Args:
        queries: `Dataset.query_digests`.
        tuned_on: as `kept_digests` gave them, or eight digits of each query.

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
    """A weighted fusion as `compare --systems` takes it.

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
