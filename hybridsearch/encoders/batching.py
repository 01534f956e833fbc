"""Runs a model on many texts, in batches by token count, and on a CPU in several threads.

Texts of similar length share a batch, so that there is little padding. The size of a batch is a number of tokens, so
that a batch fits the processor's caches. On a CPU each thread computes a whole batch, because threads that share a
batch wait for each other.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from hybridsearch.encoders.models import LazyModel
from hybridsearch.forks import Lock

T = TypeVar("T")
Task: TypeAlias = Literal["query", "document"]

CPU_BATCH_TOKENS = 1024
"""Number of tokens that a worker computes at a time. `benchmarks/encoding.py --budgets` compares sizes."""

MAX_WORKERS = 8
"""Largest number of workers. More workers would wait for Python's lock. With more threads, a worker has several."""

_ADDED_TOKENS = 4
"""Largest number of tokens that a tokenizer puts around a text."""

_PROMPTS: dict[Task, tuple[str, ...]] = {"query": ("query",), "document": ("document", "passage", "corpus")}
_SPACE = re.compile(r"\s").search
_starting = Lock()


def run_batches(
    model: LazyModel,
    texts: Sequence[str] | Sequence[tuple[str, str]],
    work: Callable[[NDArray[np.intp]], T],
    task: Task | None = None,
    prompt: str | None = None,
    *,
    budget: int | None,
    gpu_budget: int,
    cpu_budget: int = CPU_BATCH_TOKENS,
) -> Iterator[tuple[NDArray[np.intp], T, NDArray[np.bool_]]]:
    """Call a function for batches of texts, the longest texts first.

    Args:
        model: Model that reads the texts.
        texts: Texts, or pairs of texts.
        work: Function that is called with the positions of a batch. On a CPU several threads call it at once.
        task: Whether the texts are queries or documents. None for pairs.
        prompt: Text that is put before each text, as in `forward`.
        budget: Number of tokens of a batch, after padding. None for `cpu_budget` or `gpu_budget`, by the device.
        gpu_budget: Default number of tokens of a batch on other devices than a CPU.
        cpu_budget: Default number of tokens of a batch on a CPU.

    Yields:
        The positions of each batch, the function's result, and whether each text is longer than the model reads. That
        is not known of a single query or pair, because it needs no batches.
    """
    cut = np.zeros(len(texts), dtype=bool)
    if len(texts) < 2 and task != "document":
        positions = [np.arange(len(texts))] if texts else []
    else:
        lengths, cut = token_lengths(model, texts, task, prompt)
        budget = budget or (cpu_budget if model.on_cpu else gpu_budget)
        positions = list(token_batches(lengths, budget))
    if len(positions) < 2 or not model.on_cpu:
        yield from ((batch, work(batch), cut[batch]) for batch in positions)
    else:
        yield from ((batch, result, cut[batch]) for batch, result in _side_by_side(positions, work))


def forward(
    model: LazyModel,
    texts: Sequence[str] | Sequence[tuple[str, str]],
    output: str,
    task: Task | None = None,
    prompt: str | None = None,
    **arguments: Any,
) -> Any:
    """Run the model on one batch, and return one of its outputs, as `outputs` computes them.

    Args:
        model: Model to run.
        texts: Texts, or pairs of texts.
        output: Name of the output: `"sentence_embedding"` or `"scores"`.
        task: Whether the texts are queries or documents. None for pairs.
        prompt: Text that is put before each text. None for the model's prompt for the task.
        **arguments: Arguments of the model's forward pass.

    Returns:
        A torch tensor of shape (texts, ...) on the model's device.
    """
    return outputs(model, texts, task, prompt, **arguments)[output]


