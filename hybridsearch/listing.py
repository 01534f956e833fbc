"""The order in which documents are listed, and places in a list that a later call continues from.

`HybridSearch.documents` lists documents in an order of one or more fields:

- `"year"` is ascending, and `"-year"` is descending. A field is `id`, or a field that a filter can name.
- The id is the last field of every order. Ids are ordered by code point.
- Booleans come first (false, true), then numbers by value, then strings by code point, then instants by time. Dates
  without an offset from UTC are strings. A descending order reverses all of this. Of a long string, the first 1,000
  characters count.
- Of a list the smallest element counts, or the largest element in a descending order.
- Documents without a value come last in both directions. An empty list and a mapping count as no value.

All backends have this order. `Order.key` is the reference.
"""

from __future__ import annotations

import base64
import binascii
import heapq
import json
import math
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from typing import Any, TypeAlias

from hybridsearch.documents import Document
from hybridsearch.errors import InvalidArgumentError, StorageError
from hybridsearch.filters import Instant, comparable, composed, field_value

Key: TypeAlias = tuple[bytes, str]
"""The place of a document in an order: the values of the fields as bytes that sort like them, and the id."""

_LONGEST = 1000  # characters of a string that count
_IN_MEMORY = 100_000  # keys that are sorted in memory. More keys are sorted on disk.
_FETCHED = 256  # documents that are read at a time
_MOST = 2**62  # documents, which no index has
_MISSING = b"\xff"
_REVERSED = bytes(range(255, -1, -1))


@dataclass(frozen=True, slots=True)
class Order:
    """An order of documents.

    Attributes:
        names: The fields as they were given. A field with a "-" before it is descending.
        fields: Path of each field in NFC, and whether it is descending.

    >>> order = Order.parse(["-year", "title"])
    >>> order.fields
    (('year', True), ('title', False))
    >>> documents = [Document(id, "", metadata={"year": year}) for id, year in (("b", 2020), ("a", 2020), ("c", 2021))]
    >>> [document.id for document in sorted(documents, key=order.key)]
    ['c', 'a', 'b']
    """

    names: tuple[str, ...]
    fields: tuple[tuple[str, bool], ...]

    @classmethod
    def parse(cls, sort: str | Sequence[str] | None) -> Order:
        """Parse the fields of an order.

        Args:
            sort: A field, such as `"year"`, or `"-year"` for descending, or a list of them. None orders by id.

        Returns:
            The order.

        Raises:
            InvalidArgumentError: `sort` is not an order.
        """
        names = [sort] if isinstance(sort, str) else [] if sort is None else sort
        if not isinstance(names, Sequence) or not all(isinstance(name, str) and name.lstrip("-") for name in names):
            raise InvalidArgumentError(
                f"sort is a field such as 'year' or '-year', or a list of fields, not {sort!r:.80}."
            )
        fields = tuple((composed(name.removeprefix("-")), name.startswith("-")) for name in names)
        paths = [path for path, _ in fields]
        if twice := next((path for path in paths if paths.count(path) > 1), None):
            raise InvalidArgumentError(f"sort names {twice!r:.80} twice: leave one out.")
        if paths and paths[-1] == "id" and not fields[-1][1]:
            names, fields = names[:-1], fields[:-1]  # the id comes last anyway
        return cls(tuple(names), fields)

    @property
    def by_id(self) -> bool:
        """Whether the documents are ordered by id alone, ascending."""
        return not self.fields

    def key(self, document: Document) -> Key:
        """The place of a document. Places are compared as Python compares tuples."""
        values = (field_value(document, path) for path, _ in self.fields)
        parts = (sort_bytes(value, *field) for value, field in zip(values, self.fields, strict=True))
        return b"".join(parts), document.id


def sort_bytes(value: Any, path: str = "", descending: bool = False) -> bytes:
    """The bytes by which a value of the field `path` is ordered. No result is the beginning of another one.

    >>> values = [None, "b", "a", 2.5, 10, True, [3, "z"]]
    >>> sorted(values, key=sort_bytes)
    [True, 2.5, [3, 'z'], 10, 'a', 'b', None]
    >>> sorted(values, key=lambda value: sort_bytes(value, descending=True))
    [[3, 'z'], 'b', 'a', 10, 2.5, True, None]
    """
    items = value if isinstance(value, list | tuple) else [value]
    read = str if path == "id" else comparable  # an id is no instant, and stays as it is
    found = [part for item in items if (part := _bytes_of(read(item)))]
    if not found:
        return _MISSING
    return b"\x00" + (max(found).translate(_REVERSED) if descending else min(found))


def _bytes_of(value: Any) -> bytes:
    """The bytes of one value. Empty if the value has no order."""
    if isinstance(value, bool):
        return b"\x01\x01" if value else b"\x01\x00"
    if isinstance(value, int | float):
        return b"\x02" + number_key(value).to_bytes(10)
    if isinstance(value, str):
        kind = b"\x04" if isinstance(value, Instant) else b"\x03"
        return kind + value[:_LONGEST].encode().replace(b"\x00", b"\x00\xff") + b"\x00\x00"
    return b""


def number_key(value: float) -> int:
    """The key of a number: an integer below 2**74 that sorts exactly as integers and floats do.

    The high 64 bits are the largest float that is not above the value, as an integer that sorts like the float. The low
    10 bits are the distance from that float to the value: between two neighbouring floats lie at most 1023 integers of
    64 bits.
    """
    below = float(value) + 0.0  # no negative zero
    if below > value:
        below = math.nextafter(below, -math.inf)
    (bits,) = struct.unpack(">Q", struct.pack(">d", below))
    bits ^= 2**63 if bits < 2**63 else 2**64 - 1
    return int(bits) << 10 | (value - int(below) if isinstance(value, int) else 0)


