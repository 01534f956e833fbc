"""Shares the passes of a dense model with a reader of its token vectors, so that no text goes through it twice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, runtime_checkable

from hybridsearch.encoders.models import LazyModel


@runtime_checkable
class TokenReader(Protocol):
    """An object that takes the token vectors which a dense model makes."""

    def wants(self, model: LazyModel) -> bool:
        """Whether the token vectors of this model are those of the reader."""
        ...

    def receive(self, texts: Sequence[str], outputs: Mapping[str, Any]) -> None:
        """Take the outputs of the model for a batch of documents. Several threads may call it at once."""
        ...


_reader: ContextVar[TokenReader | None] = ContextVar("_reader", default=None)


@contextmanager
def shared_with(reader: object) -> Iterator[None]:
    """Within, dense models of this thread give the outputs for documents to `reader`, if it is a `TokenReader`."""
    token = _reader.set(reader if isinstance(reader, TokenReader) else None)
    try:
        yield
    finally:
        _reader.reset(token)


def reader_of(model: LazyModel) -> TokenReader | None:
    """The reader that takes the token vectors of this model. None if there is none."""
    reader = _reader.get()
    return reader if reader is not None and reader.wants(model) else None
