"""The folder of a model: how it is found, what its files say, and the digest of its content."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from hybridsearch import arguments
from hybridsearch.encoders.runtimes import INT8
from hybridsearch.errors import InvalidArgumentError, MissingExtraError, ModelNotFoundError
from hybridsearch.messages import warn

Family: TypeAlias = Literal["SentenceTransformer", "SparseEncoder", "CrossEncoder", "MultiVectorEncoder"]
"""Class of sentence-transformers that runs a model."""

_HUB_OWNERS = {"SentenceTransformer": "sentence-transformers", "CrossEncoder": "cross-encoder"}

_CONTENT_SUFFIXES = {".json", ".txt", ".jinja", ".safetensors"}
_CONTENT_SUFFIXES |= {".model", ".codes", ".spm", ".tokenizer", ".tiktoken"}  # vocabularies of tokenizers
_NOT_CONTENT = {"data_config.json", "trainer_state.json", "train_results.json", "eval_results.json", "all_results.json"}
_NOT_CONTENT |= {"training.json", "report.json", "optimization.json"}  # files of hybridsearch.training
_NOT_FETCHED = ["*.h5", "*.msgpack", "*.ot", "*.pt", "*.pkl", "pytorch_model*", "training_args.bin", "flax*", "rust*"]
_NOT_FETCHED += ["onnx/*", "openvino/*"]


def find_model(name: str, family: Family, revision: str | None = None) -> Path:
    """Find the folder of a model: a folder of this name, a folder in the hub's local cache, or a download.

    Raises:
        ModelNotFoundError: There is no such model. The message names the folder that was searched.
    """
    folder = arguments.path("The model", name)
    if folder.is_dir():
        if not any((folder / file).exists() for file in ("modules.json", "config.json")):
            raise ModelNotFoundError(
                f"The folder {folder.absolute()} holds no model, because it has no modules.json and no config.json: "
                "give the folder that save_pretrained wrote."
            )
        return folder
    if folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or "\\" in name or folder.is_file():
        what = "is a file, not" if folder.is_file() else "is not"
        raise ModelNotFoundError(
            f"{folder.absolute()} {what} a model folder: give the folder that save_pretrained wrote, or a model's "
            "name on the Hugging Face hub."
        )
    owner = _HUB_OWNERS.get(family)
    names = [name] if "/" in name or owner is None else [f"{owner}/{name}", name]
    return _find_on_hub(names, folder, revision)


def family_of(folder: Path) -> Family | None:
    """The class that saved the model in a folder. None for a language model, or if the files do not tell."""
    said, modules, architectures = _described(folder)
    if said in get_args(Family):
        known: Family = said
        return known
    if said == "ColBERT" or "HF_ColBERT" in architectures:  # models of PyLate and of Stanford
        return "MultiVectorEncoder"
    if modules:
        return "SparseEncoder" if "sparse" in modules.lower() else "SentenceTransformer"
    return "CrossEncoder" if "ForSequenceClassification" in architectures else None


def has_projection(folder: Path) -> bool:
    """Whether the model in a folder projects its vectors."""
    return "Dense" in _described(folder)[1]


def folder_digest(
    folder: Path, *, with_code: bool = False, with_int8: bool = False, known: Collection[Path] = ()
) -> str:
    """Sixteen hexadecimal digits that stand for the files that a model's vectors depend on.

    The files are the configuration, the tokenizer and the weights of the model, and of the modules that modules.json or
    a router names. If a module is an adapter of a model in another folder, the files there count, too, except for
    folders that are `known`. With code, all Python files count. The README, training logs and checkpoints do not count.
    A file that has not changed since the last call is not read again.
    """
    known = {*known, folder.resolve()}
    suffixes = _CONTENT_SUFFIXES
    parts = _module_folders(folder)
    files = {file for file in folder.iterdir() if file.suffix in suffixes}
    for part in parts:
        files |= {file for file in part.rglob("*") if file.suffix in suffixes}
    if with_code:
        files |= set(folder.rglob("*.py"))
    if with_int8:
        files |= set((folder / INT8).iterdir())
    total = hashlib.sha256()
    for part in (folder, *parts):
        base = _read_json(part / "adapter_config.json", {}).get("base_model_name_or_path")
        if isinstance(base, str) and base and Path(base).is_dir() and Path(base).resolve() not in known:
            total.update(folder_digest(Path(base), with_code=with_code, known=known).encode())
    for file in sorted(files):
        if file.name not in _NOT_CONTENT and file.is_file():
            facts = file.stat()
            stamp = (facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino)
            total.update(f"{file.relative_to(folder).as_posix()}\0{_file_digest(file.absolute(), stamp)}\0".encode())
    return total.hexdigest()[:16]


def refuse_cross_encoder(folder: Path) -> None:
    """Raises InvalidArgumentError if the model in a folder is a cross-encoder."""
    if family_of(folder) == "CrossEncoder":
        raise InvalidArgumentError(
            f"The model in {folder} is a cross-encoder, which scores pairs and makes no vectors: use it as a reranker, "
            "or give a dense or sparse encoder or a language model."
        )


def check_folder(folder: Path, family: Family) -> None:
    """Raises InvalidArgumentError if the model in a folder is not of this family, or has pickled weights."""
    for part in (folder, *_module_folders(folder)):
        if any(part.glob("pytorch_model*.bin")) and not any(part.glob("*.safetensors")):
            raise InvalidArgumentError(
                f"The weights in {part} are pickled (pytorch_model.bin), so loading them can run code: if you trust "
                "them, load the model yourself and save it again with save_pretrained, which writes safetensors."
            )
    said, modules, architectures = _described(folder)
    if said == family:
        return
    if family == "SentenceTransformer":
        refuse_cross_encoder(folder)
        if family_of(folder) == "SparseEncoder":
            raise InvalidArgumentError(
                f"The model in {folder} is a sparse encoder. Its dense vectors were never trained: use it with "
                "hybridsearch.Sparse (sparse=MODEL), or give a dense model."
            )
    if family in ("SentenceTransformer", "SparseEncoder") and family_of(folder) == "MultiVectorEncoder":
        raise InvalidArgumentError(
            f"The model in {folder} is a late-interaction model, which makes a vector of each token: use it with "
            "hybridsearch.LateInteraction (--retrievers late=MODEL, or --rerank late=MODEL)."
        )
    if family == "MultiVectorEncoder":
        refuse_cross_encoder(folder)
        if family_of(folder) == "SparseEncoder":
            raise InvalidArgumentError(
                f"The model in {folder} is a sparse encoder, whose token vectors were never trained to be compared: "
                "give a late-interaction model or a dense model."
            )
    if family == "CrossEncoder" and not re.search("ForSequenceClassification|ForCausalLM", architectures):
        raise InvalidArgumentError(
            f"The model in {folder} is no cross-encoder: its architecture {architectures or 'unknown'!r} has no "
            "trained head for scores. Train a reranker with hybridsearch.train_reranker, or give another model."
        )
    is_sparse = "sparse" in modules.lower() or (not modules and "ForMaskedLM" in architectures)
    if family == "SparseEncoder" and not is_sparse:
        raise InvalidArgumentError(
            f"The model in {folder} is no sparse encoder: it has neither sparse modules nor a masked-language head "
            f"(architecture {architectures or 'unknown'!r}). Use hybridsearch.Dense for a dense model."
        )


def warn_of_untrained(folder: Path) -> None:
    """Warn if the model in a folder is a language model, which was not trained to make vectors of texts."""
    _, modules, architectures = _described(folder)
    if not modules and re.search("For[A-Z]|LMHead", architectures):
        warn(
            f"The model in {folder} ({architectures}) was not trained to make vectors of texts. The mean of its token "
            "vectors is used and may find little: use hybridsearch.Sparse for a SPLADE model, and train another "
            "language model with hybridsearch.train_dense first."
        )


def unloadable(folder: Path, error: Exception) -> ModelNotFoundError:
    """The error for a folder whose model the libraries cannot load."""
    if "trust_remote_code" in str(error):
        return ModelNotFoundError(
            f"The model in {folder} has code that runs only if you allow it: read the code, then set trust_remote_code."
        )
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return ModelNotFoundError(f"The model in {folder} cannot be loaded: {reason}")


def _find_on_hub(names: Sequence[str], folder: Path, revision: str | None) -> Path:
    try:
        from huggingface_hub import constants, snapshot_download
        from huggingface_hub.errors import HFValidationError
    except ModuleNotFoundError as error:
        raise MissingExtraError("huggingface_hub", "models", f"Finding the model {names[-1]!r}") from error
    cache = os.environ.get("SENTENCE_TRANSFORMERS_HOME") or constants.HF_HUB_CACHE
    reason = "HF_HUB_OFFLINE is set"
    for online in (False,) if constants.HF_HUB_OFFLINE else (False, True):
        for name in names:
            try:
                found = snapshot_download(
                    name, revision=revision, cache_dir=cache, local_files_only=not online, ignore_patterns=_NOT_FETCHED
                )
                return Path(found)
            except HFValidationError as error:
                reason = str(error)
            except Exception as error:  # each version of the hub's library has other types of errors
                if online:
                    reason = str(error).strip().partition("\n")[0]
    raise ModelNotFoundError(
        f"The model {names[-1]!r} is neither a folder ({folder.absolute()}) nor in the hub's local cache "
        f"({Path(cache).absolute()}), and cannot be downloaded ({reason}): give a model folder, or run "
        f"`hf download {names[0]}` with a network."
    )


def _described(folder: Path) -> tuple[Any, str, str]:
    """The family, the types of the modules, and the architectures that a model's files name."""
    modules = " ".join(str(module.get("type")) for module in _read_modules(folder))
    architectures = " ".join(map(str, _read_json(folder / "config.json", {}).get("architectures") or []))
    return _read_json(folder / "config_sentence_transformers.json", {}).get("model_type"), modules, architectures


def _module_folders(folder: Path) -> list[Path]:
    """The folders of the modules that modules.json names, and of the modules that a router among them names."""
    places = [folder / str(module.get("path") or "") for module in _read_modules(folder)]
    return [place for place in places if place != folder and place.is_dir()] + [
        part for place in places for part in _routed(place)
    ]


def _routed(folder: Path) -> Iterator[Path]:
    """The folders of the modules of a router, such as the encoders of queries and of documents."""
    for file in ("router_config.json", "config.json"):  # the second name is that of old versions
        types = _read_json(folder / file, {}).get("types")
        for name in types if isinstance(types, dict) else ():
            parts = Path(name).parts
            if parts and ".." not in parts and (folder / name).is_dir():
                yield folder / name
                yield from _routed(folder / name)


def _read_modules(folder: Path) -> list[dict[str, Any]]:
    return [module for module in _read_json(folder / "modules.json", []) if isinstance(module, dict)]


def _read_json(file: Path, default: Any) -> Any:
    """The file's content. `default` if the file is missing, cannot be read, or has another type."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return default
    return content if isinstance(content, type(default)) else default


@lru_cache(maxsize=1024)
def _file_digest(file: Path, stamp: tuple[int, ...]) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
