"""Models of sentence-transformers, for the encoders and the reranker that run one.

`LazyModel` finds a model, without a network if it can. It computes a digest of the model's content, and loads the model
at first use.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, get_args

from hybridsearch import arguments
from hybridsearch.arguments import one_of, whole_number_or_none
from hybridsearch.encoders.runtimes import INT8, Precision, Runtime, Way, choose, leave, use
from hybridsearch.errors import InvalidArgumentError, MissingExtraError, ModelNotFoundError
from hybridsearch.forks import after_fork
from hybridsearch.messages import warn

T = TypeVar("T")
Family: TypeAlias = Literal["SentenceTransformer", "SparseEncoder", "CrossEncoder", "MultiVectorEncoder"]
"""Class of sentence-transformers that runs a model."""

_HUB_OWNERS = {"SentenceTransformer": "sentence-transformers", "CrossEncoder": "cross-encoder"}

_CONTENT_SUFFIXES = {".json", ".txt", ".model", ".jinja", ".safetensors"}
_NOT_CONTENT = {"data_config.json", "trainer_state.json", "train_results.json", "eval_results.json", "all_results.json"}
_NOT_CONTENT |= {"training.json", "report.json", "optimization.json"}  # files of hybridsearch.training
_NOT_FETCHED = ["*.h5", "*.msgpack", "*.ot", "*.pt", "*.pkl", "pytorch_model*", "training_args.bin", "flax*", "rust*"]
_NOT_FETCHED += ["onnx/*", "openvino/*"]


class LazyModel:
    """A model of sentence-transformers that is loaded at first use, by one thread.

    Args:
        model: Folder of the model, its name on the Hugging Face hub, or a loaded model.
        family: Class that must run the model.
        max_length: Number of tokens that the model reads of a text. None for the model's limit.
        device: Device that computes, as in `hybridsearch.Dense`.
        precision: Number format of the computation, as in `hybridsearch.Dense`.
        runtime: Library that runs the transformer, as in `hybridsearch.Dense`.
        model_kwargs: Arguments for torch, as in `hybridsearch.Dense`.
        trust_remote_code: Whether code in the model's folder may run.
        revision: Revision of a model on the hub.
        to_search: Whether its dense vectors are searched. If the model was not trained for search, there is a warning.

    Attributes:
        name: Name of the model as it was given.
        lock: Lock to hold while the model tokenizes, because a tokenizer works in one thread at a time.
    """

    def __init__(
        self,
        model: str | Path | Any,
        family: Family,
        max_length: int | None = None,
        device: str | None = None,
        precision: Precision | None = None,
        runtime: Runtime | None = None,
        model_kwargs: Mapping[str, Any] | None = None,
        trust_remote_code: bool = False,
        revision: str | None = None,
        *,
        to_search: bool = False,
    ) -> None:
        self.family: Family = family
        self._to_search = to_search
        self.lock = threading.RLock()
        self._model: Any = None
        self._digest: str | None = None
        self._way: Way | None = None
        self._known: tuple[object, str] | None = None
        self._device, self._trust, self._revision = device, trust_remote_code, revision
        self._max_length = whole_number_or_none("max_length", max_length)
        self._precision, self._runtime = precision, runtime
        if not isinstance(model_kwargs, Mapping | None):
            raise InvalidArgumentError(
                f"model_kwargs is a mapping such as {{'dtype': 'float32'}}, not {model_kwargs!r:.80}."
            )
        self._model_kwargs = dict(model_kwargs or {})
        after_fork(self, LazyModel._in_a_new_process)
        options = {"max_length": self._max_length, "model_kwargs": self._model_kwargs}
        self._settings: dict[str, Any] = {name: value for name, value in options.items() if value}
        ways = {"precision": precision, "runtime": runtime}
        self._ways = {name: value for name, value in ways.items() if value is not None}
        self._check_options()
        if isinstance(model, str | os.PathLike):
            self.name, self.is_named = os.fspath(model), True
            if not self.name.strip():
                raise InvalidArgumentError("The model's name is empty: give a folder or a name on the model hub.")
            return
        self.name, self.is_named = type(model).__name__, False
        if family not in {cls.__name__ for cls in type(model).__mro__}:
            raise InvalidArgumentError(
                f"A model is a folder, a name on the model hub or a {family}, not a {type(model).__name__}."
            )
        if self._settings or self._ways or device or revision:
            raise InvalidArgumentError(
                "max_length, device, precision, runtime, model_kwargs and revision need a model that is given by "
                f"name: set them on the {family} object, or give the model's name."
            )
        self._model = model

    def written(self, **settings: Any) -> str:
        """Write the name and the settings as the arguments of a constructor.

        >>> LazyModel("a/model", "CrossEncoder", max_length=64).written(top_k=20)
        "'a/model', max_length=64, top_k=20"
        """
        revision = {"revision": self._revision} if self._revision else {}
        given = {**self._settings, **self._ways, **revision, **settings}
        return ", ".join([repr(self.name), *(f"{name}={value!r}" for name, value in given.items())])

    def get(self) -> Any:
        """Load the model if it is not loaded yet, and return it in evaluation mode.

        Raises:
            ModelNotFoundError: There is no such model, or it cannot be loaded.
            MissingExtraError: sentence-transformers is not installed.
            InvalidArgumentError: The weights are pickled, the model has another class, or some weights are missing.
        """
        _torch.use()
        if self._model is None:
            with self.lock:
                if self._model is None:
                    self._model = self._load()
        if self._model.training:
            self._model.eval()
        return self._model

    def __getstate__(self) -> dict[str, Any]:
        """The state of pickles and copies. They load a model again if it was given by name."""
        state = {name: value for name, value in vars(self).items() if name != "lock"}
        return {**state, "_model": None, "_digest": None, "_way": None} if self.is_named else state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, lock=threading.RLock())
        after_fork(self, LazyModel._in_a_new_process)

    def _in_a_new_process(self) -> None:
        """Reset a forked process: the threads that hold the lock or compute the model do not exist there."""
        self.lock = threading.RLock()
        if self.is_named and self.is_loaded and self.way().runtime != "torch":
            leave(self._model)
            self._model = None  # the next use loads it again, with threads of this process

    @property
    def is_loaded(self) -> bool:
        """Whether the model is loaded already."""
        return self._model is not None

    @property
    def on_cpu(self) -> bool:
        """Whether this machine's CPU runs the model. The model is loaded."""
        device: str = self.get().device.type
        return device == "cpu"

    def way(self) -> Way:
        """Find out how the transformer is run. No model is loaded, except for the first choice of "auto"."""
        if self._way is not None or not self.is_named:
            return self._way or Way()
        precision = self._precision
        if precision is None:
            is_int8 = self._runtime != "torch" and (self.folder() / INT8).is_dir()
            precision = "int8" if is_int8 else "fp32"
        elif precision == "int8" and not (self.folder() / INT8).is_dir():
            raise InvalidArgumentError(
                f"The model {self.name!r} has no int8 weights: make a folder that has them with `hybridsearch optimize "
                "MODEL --data TEXTS --output FOLDER`, and give that folder."
            )
        if precision == "auto":
            self._way = choose(self._loaded, self.name, self._files_digest(with_int8=False), self._runtime)
            return self._way
        return Way(precision, self._runtime or ("openvino" if precision == "int8" else "torch"))

    def _loaded(self, way: Way) -> Any:
        """The model, loaded once more in some way."""
        options = (self._device, way.precision, way.runtime, self._model_kwargs, self._trust, self._revision)
        return LazyModel(self.name, self.family, self._max_length, *options).get()

    def identity(self) -> dict[str, Any]:
        """Collect what vectors depend on: the model's content, the settings that were given, and the precision.

        Files are read, but no model is loaded. The precision "fp32" is left out.
        """
        precision = self.way().precision
        return {"model": self.digest(), **self._settings, **({} if precision == "fp32" else {"precision": precision})}

    def digest(self) -> str:
        """Compute sixteen hexadecimal digits that stand for the model's content. The folder's name does not count.

        Files are read, but no model is loaded. If the model is loaded already, the digest is that of the loaded files,
        even if the folder has changed.
        """
        if not self.is_named:
            state = (_weights_state(self._model), _object_settings(self._model))
            if self._known is None or self._known[0] != state:
                self._known = (state, _object_digest(self._model))
            return self._known[1]
        return self._digest or self._files_digest(with_int8=self.way().precision == "int8")

    def _files_digest(self, *, with_int8: bool) -> str:
        return folder_digest(self.folder(), with_code=self._trust, with_int8=with_int8)

    def folder(self) -> Path:
        """Find the folder with the model's files.

        Raises:
            ModelNotFoundError: There is no such model.
        """
        return find_model(self.name, self.family, self._revision)

    def arguments(self) -> dict[str, Any] | None:
        """Collect the arguments that make this model again, for an index. None for a model that was given as an object.

        `trust_remote_code` is never among them, because an index must not make its user run code.
        """
        if not self.is_named:
            return None
        revision = {} if self._revision is None else {"revision": self._revision}
        return {"model": self.name, **self._settings, **self._ways, **revision}

    def _check_options(self) -> None:
        if self._precision is not None:
            one_of("precision", self._precision, get_args(Precision))
        if self._runtime is not None:
            one_of("runtime", self._runtime, get_args(Runtime))
        if self._precision == "int8" and self._runtime == "torch":
            raise InvalidArgumentError("torch is no faster with int8: give runtime='openvino', or precision='bf16'.")
        if taken := {"trust_remote_code", "use_safetensors"} & self._model_kwargs.keys():
            raise InvalidArgumentError(
                f"model_kwargs cannot hold {', '.join(sorted(taken))}: weights are read from safetensors only, and "
                "trust_remote_code is a separate argument."
            )
        if secret := sorted({"token", "use_auth_token", "api_key"} & self._model_kwargs.keys()):
            raise InvalidArgumentError(
                f"model_kwargs holds {secret[0]!r}, but model_kwargs are stored in an index, where others can read "
                "them: put the token into the environment variable HF_TOKEN."
            )
        try:
            json.dumps(self._model_kwargs)
        except TypeError as error:
            raise InvalidArgumentError(
                f"model_kwargs are stored in an index, and JSON cannot hold them ({error}): write a dtype as a string, "
                "such as 'float32'."
            ) from None

    def _load(self) -> Any:
        folder = self.folder()
        _check_folder(folder, self.family)
        cls = _model_class(self.family)
        digest = self.digest()
        try:
            with _quiet(), _made_up() as lacking:
                model = cls(
                    str(folder),
                    device=self._device,
                    model_kwargs={"use_safetensors": True, **self._model_kwargs},
                    trust_remote_code=self._trust,
                    local_files_only=not self._trust,  # the model's code may be in another repository
                )
                if self.family == "MultiVectorEncoder" and family_of(folder) != self.family:
                    model = _without_new_projection(folder, model)
        except Exception as error:  # a damaged folder may make the loaders raise anything
            raise unloadable(folder, error) from error
        _check_weights(folder, model, lacking)
        if self._to_search:
            _warn_of_untrained(folder)
        if self._max_length is not None:
            limit = getattr(getattr(model, "config", None), "max_position_embeddings", None)
            if limit is not None and self._max_length > limit:
                raise InvalidArgumentError(
                    f"max_length is {self._max_length}, but the model {self.name!r} reads at most {limit} tokens."
                )
            model.max_seq_length = self._max_length
            if self.family == "MultiVectorEncoder":
                model[0].document_length = self._max_length  # a model may have a limit for each task
        way = self.way()
        use(model.eval(), way, folder, digest)
        self._digest, self._way = digest, way
        return model


