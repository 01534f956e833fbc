"""Records of a file, and the rules that make documents from their fields."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeAlias

from hybridsearch.documents import Document
from hybridsearch.errors import DocumentError
from hybridsearch.readers.markdown import Content
from hybridsearch.readers.types import converted

ID_FIELDS = ("id", "_id", "docid")
TEXT_FIELDS = ("text", "contents", "content", "body")
TITLE_FIELDS = ("title",)

Record: TypeAlias = "Mapping[str, Any] | Document | DocumentError"
"""Fields of one record, a document, or the error of the record."""

Numbered: TypeAlias = tuple[int, Record]
"""A line or row number, from 1, and its record."""


class WholeFileError(Exception):
    """No line of the file can be read as a document, so skipping lines does not help."""


@dataclass(frozen=True, slots=True)
class Fields:
    """The rules that make a document from the fields of a record.

    Attributes:
        id: Names of fields. The first field that the record has is the id.
        text: Names of fields. The first field that the record has is the text.
        title: Names of fields. The first field that the record has is the title.
        metadata: Names of the fields to keep as metadata. None keeps all other fields.
        auto_id: Whether records that have no id get one.
        types: Types of metadata, by field.
        encoding: Encoding of text files. None finds it from their first bytes.
        delimiter: Character between the columns of CSV and TSV files. None finds it from their first lines.
        name: Name of the source in the ids that records get. None takes the last part of its path.
    """

    id: tuple[str, ...]
    text: tuple[str, ...]
    title: tuple[str, ...]
    metadata: frozenset[str] | None
    auto_id: bool
    types: Mapping[str, str] = field(default_factory=dict)
    encoding: str | None = None
    delimiter: str | None = None
    name: str | None = None

    def document(self, record: Record, file: str, number: int | None) -> Document:
        """Make the document of a record.

        Raises:
            DocumentError: The record is not a usable document.
        """
        if isinstance(record, Document):
            return record
        if isinstance(record, DocumentError):
            raise record
        id_field, text_field, title_field = self.of_document(record)
        if text_field is None:
            raise self.without_text(record)
        names = (id_field, text_field, title_field)
        id, text, title = (None if name is None else _given(record[name]) for name in names)
        if id is None or id == "":
            if not self.auto_id:
                raise self.without_id(record)
            id = f"{self.name or Path(file).name}-{number}"
        elif isinstance(id, uuid.UUID):
            id = str(id)
        elif (isinstance(id, int) and not isinstance(id, bool)) or (
            isinstance(id, Decimal) and id.is_finite() and id == int(id)
        ):
            id = _decimal(int(id))
        elif isinstance(id, float):
            pandas = "" if Path(file).suffix else f": in pandas, df[{id_field!r:.40}].astype('Int64')"
            raise DocumentError(
                f"its id {id!r} is a number with a decimal point. Use whole numbers or strings{pandas}."
            )
        if text is None:
            raise DocumentError(
                "its text is missing (null or NaN). Give a text, write an empty one, or leave such records out with "
                "on_error='skip' (--on-error skip)."
            )
        metadata = {field: value for field, value in record.items() if field not in names}
        nested = metadata.get("metadata")
        if isinstance(nested, Mapping):
            del metadata["metadata"]
            metadata = {**nested, **metadata}
        return Document(id, text, "" if title is None else title, self._kept(metadata))

    def of_file(self, content: Content, id: str, name: str) -> Document:
        """Make the document of a whole file. Its title is in its metadata, or that of its content, or its name."""
        metadata = dict(content.metadata)
        field = next((field for field in self.title if isinstance(metadata.get(field), str | int | float)), None)
        title = "" if field is None else str(metadata.pop(field))
        return Document(id, content.text, title or content.title or name, self._kept(metadata))

    def _kept(self, metadata: dict[str, Any]) -> dict[str, Any]:
        """The metadata that is kept, in the types that were given."""
        if self.metadata is not None:
            metadata = {field: value for field, value in metadata.items() if field in self.metadata}
        if not self.types:
            return metadata
        return {
            field: converted(value, self.types[field], field) if field in self.types else value
            for field, value in metadata.items()
        }

    def of_document(self, record: Container[str]) -> tuple[str | None, str | None, str | None]:
        """Find the names of the fields with the id, the text and the title. All other fields are metadata."""
        id_field, text_field, title_field = (_first(names, record) for names in (self.id, self.text, self.title))
        return id_field, text_field, title_field

    def check(self, columns: Sequence[str]) -> None:
        """Check that a table has the columns that every row needs.

        Raises:
            DocumentError: A column is missing, or two columns have the same name.
        """
        counts = Counter(columns)
        twice = next((name for name, count in counts.items() if count > 1), None)
        if twice is not None:
            raise DocumentError(f"two columns are named {twice!r:.80}: rename one of them.")
        id_field, text_field, _ = self.of_document(counts)
        if text_field is None:
            raise self.without_text(columns)
        if id_field is None and not self.auto_id:
            raise self.without_id(columns)
        unknown = next((name for name in self.types if name not in counts), None)
        if unknown is not None and "metadata" not in counts:  # it may be a field of the mappings in this column
            raise DocumentError(
                f"types (--type) names {unknown!r:.80}, which is not a column. The columns are {_shown(columns)}."
            )
        if self.title != TITLE_FIELDS and self.title[0] not in counts:
            raise DocumentError(
                f"title_field (--title-field) is {self.title[0]!r:.80}, which is not a column. The columns are "
                f"{_shown(columns)}."
            )

    def without_text(self, found: Iterable[str]) -> DocumentError:
        """The error of a record that has no text."""
        return DocumentError(
            f"there is no text: {_listed(self.text)} is not among its fields ({_shown(found)}). "
            "Name the field with text_field of hs.read_documents (--text-field)."
        )

    def without_id(self, found: Iterable[str]) -> DocumentError:
        """The error of a record that has no id."""
        return DocumentError(
            f"there is no id: {_listed(self.id)} is missing or empty among its fields ({_shown(found)}). "
            "Name the field with id_field of hs.read_documents (--id-field), or number the records with auto_id=True "
            "(--auto-id)."
        )


def _given(value: Any) -> Any:
    """`value`, or None if it is a missing value of pandas: NaN, NaT or NA."""
    missing = value != value if isinstance(value, float) else type(value).__name__ in ("NaTType", "NAType")
    return None if missing else value


def _first(names: Sequence[str], record: Container[str]) -> str | None:
    return next((name for name in names if name in record), None)


def _listed(names: Sequence[str]) -> str:
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _shown(fields: Iterable[str]) -> str:
    names = [f"{field!r:.40}" for field in fields]
    return (", ".join(names[:8]) + (", ..." if len(names) > 8 else "")) or "it has none"


def _decimal(value: int) -> str:
    if value.bit_length() > 1024:
        raise DocumentError("its id is an integer of hundreds of digits: write it as a string.")
    return str(value)
