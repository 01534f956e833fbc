"""How numbers of a comparison are written for people."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

from hybridsearch.evaluation.results import LATENCY_TOP_K, Cost, SystemRecord
from hybridsearch.evaluation.statistics import Interval
from hybridsearch.messages import number_of

NOTHING = "–"
"""The text for a value that was not measured."""

TESTS = {"t": "paired t test", "randomization": "paired randomization test", "wilcoxon": "Wilcoxon signed-rank test"}


def figure(value: float | None, digits: int = 4) -> str:
    """The text of a measure's value.

    >>> figure(0.74312), figure(1.0), figure(-0.0521, 3), figure(None), figure(25.0)
    ('0.7431', '1.0000', '−0.052', '–', '25.00')
    """
    if value is None or not math.isfinite(value):
        return NOTHING
    written = f"{abs(value):.{digits if abs(value) < 10 else 2}f}"
    return f"−{written}" if value < 0 and float(written) else written


def difference(value: float | None, digits: int = 3) -> str:
    """The text of a difference with its sign. A difference that rounds to 0 has no sign.

    >>> difference(0.0521), difference(-0.0521), difference(0.00004)
    ('+0.052', '−0.052', '0')
    """
    written = figure(value, digits)
    if value is None or written == NOTHING or written.startswith("−"):
        return written
    return f"+{written}" if float(written) else "0"


def interval(of: Interval, digits: int = 3) -> str:
    """The text of both ends of a measure's interval.

    >>> interval(Interval(0.5, 0.41, 0.63))
    '0.410–0.630'
    """
    return f"{figure(of.low, digits)}–{figure(of.high, digits)}"


def signed_interval(of: Interval, digits: int = 3) -> str:
    """The text of both ends of a difference's interval, with signs.

    >>> signed_interval(Interval(0.01, -0.02, 0.04))
    '[−0.020, +0.040]'
    """
    return f"[{difference(of.low, digits)}, {difference(of.high, digits)}]"


def p_value(p: float) -> str:
    """The text of a p-value, such as "p < 0.001".

    >>> p_value(0.0000021), p_value(0.0341), p_value(1.0)
    ('p < 0.001', 'p = 0.034', 'p = 1')
    """
    if not math.isfinite(p):
        return "p = –"
    if p < 0.001:
        return "p < 0.001"
    return "p = 1" if p > 0.9995 else f"p = {figure(p, 3)}"


def milliseconds(value: float | None) -> str:
    """The text of milliseconds, without the unit: two significant digits, or a whole number.

    >>> milliseconds(0.0421), milliseconds(3.14), milliseconds(31.4), milliseconds(12345.6)
    ('0.042', '3.1', '31', '12,346')
    """
    if value is None or not math.isfinite(value):
        return NOTHING
    if value <= 0:
        return "0"
    return f"{value:,.{max(0, 1 - math.floor(math.log10(value)))}f}"


def size(count: float | None) -> str:
    """The text of a number of bytes, in decimal units.

    >>> size(950), size(2_150_400), size(3.2e9)
    ('950 B', '2.2 MB', '3.2 GB')
    """
    if count is None:
        return NOTHING
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def count(number: float | None) -> str:
    """The text of a number: whole with separators, or with two digits if it is below 10 and not whole.

    >>> count(5183), count(34.25), count(8.2), count(0.731)
    ('5,183', '34', '8.2', '0.73')
    """
    if number is None or not math.isfinite(number):
        return NOTHING
    if number >= 10 or number == int(number):
        return f"{number:,.0f}"
    return f"{number:.1f}" if number >= 1 else f"{number:.2f}"


def duration(seconds: float) -> str:
    """The text of a duration, in seconds, minutes or hours.

    >>> duration(12.34), duration(250), duration(9000)
    ('12.3 s', '4 min 10 s', '2 h 30 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def moment(created: str) -> str:
    """The text of an ISO date and time, to the minute. Other texts stay as they are.

    >>> moment("2026-11-21T17:55:00+00:00")
    '2026-11-21 17:55 UTC'
    """
    try:
        parsed = datetime.fromisoformat(created)
    except ValueError:
        return created
    zone = parsed.tzname() or ""
    return f"{parsed:%Y-%m-%d %H:%M} {zone}".rstrip()


def unanswered(systems: Iterable[SystemRecord]) -> Iterator[str]:
    """A sentence about each system that has no results for some queries."""
    for system in systems:
        asked, answered = len(next(iter(system.scores.values()))), sum(map(bool, system.rankings.values()))
        if answered < asked:
            yield (
                f"{system.name} has results for {answered:,} of {number_of(asked, 'query', 'queries')}. The others "
                "count 0."
            )


def timed(costs: Iterable[Cost]) -> str:
    """A sentence on how and when the times were measured. "" if there are none.

    >>> timed([Cost(queries=5, timed="2026-11-20 08:15"), Cost(queries=50, timed="2026-11-21 17:55")])
    '5 to 50 queries asked one at a time; measured 2026-11-20 08:15 to 2026-11-21 17:55.'
    """
    measured = [cost for cost in costs if cost.queries]
    if not measured:
        return ""
    least, most = min(cost.queries for cost in measured), max(cost.queries for cost in measured)
    told = f"{'' if least == most else f'{least:,} to '}{number_of(most, 'query', 'queries')} asked one at a time"
    if any(cost.total_ms for cost in measured):
        told += f" for {LATENCY_TOP_K} hits, without any cache; total includes fetching the documents"
    if moments := sorted({cost.timed for cost in measured if cost.timed}):
        told += f"; measured {' to '.join(dict.fromkeys((moments[0], moments[-1])))}"
    return f"{told}."


def loaded(costs: Iterable[Cost]) -> Iterator[str]:
    """A warning if other programs were running while the times were measured.

    >>> [sentence[:55] for load in (0.6, 3.94) for sentence in loaded([Cost(load=load)])]
    ['Other programs were running while this was measured: up']
    """
    load = max((cost.load for cost in costs), default=0.0)
    if load > 1:
        yield (
            f"Other programs were running while this was measured: up to {load:.1f} processes per core. So the times "
            "are too long. Measure them again with --time-again (time_again=True) when nothing else runs."
        )


def machine(facts: Mapping[str, str]) -> str:
    """The facts about a machine in one line.

    >>> machine({"CPU": "AMD EPYC 7763", "cores": "2", "OS": "Linux 6.1", "Python": "3.12.3"})
    'AMD EPYC 7763, cores 2, Linux 6.1, Python 3.12.3'
    """
    return ", ".join(value if name in ("CPU", "OS") else f"{name} {value}" for name, value in facts.items())
