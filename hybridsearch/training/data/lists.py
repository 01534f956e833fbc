"""Rows with lists of positives and negatives become tuples, and rows with a label each become lists.

Tevatron and FlagEmbedding write rows with lists, which may have any lengths. Let k be the number of negatives of the
row that has the fewest, but at least one. A row with p positives and n negatives becomes max(p, n / k rounded up)
tuples of one positive and k negatives. Positives and negatives are taken in turn, and start again from the first. So
each text is in at least one tuple. If no row has negatives, each positive makes a pair. If only some rows have none,
these rows take positives of the rows that follow as negatives.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, islice
from typing import Any

import pyarrow as pa

from hybridsearch.errors import DocumentError
from hybridsearch.messages import number_of
from hybridsearch.training.data.columns import check_numbers, check_text, kind_of
from hybridsearch.training.data.rows import Kind, TrainingData, normalized


@dataclass(slots=True)
class Tuples:
    """Tuples or pairs that were made of rows with lists.

    Attributes:
        columns: Columns of the texts: anchor, positive, negative_1 and so on.
        scores: Scores of each tuple: of the positive and of each negative, or margins. Empty without scores.
        origins: Number of the row that each tuple comes from.
        notes: What was done to the rows.
    """

    columns: pa.Table
    scores: list[list[float]]
    origins: list[int]
    notes: tuple[str, ...]


@dataclass(slots=True)
class Listed:
    """Rows of a query with lists of positives and negatives.

    Attributes:
        places: Place of each row, for messages.
        anchors: Query of each row.
        positives: Positives of each row, at least one.
        negatives: Negatives of each row, which may be none.
        scores: Scores of each row: of its positives, then of its negatives. Or margins, one for each negative of the
            only positive. Empty if the rows have no scores.
        margins: Whether the scores are margins.
    """

    places: list[str] = field(default_factory=list)
    anchors: list[str] = field(default_factory=list)
    positives: list[list[str]] = field(default_factory=list)
    negatives: list[list[str]] = field(default_factory=list)
    scores: list[list[float]] = field(default_factory=list)
    margins: bool = False

    def add(
        self,
        place: str,
        anchor: str,
        positives: list[str],
        negatives: list[str],
        scores: list[float],
        *,
        may_be_margins: bool,
    ) -> None:
        """Add a row, whose scores are empty if there are none. Raises DocumentError if their number is wrong."""
        if self.anchors and bool(scores) != bool(self.scores):
            texts = ("no scores, but the rows before have", "scores, but the rows before have none")
            raise DocumentError(f"{place}: the row has {texts[bool(scores)]}. Give scores for all rows or for none.")
        self.places.append(place)
        self.anchors.append(anchor)
        self.positives.append(positives)
        self.negatives.append(negatives)
        if not scores:
            return
        margins = may_be_margins and len(positives) == 1 and len(scores) == len(negatives)
        if not margins and len(scores) != len(positives) + len(negatives):
            raise DocumentError(
                f"{place}: the row has {number_of(len(scores), 'score')}, but "
                f"{number_of(len(positives), 'positive')} and {number_of(len(negatives), 'negative')}. Give one score "
                "for each text."
            )
        if self.scores and margins != self.margins:
            forms = ("one score for each text", "margins")
            raise DocumentError(
                f"{place}: the row has {forms[margins]}, but the rows before have {forms[not margins]}. Give all rows "
                "the same."
            )
        self.margins = margins
        self.scores.append(scores)

    def tuples(self) -> Tuples:
        """Make tuples, or pairs if no row has negatives, as described at the top of this module."""
        width = min((len(negatives) for negatives in self.negatives if negatives), default=0)
        notes = self._fill(width) if width else ()
        names = ["anchor", "positive", *(f"negative_{number}" for number in range(1, width + 1))]
        rows: list[tuple[str, ...]] = []
        scores: list[list[float]] = []
        origins: list[int] = []
        for row, positive, negatives in self._taken(width):
            texts = self.negatives[row]
            rows.append((self.anchors[row], self.positives[row][positive], *(texts[place] for place in negatives)))
            origins.append(row)
            if self.scores:
                known = self.scores[row]
                first = 0 if self.margins else len(self.positives[row])
                own = [] if self.margins else [known[positive]]
                scores.append(own + [known[first + place] for place in negatives])
        columns = [pa.array(texts, pa.string()) for texts in zip(*rows, strict=True)]
        if len(rows) > len(self.anchors):
            made = f"tuples with {number_of(width, 'negative')}" if width else "pairs"
            lists = number_of(len(self.anchors), "row with lists", "rows with lists")
            notes = (*notes, f"{lists} became {len(rows):,} {made}")
        return Tuples(pa.table(dict(zip(names, columns, strict=True))), scores, origins, notes)

    def _taken(self, width: int) -> Iterator[tuple[int, int, list[int]]]:
        """The row of each tuple, the place of its positive, and the places of its negatives."""
        for row, (positives, negatives) in enumerate(zip(self.positives, self.negatives, strict=True)):
            for number in range(max(len(positives), math.ceil(len(negatives) / max(width, 1)))):
                places = [(number * width + place) % len(negatives) for place in range(width)]
                yield row, number % len(positives), places

    def _fill(self, width: int) -> tuple[str, ...]:
        """Give rows without negatives the positives of other queries. Returns a note if there are such rows."""
        bare = [row for row, negatives in enumerate(self.negatives) if not negatives]
        for row in bare:
            found = self._others(row, width)
            if len(found) < width or self.scores:
                raise DocumentError(
                    f"{self.places[row]}: the row has no negatives, but other rows have. Give it negatives"
                    f"{' with scores' if self.scores else ''}, or leave it out."
                )
            self.negatives[row] = found
        if not bare:
            return ()
        return (f"{number_of(len(bare), 'row')} without negatives took positives of other rows as negatives",)

    def _others(self, row: int, count: int) -> list[str]:
        """The first positives after a row that are not positives of its query."""
        asked = normalized(self.anchors[row])
        known = {normalized(text) for text in self.positives[row]}
        found: list[str] = []
        for step in range(1, len(self.anchors)):
            other = (row + step) % len(self.anchors)
            for text in self.positives[other] if normalized(self.anchors[other]) != asked else ():
                if normalized(text) not in known and len(found) < count:
                    known.add(normalized(text))
                    found.append(text)
            if len(found) == count:
                break
        return found


def read_texts(value: object, column: str, role: str, where: str, *, may_be_empty: bool = False) -> list[str]:
    """Read a text, a passage with a title and a text, or a list of these.

    Raises DocumentError with the place if the value is another one, or is empty and may not be.
    """
    if may_be_empty and (value is None or value == []):
        return []
    given = [value] if isinstance(value, str | Mapping) else value
    if not isinstance(given, Sequence) or not given:
        raise DocumentError(f"{where}: the column {column!r} ({role}) is {kind_of(value)}. Give a list of texts.")
    texts = (_content(one, column, where) for one in given)
    return [check_text(text, column, f"{role}, item {place}", where) for place, text in enumerate(texts, 1)]


def read_scores(row: Mapping[str, Any], columns: Sequence[str], where: str) -> list[float]:
    """The numbers in some columns of a row, one after the other. A column may have a number, a list or nothing."""
    given = ((column, row[column]) for column in columns)
    return [
        number
        for column, value in given
        if value is not None and value != []
        for number in check_numbers(value if isinstance(value, list) else [value], column, where)
    ]


def grouped(data: TrainingData, limit: int | None = None) -> TrainingData:
    """Make one list of all rows of a query.

    Rows belong together if they have the same query_id, or the same query if there are no ids.

    Args:
        data: Pairs with a number as label: `Kind.LABELLED` or `Kind.SCORED`.
        limit: Largest number of rows. As many whole lists are made as fit, but at least one. None takes all rows.

    Returns:
        Lists, in the order of their first rows.

    Raises:
        DocumentError: Two queries have the same query_id.

    >>> rows = {"anchor": ["q", "p", "q"], "positive": ["a", "b", "c"], "label": [1, 1, 0]}
    >>> grouped(TrainingData.from_columns(Kind.LABELLED, rows)).rows[0]
    {'query': 'q', 'docs': ['a', 'c'], 'labels': [1.0, 0.0]}
    """
    anchors = data.rows["anchor"]
    known = data.ids["query_id"] if data.ids is not None and "query_id" in data.ids.column_names else anchors
    lists: dict[tuple[bool, str], tuple[str, list[str], list[float]]] = {}
    for id, *row in zip(known, anchors, data.rows["positive"], data.rows["label"], strict=True):
        anchor, text, label = row
        query, docs, labels = lists.setdefault((id is None, anchor if id is None else id), (anchor, [], []))
        if query != anchor and normalized(query) != normalized(anchor):
            raise DocumentError(
                f"The query_id {id!r} has two queries, {query!r:.60} and {anchor!r:.60}. Give each query its own id."
            )
        docs.append(text)
        labels.append(float(label))
    if limit is not None:
        ends = accumulate(len(docs) for _, docs, _ in lists.values())
        lists = dict(islice(lists.items(), max(1, sum(end <= limit for end in ends))))
    queries, docs_of, labels_of = map(list, zip(*lists.values(), strict=True))
    columns = {"query": queries, "docs": docs_of, "labels": labels_of}
    note = f"{number_of(sum(map(len, docs_of)), 'row')} became {number_of(len(lists), 'list')}"
    if without := sum(max(labels) <= 0 for _, _, labels in lists.values()):
        note += f", {without:,} without a label above 0"
    made = TrainingData.from_columns(Kind.LISTS, columns, name=data.name, loss=data.loss)
    return replace(made, notes=(*data.notes, note))


def _content(passage: object, column: str, where: str) -> object:
    """The text of a passage, with its title if it has one."""
    if not isinstance(passage, Mapping):
        return passage
    if "text" not in passage:
        fields = ", ".join(map(repr, passage)) or "none"
        raise DocumentError(
            f"{where}: a passage in the column {column!r} has no text (its fields: {fields}). Give it a text."
        )
    title, text = passage.get("title"), passage["text"]
    return f"{title} {text}" if isinstance(title, str) and isinstance(text, str) and title else text