class _Torch:
    """Prepares torch in a forked process, which would otherwise wait forever for the threads of its parent."""

    def __init__(self) -> None:
        self._inherited = False
        self.loading = threading.Lock()
        after_fork(self, _Torch._inherit)

    def _inherit(self) -> None:
        self.loading = threading.Lock()
        self._inherited = "torch" in sys.modules

    def use(self) -> None:
        """Use one thread if the parent may have used several. The forked workers of torch do the same."""
        if self._inherited:
            self._inherited = False
            sys.modules["torch"].set_num_threads(1)


_torch = _Torch()


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


def unloadable(folder: Path, error: Exception) -> ModelNotFoundError:
    """The error for a folder whose model the libraries cannot load."""
    if "trust_remote_code" in str(error):
        return ModelNotFoundError(
            f"The model in {folder} has code that runs only if you allow it: read the code, then set trust_remote_code."
        )
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return ModelNotFoundError(f"The model in {folder} cannot be loaded: {reason}")


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


def refuse_cross_encoder(folder: Path) -> None:
    """Raises InvalidArgumentError if the model in a folder is a cross-encoder."""
    if family_of(folder) == "CrossEncoder":
        raise InvalidArgumentError(
            f"The model in {folder} is a cross-encoder, which scores pairs and makes no vectors: use it as a reranker, "
            "or give a dense or sparse encoder or a language model."
        )


