"""The three architectures of a sparse model, and making each from what it starts from.

| architecture   | documents                               | queries                 | starts from                   |
|----------------|-----------------------------------------|-------------------------|-------------------------------|
| splade         | masked language model, SPLADE pooling   | the same                | masked language model, SPLADE |
| inference-free | masked language model, SPLADE pooling   | a weight for each token | masked language model, SPLADE |
| csr            | dense model, sparse autoencoder on top  | the same                | dense model                   |

SPLADE: Formal et al., arXiv:2109.10086. Inference-free: Geng et al., arXiv:2411.04403. CSR: Wen et al.,
arXiv:2503.01776.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from hybridsearch.encoders.models import find_model, refuse_cross_encoder
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.training.losses import Architecture
from hybridsearch.training.models.loading import load_to_train, quiet
from hybridsearch.weighting import BM25Weighting

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SparseEncoder

_STARTS = {
    "splade": "a masked language model or a SPLADE",
    "inference-free": "a masked language model, a SPLADE, or an inference-free SPLADE",
    "csr": "a dense model or a CSR",
}
_FRESH_LATENTS = 4  # latent dimensions of a new autoencoder for each dense one
_WIDEST_CODE = 4  # its loss also reconstructs from four times the active dimensions


def load_sparse(
    model: str | Path | SparseEncoder,
    architecture: Architecture | None = None,
    *,
    documents: Iterable[str] = (),
    active_dims: int | None = None,
    trust_remote_code: bool = False,
    seed: int = 0,
) -> SparseEncoder:
    """A sparse model that can be trained, in float32.

    Args:
        model, trust_remote_code: as in `hybridsearch.train_sparse`; of a loaded model a copy is returned.
        architecture: None for the model's own, else "splade" for a masked language model and "csr" for a dense model.
        documents: for a new inference-free SPLADE: a query token starts with its inverse document frequency in them.
        active_dims: for CSR: how many dimensions each vector keeps; None for the model's own or, of a new one, a
            quarter of the dense dimensions.
        seed: of the weights of a new autoencoder.

    Raises:
        ModelNotFoundError: there is no such model, or it cannot be loaded.
        InvalidArgumentError: the architecture cannot be made of this model, or it is a cross-encoder.
    """
    if architecture is not None and architecture not in get_args(Architecture):
        raise InvalidArgumentError(
            f"architecture is {', '.join(get_args(Architecture))} or None, not {architecture!r}."
        )
    loaded = _load(model, seed, trust_remote_code)
    found = architecture_of(loaded)
    if architecture == "inference-free" and found == "splade":
        return _inference_free(loaded, documents)
    if architecture not in (None, found):
        raise InvalidArgumentError(
            f"The model {model if isinstance(model, str | Path) else type(model).__name__} cannot be trained as "
            f"{architecture!r}, which starts from {_STARTS[architecture]}: this one would be {found!r}."
        )
    if found == "csr" and active_dims is not None:
        _set_active_dims(loaded, active_dims, seed)
    return loaded


def architecture_of(model: SparseEncoder) -> Architecture:
    """Which of the three a model is. Raises InvalidArgumentError where it is none of them."""
    parts = {type(module).__name__ for module in model.modules()}
    if "SparseStaticEmbedding" in parts:
        return "inference-free"
    if "SpladePooling" in parts:
        return "splade"
    if "SparseAutoEncoder" in parts:
        return "csr"
    raise InvalidArgumentError(f"A sparse model is {', '.join(get_args(Architecture))}, but this is none: {model}.")


def query_parameters(model: SparseEncoder) -> str | None:
    """A regular expression of the names of an inference-free model's query weights; None where they are frozen."""
    from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding

    places = [name for name, module in model.named_modules() if isinstance(module, SparseStaticEmbedding)]
    trained = [f"{name}.weight" for name in places if model.get_parameter(f"{name}.weight").requires_grad]
    escaped = [name.replace(".", r"\.") for name in trained]
    return f"(^|\\.)({'|'.join(escaped)})$" if trained else None


