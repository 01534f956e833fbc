"""What labels mean: classes, 0 or 1, scores; and sentence pairs with entailments as triplets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hybridsearch.errors import DocumentError, InvalidArgumentError
from hybridsearch.training.data.columns import as_number, check_number

NLI = ("entailment", "neutral", "contradiction")
"""The classes of natural language inference, numbered as on the hub."""

_WITHOUT_GOLD = ("-", "", "-1")  # where annotators of SNLI did not agree


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of pairs.

    Attributes:
        meaning: "class", "0/1" or "score".
        values: one for each row; None where the row has no class (only in data with the classes of NLI).
        classes: names of the classes, where they have names.
        note: what was done to the values, or "".
    """

    meaning: str
    values: list[Any]
    classes: tuple[str, ...] = ()
    note: str = ""

    @property
    def nli(self) -> bool:
        """Whether the classes are those of natural language inference."""
        return self.classes == NLI


def read_labels(
    raw: Sequence[Any],
    places: Sequence[str],
    column: str,
    *,
    meaning: str | None,
    names: Sequence[str] | None,
    score_range: tuple[float, float] | None,
) -> Labels:
    """The labels of a column, and what they mean where it was not said.

    Args:
        raw: at least one value, as read: numbers, booleans, or strings (of CSV, numbers too).
        places: where each value stands, for messages.
        column: for messages.
        meaning: "class", "0/1", "score", or None: 0 and 1 alone are 0/1, other whole numbers from 0 and strings
            classes, and all other numbers scores.
        names: of the classes that integers stand for.
        score_range: the scores that become 0 and 1; None takes it from the values.

    Raises:
        DocumentError: a value does not fit; the message has its place.
    """
    if names is not None and meaning in (None, "class"):
        raw = [names[value] if isinstance(value, int) and 0 <= value < len(names) else value for value in raw]
    if meaning in (None, "class") and isinstance(raw[0], str) and (meaning or as_number(raw[0]) is None):
        return _named_classes(raw, places, column)
    numbers = [check_number(value, column, place) for value, place in zip(raw, places, strict=True)]
    if meaning is None:
        whole = all(number.is_integer() and number >= 0 for number in numbers)
        meaning = "score" if not whole else "0/1" if max(numbers) <= 1 else "class"
    if meaning == "score":
        return _scores(numbers, score_range)
    for number, place in zip(numbers, places, strict=True):
        if not number.is_integer() or number < 0 or (meaning == "0/1" and number > 1):
            allowed = "0 or 1" if meaning == "0/1" else "a whole number from 0"
            raise DocumentError(f"{place}: the column {column!r} is {number:g}, where a label is {allowed}.")
    return Labels(meaning, [int(number) for number in numbers])


def triplets(premises: Sequence[str], hypotheses: Sequence[str], labels: Labels) -> Iterator[tuple[str, str, str]]:
    """(premise, what it entails, what contradicts it): of each premise that has both, as many as use each one once.

    Sentence-transformers trains on NLI so: https://www.sbert.net/examples/sentence_transformer/training/nli/.

    >>> labels = Labels("class", [0, 2, 2, 1], NLI)
    >>> list(triplets(["A man eats."] * 4, ["A man has food.", "He sleeps.", "He fasts.", "He eats cake."], labels))
    [('A man eats.', 'A man has food.', 'He sleeps.'), ('A man eats.', 'A man has food.', 'He fasts.')]
    """
    entailed: dict[str, dict[str, None]] = {}
    contradicted: dict[str, dict[str, None]] = {}
    for premise, hypothesis, label in zip(premises, hypotheses, labels.values, strict=True):
        if label is not None and NLI[label] != "neutral":
            side = entailed if NLI[label] == "entailment" else contradicted
            side.setdefault(premise, {})[hypothesis] = None
    for premise, positives in entailed.items():
        if premise in contradicted:
            positive, negative = list(positives), list(contradicted[premise])
            for place in range(max(len(positive), len(negative))):
                yield premise, positive[place % len(positive)], negative[place % len(negative)]


def _named_classes(raw: Sequence[Any], places: Sequence[str], column: str) -> Labels:
    found = [str(value).strip() for value in raw]
    lowered = [name.lower() for name in found]
    if NLI[0] in lowered and set(lowered) <= {*NLI, *_WITHOUT_GOLD}:
        values = [NLI.index(name) if name in NLI else None for name in lowered]
        without = values.count(None)
        return Labels("class", values, NLI, f"pairs without a class were left out: {without:,}" if without else "")
    for value, place in zip(raw, places, strict=True):
        if value is None or not str(value).strip():
            raise DocumentError(f"{place}: the column {column!r} is missing or empty, where a class is needed.")
    classes = tuple(sorted(set(found)))
    numbers = {name: number for number, name in enumerate(classes)}
    return Labels("class", [numbers[name] for name in found], classes)


def _scores(numbers: list[float], score_range: tuple[float, float] | None) -> Labels:
    low, high = score_range or _range(numbers)
    if not low < high:
        raise InvalidArgumentError(f"score_range is (lowest, highest), not {score_range!r}.")
    if (low, high) in ((0.0, 1.0), (-1.0, 1.0)) and score_range is None:
        return Labels("score", numbers)
    if min(numbers) < low or max(numbers) > high:
        raise InvalidArgumentError(
            f"The scores go from {min(numbers):g} to {max(numbers):g}, beyond the score_range of {low:g} to {high:g}."
        )
    note = f"scores from {low:g} to {high:g} were scaled to 0 to 1"
    return Labels("score", [(number - low) / (high - low) for number in numbers], note=note)


def _range(numbers: Sequence[float]) -> tuple[float, float]:
    """The scale that scores are on: a usual one (STS: 0 to 5, SICK: 1 to 5), or else their own extremes."""
    least, most = min(numbers), max(numbers)
    for low, high in ((0.0, 1.0), (-1.0, 1.0), (1.0, 5.0), (0.0, 5.0), (0.0, 10.0), (0.0, 100.0)):
        if low <= least and most <= high:
            return low, high
    return least, most
