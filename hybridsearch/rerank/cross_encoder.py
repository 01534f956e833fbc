"""Reranking by a CrossEncoder model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from hybridsearch.arguments import whole_number, whole_number_or_none
from hybridsearch.backends import Fingerprint
from hybridsearch.documents import Document
from hybridsearch.encoders.batching import forward, run_batches
from hybridsearch.encoders.models import LazyModel, check_texts
from hybridsearch.errors import EncodingError, InvalidArgumentError
from hybridsearch.messages import number_of

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

GPU_BATCH_TOKENS = 65536

WINDOW = 4096
"""Pairs that are sorted by length and held in memory at a time."""


class CrossEncoderReranker:
    """A reranker that runs a model of sentence-transformers' class `CrossEncoder` with one output.

    The pairs of all queries are sorted by length in tokens and scored in batches of similar length; the scores are
    those of `CrossEncoder.predict`. Nothing is imported or loaded before the first pair.

    Args:
        model: a folder, a name on the Hugging Face hub, or a loaded `CrossEncoder`.
        top_k: how many documents of each fused ranking are reranked; those below keep their order.
        max_length: longest pair in tokens, the longer text is cut off; None for the model's own.
        device, batch_tokens, backend, model_kwargs, trust_remote_code, revision: as for `hybridsearch.Dense`.

    Raises:
        InvalidArgumentError: an argument is not allowed; at first use also: the model has no trained head for scores,
            or more than one output.
        ModelNotFoundError: at first use: there is no such model.
    """

    def __init__(
        self,
        model: str | Path | CrossEncoder,
        *,
        top_k: int = 50,
        max_length: int | None = None,
        device: str | None = None,
        batch_tokens: int | None = None,
        backend: Literal["torch", "onnx", "openvino"] = "torch",
        model_kwargs: Mapping[str, Any] | None = None,
        trust_remote_code: bool = False,
        revision: str | None = None,
    ) -> None:
        self.top_k = whole_number("top_k", top_k)
        self.model = LazyModel(
            model, "CrossEncoder", max_length, device, backend, model_kwargs, trust_remote_code, revision
        )
        self._batch_tokens = whole_number_or_none("batch_tokens", batch_tokens)

    def __repr__(self) -> str:
        return f"CrossEncoderReranker({self.model.written(top_k=self.top_k)})"

    def rerank(self, queries: Sequence[str], documents: Sequence[Sequence[Document]]) -> list[NDArray[np.float64]]:
        """Scores of each query's documents, as `Reranker.rerank` says."""
        if len(queries) != len(documents):
            raise InvalidArgumentError(
                f"{number_of(len(queries), 'query needs', 'queries need')} one list of documents "
                f"each, not {len(documents)}."
            )
        check_texts(queries)
        pairs = [(query, document) for query, of_query in zip(queries, documents, strict=True) for document in of_query]
        scores = np.empty(len(pairs), dtype=np.float64)
        for start in range(0, len(pairs), WINDOW):
            scores[start : start + WINDOW] = self._score(pairs[start : start + WINDOW])
        ends = np.cumsum([len(of_query) for of_query in documents])
        return np.split(scores, ends[:-1]) if len(documents) else []

    def fingerprint(self) -> Fingerprint:
        """The model's content and the settings that scores depend on; reads files but loads nothing."""
        return Fingerprint("cross-encoder", {"model": self.model.digest(), **self.model.settings})

    def to_json(self) -> dict[str, Any] | None:
        """The arguments that make this reranker again, as `Reranker.to_json` says."""
        arguments = self.model.arguments()
        return None if arguments is None else {"type": "cross-encoder", **arguments, "top_k": self.top_k}

    def _score(self, pairs: Sequence[tuple[str, Document]]) -> NDArray[np.float64]:
        model = self.model.get()
        if model.num_labels != 1:
            raise InvalidArgumentError(
                f"The cross-encoder {self.model.name!r} has {model.num_labels} outputs; a reranker needs one."
            )
        texts = [(query, document.content) for query, document in pairs]
        scores = np.empty(len(pairs), dtype=np.float64)

        def score(batch: NDArray[np.intp]) -> NDArray[np.float32]:
            tensor = forward(self.model, [texts[position] for position in batch], "scores")
            result: NDArray[np.float32] = model.activation_fn(tensor.float()).reshape(len(batch)).cpu().numpy()
            return result

        budget = self._batch_tokens
        for batch, of_batch in run_batches(self.model, texts, score, budget=budget, gpu_budget=GPU_BATCH_TOKENS):
            scores[batch] = of_batch
        bad = np.flatnonzero(np.isnan(scores))
        if bad.size:
            query, document = pairs[bad[0]]
            raise EncodingError(
                f"The cross-encoder {self.model.name!r} gives NaN for query {query!r:.80} and document {document.id!r}."
            )
        return scores