def idf_weights(tokenizer: Any, documents: Iterable[str]) -> torch.Tensor:
    """Inverse document frequencies of a tokenizer's tokens: float32 of shape (vocabulary,).

    They are BM25's, ln(1 + (N - n + 0.5) / (n + 0.5)) for a token in n of N documents; special tokens weigh 0.
    Raises InvalidArgumentError where there are no documents.
    """
    import torch

    frequency = np.zeros(len(tokenizer), dtype=np.int64)
    count = 0
    remaining = iter(documents)
    while texts := list(islice(remaining, 1024)):
        for tokens in tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]:
            frequency[np.unique(np.array(tokens, dtype=np.int64))] += 1
        count += len(texts)
    if count == 0:
        raise InvalidArgumentError(
            "The query weights of an inference-free SPLADE start as inverse document frequencies, and there are no "
            "documents to count in: give a corpus."
        )
    weights = BM25Weighting().idf(frequency, count)
    weights[list(tokenizer.all_special_ids)] = 0
    return torch.from_numpy(weights.astype(np.float32))


def _load(model: str | Path | Any, seed: int, trust: bool) -> Any:
    """Any model as a SparseEncoder, in the way of sentence-transformers: a dense one gets an autoencoder."""
    from sentence_transformers import SparseEncoder

    if isinstance(model, SparseEncoder):
        return copy.deepcopy(model).float()
    if not isinstance(model, str | Path):
        raise InvalidArgumentError(
            f"A model is a folder, a name on the model hub or a SparseEncoder, not a {type(model).__name__}."
        )
    folder = find_model(str(model), "SparseEncoder")
    refuse_cross_encoder(folder)
    return load_to_train(folder, "SparseEncoder", trust_remote_code=trust, seed=seed)


def _inference_free(splade: Any, documents: Iterable[str]) -> SparseEncoder:
    """Documents through the SPLADE, queries through a table of token weights."""
    from sentence_transformers import SparseEncoder
    from sentence_transformers.sparse_encoder.modules import Router, SparseStaticEmbedding, SpladePooling

    weights = idf_weights(splade.tokenizer, documents)
    language_model = splade[0].auto_model
    if language_model.config.vocab_size > len(weights):  # rows that only make its number even; queries have none
        with quiet():
            language_model.resize_token_embeddings(len(weights))
    for module in splade:
        if isinstance(module, SpladePooling):
            module.embedding_dimension = len(weights)
    router = Router.for_query_document(
        query_modules=[SparseStaticEmbedding(splade.tokenizer, weights)], document_modules=list(splade)
    )
    return SparseEncoder(
        modules=[router],
        prompts=splade.prompts,
        similarity_fn_name="dot",
        max_active_dims=splade.max_active_dims,
        device=str(splade.device),
    )


def _set_active_dims(model: Any, active_dims: int, seed: int) -> None:
    """Let the autoencoder keep that many dimensions; a new one gets room for it."""
    import torch
    from sentence_transformers.sparse_encoder.modules import SparseAutoEncoder

    place = next(place for place, module in enumerate(model) if isinstance(module, SparseAutoEncoder))
    old = model[place]
    if old.hidden_dim < _WIDEST_CODE * active_dims:
        if bool(old.stats_last_nonzero.any()):
            raise InvalidArgumentError(
                f"This CSR has {old.hidden_dim} dimensions, of which at most {old.hidden_dim // _WIDEST_CODE} can be "
                f"active, not {active_dims}: start from the dense model, or ask for fewer."
            )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            size = max(_FRESH_LATENTS * old.input_dim, _WIDEST_CODE * active_dims)
            model[place] = SparseAutoEncoder(old.input_dim, size, active_dims, old.k_aux).to(model.device)
    model[place].k = active_dims
    model.max_active_dims = active_dims
