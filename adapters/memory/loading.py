"""Collects the batches of a load, so that they become one segment. A segment for each batch would be merged again."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from hybridsearch.adapters.memory.segment import Segment
from hybridsearch.adapters.memory.strings import Strings
from hybridsearch.backends import Schema, check_batch
from hybridsearch.corpus.parts import to_tables
from hybridsearch.vectors import EncodedBatch

STORED_BYTES = 256 << 20
"""Number of bytes of the documents that are stored together."""

STORED_SECONDS = 10.0
"""The seconds after which documents are stored. Searches find only what is stored, and a kill loses the rest."""

SLOW_SECONDS = 1.0
"""The seconds of reading and encoding after which a batch is stored at once, so that no slow work is lost."""


class Collector:
    """Joins batches into one segment. It has the texts once, while `Segment.merge` has old and new texts at its end.

    Args:
        schema: Schema of the index.
        durable: Whether the documents are stored in a folder.

    Attributes:
        nbytes: Number of bytes of the batches that were not taken yet.
    """

    def __init__(self, schema: Schema, *, durable: bool) -> None:
        self._schema, self._durable = schema, durable
        self._start()

    def is_due(self, seconds: float) -> bool:
        """Whether the batches should be taken before there are more. The last one took `seconds` to read and encode."""
        late = time.monotonic() - self._started > STORED_SECONDS
        return late or seconds > SLOW_SECONDS or self.nbytes > STORED_BYTES

    def add(self, batch: EncodedBatch) -> None:
        """Add a batch. Its ids differ from those of all other batches.

        Raises:
            InvalidArgumentError: The batch does not fit the schema, or has an id twice.
        """
        check_batch(batch, self._schema)
        if not len(batch):
            return
        segment = Segment.build(batch, self._schema)
        if self._durable:
            self._tables += to_tables(batch, self._schema)
        self.nbytes += segment.nbytes
        self._texts += segment.texts.blob.data
        self._lengths.append(np.diff(segment.texts.starts))
        segment.texts = Strings.of(())
        self._segments.append(segment)

    def take(self) -> tuple[Segment, list[Any]]:
        """The segment of all batches since the last call, at least one, and its tables for a folder."""
        segments, texts, lengths, tables = self._segments, self._texts, self._lengths, self._tables
        self._start()
        segment = Segment.merge([(segment, None) for segment in segments])
        segment.texts = Strings(np.frombuffer(texts, np.uint8), np.cumsum(np.concatenate(lengths)))
        return segment, tables

    def _start(self) -> None:
        self.nbytes, self._started = 0, time.monotonic()
        self._segments: list[Segment] = []
        self._texts, self._lengths = bytearray(), [np.zeros(1, dtype=np.int64)]
        self._tables: list[Any] = []
