"""Drawing the plots of the report as SVG. Colours come from the style sheet of the page, by class."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from itertools import groupby, pairwise

import numpy as np
from numpy.typing import NDArray

from hybridsearch.evaluation.report.markup import Child, Markup, element
from hybridsearch.evaluation.results import Histogram
from hybridsearch.evaluation.statistics import Interval

_DECIMAL = re.compile(r"\.0(?!\d)")  # of a whole number, as in "2.0 MB"


@dataclass(frozen=True, slots=True)
class Point:
    """One system in a scatter plot.

    Attributes:
        name: Name of the system.
        kind: Kind of the system.
        x: Cost.
        y: Quality, with its interval.
        note: Text of the tooltip.
        front: Whether the system is on the Pareto front: no cheaper system is as good.
    """

    name: str
    kind: str
    x: float
    y: Interval
    note: str
    front: bool = False


def mark(kind: str, x: float = 8, y: float = 8, radius: float = 5, **attributes: object) -> Markup:
    """The shape for a kind of system. Each kind has its own shape, so the report can be read without colours."""
    attributes["class_"] = f"mark k-{kind}"
    if kind == "single":
        return element("circle", cx=x, cy=y, r=radius, **attributes)
    if kind == "run":
        side = radius * 0.9
        return element("rect", x=x - side, y=y - side, width=2 * side, height=2 * side, **attributes)
    if kind == "fused":
        reach = radius * 1.25
        corners = [(x, y - reach), (x + reach, y), (x, y + reach), (x - reach, y)]
    else:  # a triangle for "reranked"; for "oracle-positives" the style sheet leaves it hollow
        reach = radius * 1.3
        corners = [(x, y - reach), (x + reach, y + reach * 0.75), (x - reach, y + reach * 0.75)]
    return element("polygon", points=" ".join(f"{left:.1f},{top:.1f}" for left, top in corners), **attributes)


def legend_mark(kind: str) -> Markup:
    """`mark` as a small image."""
    return element("svg", mark(kind), class_="legend-mark", viewBox="0 0 16 16", aria_hidden="true")


def forest(of: Interval, kind: str, low: float, high: float, reference: float | None) -> Markup:
    """A mean with its interval, on an axis from `low` to `high`. There is a line at `reference`."""
    width, height, pad = 136, 26, 8

    def place(value: float) -> float:
        return pad + (width - 2 * pad) * _share(value, low, high)

    middle = height / 2
    at = None if reference is None else place(reference)
    return element(
        "svg",
        None if at is None else element("line", class_="reference", x1=at, x2=at, y1=0, y2=height),
        element("line", class_=f"whisker k-{kind}", x1=place(of.low), x2=place(of.high), y1=middle, y2=middle),
        mark(kind, place(of.mean), middle, 4.5),
        class_="forest",
        viewBox=f"0 0 {width} {height}",
        aria_hidden="true",
    )


def stacked(parts: Sequence[tuple[str, float]], total: float) -> Markup:
    """One bar that is made of parts (class, size). `total` is the full width."""
    bars, left = [], 0.0
    for name, length in parts:
        width = 100 * length / total if total else 0.0
        bars.append(element("rect", class_=name, x=left, y=0, width=width, height=10))
        left += width
    return element("svg", bars, class_="stacked", viewBox="0 0 100 10", preserveAspectRatio="none", aria_hidden="true")


def sorted_bars(values: Sequence[float], reach: float, below: bool, **attributes: object) -> Markup:
    """One bar for each of `values`, which are in falling order. The axis ends at `reach`.

    All bars above zero are one path, and all bars below zero are another. This keeps a plot of a thousand queries
    small. If `below` is true, the axis goes from -`reach` to `reach`, else from 0, and no value may be negative.
    """
    n = len(values)
    zero, scale = (50.0, 50.0) if below else (100.0, 100.0)
    gap = 0.16 if n <= 120 else 0.0

    def path(name: str, chosen: Sequence[tuple[int, float]]) -> Markup | None:
        if not chosen:
            return None
        steps = [f"M{chosen[0][0]} {_short(zero)}"]
        tops = [(place, _short(zero - scale * value / reach)) for place, value in chosen]
        if gap:
            zeros, wide = _short(zero), _short(1 - gap)
            steps += [f"M{_short(place + gap / 2)} {zeros}V{top}h{wide}V{zeros}" for place, top in tops]
        else:
            steps += [f"V{top}h{len(list(run))}" for top, run in groupby(top for _, top in tops)]
            steps.append(f"V{_short(zero)}z")
        return element("path", class_=name, d="".join(steps))

    pairs = list(enumerate(values))
    return element(
        "svg",
        element("line", class_="axis", x1=0, x2=max(n, 1), y1=zero, y2=zero),
        path("win", [pair for pair in pairs if pair[1] > 0]),
        path("loss", [pair for pair in pairs if pair[1] < 0]),
        class_="bars",
        viewBox=f"0 0 {max(n, 1)} 100",
        preserveAspectRatio="none",
        **attributes,
    )


def columns(of: Histogram) -> Markup:
    """The bars of a histogram. Its bins can have different widths."""
    if not of.counts:
        return Markup("")
    first, last, most = of.edges[0], of.edges[-1], max(of.counts) or 1
    bars = [
        element(
            "rect",
            element("title", f"{_plain(left)} to {_plain(right)}: {count:,}"),
            class_="column",
            x=100 * _share(left, first, last),
            width=max(100 * (_share(right, first, last) - _share(left, first, last)), 0.2),
            y=100 - 96 * count / most,
            height=96 * count / most,
        )
        for left, right, count in zip(of.edges, of.edges[1:], of.counts, strict=False)
        if count
    ]
    return element("svg", bars, class_="columns", viewBox="0 0 100 100", preserveAspectRatio="none", aria_hidden="true")


def small_bars(values: Sequence[tuple[str, float]], most: float) -> Markup:
    """One thin bar for each (kind, value). It shows the values of all systems on one query."""
    wide, bars = 9 * len(values), []
    for place, (kind, value) in enumerate(values):
        tall = 22 * value / most
        bars.append(element("rect", class_=f"k-{kind}", x=9 * place, width=7, y=23 - tall, height=1 + tall))
    view = f"0 0 {wide} 24"
    size = {"width": min(wide, 144), "height": 24, "preserveAspectRatio": "none"}
    return element("svg", bars, class_="small-bars", viewBox=view, aria_hidden="true", **size)


@dataclass(frozen=True, slots=True)
class Axes:
    """The names of the axes of a scatter plot, and how their numbers are written."""

    x_name: str
    y_name: str
    x_format: Callable[[float], str]
    y_format: Callable[[float], str]


def scatter(points: Sequence[Point], axes: Axes, width: int, height: int, label: str) -> Markup:
    """A scatter plot of quality and cost, with intervals and the Pareto front.

    The Pareto front is the best quality at each cost. The cost axis is logarithmic if the most expensive system costs
    at least eight times as much as the cheapest one.
    """
    frame = Box(50, 14, width - 14, height - 44)
    at_x, ticks_x, logarithmic = _cost_scale([point.x for point in points], frame, most=7 if width > 500 else 4)
    low_y, high_y = padded([point.y for point in points])

    def at_y(value: float) -> float:
        return frame.bottom - (frame.bottom - frame.top) * _share(value, low_y, high_y)

    grid: list[Child] = []
    for tick in _ticks(low_y, high_y, 6):
        y = at_y(tick)
        grid.append(element("line", class_="grid", x1=frame.left, x2=frame.right, y1=y, y2=y))
        grid.append(element("text", axes.y_format(tick), class_="tick", x=frame.left - 7, y=y + 4, text_anchor="end"))
    for tick in ticks_x:
        x, written = at_x(tick), _DECIMAL.sub("", axes.x_format(tick))
        grid.append(element("line", class_="grid", x1=x, x2=x, y1=frame.top, y2=frame.bottom))
        grid.append(element("text", written, class_="tick", x=x, y=frame.bottom + 17, text_anchor="middle"))
    x_name = f"{axes.x_name}{', logarithmic' if logarithmic else ''} →"
    grid.append(element("text", x_name, class_="axis-name", x=frame.right, y=height - 6, text_anchor="end"))
    grid.append(element("text", f"↑ {_cut(axes.y_name, 30)}", class_="axis-name", x=frame.left + 7, y=frame.top + 14))

    places = [(at_x(point.x), at_y(point.y.mean)) for point in points]
    steps = sorted(place for place, point in zip(places, points, strict=True) if point.front)
    names = _cut_apart([point.name for point in points], 40 if width > 500 else 22)
    spots = _place_labels(names, places, frame, [point.front for point in points], _front_boxes(steps, frame.right))
    drawn: list[Child] = []
    for point, (x, y), name, spot in zip(points, places, names, spots, strict=True):
        whisker = f"whisker k-{point.kind}"
        drawn.append(
            element(
                "g",
                element("title", point.note),
                element("circle", class_="target", cx=x, cy=y, r=13),
                element("line", class_=whisker, x1=x, x2=x, y1=at_y(point.y.low), y2=at_y(point.y.high)),
                element("line", class_="leader", x1=x, y1=y, x2=spot.x, y2=spot.y - 4) if spot.far else None,
                mark(point.kind, x, y, 6),
                element("text", name, class_="name", x=spot.x, y=spot.y, text_anchor=spot.anchor),
                class_="point on-front" if point.front else "point",
            )
        )
    layers: list[Child] = [grid, _front(steps, frame.right), drawn]
    return element("svg", layers, class_="scatter", viewBox=f"0 0 {width} {height}", role="group", aria_label=label)


def pareto(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Whether each pair (cost, quality) is on the Pareto front.

    A pair is on it if no other pair is better at the same or a lower cost, or as good at a lower cost.

    >>> pareto([(1, 0.5), (2, 0.4), (3, 0.7), (3, 0.6)])
    [True, False, True, False]
    """
    order = sorted(range(len(points)), key=lambda place: (points[place][0], -points[place][1]))
    front, best = [False] * len(points), -math.inf
    for place in order:
        if points[place][1] > best:
            front[place], best = True, points[place][1]
    return front


