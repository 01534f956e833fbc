"""Find the role of each column of a table, by its name or by a mapping, and check each value."""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hybridsearch.arguments import shown
from hybridsearch.errors import DocumentError, InvalidArgumentError

NAMES: dict[str, tuple[str, ...]] = {
    "anchor": (
        "anchor", "query", "question", "premise", "sentence1", "sentence_1", "sentence_a", "text1", "text_1", "text_a",
    ),
    "positive": (
        "positive", "positives", "positive_passages", "pos", "answer", "passage", "document", "response", "hypothesis",
        "sentence2", "sentence_2", "sentence_b", "text2", "text_2", "text_b",
    ),
    "negative": ("negative", "negatives", "negative_passages", "neg", "hard_negative", "hard_negatives"),
    "text": ("text", "sentence", "content", "contents"),
    "docs": ("docs", "documents", "passages", "candidates"),
    "label": ("label", "labels", "gold_label"),
    "class": ("class", "classes"),
    "score": ("score", "scores", "similarity", "similarity_score", "relatedness", "relatedness_score"),
    "positive_scores": ("positive_scores", "pos_scores"),
    "negative_scores": ("negative_scores", "neg_scores"),
    "embedding": ("embedding", "embeddings", "teacher_embedding"),
    "query_id": ("query_id", "qid", "question_id"),
    "document_id": ("document_id", "doc_id", "docid", "corpus_id", "passage_id"),
}  # fmt: skip
"""Names by which the column of each role is recognised, also in upper case, with - for _, or negatives with numbers."""

IDS = ("query_id", "document_id")
"""Roles that are kept beside the rows and are not given to the model."""

_TARGETS = ("label", "class", "score", "embedding")
_SCORES = ("positive_scores", "negative_scores")
_NUMBERED = re.compile(r"(negative|hard_negative|neg)_?(\d+)")
_WAY_OUT = (
    "Name the columns to use with columns={'anchor': '...', 'positive': '...'} (--columns anchor=...,positive=...). "
    "All other columns are then left out"
)


@dataclass(frozen=True, slots=True)
class Roles:
    """The columns of a table by their roles.

    Attributes:
        anchor: Column of the anchors, or None.
        positive: Column of the positives, or None.
        text: Column of single texts, or None.
        docs: Column of lists of documents, or None.
        negatives: Columns of the negatives, in order.
        target: Column of labels, classes, scores or embeddings, or None.
        target_role: Role of the target: "label", "class", "score" or "embedding", or "" without a target.
        scores: Columns with the scores of the positives and of the negatives.
        ids: Columns that are kept beside the rows, as pairs of new name and column name.
    """

    anchor: str | None = None
    positive: str | None = None
    text: str | None = None
    docs: str | None = None
    negatives: tuple[str, ...] = ()
    target: str | None = None
    target_role: str = ""
    scores: tuple[str, ...] = ()
    ids: tuple[tuple[str, str], ...] = ()

    @property
    def texts(self) -> list[tuple[str, str]]:
        """Role and column of each column that holds one text, in the order in which the model gets them."""
        first = [("text", self.text), ("anchor", self.anchor), ("positive", self.positive)]
        numbered = [(f"negative_{number}", column) for number, column in enumerate(self.negatives, 1)]
        return [(role, column) for role, column in first if column is not None] + numbered


def find_roles(columns: Sequence[str], mapping: Mapping[str, str] | None, ignore: Sequence[str]) -> Roles:
    """Find the role of each column, by its name or by a mapping.

    Args:
        columns: Names of the columns.
        mapping: Mapping from roles to columns. Only these columns are used. None finds roles by the names.
        ignore: Columns to leave out.

    Returns:
        The columns by their roles.

    Raises:
        InvalidArgumentError: A column has no role and is not ignored, two columns have the same role, or the columns do
            not make rows to train on.
    """
    twice = next((name for number, name in enumerate(columns) if name in columns[:number]), None)
    if twice is not None:
        raise InvalidArgumentError(f"Two columns are named {twice!r}. Give each column its own name.")
    if isinstance(ignore, str):
        raise InvalidArgumentError(f"ignore is a list of columns, not {ignore!r:.80}: write [{ignore!r:.80}].")
    if mapping is not None and not isinstance(mapping, Mapping):
        raise InvalidArgumentError(
            f"columns is a mapping from roles to columns, such as {{'anchor': 'question'}}, not {shown(mapping)}."
        )
    for name in ignore:
        if name not in columns:
            raise InvalidArgumentError(f"There is no column {name!r} to ignore. The columns are {listed(columns)}.")
    kept = [column for column in columns if column not in ignore]
    if mapping is None:
        found = {column: role_of(column) for column in kept}
    else:
        for role, column in mapping.items():
            if column not in columns:
                raise InvalidArgumentError(
                    f"columns has {role}={column!r}, but there is no such column. The columns are {listed(columns)}."
                )
            if role_of(role) is None:
                raise InvalidArgumentError(
                    f"columns has the key {role!r}, which is not a role. The roles are {', '.join(NAMES)}, negative_2 "
                    "and so on."
                )
        found = {column: role_of(role) for role, column in mapping.items()}
    extra = [column for column, role in found.items() if role is None]
    if extra:
        raise InvalidArgumentError(
            f"No role is known for the column{'s' * (len(extra) > 1)} {listed(extra)}. Leave columns out with "
            f"ignore=[...] (--ignore). Or {_WAY_OUT[0].lower()}{_WAY_OUT[1:]}."
        )
    roles: dict[str, str] = {}
    for column, role in ((column, str(role)) for column, role in found.items()):
        if role in roles:
            raise InvalidArgumentError(
                f"The columns {roles[role]!r} and {column!r} both look like the {role}. {_WAY_OUT}."
            )
        roles[role] = column
    return _assembled(roles, columns)


