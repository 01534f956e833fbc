"""The encoder of sparse models (SPLADE, inference-free SPLADE, CSR), which runs a SparseEncoder."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from hybridsearch.arguments import whole_number_or_none
from hybridsearch.backends import RetrieverSchema
from hybridsearch.encoders import Place
from hybridsearch.encoders.batching import Task, forward, read_words, run_batches
from hybridsearch.encoders.cache import encode_windows, open_cache
from hybridsearch.encoders.models import LazyModel
from hybridsearch.encoders.neural import ModelEncoder, around_blanks, check_texts
from hybridsearch.encoders.runtimes import Precision, Runtime
from hybridsearch.errors import EncodingError, InvalidArgumentError
from hybridsearch.progress import progress_bar
from hybridsearch.vectors import SparseQuery, SparseVectors, Vocabulary

if TYPE_CHECKING:
    from sentence_transformers import SparseEncoder

CPU_BATCH_TOKENS = 512
GPU_BATCH_TOKENS = 8192
"""Fewer tokens than for dense models, because each token has a row of logits as wide as the vocabulary."""

LEAST_PART = 0.1
"""Part of the score, as a share of the largest, that a dimension must add so that `Sparse.locate` looks for words."""

Columns: TypeAlias = NDArray[np.int32] | NDArray[np.intp]
Row: TypeAlias = tuple[Columns, NDArray[np.float32]]


class Sparse(ModelEncoder[SparseVectors]):
    """An encoder for sparse search with a trained model, which runs a `SparseEncoder` of sentence-transformers.

    All architectures of `SparseEncoder` work. SPLADE gives weights to words of the tokenizer's vocabulary, also to
    words that the text does not contain. Inference-free SPLADE does this for documents, and looks up the weights of
    query words in a table. CSR gives weights to latent dimensions, whose terms are `"0"`, `"1"` and so on.

    The model is loaded when the first text is encoded. The vectors of documents are kept on disk
    (`hybridsearch.encoders.cache`).

    Args:
        model: Folder of the model, its name on the Hugging Face hub, or a loaded `SparseEncoder`.
        query_prompt: Text that is put before each query. None for the model's prompt, `""` for no prompt.
        document_prompt: Text that is put before each document. None for the model's prompt, `""` for no prompt.
        template: Text with placeholders that says what is read of a document, such as `"{title}: {text}"`. Placeholders
            are `{title}`, `{text}` and `{metadata.NAME}`. A missing field is empty. None for title and text.
        max_active_dims: Number of active dimensions to keep of a document, the largest weights. None for the model's
            limit.
        query_max_active_dims: Number of active dimensions to keep of a query. None for the model's limit.
        max_length: Number of tokens that the model reads of a text. The rest is cut off. None for the model's limit.
        device: Device that computes, such as `"cpu"` or `"cuda:0"`. None for the best device there is.
        batch_tokens: Number of tokens of a batch, after padding. None for 512 on a CPU, 8,192 on other devices.
        cache: Folder that keeps vectors. True for the usual folder, False for no cache.
        precision: Number format of the computation: `"fp32"`, `"bf16"`, `"int8"` or `"auto"`. None for fp32, or for
            int8 if `hybridsearch.optimize` made the folder. `hybridsearch.encoders.runtimes.Precision` describes them.
        runtime: Library that runs the transformer: `"torch"`, or `"openvino"` (extra `openvino`, on a CPU). None for
            the library that the precision needs.
        model_kwargs: Arguments for torch, such as `{"attn_implementation": "eager"}`. JSON must be able to hold them.
        trust_remote_code: Whether code in the model's folder may run. An index never stores this setting.
        revision: Revision of a model on the hub, such as a branch or a commit. None for the newest.

    Raises:
        InvalidArgumentError: An argument is not allowed. At first use it may also mean that the model is not sparse, or
            that its weights are pickled.
        ModelNotFoundError: There is no such model. The error comes at first use.
    """

    _type = "sparse"

    def __init__(
        self,
        model: str | Path | SparseEncoder,
        *,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        template: str | None = None,
        max_active_dims: int | None = None,
        query_max_active_dims: int | None = None,
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
        settings = {
            "query_prompt": query_prompt,
            "document_prompt": document_prompt,
            "template": template,
            "max_active_dims": whole_number_or_none("max_active_dims", max_active_dims),
            "query_max_active_dims": whole_number_or_none("query_max_active_dims", query_max_active_dims),
        }
        lazy = LazyModel(
            model, "SparseEncoder", max_length, device, precision, runtime, model_kwargs, trust_remote_code, revision
        )
        super().__init__(lazy, settings, batch_tokens, cache)
        self._vocabulary: Vocabulary | None = None

    @property
    def vocabulary(self) -> Vocabulary:
        """Name of each dimension: a token of the tokenizer, or a number for a latent dimension. The model is loaded."""
        if self._vocabulary is None:
            # get_embedding_dimension is wrong for models with a SpladePooling that have not run yet.
            dimensions = self._dense_rows(["dimensions"], "query").shape[1]
            self._vocabulary = Vocabulary(_term_names(self.model.get(), dimensions))
        return self._vocabulary

    def encode_documents(self, texts: Sequence[str], *, show_progress_bar: bool = False) -> SparseVectors:
        """Encode the texts of documents.

        Args:
            texts: Texts of the documents. A blank text gets an empty row.
            show_progress_bar: Whether to show a progress bar on standard error.

        Returns:
            Weights as a float32 matrix of shape (texts, dimensions), in the order of `texts`.

        Raises:
            EncodingError: The model gives NaN or infinity.
        """
        check_texts(texts)
        truncated = 0
        counts, columns, weights = [np.zeros(1, np.int64)], [np.empty(0, "<i4")], [np.empty(0, "<f4")]
        with progress_bar("Encoding", texts, show_progress_bar, "texts") as advance:
            cache = open_cache(self._cache, self.fingerprint())
            for _, rows, cut in encode_windows(texts, self._encode_new, cache, advance, self._is_cut):
                truncated += cut
                counts.append(np.array([len(row) // 8 for row in rows], dtype=np.int64))
                columns.append(np.frombuffer(b"".join(row[: len(row) // 2] for row in rows), dtype="<i4"))
                weights.append(np.frombuffer(b"".join(row[len(row) // 2 :] for row in rows), dtype="<f4"))
        matrix = csr_array(
            (np.concatenate(weights).astype(np.float32), np.concatenate(columns), np.cumsum(np.concatenate(counts))),
            shape=(len(texts), len(self.vocabulary)),
        )
        return SparseVectors(matrix, self.vocabulary, truncated)

    def encode_queries(self, texts: Sequence[str]) -> list[SparseQuery]:
        """Encode the texts of queries.

        Args:
            texts: Texts of the queries. A blank text gets a query without terms.

        Returns:
            For each text, in order, its terms with their weights, the largest first, then by name.

        Raises:
            EncodingError: The model gives NaN or infinity.
        """

        def encode(some: list[str], numbers: list[int]) -> list[SparseQuery]:
            queries: dict[int, SparseQuery] = {}
            for batch, rows, _ in self._embedded(some, numbers, "query"):
                queries.update(zip(batch.tolist(), (SparseQuery(*self._ordered(*row)) for row in rows), strict=True))
            return [queries[position] for position in range(len(some))]

        return around_blanks(texts, encode, lambda: SparseQuery((), np.empty(0, dtype=np.float32)))

    def locate(
        self, texts: Sequence[str], terms: Sequence[Mapping[str, float]], *, models: bool = True
    ) -> list[list[Place]]:
        """Find the words that give dimensions.

        They are the words that have the dimension's token, and the word to which the model gives the largest weight in
        this dimension. So "cephalalgia" can give "headache". Dimensions that add less than a tenth of the largest part
        of the score are left out. A latent dimension (CSR) has no word.

        Args:
            texts: Texts of documents.
            terms: Dimensions to find in each text, with what they add to the score, in the order of `texts`.
            models: Whether the model reads the texts. If not, only words that have the dimension's token are found, and
                nothing if the model is not loaded.

        Returns:
            The places in each text, in order.
        """
        if not (models or self.model.is_loaded) or _is_latent(self.model.get()):
            return [[] for _ in texts]
        return [self._places(text, of_text, models) for text, of_text in zip(texts, terms, strict=True)]

    def _places(self, text: str, terms: Mapping[str, float], models: bool) -> list[Place]:
        least = LEAST_PART * max(terms.values(), default=0.0)
        columns = {self.vocabulary.index[term]: term for term, part in terms.items() if part and part >= least}
        prompt = self._prompt("document")
        ids, spans = read_words(self.model, text, "document", prompt)
        readable = [place for place, (start, end) in enumerate(spans) if start < end]
        if not readable or not columns:
            return []
        matched = [(spans[place], columns[ids[place]]) for place in readable if ids[place] in columns]
        found = {Place(start, end, term) for (start, end), term in matched}
        if models:
            weights = forward(self.model, [text], "token_embeddings", "document", prompt)[0, :, list(columns)]
            best = weights[readable].float().cpu().numpy()
            for term, place, largest in zip(columns.values(), best.argmax(axis=0), best.max(axis=0), strict=True):
                if largest > 0:
                    start, end = spans[readable[place]]
                    found.add(Place(start, end, term))
        return sorted(found)

    @overload
    def decode(self, vector: str | SparseQuery, top_k: int | None = None) -> list[tuple[str, float]]: ...

    @overload
    def decode(self, vector: SparseVectors, top_k: int | None = None) -> list[list[tuple[str, float]]]: ...

    def decode(
        self, vector: str | SparseQuery | SparseVectors, top_k: int | None = None
    ) -> list[tuple[str, float]] | list[list[tuple[str, float]]]:
        """List the terms of a vector with their weights, the largest first, then by name.

        Args:
            vector: Text of a document, a query from `encode_queries`, or documents from `encode_documents`.
            top_k: Largest number of terms. None for all.

        Returns:
            Pairs of term and weight. For documents, one list of pairs for each.

        Raises:
            InvalidArgumentError: The vectors were made by an encoder with another vocabulary.
        """
        top_k = whole_number_or_none("top_k", top_k)
        if isinstance(vector, SparseQuery):
            return _pairs(vector.terms, vector.weights)[:top_k]
        if isinstance(vector, str):
            return self.decode(self.encode_documents([vector]), top_k)[0]
        if vector.vocabulary.fingerprint != self.vocabulary.fingerprint:
            raise InvalidArgumentError(
                "These vectors have another vocabulary than this encoder: decode them with the encoder that made them."
            )
        places = [slice(start, end) for start, end in itertools.pairwise(vector.matrix.indptr.tolist())]
        rows = [self._ordered(vector.matrix.indices[place], vector.matrix.data[place]) for place in places]
        return [_pairs(terms, weights)[:top_k] for terms, weights in rows]

    def intersection(self, query: str, document: str, top_k: int | None = None) -> list[tuple[str, float]]:
        """List the terms that a query and a document share, with the part of the score that each adds.

        Args:
            query: Text of the query.
            document: Text of the document.
            top_k: Largest number of terms. None for all.

        Returns:
            Pairs of term and part of the score, the largest first. The parts of all terms sum to the score.
        """
        asked = dict(self.decode(self.encode_queries([query])[0]))
        shared = [(term, asked[term] * weight) for term, weight in self.decode(document) if term in asked]
        return sorted(shared, key=lambda pair: (-pair[1], pair[0]))[:top_k]

    def sparsity(self, queries: Sequence[str] = (), documents: Sequence[str] = ()) -> dict[str, dict[str, float]]:
        """Measure how sparse the vectors of queries and of documents are.

        Args:
            queries: Texts of queries.
            documents: Texts of documents.

        Returns:
            Two numbers for `"queries"` and for `"documents"`, if texts are given: `"active_dims"` is the mean number of
            active dimensions, and `"sparsity_ratio"` is the mean share of dimensions that are zero.
        """
        active = {
            "queries": [len(query.terms) for query in self.encode_queries(queries)],
            "documents": np.diff(self.encode_documents(documents).matrix.indptr).tolist(),
        }
        means = {side: float(np.mean(counts)) for side, counts in active.items() if counts}
        return {
            side: {"active_dims": mean, "sparsity_ratio": 1.0 - mean / len(self.vocabulary)}
            for side, mean in means.items()
        }

    def schema(self) -> RetrieverSchema:
        """Describe the retriever for the index. The model is loaded, so that a broken model raises before indexing."""
        self.model.get()
        return RetrieverSchema("sparse", self.fingerprint(), self._description())

    def _encode_new(
        self, texts: list[str], numbers: list[int]
    ) -> Iterator[tuple[NDArray[np.intp], list[bytes], NDArray[np.bool_]]]:
        for batch, rows, cut in self._embedded(texts, numbers, "document"):
            packed = [columns.astype("<i4").tobytes() + weights.astype("<f4").tobytes() for columns, weights in rows]
            yield batch, packed, cut

    def _embedded(
        self, texts: Sequence[str], numbers: Sequence[int], task: Task
    ) -> Iterator[tuple[NDArray[np.intp], list[Row], NDArray[np.bool_]]]:
        """Batches of positions, with their rows and whether the texts are longer than the model reads.

        `numbers` are the numbers of the texts in messages.
        """
        width = len(self.vocabulary) if texts else 0

        def embed(batch: NDArray[np.intp]) -> list[Row]:
            dense = self._dense_rows([texts[position] for position in batch], task)
            if dense.shape[1] != width:
                raise EncodingError(
                    f"The model {self.model.name!r} gives vectors of {dense.shape[1]} dimensions for one side (queries "
                    f"or documents) and {width} for the other: give a model with one vocabulary for both."
                )
            rows: list[Row] = []
            for row, position in zip(dense, batch, strict=True):
                columns = np.flatnonzero(row != 0)
                rows.append((columns, row[columns]))
                if not np.isfinite(rows[-1][1]).all():
                    raise EncodingError(
                        f"The model {self.model.name!r} gives NaN or infinity for text number {numbers[position]}."
                    )
            return rows

        return run_batches(
            self.model,
            texts,
            embed,
            task,
            self._prompt(task),
            budget=self._batch_tokens,
            gpu_budget=GPU_BATCH_TOKENS,
            cpu_budget=CPU_BATCH_TOKENS,
        )

    def _dense_rows(self, texts: Sequence[str], task: Task) -> NDArray[np.float32]:
        """The vectors as a full matrix of shape (texts, dimensions), zeros included."""
        from sentence_transformers.util import select_max_active_dims

        own = self._settings.get("query_max_active_dims" if task == "query" else "max_active_dims")
        limit, prompt = own or self.model.get().max_active_dims, self._prompt(task)
        arguments = {} if limit is None else {"max_active_dims": limit}
        tensor = forward(self.model, texts, "sentence_embedding", task, prompt, **arguments)
        rows: NDArray[np.float32] = select_max_active_dims(tensor, limit).float().cpu().numpy()
        return rows

    def _ordered(self, columns: Columns, weights: NDArray[np.float32]) -> tuple[tuple[str, ...], NDArray[np.float32]]:
        """Term names and weights by descending weight, then by name."""
        terms = self.vocabulary.terms
        values = weights.tolist()
        order = sorted(range(len(values)), key=lambda i: (-values[i], terms[columns[i]]))
        return tuple(terms[columns[i]] for i in order), weights[order]


def _pairs(terms: Sequence[str], weights: NDArray[np.float32]) -> list[tuple[str, float]]:
    return list(zip(terms, weights.tolist(), strict=True))


def _is_latent(model: Any) -> bool:
    return any(type(module).__name__ == "SparseAutoEncoder" for module in model.modules())


def _term_names(model: Any, dimensions: int) -> list[str]:
    """Distinct names of the dimensions: tokens of the tokenizer, or numbers for latent dimensions."""
    if _is_latent(model):
        return [str(dimension) for dimension in range(dimensions)]
    names: dict[str, None] = {}
    for dimension, token in enumerate(model.tokenizer.convert_ids_to_tokens(list(range(dimensions)))):
        name = str(token) if token else f"[{dimension}]"  # dimensions that only pad the matrix have no token
        names[name if name not in names else f"{name}[{dimension}]"] = None
    return list(names)
