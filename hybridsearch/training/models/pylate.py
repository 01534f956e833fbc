"""Write a late-interaction model in the format of PyLate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hybridsearch import arguments
from hybridsearch.encoders.models import LazyModel
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.training.models.loading import quiet

_MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Dense", "type": "pylate.models.Dense.Dense"},
]


def save_for_pylate(model: str | Path | Any, folder: str | Path) -> Path:
    """Write a copy of a late-interaction model that PyLate loads.

    PyLate 1.6 needs sentence-transformers 5.3, which cannot load what sentence-transformers 6 writes. This copy loads
    in both, with equal scores. PyLate always projects token vectors, so a model without a projection gets the identity.

    Args:
        model: Folder of the model, its name on the hub, or a loaded MultiVectorEncoder.
        folder: Folder to write. It must be new or empty. `pylate.models.ColBERT(folder)` loads it. If the model has
            prompts, PyLate needs `encode(texts, prompt_name="query")`, or "document".

    Returns:
        The folder.

    Raises:
        InvalidArgumentError: The folder is not empty, or the model has parts that PyLate does not have.
        ModelNotFoundError: There is no such model.
    """
    import torch
    from safetensors.torch import save_file

    place = arguments.new_folder("folder", folder)
    with quiet():
        loaded = LazyModel(model, "MultiVectorEncoder").get()
    parts = {type(module).__name__: module for module in loaded}
    transformer, mask, projection = parts.get("Transformer"), parts.get("MultiVectorMask"), parts.get("Dense")
    known = {"Transformer", "Dense", "MultiVectorMask", "Normalize"}
    names = [type(one).__name__ for one in loaded]
    if transformer is None or mask is None or not known >= parts.keys() or len(parts) < len(loaded):
        raise InvalidArgumentError(f"PyLate has no model of the parts {', '.join(names)}.")
    if "Normalize" not in names[names.index("Dense") if projection is not None else 0 :]:
        raise InvalidArgumentError("PyLate gives all token vectors unit length at the end, but this model does not.")
    expansion = transformer.query_expansion
    if loaded.similarity_fn_name != "maxsim" or (expansion or {}).get("strategy", "fixed") != "fixed":
        raise InvalidArgumentError("PyLate has neither the mean of similarities nor queries that grow with expansion.")
    with quiet():
        transformer.save(str(place))
    size = transformer.get_embedding_dimension()
    weights = {"linear.weight": torch.eye(size)} if projection is None else projection.state_dict()
    about = {} if projection is None else projection.get_config_dict()
    out, features = weights["linear.weight"].shape
    (place / "1_Dense").mkdir()
    save_file(
        {name: one.detach().cpu().contiguous() for name, one in weights.items()}, place / "1_Dense/model.safetensors"
    )
    longest = loaded.max_seq_length
    described: dict[str, Any] = {
        "modules.json": _MODULES,
        "sentence_bert_config.json": {"max_seq_length": longest, "do_lower_case": False},
        "1_Dense/config.json": {
            "in_features": features,
            "out_features": out,
            "bias": "linear.bias" in weights,
            "activation_function": about.get("activation_function", "torch.nn.modules.linear.Identity"),
            "use_residual": about.get("use_residual", False),
        },
        "config_sentence_transformers.json": {
            "model_type": "ColBERT",
            "prompts": {name: text or "" for name, text in loaded.prompts.items()},
            "default_prompt_name": loaded.default_prompt_name,
            "similarity_fn_name": "MaxSim",
            "query_prefix": "",
            "document_prefix": "",
            "query_length": (expansion or {}).get("length") or transformer.query_length or longest,
            "document_length": transformer.document_length or longest,
            "do_query_expansion": expansion is not None,
            "attend_to_expansion_tokens": bool((expansion or {}).get("attend")),
            "skiplist_words": mask.skiplist_words,
        },
    }
    for name, content in described.items():
        (place / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return place
