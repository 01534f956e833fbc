"""The three architectures of a sparse model, and the models that each can start from.

| architecture   | documents                              | queries           | starts from                         |
|----------------|----------------------------------------|-------------------|-------------------------------------|
| splade         | masked language model, SPLADE pooling  | as documents      | masked language model, SPLADE       |
| inference-free | masked language model, SPLADE pooling  | weights of tokens | the same, and inference-free SPLADE |
| csr            | dense model, sparse autoencoder on top | as documents      | dense model, CSR                    |

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

from hybridsearch.encoders.model_folders import find_model, refuse_cross_encoder
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
_WIDEST_CODE = 4  # the loss of CSR also reconstructs from four times the active dimensions


def load_sparse(
    model: str | Path | SparseEncoder,
    architecture: Architecture | None = None,
    *,
    documents: Iterable[str] = (),
    active_dims: int | None = None,
    trust_remote_code: bool = False,
    seed: int = 0,
) -> SparseEncoder:
    """Load a sparse model to train it, in float32.

    Args:
        model: Model, as in `hybridsearch.train_sparse`. A loaded model is copied.
        architecture: Architecture of the result. None keeps the architecture of a sparse model, makes a SPLADE of a
            masked language model, and a CSR of a dense model.
        documents: Texts for a new inference-free SPLADE. The weight of a query token starts as its inverse document
            frequency in these texts.
        active_dims: Number of active dimensions of each vector of a CSR. None keeps the number of the model. A new CSR
            then has a quarter of the dense dimensions.
        trust_remote_code: Whether code in the folder of a named model may run.
        seed: Seed of the weights of a new autoencoder.

    Returns:
        The SparseEncoder.

    Raises:
        ModelNotFoundError: There is no such model, or it cannot be loaded.
        InvalidArgumentError: The model cannot get this architecture, or it is a cross-encoder.
    """
    if architecture is not None and architecture not in get_args(Architecture):
        raise InvalidArgumentError(
            f"architecture is {architecture!r}. Give {', '.join(get_args(Architecture))} or None."
        )
    loaded = _load(model, seed, trust_remote_code)
    found = architecture_of(loaded)
    if architecture == "inference-free" and found == "splade":
        return _inference_free(loaded, documents)
    if architecture not in (None, found):
        raise InvalidArgumentError(
            f"The model {model if isinstance(model, str | Path) else type(model).__name__} cannot be trained as "
            f"{architecture!r}, which starts from {_STARTS[architecture]}. This model can be trained as {found!r}."
        )
    if found == "csr" and active_dims is not None:
        _set_active_dims(loaded, active_dims, seed)
    return loaded


def architecture_of(model: SparseEncoder) -> Architecture:
    """The architecture of a sparse model.

    Raises InvalidArgumentError if it is not one of the three.
    """
    parts = {type(module).__name__ for module in model.modules()}
    if "SparseStaticEmbedding" in parts:
        return "inference-free"
    if "SpladePooling" in parts:
        return "splade"
    if "SparseAutoEncoder" in parts:
        return "csr"
    raise InvalidArgumentError(
        f"The architecture of the model is not known: {model}. Give a model of the architecture "
        f"{', '.join(get_args(Architecture))}."
    )


def query_parameters(model: SparseEncoder) -> str | None:
    """A regular expression for the names of an inference-free model's query weights, or None if they are frozen."""
    from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding

    places = [name for name, module in model.named_modules() if isinstance(module, SparseStaticEmbedding)]
    trained = [f"{name}.weight" for name in places if model.get_parameter(f"{name}.weight").requires_grad]
    escaped = [name.replace(".", r"\.") for name in trained]
    return f"(^|\\.)({'|'.join(escaped)})$" if trained else None


def idf_weights(tokenizer: Any, documents: Iterable[str]) -> torch.Tensor:
    """The inverse document frequencies of the tokens of a tokenizer.

    The result is float32 of shape (vocabulary,). The formula is the formula of BM25: ln(1 + (N - n + 0.5) / (n + 0.5))
    for a token in n of N documents. Special tokens have the weight 0.

    Args:
        tokenizer: Tokenizer of the model.
        documents: Texts to count in.

    Raises:
        InvalidArgumentError: There are no documents.
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
            "The query weights of an inference-free SPLADE start as inverse document frequencies, but there are no "
            "documents to count in. Give a corpus."
        )
    weights = BM25Weighting().idf(frequency, count)
    weights[list(tokenizer.all_special_ids)] = 0
    return torch.from_numpy(weights.astype(np.float32))


def _load(model: str | Path | Any, seed: int, trust: bool) -> Any:
    """Load any model as a SparseEncoder, as sentence-transformers does it. A dense model gets an autoencoder."""
    from sentence_transformers import SparseEncoder

    if isinstance(model, SparseEncoder):
        return copy.deepcopy(model).float()
    if not isinstance(model, str | Path):
        raise InvalidArgumentError(
            f"The model is of type {type(model).__name__}. Give a folder, a name on the model hub or a SparseEncoder."
        )
    folder = find_model(str(model), "SparseEncoder")
    refuse_cross_encoder(folder)
    return load_to_train(folder, "SparseEncoder", trust_remote_code=trust, seed=seed)


def _inference_free(splade: Any, documents: Iterable[str]) -> SparseEncoder:
    """Make a model that encodes documents with a SPLADE and queries with a table of token weights."""
    from sentence_transformers import SparseEncoder
    from sentence_transformers.sparse_encoder.modules import Router, SparseStaticEmbedding, SpladePooling

    weights = idf_weights(splade.tokenizer, documents)
    language_model = splade[0].auto_model
    if language_model.config.vocab_size > len(weights):  # padding rows, which queries do not have
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
    """Set the number of active dimensions of the autoencoder. A new autoencoder becomes larger if needed."""
    import torch
    from sentence_transformers.sparse_encoder.modules import SparseAutoEncoder

    place = next(place for place, module in enumerate(model) if isinstance(module, SparseAutoEncoder))
    old = model[place]
    if old.hidden_dim < _WIDEST_CODE * active_dims:
        if bool(old.stats_last_nonzero.any()):
            raise InvalidArgumentError(
                f"target_active_dims is {active_dims}, but this CSR has {old.hidden_dim} dimensions, of which at most "
                f"{old.hidden_dim // _WIDEST_CODE} can be active. Give fewer, or start from the dense model."
            )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            size = max(_FRESH_LATENTS * old.input_dim, _WIDEST_CODE * active_dims)
            model[place] = SparseAutoEncoder(old.input_dim, size, active_dims, old.k_aux).to(model.device)
    model[place].k = active_dims
    model.max_active_dims = active_dims
