"""What the encoders `Dense`, `Sparse` and `LateInteraction` share: they run a model of sentence-transformers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from hybridsearch import arguments
from hybridsearch.arguments import shown, whole_number_or_none
from hybridsearch.backends import Fingerprint
from hybridsearch.documents import Document
from hybridsearch.encoders.batching import Task, count_tokens, cut_notes, max_tokens, token_lengths
from hybridsearch.encoders.fields import Template, reader
from hybridsearch.encoders.models import LazyModel
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.vectors import DenseVectors, MultiVectors, SparseVectors

T = TypeVar("T")
V = TypeVar("V", DenseVectors, SparseVectors, MultiVectors)


class ModelEncoder(ABC, Generic[V]):
    """Base class of the encoders that run a model of sentence-transformers.

    Args:
        model: Model that is run.
        settings: Arguments of the encoder that its vectors depend on, by name. Arguments that are None are left out.
        batch_tokens: Number of tokens of a batch, after padding. None for the encoder's default.
        cache: Folder that keeps vectors. True for the usual folder, False for no cache.
    """

    _type: ClassVar[Literal["dense", "sparse", "late-interaction"]]
    """Name of the encoder in an index and in its fingerprint."""

    def __init__(
        self, model: LazyModel, settings: Mapping[str, Any], batch_tokens: int | None, cache: bool | str | Path
    ) -> None:
        for name in ("query_prompt", "document_prompt"):
            if settings.get(name) is not None:
                _check_prompt(name, settings[name])
        self.model = model
        self._settings = {name: value for name, value in settings.items() if value is not None}
        self._read = reader(settings["template"])
        self._batch_tokens, self._cache = whole_number_or_none("batch_tokens", batch_tokens), cache

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model.written(**self._settings)})"

    @abstractmethod
    def encode_documents(self, texts: Sequence[str], *, show_progress_bar: bool = False) -> V:
        """Encode the texts of documents."""

    def encode_fields(self, documents: Sequence[Document]) -> V:
        """Encode documents by the template, or by title and text if there is no template.

        Args:
            documents: Documents to encode.

        Returns:
            Vectors as from `encode_documents`, in the order of `documents`.

        Raises:
            EncodingError: The model gives NaN or infinity.
        """
        return self.encode_documents([self.text_of(document) for document in documents])

    @property
    def metadata_fields(self) -> tuple[str, ...]:
        """Paths of the metadata fields that the template names."""
        template = self._settings.get("template")
        return () if template is None else Template(template).metadata_fields

    def text_of(self, document: Document) -> str:
        """Make the text that the model reads of a document."""
        return self._read(document)

    @property
    def max_tokens(self) -> int | None:
        """Number of tokens that the model reads of a document, without special tokens and the prompt.

        None if it reads all of them. The model is loaded.
        """
        return max_tokens(self.model, self._prompt("document"))

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of each text as a document, without special tokens. Nothing is cut off."""
        return count_tokens(self.model, texts)

    def query_notes(self, texts: Sequence[str]) -> list[str]:
        """Write a note on each query that is longer than the model reads.

        Returns:
            One sentence for each text, or `""` if the model reads all of it.
        """
        return cut_notes(self.model, texts, "query", self._prompt("query"))

    def fingerprint(self) -> Fingerprint:
        """Name the model's content and the settings that vectors depend on. Files are read, but no model is loaded.

        Raises:
            ModelNotFoundError: There is no such model.
        """
        return Fingerprint(self._type, {**self.model.identity(), **self._settings})

    def _description(self) -> dict[str, Any] | None:
        """The arguments that make the encoder again, for an index. None if the model was given as an object."""
        arguments = self.model.arguments()
        return None if arguments is None else {"type": self._type, **arguments, **self._settings}

    def _prompt(self, task: Task) -> str | None:
        prompt: str | None = self._settings.get(f"{task}_prompt")
        return prompt

    def _is_cut(self, texts: list[str]) -> NDArray[np.bool_]:
        """Whether each text is longer than the model reads of a document."""
        return token_lengths(self.model, texts, "document", self._prompt("document"))[1]


def around_blanks(
    texts: Sequence[str], encode: Callable[[list[str], list[int]], Iterable[T]], blank: Callable[[], T]
) -> list[T]:
    """Encode texts. A blank text is not encoded, and gets the blank vector.

    Args:
        texts: Texts of documents or queries.
        encode: Function that gives one vector for each of some texts. It also gets their numbers, for messages.
        blank: Function that makes the vector of a blank text. It is called if there is one.

    Returns:
        For each text, in order, its vector.
    """
    check_texts(texts)
    filled = [number for number, text in enumerate(texts) if text.strip()]
    found = dict(zip(filled, encode([texts[number] for number in filled], filled), strict=True)) if filled else {}
    if len(filled) == len(texts):
        return list(found.values())
    empty = blank()
    return [found.get(number, empty) for number in range(len(texts))]


def _check_prompt(name: str, prompt: object) -> None:
    """Raises InvalidArgumentError unless a prompt is a string that a tokenizer can read."""
    if not isinstance(prompt, str) or any("\ud800" <= character <= "\udfff" for character in prompt):
        raise InvalidArgumentError(f"{name} is a text of valid Unicode, such as 'query: ', not {shown(prompt)}.")


def check_texts(texts: Sequence[str]) -> None:
    """Raises InvalidArgumentError unless `texts` is a sequence of strings that a tokenizer can read."""
    for number, text in enumerate(arguments.texts(texts)):
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                raise InvalidArgumentError(
                    f"Text number {number} ({text!r:.60}) holds a lone surrogate, which is not valid Unicode: repair "
                    "the text."
                ) from None
