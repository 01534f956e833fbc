"""Many texts through one model: batches by token count, and on a CPU several of them side by side.

Texts of similar length share a batch, so that little of the work is padding. The size of a batch is a number of tokens,
so that any texts fit the processor's caches. On a CPU each worker thread computes a batch of its own: threads that
compute parts of one batch wait for each other.
"""

from __future__ import annotations

import threading
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
"""What a worker computes at a time; `benchmarks/encoding.py --budgets` compares sizes."""

MAX_WORKERS = 8
"""More would wait for Python's lock; where there are more threads, each worker has several."""

_ADDED_TOKENS = 4
"""Tokens that tokenizers put around a text, at most."""

_PROMPTS: dict[Task, tuple[str, ...]] = {"query": ("query",), "document": ("document", "passage", "corpus")}
_starting = Lock()


def run_batches(
    model: LazyModel,
    texts: Sequence[str] | Sequence[tuple[str, str]],
    work: Callable[[NDArray[np.intp]], T],
    task: Task | None = None,
    *,
    budget: int | None,
    gpu_budget: int,
    cpu_budget: int = CPU_BATCH_TOKENS,
) -> Iterator[tuple[NDArray[np.intp], T]]:
    """Do `work` for batches of positions in `texts`; yields each batch with its result, longest texts first.

    Args:
        work: called with the positions of a batch, on a CPU by several threads at once.
        task: which side of the model the texts are for.
        budget: tokens of a batch after padding; None for `cpu_budget` or `gpu_budget`, by the model's device.
    """
    if len(texts) < 2:
        positions = [np.arange(len(texts))] if texts else []
    else:
        loaded = model.get()
        with model.lock:
            lengths = token_lengths(loaded, texts, task)
        budget = budget or (cpu_budget if loaded.device.type == "cpu" else gpu_budget)
        positions = list(token_batches(lengths, budget))
    if len(positions) < 2 or not model.on_torch_cpu:
        yield from ((batch, work(batch)) for batch in positions)
    else:
        yield from _side_by_side(positions, work)


def forward(
    model: LazyModel,
    texts: Sequence[str] | Sequence[tuple[str, str]],
    output: str,
    task: Task | None = None,
    prompt: str | None = None,
    **arguments: Any,
) -> Any:
    """The model's output for one batch, as a torch tensor (texts, ...) on the model's device.

    It does with a batch what `encode_query`, `encode_document` and `predict` do, with prompts and routes. They look
    through all parameters at each call (1 to 2 ms); this does not. Only the tokenizer is used by one thread at a time.

    Args:
        output: "sentence_embedding" or "scores".
        prompt: put before each text; None for the model's own for the task.
        arguments: of the model's forward pass.
    """
    import torch
    from sentence_transformers.util import batch_to_device

    loaded = model.get()
    prompt = _prompt(loaded, task, prompt)
    route = {} if task is None else {"task": task}
    with model.lock:
        features = loaded.preprocess(list(texts), prompt=prompt, **route)
    with torch.inference_mode():
        return loaded(batch_to_device(features, loaded.device), **route, **arguments)[output]


def token_lengths(
    model: Any, texts: Sequence[str] | Sequence[tuple[str, str]], task: Task | None = None
) -> NDArray[np.int64]:
    """How many tokens the model will read of each text, or of each pair of texts, after truncation.

    A model without a Hugging Face tokenizer gets an estimate of four characters a token.
    """
    tokenizer, limit = _reading(model, task)
    if not texts:
        return np.empty(0, dtype=np.int64)
    pairs = not isinstance(texts[0], str)
    if tokenizer is None:
        characters = [len(text) if isinstance(text, str) else sum(map(len, text)) for text in texts]
        return np.minimum(np.array(characters, dtype=np.int64) // 4 + 1, limit or 10**6)
    columns = [list(column) for column in zip(*texts, strict=True)] if pairs else [list(texts)]
    options = {"padding": False, "return_attention_mask": False, "return_token_type_ids": False}
    encoded = tokenizer(*columns, truncation=limit is not None, max_length=limit, **options)
    return np.array([len(ids) for ids in encoded["input_ids"]], dtype=np.int64)


def cut_notes(model: LazyModel, texts: Sequence[str], task: Task, prompt: str | None = None) -> list[str]:
    """For each text a sentence if the model does not read all of it, else "".

    Args:
        prompt: as in `forward`.
    """
    loaded = model.get()
    prompt = _prompt(loaded, task, prompt) or ""
    tokenizer, limit = _reading(loaded, task)
    notes = []
    for text in texts:
        length = 0
        # A token has at least one byte, so most queries need no tokenizer here.
        if tokenizer is not None and limit is not None and len(f"{prompt}{text}".encode()) + _ADDED_TOKENS > limit:
            with model.lock:
                length = len(tokenizer(prompt + text, truncation=False, verbose=False)["input_ids"])
        cut = limit is not None and length > limit
        notes.append(f"the query has {length} tokens, but the model reads {limit}; the rest is cut off." if cut else "")
    return notes


def token_batches(lengths: NDArray[np.int64], budget: int) -> Iterator[NDArray[np.intp]]:
    """Positions in batches of at most `budget` tokens after padding (at least one text a batch), longest first.

    Each position comes once. Neighbours in length share a batch, so that little of it is padding.

    >>> [batch.tolist() for batch in token_batches(np.array([3, 9, 4, 3]), 9)]
    [[1], [2, 0], [3]]
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        size = max(1, budget // max(1, int(lengths[order[start]])))
        yield order[start : start + size]
        start += size


def _prompt(model: Any, task: Task | None, given: str | None) -> str | None:
    """What is put before each text: `given`, or the model's own for the task."""
    if given is not None:
        return given
    own = [model.prompts[name] for name in (_PROMPTS[task] if task else ()) if name in model.prompts]
    prompt: str | None = own[0] if own else model.prompts.get(model.default_prompt_name)
    return prompt


def _reading(model: Any, task: Task | None) -> tuple[Any, int | None]:
    """The tokenizer for one side of the model (None if it is not Hugging Face's), and how many tokens are read."""
    module = model[0]
    routes = getattr(module, "sub_modules", None)
    if routes is not None:
        module = (routes[task] if task in routes else next(iter(routes.values())))[0]
    tokenizer = getattr(module, "tokenizer", None)
    limit = getattr(module, "max_seq_length", None)
    known = hasattr(tokenizer, "convert_ids_to_tokens") and callable(tokenizer)
    return tokenizer if known else None, limit if limit is not None and limit < 10**6 else None


def _side_by_side(
    positions: Sequence[NDArray[np.intp]], work: Callable[[NDArray[np.intp]], T]
) -> Iterator[tuple[NDArray[np.intp], T]]:
    """Do `work` in threads that share the caller's number of torch threads among them."""
    import torch

    threads = torch.get_num_threads()
    workers = min(threads, MAX_WORKERS, len(positions))
    ready = threading.Barrier(workers + 1)

    def start() -> None:
        torch.get_num_threads()  # a thread's first call sets it to the common number, also after the next line
        torch.set_num_threads(threads // workers)
        ready.wait(60)

    pool = ThreadPoolExecutor(workers, "hybridsearch-batch", start)
    try:
        with _starting:
            futures = [pool.submit(work, batch) for batch in positions]
            ready.wait(60)
            torch.set_num_threads(threads)  # also what threads get that others start later
        for batch, future in zip(positions, futures, strict=True):
            yield batch, future.result()
    finally:
        pool.shutdown(cancel_futures=True)
