"""The fields of documents that encoders and rerankers read, and the template that makes one text of them.

A field is `title`, `text` or `metadata.PATH`. A path is a metadata key, or keys with dots between them as in filters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from hybridsearch.arguments import number, shown
from hybridsearch.documents import Document
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.filters import composed, fields_of
from hybridsearch.vectors import SparseVectors

KNOWN = "title, text and metadata.NAME, such as metadata.tags"

_WHOLE = 2.0**53  # below it, a float that is whole is written as a whole number, because engines may make it one
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


def check_fields(argument: str, names: Iterable[object]) -> tuple[str, ...]:
    """Return the names of fields as a tuple.

    Args:
        argument: Name of the argument, for errors.
        names: Names of fields.

    Raises:
        InvalidArgumentError: A name is not `title`, `text` or `metadata.PATH`.

    >>> check_fields("fields", ["title", "body"])
    Traceback (most recent call last):
    hybridsearch.errors.InvalidArgumentError: fields names 'body', but the fields of a document are title, text and \
metadata.NAME, such as metadata.tags.
    """
    checked = []
    for name in names:
        top, _, path = name.partition(".") if isinstance(name, str) else ("", "", "")
        if name not in ("title", "text") and (top != "metadata" or not all(path.split("."))):
            raise InvalidArgumentError(f"{argument} names {shown(name)}, but the fields of a document are {KNOWN}.")
        checked.append(str(name))
    return tuple(checked)


def field_weights(fields: object) -> dict[str, float]:
    """Return the weights of fields as floats, by name.

    Raises:
        InvalidArgumentError: `fields` is not a mapping, names no field, or has a weight outside 0.001 to 1,000.
    """
    if not isinstance(fields, Mapping) or not fields:
        raise InvalidArgumentError(f"fields is a mapping such as {{'title': 3, 'text': 1}}, not {shown(fields)}.")
    names = check_fields("fields", fields)
    return {
        name: float(number(f"The weight of the field {name!r:.80}", weight, least=0.001, most=1000))
        for name, weight in zip(names, fields.values(), strict=True)
    }


def sum_fields(counts: SparseVectors, weights: Sequence[float]) -> SparseVectors:
    """Sum the term counts of the fields of each document.

    Args:
        counts: Term counts with one row for each field of the first document, then of the second, and so on.
        weights: Weight of each field.

    Returns:
        Weighted term frequencies with one row for each document. They are summed in float64 and rounded to float32.
    """
    matrix = counts.matrix
    fields, documents = len(weights), len(counts) // len(weights)
    factors = np.repeat(np.tile(np.array(weights), documents), np.diff(matrix.indptr))
    parts = matrix.data * factors, matrix.indices, matrix.indptr[::fields]
    summed = csr_array(parts, shape=(documents, matrix.shape[1]))
    summed.sum_duplicates()
    return SparseVectors(summed.astype(np.float32), counts.vocabulary)


def read_fields(document: Document, names: Sequence[str]) -> list[str]:
    """Read fields of a document as texts.

    A number is its decimal text, and a boolean is `true` or `false`. The values of a list or of a mapping are joined by
    ", ". A missing field is `""`.

    >>> document = Document("1", "A wing.", metadata={"tags": ["lift", "drag"], "by": {"name": "Ada", "born": 1815}})
    >>> read_fields(document, ["text", "metadata.tags", "metadata.by.born", "metadata.by", "metadata.of"])
    ['A wing.', 'lift, drag', '1815', 'Ada, 1815', '']
    """
    fields: Mapping[str, Any] = {}
    if document.metadata and any(name.startswith("metadata.") for name in names):
        fields = fields_of(document)  # without "id", which stands for the document's own id in filters
        if "id" in document.metadata:
            fields = {**fields, "id": document.metadata["id"]}
    return [_read(document, fields, name) for name in names]


def metadata_of(names: Iterable[str]) -> tuple[str, ...]:
    """Return the paths of those fields that are metadata, without `metadata.`.

    >>> metadata_of(["title", "metadata.tags", "metadata.by.name"])
    ('tags', 'by.name')
    """
    return tuple(composed(name.removeprefix("metadata.")) for name in names if name.startswith("metadata."))


@dataclass(frozen=True, slots=True)
class Template:
    """A text with placeholders, which makes one text of the fields of a document.

    A placeholder is `{title}`, `{text}` or `{metadata.PATH}`. If all fields of a document are empty, its text is `""`.

    Attributes:
        text: Text of the template.

    Raises:
        InvalidArgumentError: A placeholder names no field, a brace is not of a placeholder, or there is no placeholder.

    >>> template = Template("{title}: {text} [{metadata.tags}]")
    >>> template.read(Document("1", "A {title} wing.", "Lift", {"tags": ["wing", "flow"]}))
    'Lift: A {title} wing. [wing, flow]'
    """

    text: str
    _literals: tuple[str, ...] = field(init=False, repr=False, compare=False)
    _fields: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise InvalidArgumentError(f"template is a text such as '{{title}} {{text}}', not {shown(self.text)}.")
        parts = _PLACEHOLDER.split(self.text)
        object.__setattr__(self, "_literals", tuple(parts[::2]))
        object.__setattr__(self, "_fields", check_fields("template", parts[1::2]))
        if stray := next((brace for literal in self._literals for brace in literal if brace in "{}"), ""):
            raise InvalidArgumentError(
                f"template has a {stray!r} that is not of a placeholder: leave it out. Placeholders are {{title}}, "
                "{text} and {metadata.NAME}."
            )
        if not self._fields:
            raise InvalidArgumentError(
                f"template {self.text!r:.80} has no placeholder: write {{title}}, {{text}} or {{metadata.NAME}} where "
                "the field belongs."
            )

    @property
    def metadata_fields(self) -> tuple[str, ...]:
        """Paths of the metadata fields that the template names."""
        return metadata_of(self._fields)

    def read(self, document: Document) -> str:
        """Make the text of a document."""
        values = read_fields(document, self._fields)
        if not any(map(str.strip, values)):
            return ""
        pairs = zip(self._literals, [*values, ""], strict=True)
        return "".join(part for pair in pairs for part in pair)


def reader(template: str | None) -> Callable[[Document], str]:
    """Make the function that reads the text of a document: by the template, or `Document.content` for None."""
    return _content if template is None else Template(template).read


def _content(document: Document) -> str:
    return document.content


def _read(document: Document, fields: Mapping[str, Any], name: str) -> str:
    if name in ("title", "text"):
        return document.title if name == "title" else document.text
    path = composed(name.removeprefix("metadata."))
    if path in fields:
        return _as_text(fields[path])
    return _as_text([value for key, value in fields.items() if key.startswith(f"{path}.")])


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < _WHOLE:
        return f"{value:.0f}"
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return ", ".join(text for text in map(_as_text, value) if text)
    return "" if value is None else str(value)