# Helpers of backends


def in_order(keys: Iterable[Key], after: Key | None = None, limit: int | None = None) -> Iterator[Key]:
    """Sort keys. The memory that this takes is bounded: many keys are sorted in a temporary file.

    Args:
        keys: Keys in any order.
        after: Place in the order. Only keys after it are returned. None returns all.
        limit: Number of keys to return. None returns all.

    Returns:
        The keys, in order.

    Raises:
        StorageError: The disk is full or cannot be written.

    >>> list(in_order([(b"", "c"), (b"", "a"), (b"", "b")], after=(b"", "a"), limit=1))
    [(b'', 'b')]
    """
    rest = iter(keys) if after is None else (key for key in keys if key > after)
    if limit is not None and limit <= _IN_MEMORY:
        return iter(heapq.nsmallest(limit, rest))
    first = list(islice(rest, _IN_MEMORY))
    if len(first) < _IN_MEMORY:
        return islice(iter(sorted(first)), limit)
    return islice(_sorted_on_disk(chain(first, rest)), limit)


def _sorted_on_disk(keys: Iterable[Key]) -> Iterator[Key]:
    import sqlite3

    try:
        with closing(sqlite3.connect("", check_same_thread=False)) as database:  # "" is a file that nobody else sees
            database.executescript("PRAGMA journal_mode = OFF; PRAGMA temp_store = FILE; CREATE TABLE keys(part, id);")
            database.executemany("INSERT INTO keys VALUES (?, ?)", ((part, id.encode()) for part, id in keys))
            for part, id in database.execute("SELECT part, id FROM keys ORDER BY part, id"):
                yield part, id.decode()
    except sqlite3.Error as error:
        raise StorageError(
            f"The documents could not be sorted in a temporary file ({error}). Free some space in the folder for "
            "temporary files, or give a filter or a limit."
        ) from error


def with_documents(
    keys: Iterable[Key], fetch: Callable[[Sequence[str]], Sequence[Document | None]]
) -> Iterator[tuple[Key, Document]]:
    """Read the documents of keys with `fetch`, a few at a time. Documents that were deleted meanwhile are left out."""
    source = iter(keys)
    while part := list(islice(source, _FETCHED)):
        for key, document in zip(part, fetch([id for _, id in part]), strict=True):
            if document is not None:
                yield key, document


# What the caller gets


class Listing(Iterator[Document]):
    """The documents of an index, one after the other. `HybridSearch.documents` makes it.

    >>> import hybridsearch as hs
    >>> search = hs.HybridSearch({"bm25": hs.BM25()})
    >>> report = search.upsert([{"id": "a", "text": "wing"}, {"id": "b", "text": "jet"}])
    >>> page = search.documents(limit=1)
    >>> [document.id for document in page]
    ['a']
    >>> [document.id for document in search.documents(after=page.cursor)]
    ['b']
    """

    def __init__(
        self,
        read: Callable[[Key | None, int | None], Iterator[tuple[Key, Document]]],
        order: Order,
        after: Key | None,
        limit: int | None,
        notes: Callable[[], Iterable[str]],
    ) -> None:
        self._order, self._place, self._notes = order, after, notes
        self._documents = self._read(read, limit)

    def __next__(self) -> Document:
        return next(self._documents)

    def __repr__(self) -> str:
        order = ", ".join([*self._order.names, "id"])
        return f"<Listing by {order}: iterate over it to read the documents, as in list(search.documents())>"

    @property
    def cursor(self) -> str | None:
        """Text that continues the list after the last document that came, in this process or another one.

        Give it to `HybridSearch.documents` as `after`, with the same `sort`. It holds the values of the sort fields and
        the id of this document. None if the list has ended, and also before the first document of a list without
        `after`.
        """
        return None if self._place is None else write_cursor(self._order, self._place)

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """Sentences about fields that no document has, in the filter or in the order. Reading them asks the index."""
        return tuple(self._notes())

    def _read(
        self, read: Callable[[Key | None, int | None], Iterator[tuple[Key, Document]]], limit: int | None
    ) -> Iterator[Document]:
        limit = None if limit is None else min(limit, _MOST)
        for number, (key, document) in enumerate(read(self._place, None if limit is None else limit + 1)):
            if number == limit:
                return
            self._place = key
            yield document
        self._place = None


def write_cursor(order: Order, key: Key) -> str:
    """Write a place in an order as a text of letters, digits, "-" and "_"."""
    raw = json.dumps([order.names, base64.b85encode(key[0]).decode(), key[1]], ensure_ascii=False).encode()
    return base64.urlsafe_b64encode(zlib.crc32(raw).to_bytes(4) + raw).decode().rstrip("=")


def read_cursor(order: Order, cursor: str) -> Key:
    """Read the place that `write_cursor` wrote.

    Raises:
        InvalidArgumentError: The text is not a cursor, or it belongs to another order.
    """
    try:
        checked = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        raw = checked[4:]
        if not raw or zlib.crc32(raw).to_bytes(4) != checked[:4]:
            raise ValueError("the checksum differs")
        names, part, id = json.loads(raw)
        key = base64.b85decode(part), str(id)
    except (ValueError, TypeError, binascii.Error) as error:
        raise InvalidArgumentError(
            f"after is {cursor!r:.80}, which is not a cursor or not a whole one: give the cursor of an earlier list."
        ) from error
    if tuple(names) != order.names:
        given, of_cursor = (", ".join(names) or "id" for names in (order.names, names))
        raise InvalidArgumentError(
            f"The cursor belongs to a list that is sorted by {of_cursor}, but this list is sorted by {given}: give the "
            "same sort."
        )
    return key
