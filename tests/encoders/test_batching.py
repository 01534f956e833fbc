"""Tests of batches by number of tokens, and of workers that do not change the settings of torch."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from copy import deepcopy
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from hybridsearch.encoders.batching import (
    beginnings,
    count_tokens,
    max_tokens,
    run_batches,
    token_batches,
    token_lengths,
)
from hybridsearch.encoders.models import LazyModel

pytest.importorskip("sentence_transformers", reason="pip install 'hybridsearch[models]' for the model encoders")


@pytest.fixture(scope="module")
def model(minilm: str) -> LazyModel:
    return LazyModel(minilm, "SentenceTransformer", max_length=16, device="cpu")


@pytest.fixture
def four_threads() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_lengths_are_those_of_the_tokenizer(model: LazyModel) -> None:
    loaded = model.get()
    texts = ["flow", "the flow over a wing", "word " * 100, "層流と乱流"]
    expected = loaded.preprocess(texts)["attention_mask"].sum(dim=1).tolist()
    lengths, cut = token_lengths(model, texts)
    assert (lengths.tolist(), cut.tolist()) == (expected, [False, False, True, False])
    pairs = [("flow", text) for text in texts]
    expected = loaded.preprocess(pairs)["attention_mask"].sum(dim=1).tolist()
    assert token_lengths(model, pairs)[0].tolist() == expected
    assert [part.tolist() for part in token_lengths(model, [])] == [[], []]


def test_a_text_is_cut_only_if_it_is_longer_than_the_model_reads(model: LazyModel) -> None:
    room = max_tokens(model)
    assert room == 14
    texts = ["word " * room, "word " * (room + 1)]
    assert count_tokens(model, texts) == [14, 15]
    lengths, cut = token_lengths(model, texts, "document")
    assert (lengths.tolist(), cut.tolist()) == ([16, 16], [False, True])
    assert count_tokens(model, texts) == [14, 15]  # the tokenizer forgets that it had to cut


@given(
    words=st.lists(
        st.text(alphabet="aB1é層\u0301\u200b\u200d\ufffd\x1c\x85\u3000.-[\t\n \x00", max_size=6), max_size=60
    ),
    joint=st.sampled_from([" ", "\n", "\t", "\x1c", "\u2028", " [SEP] ", "[SEP]", " " * 40, f" {'x' * 101} "]),
)
def test_the_model_reads_the_same_tokens_of_the_beginning_of_a_text(
    model: LazyModel, words: list[str], joint: str
) -> None:
    text = joint.join(words) or "a"
    tokenizer = model.get().tokenizer
    (start,) = beginnings(model.get(), [text])
    assert text.startswith(start)
    whole, some = (tokenizer(one, truncation=True, max_length=16) for one in (text, start))
    assert some["input_ids"] == whole["input_ids"]
    assert bool(some.encodings[0].overflowing) is bool(whole.encodings[0].overflowing)


def test_only_the_beginning_of_a_long_text_is_tokenized(model: LazyModel) -> None:
    texts = ["a wing " * 1000, "層流 " * 1000, "wing"]
    assert beginnings(model.get(), texts) == ["a wing " * 8 + "a ", *texts[1:]]
    pairs = [("flow", "word " * 100)]
    assert beginnings(model.get(), pairs) == pairs


def test_texts_stay_whole_for_a_tokenizer_that_reads_across_spaces(model: LazyModel) -> None:
    class Module:
        max_seq_length = 16
        processing_kwargs: ClassVar[dict[str, Any]] = {}
        tokenizer = deepcopy(model.get().tokenizer)

    assert len(beginnings([Module], ["word " * 100])[0]) == 85
    Module.processing_kwargs = {"text": {"max_length": 32}}
    assert beginnings([Module], ["word " * 100]) == ["word " * 100]
    del Module.processing_kwargs
    assert beginnings([Module], ["word " * 100]) == ["word " * 100]
    Module.processing_kwargs = {}
    Module.tokenizer = deepcopy(Module.tokenizer)
    Module.tokenizer.add_tokens(["wing of a plane"])
    assert beginnings([Module], ["word " * 100]) == ["word " * 100]
    Module.tokenizer = deepcopy(model.get().tokenizer)
    Module.tokenizer.truncation_side = "left"
    assert beginnings([Module], ["word " * 100]) == ["word " * 100]
    Module.tokenizer = object()
    assert beginnings([Module], ["word " * 100]) == ["word " * 100]


def test_each_route_of_a_model_decides_for_its_own_texts(model: LazyModel) -> None:
    class Table:  # such as SparseStaticEmbedding, which cuts texts in another way
        max_seq_length = 16
        tokenizer = model.get().tokenizer

    class Router:
        sub_modules: ClassVar = {"query": [Table], "document": [model.get()[0]]}

    text = "word " * 100
    assert beginnings([Router], [text], "query") == [text]
    assert beginnings([Router], [text], "document") == ["word " * 17]


def test_a_prompt_takes_some_of_what_the_model_reads(model: LazyModel) -> None:
    assert max_tokens(model, prompt="passage: ") == 12
    lengths, cut = token_lengths(model, ["word " * 12, "word " * 13], "document", "passage: ")
    assert (lengths.tolist(), cut.tolist()) == ([16, 16], [False, True])


@given(st.lists(st.integers(0, 300)), st.integers(1, 600))
def test_batches_hold_each_text_once_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = list(token_batches(np.array(lengths, dtype=np.int64), budget))
    assert sorted(position for batch in batches for position in batch.tolist()) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[position] for position in batch) <= budget


@pytest.mark.usefixtures("four_threads")
def test_workers_share_the_callers_threads(model: LazyModel) -> None:
    import torch

    texts = [f"text {i}" for i in range(12)]
    seen: dict[str, int] = {}

    def work(batch: NDArray[np.intp]) -> list[str]:
        time.sleep(0.01)
        seen[threading.current_thread().name] = torch.get_num_threads()
        return [texts[position] for position in batch]

    for batch, result, _ in run_batches(model, texts, work, budget=8, gpu_budget=8):
        assert result == [texts[position] for position in batch]
    assert list(seen.values()) == [1] * 4


@pytest.mark.usefixtures("four_threads")
def test_torch_keeps_its_number_of_threads(model: LazyModel) -> None:
    import torch

    after: list[int] = []
    batches = run_batches(model, ["a", "b", "c", "d"], lambda batch: batch, budget=1, gpu_budget=1)
    next(batches)
    later = threading.Thread(target=lambda: after.append(torch.get_num_threads()))
    later.start()
    later.join()
    batches.close()  # type: ignore[attr-defined]
    assert (torch.get_num_threads(), after) == (4, [4])


@pytest.mark.usefixtures("four_threads")
def test_an_error_ends_the_work(model: LazyModel) -> None:
    done: list[int] = []

    def work(batch: NDArray[np.intp]) -> None:
        done.append(len(batch))
        time.sleep(0.01)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(run_batches(model, [f"text {i}" for i in range(500)], work, budget=1, gpu_budget=1))
    assert len(done) < 500
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("hybridsearch-batch")]


@pytest.mark.parametrize("count", [0, 1])
def test_few_texts_need_no_workers(model: LazyModel, count: int) -> None:
    batches = list(run_batches(model, ["text"] * count, lambda batch: batch.tolist(), budget=None, gpu_budget=1))
    assert [result for _, result, _ in batches] == [[0]] * count