def outputs(
    model: LazyModel,
    texts: Sequence[str] | Sequence[tuple[str, str]],
    task: Task | None = None,
    prompt: str | None = None,
    **arguments: Any,
) -> Any:
    """Run the model on one batch.

    The result is that of `encode_query`, `encode_document` or `predict`, with prompts and routes. Those methods search
    all parameters at each call (1 to 2 ms), and this function does not. Several threads may call it. The tokenizer is
    used by one thread at a time.

    Args:
        model: Model to run.
        texts: Texts, or pairs of texts.
        task: Whether the texts are queries or documents. None for pairs.
        prompt: Text that is put before each text. None for the model's prompt for the task.
        **arguments: Arguments of the model's forward pass.

    Returns:
        The outputs by name, as torch tensors of shape (texts, ...) on the model's device.
    """
    import torch
    from sentence_transformers.util import batch_to_device

    loaded = model.get()
    prompt = prompt_of(loaded, task, prompt)
    route = {} if task is None else {"task": task}
    with model.lock:
        features = loaded.preprocess(beginnings(loaded, texts, task), prompt=prompt, **route)
    with torch.inference_mode():
        return loaded(batch_to_device(features, loaded.device), **route, **arguments)


def token_lengths(
    model: LazyModel,
    texts: Sequence[str] | Sequence[tuple[str, str]],
    task: Task | None = None,
    prompt: str | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Count the tokens that a model reads of each text, or of each pair of texts, after truncation.

    If the model has no Hugging Face tokenizer, the count is an estimate: four characters for each token.

    Args:
        model: Model that reads the texts.
        texts: Texts, or pairs of texts.
        task: Whether the texts are queries or documents. None for pairs.
        prompt: Text that is put before each text, as in `forward`.

    Returns:
        The number of tokens of each text, and whether the text is longer than the model reads.
    """
    loaded = model.get()
    tokenizer, limit = _reading(loaded, task)
    if not texts:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=bool)
    if tokenizer is None:
        characters = [len(text) if isinstance(text, str) else sum(map(len, text)) for text in texts]
        lengths = np.array(characters, dtype=np.int64) // 4 + 1
        return np.minimum(lengths, limit or 10**6), lengths > (limit or np.inf)
    if isinstance(texts[0], str):
        before = prompt_of(loaded, task, prompt) or ""
        columns = [[f"{before}{text}" for text in beginnings(loaded, texts, task)]]
    else:
        columns = [list(column) for column in zip(*texts, strict=True)]
    options = {"padding": False, "return_attention_mask": False, "return_token_type_ids": False, "verbose": False}
    with model.lock:
        encoded = tokenizer(*columns, truncation=limit is not None, max_length=limit, **options)
    lengths = np.array([len(ids) for ids in encoded["input_ids"]], dtype=np.int64)
    if encoded.encodings:  # a fast tokenizer keeps what it cut off
        return lengths, np.array([bool(encoding.overflowing) for encoding in encoded.encodings], dtype=bool)
    return lengths, np.zeros(len(texts), dtype=bool) if limit is None else lengths >= limit


def beginnings(loaded: Any, texts: Sequence[Any], task: Task | None = None) -> list[Any]:
    """Leave out the words of texts that are too far back for the model to read them.

    A tokenizer of BERT reads word by word, but it reads all words before it cuts off those beyond the limit. Only words
    with an ASCII letter or digit are counted here, because each has at least one token. So the model gets the same
    tokens.

    Args:
        loaded: Model that reads the texts.
        texts: Texts. Pairs of texts stay as they are, and so do the texts for other tokenizers.
        task: Whether the texts are queries or documents.

    Returns:
        The beginnings of the texts. A text that may have fewer tokens than the limit is whole.
    """
    tokenizer, limit = _reading(loaded, task)
    long = [limit is not None and isinstance(text, str) and len(text) > 2 * limit for text in texts]
    # A module without these arguments has its own way to cut texts. A module with some of them may have another limit.
    plain = getattr(_module(loaded, task), "processing_kwargs", None) == {}
    if limit is None or not any(long) or not plain or not _reads_words(tokenizer):
        return list(texts)
    word = r"[^a-zA-Z0-9]*[a-zA-Z0-9][^ \t\n\r]*[ \t\n\r]"
    enough = re.compile(f"(?:{word}){{{limit + 1}}}").match
    found = [enough(text) if is_long else None for text, is_long in zip(texts, long, strict=True)]
    return [text if match is None else match.group() for text, match in zip(texts, found, strict=True)]


def _reads_words(tokenizer: Any) -> bool:
    """Whether a tokenizer reads each word by itself, as that of BERT does, and cuts off the end of a text."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    steps = [type(getattr(backend, step, None)).__name__ for step in ("normalizer", "pre_tokenizer", "model")]
    return (
        steps == ["BertNormalizer", "BertPreTokenizer", "WordPiece"]
        and tokenizer.truncation_side == "right"
        and not any(map(_SPACE, tokenizer.get_added_vocab()))
    )


def count_tokens(model: LazyModel, texts: Sequence[str], task: Task = "document") -> list[int]:
    """Count all tokens of each text, without special tokens. Nothing is cut off.

    If the model has no Hugging Face tokenizer, the count is an estimate: four characters for each token.
    """
    tokenizer, _ = _reading(model.get(), task)
    if tokenizer is None:
        return [len(text) // 4 + 1 for text in texts]
    backend = getattr(tokenizer, "backend_tokenizer", None)
    with model.lock:
        if backend is None:
            return [len(ids) for ids in tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]]
        backend.no_truncation()
        backend.no_padding()  # the tokenizer sets both again at its next call
        return [len(tokens) for tokens in backend.encode_batch_fast(list(texts), add_special_tokens=False)]


def max_tokens(model: LazyModel, prompt: str | None = None) -> int | None:
    """Number of tokens that a model reads of a document, without special tokens and the prompt. None for all."""
    loaded = model.get()
    tokenizer, limit = _reading(loaded, "document")
    if limit is None:
        return None
    added = 0 if tokenizer is None else tokenizer.num_special_tokens_to_add(pair=False)
    before = prompt_of(loaded, "document", prompt)
    return max(limit - added - (count_tokens(model, [before])[0] if before else 0), 1)


def cut_notes(model: LazyModel, texts: Sequence[str], task: Task, prompt: str | None = None) -> list[str]:
    """Write a note on each text that is longer than the model reads.

    Args:
        model: Model that reads the texts.
        texts: Texts to check.
        task: Whether the texts are queries or documents.
        prompt: Text that is put before each text, as in `forward`.

    Returns:
        One sentence for each text, or `""` if the model reads all of it.
    """
    loaded = model.get()
    prompt = prompt_of(loaded, task, prompt) or ""
    tokenizer, limit = _reading(loaded, task)
    notes = []
    for text in texts:
        length = 0
        # A token has at least one byte, so most queries need no tokenizer here.
        if tokenizer is not None and limit is not None and len(f"{prompt}{text}".encode()) + _ADDED_TOKENS > limit:
            with model.lock:
                length = len(tokenizer(prompt + text, truncation=False, verbose=False)["input_ids"])
        cut = limit is not None and length > limit
        notes.append(f"the query has {length} tokens, but the model reads only {limit}." if cut else "")
    return notes


def read_words(
    model: LazyModel, text: str, task: Task, prompt: str | None = None
) -> tuple[list[int], list[tuple[int, int]]]:
    """Find the word of each token that a model reads of a text.

    Args:
        model: Model that reads the text.
        text: Text to read.
        task: Whether the text is a query or a document.
        prompt: Text that is put before the text, as in `forward`.

    Returns:
        The id of each token, and the span of its word in `text`. The span is empty for special tokens and the prompt.
        Both lists are empty if the tokenizer does not know places.
    """
    loaded = model.get()
    tokenizer, limit = _reading(loaded, task)
    if not getattr(tokenizer, "is_fast", False):
        return [], []
    before = prompt_of(loaded, task, prompt) or ""
    with model.lock:
        encoded = tokenizer(before + text, truncation=limit is not None, max_length=limit, verbose=False).encodings[0]
    spans = []
    for own, word in zip(encoded.offsets, encoded.word_ids, strict=True):
        start, end = (0, 0) if word is None else (place - len(before) for place in encoded.word_to_chars(word))
        if any(map(str.isspace, text[max(start, 0) : end].strip())):  # the tokenizer does not cut at spaces
            start, end = own[0] - len(before), own[1] - len(before)
        while start < end and start >= 0 and not _in_word(text[start]):
            start += 1
        while start < end and not _in_word(text[end - 1]):
            end -= 1
        spans.append((start, end) if 0 <= start < end else (0, 0))
    return encoded.ids, spans


def _in_word(character: str) -> bool:
    return character.isalnum() or unicodedata.combining(character) > 0 or unicodedata.category(character) == "Mc"


def token_batches(lengths: NDArray[np.int64], budget: int) -> Iterator[NDArray[np.intp]]:
    """Group positions into batches of at most `budget` tokens after padding, the longest texts first.

    A batch has at least one text. Texts of similar length share a batch.

    >>> [batch.tolist() for batch in token_batches(np.array([3, 9, 4, 3]), 9)]
    [[1], [2, 0], [3]]
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        size = max(1, budget // max(1, int(lengths[order[start]])))
        yield order[start : start + size]
        start += size


def prompt_of(model: Any, task: Task | None, given: str | None = None) -> str | None:
    """The text that is put before each text: `given`, or the model's prompt for the task."""
    if given is not None:
        return given
    own = [model.prompts[name] for name in (_PROMPTS[task] if task else ()) if name in model.prompts]
    prompt: str | None = own[0] if own else model.prompts.get(model.default_prompt_name)
    return prompt


def _module(model: Any, task: Task | None) -> Any:
    """The module that reads the texts of a task."""
    routes = getattr(model[0], "sub_modules", None)
    return model[0] if routes is None else (routes[task] if task in routes else next(iter(routes.values())))[0]


def _reading(model: Any, task: Task | None) -> tuple[Any, int | None]:
    """The tokenizer for a task (None if it is not from Hugging Face), and the number of tokens that are read."""
    module = _module(model, task)
    tokenizer = getattr(module, "tokenizer", None)
    limit = getattr(module, f"{task}_length", None) or getattr(module, "max_seq_length", None)
    expansion = getattr(module, "query_expansion", None) if task == "query" else None
    if expansion is not None and expansion["strategy"] == "fixed":
        limit = expansion["length"]
    known = hasattr(tokenizer, "convert_ids_to_tokens") and callable(tokenizer)
    return tokenizer if known else None, limit if limit is not None and limit < 10**6 else None


def _side_by_side(
    positions: Sequence[NDArray[np.intp]], work: Callable[[NDArray[np.intp]], T]
) -> Iterator[tuple[NDArray[np.intp], T]]:
    """Do `work` in several threads. Together they use the caller's number of torch threads."""
    import torch

    threads = torch.get_num_threads()
    workers = min(threads, MAX_WORKERS, len(positions))
    ready = threading.Barrier(workers + 1)

    def start() -> None:
        torch.get_num_threads()  # the first call in a thread sets the common number, so it comes before the next line
        torch.set_num_threads(threads // workers)
        ready.wait(60)

    pool = ThreadPoolExecutor(workers, "hybridsearch-batch", start)
    try:
        with _starting:
            futures = [pool.submit(work, batch) for batch in positions]
            ready.wait(60)
            torch.set_num_threads(threads)  # threads that start later get this number, too
        for batch, future in zip(positions, futures, strict=True):
            yield batch, future.result()
    finally:
        pool.shutdown(cancel_futures=True)
