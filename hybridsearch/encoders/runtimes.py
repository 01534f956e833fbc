"""How the transformer of a model is run: by torch or by OpenVINO, in fp32, bf16 or int8.

sentence-transformers still reads the texts, adds prompts and pools. Only the forward pass of the transformer is
replaced. OpenVINO needs the model in its own format. The conversion takes seconds, so the converted model is kept in
the folder of the encoding cache.
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import io
import json
import logging
import os
import platform
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hybridsearch.encoders.cache import CHOICES, GRAPHS, cache_folder
from hybridsearch.errors import InvalidArgumentError, MissingExtraError
from hybridsearch.forks import Lock
from hybridsearch.messages import warn

log = logging.getLogger(__name__)

Precision: TypeAlias = Literal["auto", "fp32", "bf16", "int8"]
"""Number format of the computation.

- `"fp32"`: the vectors of sentence-transformers.
- `"bf16"`: about twice as fast on processors and GPUs that have it. The cosine with fp32 is above .9999 for most dense
  models, and above .999 for SPLADE.
- `"int8"`: the fastest, by OpenVINO, for a folder that `hybridsearch.optimize` wrote.
- `"auto"`: what is fastest on this machine and loses at most .0001 of cosine.
"""

Runtime: TypeAlias = Literal["torch", "openvino"]
"""Library that runs the transformer."""

INT8 = "openvino-int8"
"""Folder with the int8 graphs, within the folder of a model."""

_LOSS = 1e-4
_MULTIPLE, _SHORT = 8, 128  # tokens; up to 128, a single text is padded to a multiple of 8
_converting = Lock()
_SAMPLE = [
    "The angle of attack decides how much lift a wing gives, until the flow separates and the wing stalls. " * 4,
    "Squealing brakes need clean discs. Take the wheel off, and clean the disc with alcohol. " * 5,
    "Die Kosten der Reparatur hängen von den Teilen ab. " * 8,
    "def read(path): return json.loads(path.read_text())  # the settings of the program " * 4,
    "In a trial with 1,204 patients, 20 mg a day lowered blood pressure by 8.5 mmHg (95 % CI 6.1 to 10.9). " * 3,
    "What is the capital of France?",
]
_PAIR = [("How does a wing make lift?", "Lift grows with the angle of attack."), ("Stall", "The flow separates.")]
_OTHER_PAIRS = [*_PAIR, ("What is a boundary layer?", "The layer of slow air at a wing. " * 3)]


@dataclass(frozen=True, slots=True)
class Way:
    """A way to run a transformer.

    Attributes:
        precision: Number format of the computation.
        runtime: Library that runs the transformer.
    """

    precision: Literal["fp32", "bf16", "int8"] = "fp32"
    runtime: Runtime = "torch"

    def __str__(self) -> str:
        return f"{self.precision} by {self.runtime}"


def use(model: Any, way: Way, folder: Path, made_of: str) -> None:
    """Make a loaded model run in another way. The model is changed in place, and cannot be trained after it.

    Args:
        model: Model of sentence-transformers.
        way: How its transformers are run from now on.
        folder: Folder of the model.
        made_of: What the loaded model depends on: the digest of its content, and the arguments for torch.

    Raises:
        InvalidArgumentError: The model cannot be run in this way.
        MissingExtraError: OpenVINO is not installed.
    """
    if way == Way():
        return
    pools = [one for one in model.modules() if type(one).__name__ == "SpladePooling" and one.pooling_strategy == "max"]
    for number, part in enumerate(_transformers(model)):
        if way.runtime == "openvino":
            _use_openvino(part, way.precision, f"{made_of}-{number}", folder / INT8 / f"{number}.xml", keeps=not pools)
        else:
            _use_bf16(part, is_scorer=type(model).__name__ == "CrossEncoder")
    for pooling in pools:
        pooling.forward = partial(_pool_largest, pooling)


def leave(model: Any) -> None:
    """Never free a model that a forked process has inherited: OpenVINO would join threads that do not exist there."""
    gc.freeze()
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(model))


def _transformers(model: Any) -> list[Any]:
    """The modules of a model that hold a transformer."""
    from sentence_transformers.base.modules import Transformer

    return [module for module in model.modules() if isinstance(module, Transformer)]


def _use_bf16(part: Any, *, is_scorer: bool) -> None:
    """Run a transformer in bf16 by torch. The last layer of a cross-encoder stays fp32, so that scores differ."""
    import torch

    device = part.model.device.type
    linear = [module for module in part.model.modules() if isinstance(module, torch.nn.Linear)]
    head = linear.pop() if is_scorer and linear else None
    if device == "cpu":  # else the weights would be converted again for each batch
        for module in linear:
            for name, weight in list(module.named_parameters(recurse=False)):
                setattr(module, name, torch.nn.Parameter(weight.detach().bfloat16(), requires_grad=False))
    if head is not None:
        head.forward = partial(_in_fp32, head.forward, device)
    part.model.forward = partial(_in_bf16, part.model.forward, device)


def _in_bf16(forward: Callable[..., Any], device: str, *args: Any, **kwargs: Any) -> Any:
    import torch

    with torch.autocast(device, torch.bfloat16):
        return forward(*args, **kwargs)


def _in_fp32(forward: Callable[..., Any], device: str, states: Any) -> Any:
    import torch

    with torch.autocast(device, enabled=False):
        return forward(states.float())


def _pool_largest(pooling: Any, features: dict[str, Any]) -> dict[str, Any]:
    """The pooling of SPLADE, in fp32. Its activation is monotone, so it is computed of the largest logits alone."""
    import torch

    logits, mask = features["token_embeddings"], features["attention_mask"].bool()
    largest = [
        (of_text if of_mask.all() else of_text[of_mask]).amax(0) for of_text, of_mask in zip(logits, mask, strict=True)
    ]
    pooled = torch.stack(largest).float().relu_().log1p_()
    features["sentence_embedding"] = pooled.log1p_() if pooling.activation_function == "log1p_relu" else pooled
    pooling.embedding_dimension = pooling.embedding_dimension or pooled.shape[1]
    return features


class _Compiled:
    """The forward pass of a transformer by OpenVINO. Several threads may call it.

    Each caller has as many threads as torch gives it. The workers that share a list of batches have one or a few, and a
    caller with a single batch has all. The graph is compiled for each of the two when it is first needed.

    Args:
        graph: The graph.
        precision: Number format of the computation.
        names: Names of the inputs, in the order of the graph.
        output: Name of the output.
        keeps: Whether the caller may keep the output. If not, it is valid until the next call in the same thread.
    """

    def __init__(self, graph: Any, precision: str, names: Sequence[str], output: str, keeps: bool) -> None:
        import torch

        self._graph, self._precision = graph, precision
        self._names, self._output, self._keeps = names, output, keeps
        self._threads = torch.get_num_threads()
        self._compiled: dict[int, Any] = {}
        self._compiling = Lock()
        self._requests = threading.local()

    def __call__(self, **features: Any) -> dict[str, Any]:
        import torch

        streams = max(self._threads // torch.get_num_threads(), 1)
        request = getattr(self._requests, f"of_{streams}", None)
        if request is None:
            with self._compiling:
                if streams not in self._compiled:
                    self._compiled[streams] = _compile(self._graph, self._precision, self._threads, streams)
            request = self._compiled[streams].create_infer_request()
            setattr(self._requests, f"of_{streams}", request)
        inputs = [features[name].numpy() for name in self._names]
        number, length = inputs[0].shape
        if number == 1 and length < _SHORT and "attention_mask" in self._names:
            # For each new length, OpenVINO prepares its loops again, which takes longer than a query.
            inputs = [np.pad(one, ((0, 0), (0, -length % _MULTIPLE))) for one in inputs]
        found = torch.from_numpy(request.infer(inputs, share_inputs=True, share_outputs=True)[0])
        found = found[:, :length] if found.ndim == 3 else found
        return {self._output: found.clone() if self._keeps else found}


def _use_openvino(part: Any, precision: str, key: str, int8: Path, *, keeps: bool) -> None:
    """Run a transformer by OpenVINO, and free the weights that torch holds. `keeps` is that of `_Compiled`."""
    if part.model.device.type != "cpu":
        raise InvalidArgumentError(
            f"OpenVINO runs models on the CPU here, not on {part.model.device}: leave out device."
        )
    if precision != "int8" and (others := _dtypes(part) - {"float32"}):
        raise InvalidArgumentError(
            f"OpenVINO needs the weights as float32, not as {min(others)}: give model_kwargs={{'dtype': 'float32'}}, "
            "and precision='bf16' for a faster computation."
        )
    names, output = _signature(part)
    graph = openvino().Core().read_model(int8) if precision == "int8" else _converted(part, key)
    part.model.forward = _Compiled(graph, precision, names, output, keeps)
    for weight in part.model.parameters():
        weight.data = weight.data.new_empty(0)


def _dtypes(model: Any) -> set[str]:
    """The number formats of the weights, such as "float32"."""
    return {str(weight.dtype).removeprefix("torch.") for weight in model.parameters()}


def _compile(graph: Any, precision: str, threads: int = 1, streams: int = 1) -> Any:
    """Compile a graph. `streams` batches are computed at once, and they share the threads."""
    hints = {
        "INFERENCE_PRECISION_HINT": "f32" if precision == "fp32" else "bf16",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": streams,
        "ENABLE_CPU_PINNING": False,  # else the models of two processes would wait for the same core
    }
    return openvino().Core().compile_model(graph, "CPU", hints)


def openvino() -> Any:
    """The module `openvino`. Raises MissingExtraError if it is not installed."""
    try:
        import openvino as module
    except ModuleNotFoundError as error:
        raise MissingExtraError("openvino", "openvino", "runtime='openvino'") from error
    with _converting:  # two threads that convert their first arrays at once would wait for each other for ever
        _ = module.Tensor(np.zeros(1, dtype=np.int64), shared_memory=True).data
    return module


class _Stop(Exception):  # noqa: N818 - not an error
    """Ends a forward pass whose arguments are all that is wanted."""


def _arguments(part: Any, inputs: Sequence[Any]) -> dict[str, Any]:
    """The arguments that a module gives to its transformer for texts or pairs of texts."""
    found: dict[str, Any] = {}

    def stop(**arguments: Any) -> None:
        found.update(arguments)
        raise _Stop

    own = part.model.forward
    part.model.forward = stop
    try:
        part(part.preprocess(list(inputs)))
    except _Stop:
        pass
    finally:
        part.model.forward = own
    return found


def _samples(part: Any, pairs: Sequence[tuple[str, str]]) -> Sequence[Any]:
    """Pairs of texts for the transformer of a cross-encoder, else the same texts one by one."""
    if "SequenceClassification" in type(part.model).__name__:
        return pairs
    return [text for pair in pairs for text in pair]


def _signature(part: Any) -> tuple[list[str], str]:
    """Names of the tensors that a transformer takes, and the name of its output."""
    import torch

    output = part.modality_config.get("text", {}).get("method_output_name")
    names = [name for name, value in _arguments(part, _samples(part, _PAIR)).items() if isinstance(value, torch.Tensor)]
    if not isinstance(output, str) or not names:
        raise InvalidArgumentError(
            f"OpenVINO cannot run this model, because its output is {output!r}: leave out runtime, or give 'torch'."
        )
    return sorted(names), output


def _converted(part: Any, key: str) -> Any:
    """The transformer as a graph of OpenVINO, from the cache if it is there."""
    import torch
    import transformers

    versions = [openvino().__version__, torch.__version__, transformers.__version__]
    kind = type(part.model).__name__  # one folder may be loaded with and without its head
    name = hashlib.sha256(json.dumps([key, kind, *versions]).encode()).hexdigest()[:16]
    folder = cache_folder()
    kept = None if folder is None else folder / GRAPHS / name
    if kept is not None and (kept / "model.xml").exists():
        return openvino().Core().read_model(kept / "model.xml")
    what = "The result is kept" if kept is not None else "There is no cache, so each process does it again"
    log.warning("OpenVINO converts a %s, which takes about ten seconds. %s.", type(part.model).__name__, what)
    graph = convert(part)
    if kept is not None:
        with _whole(kept) as new:
            new.mkdir()
            openvino().save_model(graph, new / "model.xml", compress_to_fp16=False)
    return graph


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A new path that gets the name `path` only when it is complete. Another process may have made the same one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        yield Path(folder, path.name)
        with suppress(OSError):
            Path(folder, path.name).rename(path)


def convert(part: Any) -> Any:
    """Convert a transformer to a graph of OpenVINO with any number of texts and tokens, and compare both.

    Args:
        part: Module of sentence-transformers that holds the transformer.

    Raises:
        InvalidArgumentError: The graph gives other numbers than the transformer, so it cannot be used.
    """
    import torch
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    names, output = _signature(part)

    class Traced(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.inner = part.model

        def forward(self, *tensors: Any) -> Any:
            return self.inner(**dict(zip(names, tensors, strict=True)), return_dict=True)[output]

    def tensors(pairs: Sequence[tuple[str, str]]) -> tuple[Any, ...]:
        arguments = _arguments(part, _samples(part, pairs))
        return tuple(arguments[name] for name in names)

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the trace, which is compared below
        decoder = TorchScriptPythonDecoder(Traced(), example_input=tensors(_PAIR))
        frontend = FrontEndManager().load_by_framework("pytorch")  # not convert_model, which sends telemetry
        graph = frontend.convert(frontend.load(decoder))
        others = tensors(_OTHER_PAIRS)
        wanted = Traced()(*others).numpy()
    found = _compile(graph, "fp32")([tensor.numpy() for tensor in others])[0]
    seen = others[names.index("attention_mask")].numpy().astype(bool) if "attention_mask" in names else ...
    rows = seen if found.ndim == 3 else ...
    if found.shape != wanted.shape or not np.allclose(found[rows], wanted[rows], rtol=1e-3, atol=1e-3):
        raise InvalidArgumentError(
            f"OpenVINO cannot run this model ({type(part.model).__name__}), because its graph gives other numbers: "
            "leave out runtime, or give 'torch'."
        )
    return graph


def quantize(model: Any, inputs: Sequence[str] | Sequence[tuple[str, str]], folder: Path) -> None:
    """Quantise the transformers of a model to int8, and write their graphs into the folder of the model.

    nncf takes the ranges of numbers from the inputs (post-training quantisation).

    Args:
        model: Model of sentence-transformers, as it was loaded.
        inputs: Texts, or pairs of texts for a cross-encoder.
        folder: Folder of the model. It gets the folder `openvino-int8`.

    Raises:
        MissingExtraError: nncf is not installed.
        InvalidArgumentError: OpenVINO cannot run the model.
    """
    os.environ.setdefault("NNCF_CI", "1")  # else nncf sends telemetry
    try:
        import nncf
    except ModuleNotFoundError as error:
        raise MissingExtraError("nncf", "openvino", "Quantising a model") from error
    nncf.set_log_level(logging.ERROR)
    for number, part in enumerate(_transformers(model)):
        graph = convert(part)
        names, _ = _signature(part)
        with redirect_stdout(io.StringIO()):  # progress bars
            quantized = nncf.quantize(
                graph,
                nncf.Dataset(list(inputs), lambda one, part=part, names=names: _arrays(part, names, [one])),
                model_type=nncf.ModelType.TRANSFORMER,
                preset=nncf.QuantizationPreset.MIXED,
                subset_size=len(inputs),
            )
        openvino().save_model(quantized, folder / INT8 / f"{number}.xml", compress_to_fp16=False)


def _arrays(part: Any, names: Sequence[str], inputs: Sequence[Any]) -> list[NDArray[Any]]:
    """The tensors that a transformer takes for texts or pairs, as arrays, in the order of `names`."""
    arguments = _arguments(part, inputs)
    return [arguments[name].numpy() for name in names]


@dataclass(frozen=True, slots=True)
class Choice:
    """What `precision="auto"` has chosen for a model on this machine.

    Attributes:
        model: Name of the model.
        way: The chosen way.
        speed: How many times as fast it is as fp32 by torch, on one thread.
        cosine: Smallest cosine with fp32 by torch.
    """

    model: str
    way: Way
    speed: float
    cosine: float

    def __str__(self) -> str:
        if self.way == Way():
            return f"precision='auto' runs {self.model} in {self.way}: nothing that is installed is faster and as good"
        return (
            f"precision='auto' runs {self.model} in {self.way}: {self.speed:.1f} times as fast as fp32 by torch, "
            f"smallest cosine {self.cosine:.5f}"
        )


def choose(load: Callable[[Way], Any], name: str, made_of: str, runtime: Runtime | None) -> Way:
    """Find the fastest way to run a model on this machine that loses at most .0001 of cosine on a few texts.

    The choice is made once for each model, machine and version of the libraries. It is then read from a file.

    Args:
        load: Function that loads the model in a way.
        name: Name of the model, for messages.
        made_of: What the loaded model depends on: the digest of its content, the arguments for torch, and the device.
        runtime: The only library to look at. None for all that are installed.
    """
    import torch

    key = [made_of, runtime, platform.processor(), platform.node(), *map(_version, ("torch", "openvino"))]
    folder = cache_folder()
    file = folder / CHOICES / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]}.json" if folder else None
    known = None if file is None else _read_choice(file)
    if known is not None:
        return known.way
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a batch is computed by one thread, and OpenVINO gives one to each batch
    try:
        choice = _fastest(load, name, runtime)
    finally:
        torch.set_num_threads(threads)
    if file is not None:
        with suppress(OSError), _whole(file) as new:
            new.write_text(json.dumps(asdict(choice)), encoding="utf-8")
    warn(f"{choice}.")
    return choice.way


def choices() -> list[Choice]:
    """What `precision="auto"` has chosen on this machine, by the name of the model."""
    folder = cache_folder()
    found = [_read_choice(file) for file in (folder / CHOICES).glob("*.json")] if folder else []
    return sorted((one for one in found if one is not None), key=lambda one: one.model)


def _fastest(load: Callable[[Way], Any], name: str, runtime: Runtime | None) -> Choice:
    exact = load(Way())
    wanted, slowest = _measured(exact)
    best = Choice(name, Way(runtime=runtime or "torch"), 1.0, 1.0)
    ways = [Way("bf16", "torch"), Way("fp32", "openvino"), Way("bf16", "openvino")]
    if exact.device.type != "cpu" or _version("openvino") is None or _dtypes(exact) != {"float32"}:
        ways = ways[:1]
    del exact
    for way in ways:
        if runtime in (None, way.runtime):
            rows, seconds = _measured(load(way))
            lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(wanted, axis=1)
            cosine = float((np.einsum("ij,ij->i", rows, wanted) / lengths).min())
            if cosine >= 1 - _LOSS and slowest / seconds > 1.05 * best.speed:
                best = Choice(name, way, slowest / seconds, cosine)
    return best


def _measured(model: Any) -> tuple[NDArray[np.float64], float]:
    """The vectors of the sample, of its tokens, or one vector with its scores, and the shortest time of three runs."""
    import torch
    from sentence_transformers.util import batch_to_device

    scores = type(model).__name__ == "CrossEncoder"
    late = type(model).__name__ == "MultiVectorEncoder"
    output = "scores" if scores else "token_embeddings" if late else "sentence_embedding"
    route = {} if scores else {"task": "document"}
    features = model.preprocess([(text, text[::2]) for text in _SAMPLE] if scores else _SAMPLE, **route)
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        with torch.inference_mode():
            found = model(batch_to_device(dict(features), model.device), **route)
            made = found[output][found["attention_mask"].bool()] if late else found[output]
            rows: NDArray[np.float64] = made.double().cpu().numpy()
        seconds.append(time.perf_counter() - start)
    return rows.reshape(1, -1) if scores else rows, min(seconds[1:])


def _read_choice(file: Path) -> Choice | None:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        return Choice(**{**data, "way": Way(**data["way"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
