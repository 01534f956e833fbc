"""Compute the pooling of SPLADE without keeping all logits: the same vectors and gradients with less work and memory.

A SPLADE model computes a logit for each token of a text and each term of the vocabulary. The weight of a term is
w(term) = max over tokens of ln(1 + max(0, logit)) (Formal et al., arXiv:2109.10086). The function is monotone, so only
the largest logit of each term counts. The logits are therefore computed for a few texts at a time, and only the largest
are kept. The gradient flows only through the largest logits that are positive. The backward pass then multiplies by a
sparse matrix with some hundred entries a text. A full matrix would have an entry for each token and term.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import torch
from sentence_transformers.sparse_encoder.modules import Router, SpladePooling
from sentence_transformers.util import batch_to_device

if TYPE_CHECKING:
    from sentence_transformers import SparseEncoder

_CPU_LOGITS = 2**24  # number of logits that are computed at a time, or all logits of one text
_GPU_LOGITS = 2**28
_DEVICES = ("cpu", "cuda")  # other devices lack some products of sparse matrices

_PROBE = "The boundary layer separates where the pressure rises along the wing."


def pool_directly(model: SparseEncoder) -> SparseEncoder:
    """Make a SPLADE model compute its pooling without keeping all logits.

    The saved model stays a plain SPLADE.

    This works if the language model ends with a multiplication by the matrix of the vocabulary and the pooling takes
    the maximum. Both ways are compared on a sentence. A model does not change if they differ, or if a trainer spreads
    its weights over several devices.

    Args:
        model: Model, whose modules are changed in place.

    Returns:
        The same model.
    """
    if _is_spread():
        return model
    for transformer, pooling in _heads(model):
        decoder = _decoder(transformer)
        if decoder is None or pooling.pooling_strategy != "max" or decoder.weight.device.type not in _DEVICES:
            continue
        wanted = _probe(transformer, pooling)
        decoder.forward = _unchanged
        pooling.forward = functools.partial(_forward, pooling, decoder)
        alike = torch.allclose(_probe(transformer, pooling), wanted, rtol=1e-3, atol=1e-4)
        if not (alike and wanted.any()):
            del decoder.forward, pooling.forward
    return model


class _LargestLogits(torch.autograd.Function):  # type: ignore[misc]
    """The largest logit of each text and term: the hidden state of a token times the row of a term, plus bias.

    The inputs are the hidden states (tokens, size), the matrix (terms, size), the bias (terms,) or None, and the first
    and last token of each text. The result has the shape (texts, terms), in the precision of autocast if autocast is
    on. `needs_gradient` tells whether the tokens of the largest logits are needed.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        matrix: torch.Tensor,
        bias: torch.Tensor | None,
        bounds: Sequence[int],
        needs_gradient: bool,
    ) -> torch.Tensor:
        kind = hidden.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else matrix.dtype
        states, rows, offsets = hidden.to(dtype), matrix.to(dtype), None if bias is None else bias.to(dtype)
        largest = states.new_full((len(bounds) - 1, len(matrix)), -torch.inf)
        tokens = torch.zeros(largest.shape if needs_gradient else 0, dtype=torch.int64, device=hidden.device)
        for texts in _portions(bounds, max(1, (_CPU_LOGITS if kind == "cpu" else _GPU_LOGITS) // len(matrix))):
            begin = bounds[texts[0]]
            logits = torch.nn.functional.linear(states[begin : bounds[texts[-1] + 1]], rows, offsets)
            for text in texts:
                start, end = bounds[text], bounds[text + 1]
                own = logits[start - begin : end - begin]
                if needs_gradient:
                    largest[text], tokens[text] = own.max(0)
                    tokens[text] += start
                else:
                    largest[text] = own.amax(0)
        ctx.save_for_backward(hidden, matrix, tokens)
        return largest

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden, matrix, tokens = ctx.saved_tensors
        texts, terms = gradient.nonzero(as_tuple=True)
        places = torch.stack([tokens[texts, terms], terms])
        shape = (len(hidden), len(matrix))
        chosen = torch.sparse_coo_tensor(places, gradient[texts, terms].float(), shape, check_invariants=False)
        for_hidden, for_matrix, for_bias, *_ = ctx.needs_input_grad
        of_hidden = torch.sparse.mm(chosen, matrix.float()).to(hidden.dtype) if for_hidden else None
        of_matrix = torch.sparse.mm(chosen.t(), hidden.float()).to(matrix.dtype) if for_matrix else None
        of_bias = gradient.sum(0).to(matrix.dtype) if for_bias else None
        return of_hidden, of_matrix, of_bias, None, None


def _portions(bounds: Sequence[int], most: int) -> Iterator[range]:
    """Groups of texts with at most `most` tokens together, or of one text. Texts without tokens are left out."""
    first = 0
    for text, (start, end) in enumerate(pairwise(bounds)):
        if end - bounds[first] > most or end == start:
            if first < text:
                yield range(first, text)
            first = text + (end == start)
    if first < len(bounds) - 1:
        yield range(first, len(bounds) - 1)


def _forward(pooling: Any, decoder: Any, features: dict[str, Any]) -> dict[str, Any]:
    """Do what SpladePooling does, but with hidden states as "token_embeddings", of which `decoder` makes logits."""
    hidden = features["token_embeddings"]
    if "cu_seq_lens_q" in features:  # texts one after the other, without padding
        states, bounds = hidden.flatten(0, -2), features["cu_seq_lens_q"].tolist()
    else:
        mask = features["attention_mask"].bool()
        states, bounds = hidden[mask], [0, *accumulate(mask.sum(1).tolist())]
    logits = _LargestLogits.apply(states, decoder.weight, decoder.bias, bounds, torch.is_grad_enabled())
    weights = logits.relu().log1p()
    if pooling.activation_function == "log1p_relu":
        weights = weights.log1p()
    if pooling.embedding_dimension is None:
        pooling.embedding_dimension = weights.shape[1]
    features["sentence_embedding"] = weights
    return features


def _unchanged(hidden: torch.Tensor) -> torch.Tensor:
    return hidden


def _heads(model: Any) -> Iterator[tuple[Any, Any]]:
    """The language models that are followed only by a SPLADE pooling, each with its pooling."""
    chains = [list(model)]
    for router in model:
        if isinstance(router, Router):
            chains += [list(chain) for chain in router.sub_modules.values()]
    behind: dict[Any, set[Any]] = {}
    for chain in chains:
        for first, second in zip(chain, [*chain[1:], None], strict=True):
            behind.setdefault(first, set()).add(second)
    for first, followers in behind.items():
        second = next(iter(followers))
        if len(followers) == 1 and isinstance(second, SpladePooling):
            yield first, second


def _decoder(transformer: Any) -> torch.nn.Linear | None:
    """The module that multiplies by the matrix of the vocabulary, or None if it is not known or is wrapped."""
    model = getattr(transformer, "auto_model", None)
    found = None if model is None else model.get_output_embeddings()
    return found if type(found) is torch.nn.Linear and "forward" not in vars(found) else None


def _probe(transformer: Any, pooling: Any) -> torch.Tensor:
    """The vector of a sentence, without dropout."""
    modes = {module: module.training for module in transformer.modules()}
    transformer.eval()
    with torch.no_grad():
        features = batch_to_device(transformer.preprocess([_PROBE]), transformer.auto_model.device)
        vector: torch.Tensor = pooling(transformer(features))["sentence_embedding"]
    for module, mode in modes.items():
        module.training = mode
    return vector


def _is_spread() -> bool:
    """Whether several GPUs have copies (DataParallel) or parts (FSDP, DeepSpeed) of the model."""
    copied = torch.cuda.device_count() > 1 and "LOCAL_RANK" not in os.environ
    return copied or "true" in (os.environ.get(f"ACCELERATE_USE_{name}") for name in ("FSDP", "DEEPSPEED"))