def folder_digest(folder: Path, *, with_code: bool = False, with_int8: bool = False) -> str:
    """Sixteen hexadecimal digits that stand for the files that a model's vectors depend on.

    The files are the configuration, the tokenizer and the weights of the model, and of the modules in its modules.json.
    The README, training logs and checkpoints do not count. A file that has not changed since the last call is not read
    again.
    """
    suffixes = _CONTENT_SUFFIXES | ({".py"} if with_code else set())
    files = {file for file in folder.iterdir() if file.suffix in suffixes}
    for part in _module_folders(folder):
        files |= {file for file in part.rglob("*") if file.suffix in suffixes}
    if with_int8:
        files |= set((folder / INT8).iterdir())
    total = hashlib.sha256()
    for file in sorted(files):
        if file.name not in _NOT_CONTENT and file.is_file():
            facts = file.stat()
            stamp = (facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino)
            total.update(f"{file.relative_to(folder).as_posix()}\0{_file_digest(file.absolute(), stamp)}\0".encode())
    return total.hexdigest()[:16]


def check_texts(texts: Sequence[str]) -> None:
    """Raises InvalidArgumentError unless `texts` is a sequence of strings that a tokenizer can read."""
    for number, text in enumerate(arguments.texts(texts)):
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                raise InvalidArgumentError(
                    f"Text number {number} ({text!r:.60}) holds a lone surrogate, which is not valid Unicode: repair "
                    "the text."
                ) from None


