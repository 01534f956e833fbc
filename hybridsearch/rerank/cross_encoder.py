"""The reranker that runs a CrossEncoder model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hybridsearch.arguments import number, whole_number, whole_number_or_none
from hybridsearch.backends import Fingerprint
from hybridsearch.documents import Document
from hybridsearch.encoders.batching import forward, run_batches
from hybridsearch.encoders.fields import reader
from hybridsearch.encoders.models import LazyModel
from hybridsearch.encoders.runtimes import Precision, Runtime
from hybridsearch.errors import EncodingError, InvalidArgumentError
from hybridsearch.rerank.base import check_pairs

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

GPU_BATCH_TOKENS = 65536

WINDOW = 4096
"""Number of pairs that are sorted by length and held in memory at a time."""


class CrossEncoderReranker:
    """A reranker that runs a `CrossEncoder` model of sentence-transformers with one output.

    The pairs of all queries are scored in batches of similar length. The scores are those of `CrossEncoder.predict`.
    The model is loaded when the first pair is scored.

    Args:
        model: Folder of the model, its name on the Hugging Face hub, or a loaded `CrossEncoder`.
        top_k: Number of documents of each fused ranking that are reranked. Documents after them keep their order.
        passages: Number of best passages of each document that the model reads together, in the order of the text. It
            counts for an index with passages. Without passages the model reads the beginning of the document.
        blend: Weight of the fused score in the final score, from 0 to 1. The other part is the score of this reranker.
            Both are scaled to the range from 0 to 1 over the documents that are reranked.
        template: Text with placeholders that says what is read of a document, as in `Dense`. None for title and text.
        max_length: Number of tokens that the model reads of a pair. The longer text is cut off. None for the model's
            limit.
        device: Device that computes, such as `"cpu"` or `"cuda:0"`. None for the best device there is.
        batch_tokens: Number of tokens of a batch, after padding. None for 1,024 on a CPU, 65,536 on other devices.
        precision: Number format of the computation: `"fp32"`, `"bf16"`, `"int8"` or `"auto"`. None for fp32, or for
            int8 if `hybridsearch.optimize` made the folder. `hybridsearch.encoders.runtimes.Precision` describes them.
        runtime: Library that runs the transformer: `"torch"`, or `"openvino"` (extra `openvino`, on a CPU). None for
            the library that the precision needs.
        model_kwargs: Arguments for torch, such as `{"attn_implementation": "eager"}`. JSON must be able to hold them.
        trust_remote_code: Whether code in the model's folder may run. An index never stores this setting.
        revision: Revision of a model on the hub, such as a branch or a commit. None for the newest.

    Raises:
        InvalidArgumentError: An argument is not allowed. At first use it may also mean that the model has no trained
            head for scores, or more than one output.
        ModelNotFoundError: There is no such model. The error comes at first use.
    """

    def __init__(
        self,
        model: str | Path | CrossEncoder,
        *,
        top_k: int = 50,
        passages: int = 1,
        blend: float = 0.0,
        template: str | None = None,
        max_length: int | None = None,
        device: str | None = None,
        batch_tokens: int | None = None,
        precision: Precision | None = None,
        runtime: Runtime | None = None,
        model_kwargs: Mapping[str, Any] | None = None,
        trust_remote_code: bool = False,
        revision: str | None = None,
    ) -> None:
        self.top_k = whole_number("top_k", top_k)
        self.passages = whole_number("passages", passages)
        self.blend = float(number("blend", blend, least=0, most=1))
        self._template = {} if template is None else {"template": template}
        self._read = reader(template)
        self.model = LazyModel(
            model, "CrossEncoder", max_length, device, precision, runtime, model_kwargs, trust_remote_code, revision
        )
        self._batch_tokens = whole_number_or_none("batch_tokens", batch_tokens)

    def __repr__(self) -> str:
        return f"CrossEncoderReranker({self.model.written(**self._others())})"

    def rerank(self, queries: Sequence[str], documents: Sequence[Sequence[Document]]) -> list[NDArray[np.float64]]:
        """Score the first documents of each query. A larger score is better.

        Args:
            queries: Texts of the queries.
            documents: For each query, its documents.

        Returns:
            For each query, one float64 array with a score for each document, in order.

        Raises:
            EncodingError: The model gives NaN.
            InvalidArgumentError: There is not one list of documents for each query.
        """
        check_pairs(queries, documents)
        pairs = [(query, document) for query, of_query in zip(queries, documents, strict=True) for document in of_query]
        scores = np.empty(len(pairs), dtype=np.float64)
        for start in range(0, len(pairs), WINDOW):
            scores[start : start + WINDOW] = self._score(pairs[start : start + WINDOW])
        ends = np.cumsum([len(of_query) for of_query in documents])
        return np.split(scores, ends[:-1]) if len(documents) else []

    def text_of(self, document: Document) -> str:
        """Make the text that the model reads of a document."""
        return self._read(document)

    def fingerprint(self) -> Fingerprint:
        """Name the model's content and the settings that scores depend on. Files are read, but no model is loaded."""
        return Fingerprint("cross-encoder", {**self.model.identity(), **self._template})

    def to_json(self) -> dict[str, Any] | None:
        """Convert the reranker to a dict that JSON can hold. None if the model was given as an object."""
        arguments = self.model.arguments()
        return None if arguments is None else {"type": "cross-encoder", **arguments, **self._others()}

    def _others(self) -> dict[str, Any]:
        """The arguments that are not the model's."""
        passages = {} if self.passages == 1 else {"passages": self.passages}
        blend = {"blend": self.blend} if self.blend else {}
        return {"top_k": self.top_k, **passages, **blend, **self._template}

    def _score(self, pairs: Sequence[tuple[str, Document]]) -> NDArray[np.float64]:
        model = self.model.get()
        if model.num_labels != 1:
            raise InvalidArgumentError(
                f"The cross-encoder {self.model.name!r} has {model.num_labels} outputs, but a reranker needs one."
            )
        texts = [(query, self.text_of(document)) for query, document in pairs]
        scores = np.empty(len(pairs), dtype=np.float64)

        def score(batch: NDArray[np.intp]) -> NDArray[np.float32]:
            tensor = forward(self.model, [texts[position] for position in batch], "scores")
            result: NDArray[np.float32] = model.activation_fn(tensor.float()).reshape(len(batch)).cpu().numpy()
            return result

        budget = self._batch_tokens
        for batch, of_batch, _ in run_batches(self.model, texts, score, budget=budget, gpu_budget=GPU_BATCH_TOKENS):
            scores[batch] = of_batch
        bad = np.flatnonzero(np.isnan(scores))
        if bad.size:
            query, document = pairs[bad[0]]
            raise EncodingError(
                f"The cross-encoder {self.model.name!r} gives NaN for query {query!r:.80} and document {document.id!r}."
            )
        return scores
