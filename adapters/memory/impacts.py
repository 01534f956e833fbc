"""The values of an inverted index as codes of one byte, which the compiled search loop reads in place of the values.

A value v of a term is at most s (c - z) and more than s (c - z - 1). The code c is a whole number from 0 to 255, s is
the term's step, and z is its zero, which is 0 if the term has no negative value. So a sum of weights times codes, which
are whole numbers, gives an upper and a lower bound of a document's score. Documents are in spans of 65,536, and have
16-bit numbers within their span. A posting is 3 bytes in this form, and 8 bytes in the inverted index. A common term is
stored a second time, as a row with the code of each document, because adding such a row takes a tenth of the time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SMALL = 1 << 14
"""The largest number of documents of an index for which codes would save no time."""

CODED = 2
"""The number of searches of a term whose codes are made."""

SPAN = 1 << 16
"""The number of documents of a span."""

_COMMON = 8
"""A term is common if one document in this many has it."""

_LONG = 64
"""The starts of the spans are stored if a term has this many postings for each span. Others are searched for them."""


class Impacts:
    """The codes of the postings of one inverted index. `loops.prepare` makes those of the terms that are searched.

    The arrays are allocated at once, but the system gives memory only to the parts that are written. Threads that make
    the codes of a term at the same time write the same numbers.

    Attributes:
        documents: Number of documents.
        indptr: Start of the postings of each term, as in `Postings`.
        rows: Documents of the postings, as in `Postings`.
        values: Values of the postings, float32 of shape (postings,).
        places: Row of each term in `begins` and in `common`, int32 of shape (terms, 2). -1 stands for none.
        begins: First posting of each span for terms with many postings, and the end of the last span, int64 of shape
            (long terms, spans + 1).
        ids: Numbers of the documents within their spans, uint16 of shape (postings,).
        codes: Codes of the values, uint8 of shape (postings,).
        steps: Step and zero of each term, float32 of shape (terms, 2).
        common: Codes of all documents for common terms that have no negative value, uint8 of shape (common terms,
            documents). A document that does not have the term has 0.
        searches: 0 if a term was not searched, 1 if it was, `CODED` if its codes are made, uint8 of shape (terms + 1,).
            The last one stands for unknown terms.
    """

    __slots__ = (
        "begins",
        "codes",
        "common",
        "documents",
        "ids",
        "indptr",
        "places",
        "rows",
        "searches",
        "steps",
        "values",
    )

    def __init__(
        self,
        documents: int,
        indptr: NDArray[np.int64],
        rows: NDArray[np.int32],
        values: NDArray[np.float32],
        like: Impacts | None = None,
    ) -> None:
        """`like` is for other values of the same postings, and has the document numbers that both need."""
        terms = len(indptr) - 1
        self.documents, self.indptr, self.rows, self.values = documents, indptr, rows, values
        if like is None:
            counts, spans = np.diff(indptr), -(-documents // SPAN)
            long, common = counts >= _LONG * max(1, spans), counts * _COMMON >= max(1, documents)
            self.places = np.empty((terms, 2), dtype=np.int32)
            self.places[:, 0] = np.where(long, np.cumsum(long) - 1, -1)
            self.places[:, 1] = np.where(common, np.cumsum(common) - 1, -1)
            self.begins = np.empty((int(np.count_nonzero(long)), spans + 1), dtype=np.int64)
            self.ids = np.empty(len(values), dtype=np.uint16)
        else:
            self.places, self.begins, self.ids = like.places, like.begins, like.ids
        self.codes = np.empty(len(values), dtype=np.uint8)
        self.steps = np.empty((terms, 2), dtype=np.float32)
        self.common = np.empty((int(self.places[:, 1].max(initial=-1)) + 1, documents), dtype=np.uint8)
        self.searches = np.zeros(terms + 1, dtype=np.uint8)
        self.searches[-1] = CODED