def around_blanks(
    texts: Sequence[str], encode: Callable[[list[str], list[int]], Iterable[T]], blank: Callable[[], T]
) -> list[T]:
    """Encode texts. A blank text is not encoded, and gets the blank vector.

    Args:
        texts: Texts of documents or queries.
        encode: Function that gives one vector for each of some texts. It also gets their numbers, for messages.
        blank: Function that makes the vector of a blank text. It is called if there is one.

    Returns:
        For each text, in order, its vector.
    """
    check_texts(texts)
    filled = [number for number, text in enumerate(texts) if text.strip()]
    found = dict(zip(filled, encode([texts[number] for number in filled], filled), strict=True)) if filled else {}
    if len(filled) == len(texts):
        return list(found.values())
    empty = blank()
    return [found.get(number, empty) for number in range(len(texts))]


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


def _model_class(family: Family) -> Any:
    try:
        import sentence_transformers
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"sentence_transformers", "transformers", "torch"}:
            raise
        raise MissingExtraError(error.name or "sentence-transformers", "models", f"A {family}") from error
    return getattr(sentence_transformers, family)


def _check_folder(folder: Path, family: Family) -> None:
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


def _check_weights(folder: Path, model: Any, lacking: Collection[str]) -> None:
    """Raises InvalidArgumentError if the files lack weights that the model needs."""
    pooled = any(type(module).__name__.endswith(("Pooling", "MultiVectorMask")) for module in model.modules())
    needed = sorted(name for name in lacking if not (pooled and "pooler." in name))  # its pooling needs no pooler
    if needed:
        raise InvalidArgumentError(
            f"The model in {folder} lacks {len(needed)} of its weights ({', '.join(needed[:3])}"
            f"{', ...' if needed[3:] else ''}), which would be random numbers: give a complete model, saved by "
            "save_pretrained, or a model of the right kind."
        )


