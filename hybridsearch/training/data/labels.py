"""Find the meaning of labels (classes, 0 and 1, or scores), and make triplets of pairs with entailments."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hybridsearch.errors import DocumentError, InvalidArgumentError
from hybridsearch.training.data.columns import as_number, check_number

NLI = ("entailment", "neutral", "contradiction")
"""The classes of natural language inference, numbered as on the hub."""

_WITHOUT_GOLD = ("-", "", "-1")  # the annotators of SNLI did not agree
_NO_LABEL = -1
"""The integer for a missing label, as on the hub."""

_TRUTHS = {"true": 1, "false": 0}


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of pairs.

    Attributes:
        meaning: Meaning of the labels: "class", "0/1" or "score".
        values: One value for each row. None for a row without a label, which scores do not have.
        classes: Names of the classes, or () if they have no names.
        note: What was done to the values, or "".
    """

    meaning: str
    values: list[Any]
    classes: tuple[str, ...] = ()
    note: str = ""

    @property
    def nli(self) -> bool:
        """Whether the classes are the classes of natural language inference."""
        return self.classes == NLI


def read_labels(
    raw: Sequence[Any],
    places: Sequence[str],
    column: str,
    *,
    meaning: str | None,
    names: Sequence[str] | None,
    score_range: tuple[float, float] | None,
    classes: bool = False,
) -> Labels:
    """Read the labels of a column, and find their meaning if it is not given.

    Args:
        raw: Values as they were read, at least one: numbers, booleans or texts. In CSV, all values are texts.
        places: Place of each value, for messages.
        column: Name of the column, for messages.
        meaning: Meaning of the labels: "class", "0/1" or "score". None finds it: only 0 and 1 (or true and false) are
            0/1, texts and the whole numbers 0 to 2 are classes, and numbers with a fraction are scores. An integer of
            -1 means no label.
        names: Names of the classes that integers stand for.
        score_range: Scores that become 0 and 1. None finds them by the values.
        classes: Whether whole numbers other than 0 and 1 are classes, of any size.

    Returns:
        The labels and their meaning.

    Raises:
        DocumentError: A value does not fit. The message has its place.
        InvalidArgumentError: Whole numbers may be classes or scores, or no row has a label.
    """
    if meaning in (None, "class"):
        if names is not None:
            raw = [_name(value, names) for value in raw]
        texts = [value for value in raw if isinstance(value, str)]
        words = any(as_number(text) is None and not _is_truth(text) for text in texts)
        only = all(as_number(value) in (None, _NO_LABEL) for value in raw)  # else the first word is the error
        if names is not None or (words and only) or (texts and meaning == "class"):
            return _named_classes(raw, places, column, hub=names is not None)
    numbers = [_number(value, column, place) for value, place in zip(raw, places, strict=True)]
    meaning = meaning or _meaning(numbers, column, classes)
    if meaning == "score":
        return _scores(numbers, score_range, column)
    labels: list[int | None] = []
    for number, place in zip(numbers, places, strict=True):
        if not number.is_integer() or number < _NO_LABEL or (meaning == "0/1" and number > 1):
            allowed = "0 or 1" if meaning == "0/1" else "a whole number from 0"
            raise DocumentError(f"{place}: the column {column!r} is {number:g}. Give {allowed} as the label.")
        labels.append(None if number == _NO_LABEL else int(number))
    return Labels(meaning, labels, note=_left_out(labels, column))


