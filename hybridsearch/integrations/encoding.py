"""An encoder that calls the embedding model of a framework."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridsearch.arguments import one_of
from hybridsearch.backends import Fingerprint, RetrieverSchema
from hybridsearch.encoders.neural import around_blanks
from hybridsearch.errors import EncodingError
from hybridsearch.vectors import DenseVectors, Metric

NAMING = ("model", "model_name", "model_id", "repo_id", "deployment", "dimensions", "size", "embed_dim")
"""Attributes that say which model an object of a framework calls. Each may be missing."""


class FunctionEncoder:
    """An encoder for dense search that gets its vectors from two functions.

    Each framework's module has a subclass that takes the framework's own embedding object.

    Args:
        embed_documents: Function from texts to one vector for each. It never gets a blank text.
        embed_query: Function from the text of a query to its vector. It never gets a blank text.
        model: Name of the model and everything else that its vectors depend on. An index remembers it as the
            fingerprint, and refuses another one.
        metric: Metric that compares vectors: `"cosine"`, `"dot"` or `"euclidean"`. With `"cosine"`, vectors are scaled
            to unit length.

    Raises:
        InvalidArgumentError: The metric is not known.

    >>> encoder = FunctionEncoder(lambda texts: [[3, 4] for _ in texts], lambda text: [1, 0], {"name": "constant"})
    >>> vectors = encoder.encode_documents(["a wing", " "])
    >>> [float(vector @ encoder.encode_queries(["lift"])[0]) for vector in vectors.array]
    [0.6000000238418579, 0.0]
    """

    def __init__(
        self,
        embed_documents: Callable[[list[str]], Sequence[Sequence[float]]],
        embed_query: Callable[[str], Sequence[float]],
        model: Mapping[str, Any],
        metric: Metric = "cosine",
    ) -> None:
        self._embed_documents, self._embed_query = embed_documents, embed_query
        self.metric: Metric = one_of("metric", metric, get_args(Metric))
        self._model = dict(model)
        self._dimensions: int | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._model!r}, metric={self.metric!r})"

    @property
    def dimensions(self) -> int:
        """Number of dimensions of a vector. If no text was encoded yet, the model encodes one word."""
        if self._dimensions is None:
            self._checked([self._embed_query("dimensions")], 1)
        return self._dimensions or 0

    def encode_documents(self, texts: Sequence[str], *, show_progress_bar: bool = False) -> DenseVectors:
        """Encode the texts of documents.

        Args:
            texts: Texts of the documents. A blank text gets an all-zero row.
            show_progress_bar: Not used. The framework's object has its own progress bar, if any.

        Returns:
            Vectors as a float32 array of shape (texts, dimensions), in the order of `texts`.

        Raises:
            EncodingError: The model does not give one vector of finite numbers for each text, or the vectors have
                different lengths.
        """
        rows = around_blanks(texts, lambda some, _: self._checked(self._embed_documents(some), len(some)), self._blank)
        return DenseVectors(np.array(rows, dtype=np.float32).reshape(len(texts), self.dimensions), self.metric)

    def encode_queries(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        """Encode the texts of queries.

        Args:
            texts: Texts of the queries. A blank text gets an all-zero vector.

        Returns:
            For each text, in order, a float32 vector of shape (dimensions,).

        Raises:
            EncodingError: As for `encode_documents`.
        """
        return around_blanks(
            texts, lambda some, _: (self._checked([self._embed_query(text)], 1)[0] for text in some), self._blank
        )

    def fingerprint(self) -> Fingerprint:
        """Name the model and its settings. The model is not called."""
        return Fingerprint("function", {**self._model, "metric": self.metric})

    def schema(self) -> RetrieverSchema:
        """Describe the retriever for the index. The model may encode one word, to find its dimensions."""
        return RetrieverSchema("dense", self.fingerprint(), None, self.dimensions, self.metric)

    def _blank(self) -> NDArray[np.float32]:
        return np.zeros(self.dimensions, dtype=np.float32)

    def _checked(self, vectors: Sequence[Sequence[float]], number: int) -> NDArray[np.float32]:
        """The vectors as an array of shape (number, dimensions)."""
        if len(vectors) != number:
            raise EncodingError(f"{self!r} gave {len(vectors)} vectors for {number} texts: it must give one for each.")
        lengths = {len(vector) for vector in vectors} | ({self._dimensions} if self._dimensions else set())
        if len(lengths) != 1 or 0 in lengths:
            raise EncodingError(
                f"{self!r} gave vectors of {' and '.join(map(str, sorted(lengths)))} numbers: all vectors of a model "
                "have the same length, at least 1."
            )
        array = as_vectors(vectors, self.metric, repr(self))
        self._dimensions = array.shape[1]
        return array


def as_vectors(vectors: ArrayLike, metric: Metric, who: str) -> NDArray[np.float32]:
    """Vectors as float32 rows. With the metric `"cosine"` they get unit length. A row of zeros stays as it is.

    Args:
        vectors: Numbers of shape (vectors, dimensions).
        metric: Metric that compares the vectors.
        who: What gave the vectors, for messages.

    Raises:
        EncodingError: A value is not a finite number of float32.
    """
    try:
        rows = np.asarray(vectors, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise EncodingError(f"{who} gave vectors that are not numbers: {error}.") from error
    if not (np.abs(rows) <= np.finfo(np.float32).max).all():  # False for NaN, too
        raise EncodingError(f"{who} gave a vector with NaN, infinity, or a number beyond float32.")
    if metric == "cosine":
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        rows = rows / np.where(norms == 0, 1, norms)
    return rows.astype(np.float32)


def model_of(embeddings: object, name: str | None) -> dict[str, Any]:
    """What an index remembers of an embedding object: the given name, or its class and the attributes in `NAMING`.

    >>> class Model:
    ...     model_name = "minilm"
    >>> sorted(model_of(Model(), None).items())
    [('class', 'hybridsearch.integrations.encoding.Model'), ('model_name', 'minilm')]
    >>> model_of(Model(), "ours, version 2")
    {'name': 'ours, version 2'}
    """
    if name is not None:
        return {"name": name}
    found = {attribute: getattr(embeddings, attribute, None) for attribute in NAMING}
    kind = type(embeddings)
    known = {attribute: value for attribute, value in found.items() if isinstance(value, str | int)}
    return {"class": f"{kind.__module__}.{kind.__qualname__}", **known}