def padded(intervals: Sequence[Interval]) -> tuple[float, float]:
    """The ends of an axis that has room for all `intervals`."""
    every = [end for one in intervals for end in (one.low, one.mean, one.high) if math.isfinite(end)]
    low, high = min(every, default=0.0), max(every, default=1.0)
    room = 0.06 * (high - low) or 0.05
    return (max(0.0, low - room) if low >= 0 else low - room), high + room


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle. `top` is above `bottom`, so it is the smaller number."""

    left: float
    top: float
    right: float
    bottom: float

    def outside(self, frame: Box) -> float:
        """How far the rectangle is outside of `frame`."""
        across = max(0.0, frame.left - self.left) + max(0.0, self.right - frame.right)
        return across + max(0.0, frame.top - self.top) + max(0.0, self.bottom - frame.bottom)


@dataclass(frozen=True, slots=True)
class Spot:
    """The place of a label. If it is `far` from its point, a line joins them."""

    x: float
    y: float
    anchor: str
    far: bool


def _cost_scale(costs: Sequence[float], frame: Box, most: int) -> tuple[Callable[[float], float], list[float], bool]:
    """A function from a cost to its place, the ticks, and whether the scale is logarithmic."""
    wide = frame.right - frame.left
    if min(costs) > 0 and max(costs) >= 8 * min(costs):
        room = (max(costs) / min(costs)) ** 0.07
        low, high = min(costs) / room, max(costs) * room
        ticks = _log_ticks(low, high, most)
        return lambda cost: frame.left + wide * _share(math.log(cost), math.log(low), math.log(high)), ticks, True
    end = max(costs) * 1.08 or 1.0
    return lambda cost: frame.left + wide * _share(cost, 0.0, end), _ticks(0.0, end, most), False


def _front(steps: Sequence[tuple[float, float]], right: float) -> Markup | None:
    """The Pareto front as stairs that end at `right`."""
    if not steps:
        return None
    stairs = "".join(f"H{_short(x)}V{_short(y)}" for x, y in steps[1:])
    return element("path", class_="front", d=f"M{_short(steps[0][0])} {_short(steps[0][1])}{stairs}H{_short(right)}")


def _front_boxes(steps: Sequence[tuple[float, float]], right: float) -> list[Box]:
    """The rectangles that the stairs cover. Labels should not be there."""
    ends = [x for x, _ in steps[1:]] + [right]
    level = [Box(x, y - 1, end, y + 1) for (x, y), end in zip(steps, ends, strict=False)]
    return level + [Box(x - 1, y, x + 1, before) for (_, before), (x, y) in pairwise(steps)]


def _place_labels(
    names: Sequence[str],
    points: Sequence[tuple[float, float]],
    frame: Box,
    first: Sequence[bool],
    covered: Sequence[Box],
) -> list[Spot]:
    """The place of each name.

    Names of `first` are placed first, then all others from top to bottom. Each gets the spot that covers the least.
    """
    taken = np.array([astuple(box) for box in (*covered, *(Box(x - 8, y - 8, x + 8, y + 8) for x, y in points))])
    inner = Box(frame.left, frame.top + 18, frame.right, frame.bottom)
    chosen: dict[int, Spot] = {}
    for index in sorted(range(len(names)), key=lambda place: (not first[place], points[place][1], points[place][0])):
        (x, y), wide = points[index], _width(names[index]) * (1.14 if first[index] else 1)  # bold
        candidates = list(_spots(x, y, wide))
        costs = 4 * _overlaps(np.array([astuple(box) for _, box in candidates]), taken)
        costs += [40 * box.outside(inner) + math.hypot(spot.x - x, spot.y - 4 - y) for spot, box in candidates]
        chosen[index], box = candidates[int(costs.argmin())]
        taken = np.vstack([taken, astuple(box)])
    return [chosen[index] for index in range(len(names))]


def _overlaps(boxes: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """The area of each of `boxes` that `others` cover. A row is a rectangle: left, top, right, bottom."""
    sides = np.minimum(boxes[:, None, 2:], others[:, 2:]) - np.maximum(boxes[:, None, :2], others[:, :2])
    areas: NDArray[np.float64] = sides.clip(0).prod(axis=2).sum(axis=1)
    return areas


def _spots(x: float, y: float, wide: float) -> Iterator[tuple[Spot, Box]]:
    """Places for a label around a point, the nearest first, each with the rectangle that the label covers."""
    for distance in (11, 18, 28, 42, 60, 84):
        for turn in (0, 180, 270, 90, 315, 225, 45, 135, 340, 20, 200, 160):
            across, down = math.cos(math.radians(turn)), math.sin(math.radians(turn))
            middle, base = x + distance * across, y + distance * down + 4
            anchor = "middle" if abs(across) < 0.1 else "start" if across > 0 else "end"
            left = middle - wide * {"start": 0.0, "middle": 0.5, "end": 1.0}[anchor]
            yield Spot(middle, base, anchor, distance > 18), Box(left, base - 11, left + wide, base + 3)


def _width(name: str) -> float:
    """The approximate width of a name, at 12 pixels."""
    return sum(13.0 if unicodedata.east_asian_width(letter) in "WF" else 6.9 for letter in name)


def _cut(name: str, length: int) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"


def _cut_apart(names: Sequence[str], length: int) -> list[str]:
    """The names, cut to a length. If several have the same beginning, their middle is left out.

    >>> _cut_apart(["dense with a long prompt 1", "dense with a long prompt 2", "sparse"], 12)
    ['dense …mpt 1', 'dense …mpt 2', 'sparse']
    """
    cut = [_cut(name, length) for name in names]
    end = (length - 1) // 2
    return [
        f"{name[: length - 1 - end]}…{name[-end:]}" if cut.count(short) > 1 and short != name else short
        for name, short in zip(names, cut, strict=True)
    ]


def _share(value: float, low: float, high: float) -> float:
    return min(max((value - low) / (high - low), 0.0), 1.0) if high > low else 0.5


def _ticks(low: float, high: float, most: int) -> list[float]:
    """About `most` round numbers from `low` to `high`."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(step * power for step in (1, 2, 5, 10) if step * power >= rough * 0.999)
    return [round(place * step, 12) for place in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        ticks = [step * 10.0**power for power in powers for step in steps if low <= step * 10.0**power <= high]
        if len(ticks) <= most:
            return ticks
    return ticks


def _plain(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10 or value == int(value) else f"{value:.1f}"


def _short(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