def triplets(premises: Sequence[str], hypotheses: Sequence[str], labels: Labels) -> Iterator[tuple[str, str, str]]:
    """Make triplets of sentence pairs: a premise, a text that it entails, and a text that contradicts it.

    Only premises that have both give triplets. Each text of a premise is used at least once. sentence-transformers
    trains on NLI in this way: https://www.sbert.net/examples/sentence_transformer/training/nli/.

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


def _meaning(numbers: Sequence[float], column: str, classes: bool) -> str:
    """The meaning of numbers. Raises InvalidArgumentError if they may be scores or classes."""
    found, low, high = set(numbers), min(numbers), max(numbers)
    if classes or (found <= {0.0, 1.0}):
        return "0/1" if high <= 1 else "class"
    if low < _NO_LABEL or found == {-1.0, 1.0} or not all(number.is_integer() for number in found):
        return "score"
    if high == 2:
        return "class"  # as the hub numbers entailment, neutral and contradiction
    if high < 0:
        return "class"  # there is no label at all
    raise InvalidArgumentError(
        f"The column {column!r} holds whole numbers from {low:g} to {high:g}. They may be scores or classes"
        f"{' (-1 for no label)' if low < 0 else ''}. Name the column as score or as class, together with the other "
        f"columns: columns={{'anchor': '...', 'positive': '...', 'score': {column!r}}} "
        f"(--columns anchor=...,positive=...,score={column})."
    )


def _name(value: Any, names: Sequence[str]) -> Any:
    """The name of a class by its number, as on the hub. -1 and null mean no label."""
    if isinstance(value, int) and 0 <= value < len(names):
        return names[value]
    return None if value == _NO_LABEL else value


def _number(value: Any, column: str, place: str) -> float:
    """The number of a value or text. True is 1, false is 0."""
    return float(_TRUTHS[value.strip().lower()]) if _is_truth(value) else check_number(value, column, place)


def _is_truth(value: Any) -> bool:
    return isinstance(value, str) and value.strip().lower() in _TRUTHS


def _left_out(values: Sequence[Any], column: str) -> str:
    """The note on rows without a label. Raises InvalidArgumentError if no row has one."""
    without = sum(value is None for value in values)
    if without == len(values):
        raise InvalidArgumentError(f"No row has a label in the column {column!r}. Give data with labels.")
    return f"pairs without a class were left out: {without:,}" if without else ""


def _named_classes(raw: Sequence[Any], places: Sequence[str], column: str, hub: bool) -> Labels:
    """Read classes by their names in upper or lower case. In rows of the hub and of NLI, classes may be missing."""
    found = ["" if value is None else str(value).strip() for value in raw]
    lowered = [name.lower() for name in found]
    missing = {"", str(_NO_LABEL)}
    if NLI[0] in lowered and set(lowered) <= {*NLI, *_WITHOUT_GOLD}:
        values = [NLI.index(name) if name in NLI else None for name in lowered]
        return Labels("class", values, NLI, _left_out(values, column))
    for name, place in zip(found, places, strict=True):
        if not name and not hub:
            raise DocumentError(f"{place}: the column {column!r} is missing or empty. Give a class.")
    spelled: dict[str, str] = {}
    for name in sorted(set(found) - missing):
        spelled.setdefault(name.lower(), name)
    classes = tuple(spelled.values())
    numbers = {name: number for number, name in enumerate(spelled)}
    values = [numbers.get(name) for name in lowered]
    notes = [_left_out(values, column)]
    if len(classes) < len(set(found) - missing):
        notes.append("classes that differ only in case were taken as one class")
    return Labels("class", values, classes, "; ".join(filter(None, notes)))


def _scores(numbers: list[float], score_range: tuple[float, float] | None, column: str) -> Labels:
    low, high = score_range or _range(numbers, column)
    if not low < high:
        raise InvalidArgumentError(f"score_range is {score_range!r}. Give (lowest, highest), such as (0, 5).")
    if (low, high) in ((0.0, 1.0), (-1.0, 1.0)) and score_range is None:
        note = f"{column} of -1 and 1 was taken as a score" if set(numbers) == {-1.0, 1.0} else ""
        return Labels("score", numbers, note=note)
    if min(numbers) < low or max(numbers) > high:
        raise InvalidArgumentError(
            f"The scores go from {min(numbers):g} to {max(numbers):g}, beyond the score_range of {low:g} to {high:g}. "
            "Give a wider score_range."
        )
    note = f"scores from {low:g} to {high:g} were scaled to 0 to 1"
    return Labels("score", [(number - low) / (high - low) for number in numbers], note=note)


def _range(numbers: Sequence[float], column: str) -> tuple[float, float]:
    """The scale of scores: the first usual one that holds them (SICK: 1 to 5, STS: 0 to 5), or else their extremes."""
    least, most = min(numbers), max(numbers)
    for low, high in ((0.0, 1.0), (-1.0, 1.0), (1.0, 5.0), (0.0, 5.0), (0.0, 10.0), (0.0, 100.0)):
        if low <= least and most <= high:
            return low, high
    if least == _NO_LABEL and all(number >= 0 for number in numbers if number != _NO_LABEL):
        raise InvalidArgumentError(
            f"The scores in the column {column!r} go from 0 or more to {most:g}, but some are -1. If -1 means no "
            "score, leave these rows out. If -1 is a score, give score_range=(-1, ...), or score_range in a --config "
            "file."
        )
    return least, most