def _assembled(roles: dict[str, str], columns: Sequence[str]) -> Roles:
    if "anchor" in roles and "text" in roles and "positive" not in roles:
        roles = {"positive" if role == "text" else role: column for role, column in roles.items()}
    targets = [role for role in _TARGETS if role in roles]
    scores = [role for role in _SCORES if role in roles]
    if len(targets) > 1 or (targets and scores):
        targets += scores
        raise InvalidArgumentError(
            f"The columns {listed([roles[role] for role in targets])} could each be the label. {_WAY_OUT}."
        )
    negatives = sorted(
        (role for role in roles if role.startswith("negative") and role not in _SCORES),
        key=lambda role: int(role[9:] or 1),
    )
    ids = [(role, column) for role, column in roles.items() if role in IDS]
    target = targets[0] if targets else ""
    found = Roles(
        roles.get("anchor"),
        roles.get("positive"),
        roles.get("text"),
        roles.get("docs"),
        tuple(roles[role] for role in negatives),
        roles.get(target),
        target,
        tuple(roles[role] for role in scores),
        tuple(ids),
    )
    pair = found.anchor is not None and found.positive is not None
    complete = (
        (pair and found.text is None and found.docs is None)
        or (found.text is not None and found.anchor is None and not found.positive and not found.negatives)
        or (found.anchor is not None and found.docs is not None and found.target is not None and not found.negatives)
    )
    if not complete:
        raise InvalidArgumentError(
            f"The columns {listed(columns)} do not make rows to train on. Rows need an anchor and a positive (and "
            f"negatives), or a query, docs and labels, or only a text. {_WAY_OUT}."
        )
    return found


def role_of(name: str) -> str | None:
    """The role of a column by its name, such as "anchor" or "negative_2", or None if it is not known."""
    plain = name.strip().lower().replace("-", "_").replace(" ", "_")
    if numbered := _NUMBERED.fullmatch(plain):
        return f"negative_{int(numbered[2])}"
    return next((role for role, names in NAMES.items() if plain in names), None)


def check_text(value: object, column: str, role: str, where: str) -> str:
    """Check that a value is a text, and return it.

    Raises DocumentError with the place if the value is not a text or is empty.
    """
    if isinstance(value, str) and value and not value.isspace():
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise DocumentError(
                    f"{where}: {_called(column, role)} holds a lone surrogate, which is not valid Unicode. Remove it."
                ) from None
        return value
    raise DocumentError(f"{where}: {_called(column, role)} is {kind_of(value)}. Give a text.")


def check_texts(value: object, column: str, role: str, where: str) -> list[str]:
    """Check that a value is a list of texts, and return it.

    Raises DocumentError with the place if the value is another one or is empty.
    """
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise DocumentError(f"{where}: {_called(column, role)} is {kind_of(value)}. Give a list of texts.")
    return [check_text(text, column, f"{role}, item {place}", where) for place, text in enumerate(value, 1)]


def check_number(value: object, column: str, where: str) -> float:
    """Return the finite number that a value or its text is.

    Raises DocumentError with the place if the value is not a finite number.
    """
    number = as_number(value)
    if number is None or not math.isfinite(number):
        raise DocumentError(f"{where}: the column {column!r} is {kind_of(value)}. Give a number.")
    return number


def check_numbers(value: object, column: str, where: str) -> list[float]:
    """Check that a value is a list of finite numbers, and return it.

    Raises DocumentError with the place if the value is another one or is empty.
    """
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise DocumentError(f"{where}: the column {column!r} is {kind_of(value)}. Give a list of numbers.")
    return [check_number(number, column, where) for number in value]


def as_number(value: object) -> float | None:
    """The number that a value is, or that its text spells, or None."""
    if isinstance(value, bool | numbers.Real):
        return float(value)
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return None
    item = getattr(value, "item", None)  # numpy's bool is not a Real
    return float(item()) if item is not None and getattr(value, "ndim", None) == 0 else None


def values_of(rows: Iterator[tuple[str, Mapping[str, Any]]], columns: Sequence[str]) -> Iterator[tuple[str, list[Any]]]:
    """The values of these columns, row by row, with the place.

    Raises:
        DocumentError: A row lacks one of the columns, or has a column that the first row does not have.
    """
    known: set[str] | None = None
    for where, row in rows:
        known = known or set(row)
        extra = row.keys() - known
        if extra:
            raise DocumentError(
                f"{where}: the row has the field {min(extra)!r}, but the first row does not. Give all rows the same "
                "fields."
            )
        try:
            yield where, [row[column] for column in columns]
        except KeyError as error:
            raise DocumentError(
                f"{where}: the column {error.args[0]!r} is missing. Give all rows the same columns."
            ) from None


def _called(column: str, role: str) -> str:
    return f"the column {column!r}" + ("" if column == role else f" ({role})")


def kind_of(value: object) -> str:
    """A value in the words of an error: "empty", "missing (null)", "the text '...'"."""
    if value is None:
        return "missing (null)"
    if isinstance(value, str):
        return "empty" if not value.strip() else f"the text {value!r:.60}"
    if isinstance(value, float) and math.isnan(value):
        return "NaN (an empty cell?)"
    if isinstance(value, Sequence) and not value:
        return "an empty list"
    return f"the {type(value).__name__} {value!r:.60}"


def listed(names: Sequence[str]) -> str:
    """The first twelve names, each cut to 40 characters."""
    shown = ", ".join(f"{name!r:.40}" for name in names[:12])
    return shown + (", ..." if len(names) > 12 else "")
