"""`LazyModel` is a model of sentence-transformers that is loaded at first use, for the encoders and the reranker."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import threading
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, get_args

from hybridsearch.arguments import one_of, true_or_false, whole_number_or_none
from hybridsearch.encoders.model_folders import (
    Family,
    check_folder,
    family_of,
    find_model,
    folder_digest,
    has_projection,
    unloadable,
    warn_of_untrained,
)
from hybridsearch.encoders.runtimes import INT8, Precision, Runtime, Way, choose, leave, use
from hybridsearch.errors import InvalidArgumentError, MissingExtraError, ModelNotFoundError
from hybridsearch.forks import after_fork

_SIMILARITIES: dict[Family, str] = {"SentenceTransformer": "cosine", "MultiVectorEncoder": "maxsim"}
"""The usual similarity of a family whose models may have several. Digests of models name only another one."""

_SUMMED, _AT_ONCE = 1024, 1 << 24
"""Number of weights in a sum of `_checksum`, and number of weights that are summed at once."""

_SET_BY_USE = re.compile(r", 'embedding_dimension': (None|\d+)")
"""The setting of the pooling of SPLADE that is None until a loaded model has encoded a text."""


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
        self._device, self._revision = device, revision
        self._trust = true_or_false("trust_remote_code", trust_remote_code)
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
        set_padding(model)
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
            is_int8 = self._runtime != "torch" and not self._model_kwargs and (self.folder() / INT8).is_dir()
            precision = "int8" if is_int8 else "fp32"
        elif precision == "int8" and not (self.folder() / INT8).is_dir():
            raise InvalidArgumentError(
                f"The model {self.name!r} has no int8 weights: make a folder that has them with `hybridsearch optimize "
                "MODEL --data TEXTS --output FOLDER`, and give that folder."
            )
        if precision == "auto":
            made = self._made_of(self._files_digest(with_int8=False), self.family, self._device)
            self._way = choose(self._loaded, self.name, made, self._runtime)
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
            settings = _object_settings(self._model, self.family)
            state = (_weights_state(self._model), settings)
            if self._known is None or self._known[0] != state:
                self._known = (state, _object_digest(self._model, settings))
            return self._known[1]
        return self._digest or self._files_digest(with_int8=self.way().precision == "int8")

    def _files_digest(self, *, with_int8: bool) -> str:
        return folder_digest(self.folder(), with_code=self._trust, with_int8=with_int8)

    def _made_of(self, digest: str, *more: str | None) -> str:
        """What a loaded transformer depends on, as a text: the digest of its files, `model_kwargs`, and `more`."""
        given = [one for one in (self._model_kwargs, *more) if one]
        return f"{digest}-{json.dumps(given, sort_keys=True)}" if given else digest

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
        if self._precision == "int8" and self._model_kwargs:
            raise InvalidArgumentError(
                "The int8 weights of a model stay as they were made, so model_kwargs would change nothing: leave out "
                "model_kwargs, or give another precision."
            )
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
        check_folder(folder, self.family)
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
                    model = model if has_projection(folder) else _without_new_projection(model)
        except Exception as error:  # a damaged folder may make the loaders raise anything
            raise unloadable(folder, error) from error
        _check_weights(folder, model, lacking)
        check_vocabulary(folder, model)
        set_padding(model)
        if self._to_search:
            warn_of_untrained(folder)
        if self._max_length is not None:
            limit = getattr(getattr(model, "config", None), "max_position_embeddings", None)
            if limit is not None and self._max_length > limit:
                raise InvalidArgumentError(
                    f"max_length is {self._max_length}, but the model {self.name!r} reads at most {limit} tokens."
                )
            check_length(model, self._max_length, self.name)
            try:
                model.max_seq_length = self._max_length
            except AttributeError:  # word vectors
                raise InvalidArgumentError(
                    f"max_length is {self._max_length}, but the model {self.name!r} always reads whole texts: leave "
                    "max_length out."
                ) from None
            if self.family == "MultiVectorEncoder":
                model[0].document_length = self._max_length  # a model may have a limit for each task
        way = self.way()
        use(model.eval(), way, folder, self._made_of(digest))
        self._digest, self._way = digest, way
        return model


def set_padding(model: Any) -> None:
    """Pad with the end-of-text token if the tokenizer has no padding token, as many decoders. The mask hides it.

    Raises InvalidArgumentError if the tokenizer has neither.
    """
    tokenizer: Any = getattr(model, "tokenizer", None)
    if getattr(tokenizer, "pad_token", "") is None:
        if tokenizer.eos_token is None:
            raise InvalidArgumentError(
                f"The tokenizer of the model {tokenizer.name_or_path!r} has no padding token, so texts of different "
                "lengths cannot share a batch: set pad_token in its tokenizer_config.json."
            )
        tokenizer.pad_token = tokenizer.eos_token
    config: Any = getattr(model, "config", None) if hasattr(model, "num_labels") else None
    if getattr(config, "pad_token_id", 0) is None:
        config.pad_token_id = tokenizer.pad_token_id  # by which a cross-encoder finds the last token


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


def _model_class(family: Family) -> Any:
    try:
        import sentence_transformers
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"sentence_transformers", "transformers", "torch"}:
            raise
        raise MissingExtraError(error.name or "sentence-transformers", "models", f"A {family}") from error
    return getattr(sentence_transformers, family)


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


def check_vocabulary(folder: Path, model: Any) -> None:
    """Raises ModelNotFoundError if the tokenizer knows no word, because transformers made one without its files."""
    tokenizer: Any = getattr(model, "tokenizer", None)
    special = getattr(tokenizer, "all_special_ids", None)  # only tokenizers of transformers have it
    if special is not None and len(tokenizer) <= len(set(special)):
        raise ModelNotFoundError(
            f"The model in {folder} lacks the files of its tokenizer (such as tokenizer.json), so it would read each "
            "word as unknown: give a complete model, saved by save_pretrained."
        )


def check_length(model: Any, length: int, name: str) -> None:
    """Raises InvalidArgumentError if the special tokens of a model leave no room for a word of each text."""
    count = getattr(getattr(model, "tokenizer", None), "num_special_tokens_to_add", None)
    texts = 2 if hasattr(model, "num_labels") else 1  # a cross-encoder reads pairs
    added = 0 if count is None else int(count(texts == 2))
    if length < added + texts:
        raise InvalidArgumentError(
            f"max_length is {length}, but the model {name!r} adds {added} special tokens, so no words would be read: "
            f"give at least {added + texts}, and more for useful results."
        )


def _without_new_projection(model: Any) -> Any:
    """The token vectors of a dense model as they are. sentence-transformers projects them by random weights."""
    kept = [module for module in model if type(module).__name__ != "Dense"]
    return type(model)(
        modules=kept,
        prompts=model.prompts,
        default_prompt_name=model.default_prompt_name,
        device=str(model.device),
        trust_remote_code=model.trust_remote_code,
    )


def _object_settings(model: Any, family: Family) -> str:
    """The settings of a loaded model that its vectors and scores depend on."""
    limits = [getattr(model, name, None) for name in ("max_seq_length", "truncate_dim", "max_active_dims")]
    similarity = getattr(model, "similarity_fn_name", None)  # it decides whether vectors are normalized
    others = [] if similarity == _SIMILARITIES.get(family, similarity) else [str(similarity)]
    if (activation := getattr(model, "activation_fn", None)) is not None:  # of the scores of a cross-encoder
        others.append(repr(activation))
    adapted = (one for one in model.modules() if hasattr(one, "_disable_adapters"))  # layers of peft
    if used := {f"{one.disable_adapters} {one.active_adapters} {getattr(one, 'scaling', None)}" for one in adapted}:
        others.append(f"adapters={sorted(used)}")
    tokenizer = getattr(model, "tokenizer", None)
    if (side := getattr(tokenizer, "truncation_side", "right")) != "right":
        others.append(f"truncation_side={side}")
    for name in ("normalizer", "pre_tokenizer", "post_processor"):
        if (part := getattr(getattr(tokenizer, "backend_tokenizer", None), name, None)) is not None:
            others.append(_state_of(part))
    modules = _SET_BY_USE.sub("", str(model))
    return repr((modules, model.prompts, model.default_prompt_name, limits, *others))


def _state_of(part: Any) -> str:
    """A digest of a part of a tokenizer, as tokenizer.json has it, or the name of its class if it is made in Python."""
    try:
        return hashlib.sha256(part.__getstate__()).hexdigest()[:16]
    except Exception:  # the library tokenizers raises nothing narrower
        return type(part).__name__


def _weights_state(model: Any) -> tuple[tuple[int, int, int], ...]:
    """A value that changes if the weights change. It is cheaper than a digest of all weights.

    It has a checksum of each weight, because torch does not count changes through `weight.data`.
    """
    return tuple(
        (weight.data_ptr(), 0 if weight.is_inference() else weight._version, _checksum(weight.detach().reshape(-1)))
        for weight in chain(model.parameters(), model.buffers())
    )


def _checksum(numbers: Any) -> int:
    """A checksum of a flat tensor, which changes also if numbers trade places.

    On a GPU it is that of weighted sums of 1,024 numbers each, because copying all numbers takes long.
    """
    import torch

    if numbers.device.type != "cpu":
        factors = torch.rand(_SUMMED, generator=torch.Generator().manual_seed(0)).add(0.5).to(numbers.device)
        padded = (torch.nn.functional.pad(part.float(), (0, -len(part) % _SUMMED)) for part in numbers.split(_AT_ONCE))
        numbers = torch.cat([part.view(-1, _SUMMED) @ factors for part in padded]).cpu()
    return zlib.crc32(numbers.contiguous().view(torch.uint8).numpy()) if numbers.numel() else 0


def _object_digest(model: Any, settings: str) -> str:
    """The digest of a loaded model, in place of `folder_digest`."""
    import torch

    total = hashlib.sha256(settings.encode())
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