def _without_new_projection(folder: Path, model: Any) -> Any:
    """The token vectors of a dense model as they are. sentence-transformers projects them by random weights."""
    if "Dense" in _described(folder)[1]:
        return model  # it is the projection of the folder
    kept = [module for module in model if type(module).__name__ != "Dense"]
    return type(model)(
        modules=kept,
        prompts=model.prompts,
        default_prompt_name=model.default_prompt_name,
        device=str(model.device),
        trust_remote_code=model.trust_remote_code,
    )


def _warn_of_untrained(folder: Path) -> None:
    _, modules, architectures = _described(folder)
    if not modules and re.search("For[A-Z]|LMHead", architectures):
        warn(
            f"The model in {folder} ({architectures}) was not trained to make vectors of texts. The mean of its token "
            "vectors is used and may find little: use hybridsearch.Sparse for a SPLADE model, and train another "
            "language model with hybridsearch.train_dense first."
        )


def _described(folder: Path) -> tuple[Any, str, str]:
    """The family, the types of the modules, and the architectures that a model's files name."""
    modules = " ".join(str(module.get("type")) for module in _read_json(folder / "modules.json", []))
    architectures = " ".join(_read_json(folder / "config.json", {}).get("architectures") or [])
    return _read_json(folder / "config_sentence_transformers.json", {}).get("model_type"), modules, architectures


def _module_folders(folder: Path) -> list[Path]:
    parts = [str(module.get("path") or "") for module in _read_json(folder / "modules.json", [])]
    return [folder / part for part in parts if part and (folder / part).is_dir()]


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


def _object_settings(model: Any) -> str:
    """The settings of a loaded model that its vectors depend on."""
    limits = [getattr(model, name, None) for name in ("max_seq_length", "truncate_dim", "max_active_dims")]
    return repr((str(model), model.prompts, model.default_prompt_name, limits))


def _weights_state(model: Any) -> tuple[tuple[int, int], ...]:
    """A value that changes if training changes a weight. It is cheaper than a digest of all weights."""
    return tuple((weight.data_ptr(), 0 if weight.is_inference() else weight._version) for weight in model.parameters())


def _object_digest(model: Any) -> str:
    """The digest of a loaded model, in place of `folder_digest`."""
    import torch

    total = hashlib.sha256(_object_settings(model).encode())
    for name, tensor in sorted(model.state_dict().items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    vocabulary = getattr(model.tokenizer, "get_vocab", dict[str, int])()
    total.update(json.dumps(sorted(vocabulary.items())).encode())
    return total.hexdigest()[:16]


@contextmanager
def _made_up() -> Iterator[set[str]]:
    """Collects the names of weights that are missing in the files, which transformers fills with random numbers."""
    from transformers import PreTrainedModel

    lacking: set[str] = set()
    ours = vars(PreTrainedModel)["from_pretrained"]

    def from_pretrained(cls: Any, *args: Any, **options: Any) -> Any:
        asked = options.pop("output_loading_info", False)
        model, found = ours.__func__(cls, *args, output_loading_info=True, **options)
        lacking.update(found["missing_keys"])
        return (model, found) if asked else model

    with _torch.loading:  # only this method of transformers tells which weights are missing
        PreTrainedModel.from_pretrained = classmethod(from_pretrained)
        try:
            yield lacking
        finally:
            PreTrainedModel.from_pretrained = ours


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides the progress bars of transformers, and the note that a dense model becomes a `MultiVectorEncoder`."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    converting = logging.get_logger("sentence_transformers.base.model")
    level = converting.level
    logging.disable_progress_bar()
    converting.setLevel(logging.ERROR)
    try:
        yield
    finally:
        converting.setLevel(level)
        if shown:
            logging.enable_progress_bar()
