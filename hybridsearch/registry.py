"""The registry of backends, encoders, tokenizers, fusions and rerankers, where each name stands for a class.

An index stores only these names. So a file of an index cannot decide which module is imported.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from hybridsearch.arguments import shown
from hybridsearch.errors import HybridSearchError, InvalidArgumentError, MissingExtraError

Kind: TypeAlias = Literal["backend", "encoder", "tokenizer", "fusion", "reranker"]

ENTRY_POINTS: dict[str, str] = {"backend": "hybridsearch.backends", "tokenizer": "hybridsearch.tokenizers"}
"""Entry-point groups of other packages, by kind. A backend is scheme = "module:Class", called as
`Class(location, **options)`. A tokenizer is name = "module:function"."""


@dataclass(frozen=True, slots=True)
class _Registered:
    target: str | Callable[..., Any]
    extra: str = ""  # extra that installs the packages of the class

    @property
    def path(self) -> str:
        """`module:Class`."""
        target = self.target
        if isinstance(target, str):
            return target
        module = getattr(target, "__module__", None) or "builtins"  # `str.split` has none
        return f"{module}:{getattr(target, '__qualname__', target)}"


_REGISTERED: dict[Kind, dict[str, _Registered]] = {
    "backend": {
        "memory": _Registered("hybridsearch.adapters.memory:MemoryBackend"),
        **dict.fromkeys(("s3", "gs", "az", "hf"), _Registered("hybridsearch.adapters.memory:RemoteBackend")),
        "opensearch": _Registered("hybridsearch.adapters.opensearch:OpenSearchBackend", "opensearch"),
        "elasticsearch": _Registered("hybridsearch.adapters.elasticsearch:ElasticsearchBackend", "elasticsearch"),
        "qdrant": _Registered("hybridsearch.adapters.qdrant:QdrantBackend", "qdrant"),
        "seismic": _Registered("hybridsearch.adapters.seismic:SeismicBackend", "seismic"),
    },
    "encoder": {
        "bm25": _Registered("hybridsearch.encoders.bm25:BM25"),
        "chars": _Registered("hybridsearch.encoders.char_ngrams:CharNGrams"),
        "sparse": _Registered("hybridsearch.encoders.sparse:Sparse"),
        "dense": _Registered("hybridsearch.encoders.dense:Dense"),
        "late-interaction": _Registered("hybridsearch.rerank.late_interaction:LateInteraction"),
        "native": _Registered("hybridsearch.encoders.native:NativeBM25"),
        "haystack": _Registered("hybridsearch.integrations.haystack:EmbeddingsEncoder", "haystack"),
    },
    "tokenizer": {},
    "fusion": {
        "rrf": _Registered("hybridsearch.fusion.rrf:RRF"),
        "score": _Registered("hybridsearch.fusion.score:ScoreFusion"),
        "adaptive": _Registered("hybridsearch.fusion.adaptive:AdaptiveFusion"),
        "judged": _Registered("hybridsearch.fusion.judged:JudgedFusion"),
    },
    "reranker": {
        "cross-encoder": _Registered("hybridsearch.rerank.cross_encoder:CrossEncoderReranker"),
        "late-interaction": _Registered("hybridsearch.rerank.late_interaction:LateInteraction"),
    },
}


def register(kind: Kind, name: str, target: str | Callable[..., Any], extra: str = "") -> None:
    """Register a class under a name, so that `hs.open` can make it again.

    If a class is defined again, for example in a notebook, register it again.

    Args:
        kind: Kind of the class: `"backend"`, `"encoder"`, `"fusion"` or `"reranker"`. A `"tokenizer"` is a function
            from a text to its terms.
        name: Name to register. For a backend it is the scheme of its URLs. For a tokenizer it is the name in
            `BM25(tokenizer=...)`. For another kind it is the `"type"` in the class's `to_json` or schema.
        target: Class, or `"module:Class"`, which is imported at first use. For a tokenizer a function.
        extra: Extra of hybridsearch that installs the packages of the class. `""` for no extra.

    Raises:
        InvalidArgumentError: The name stands for another class already, or an argument is not allowed.
    """
    given = _Registered(target, extra)
    if not isinstance(name, str) or not name:
        raise InvalidArgumentError(f"A {kind} is registered by a name, not by {shown(name)}.")
    what, of_kind = ("function", callable(target)) if kind == "tokenizer" else ("class", isinstance(target, type))
    if not of_kind and not (isinstance(target, str) and all(target.partition(":"))):
        raise InvalidArgumentError(
            f"A {kind} is registered as a {what} or as 'module:{what.capitalize()}', not as {target!r:.80}."
        )
    known = _of_kind(kind)
    there = known.get(name, given)
    if there.path != given.path:
        raise InvalidArgumentError(
            f"The {kind} {name!r} is registered as {there.path} already: register {given.path} under another name."
        )
    if name not in known or not isinstance(target, str):  # a notebook may define a class again
        known[name] = given


def registered(kind: Kind) -> Mapping[str, str]:
    """List the registered classes of one kind.

    Args:
        kind: Kind of the classes: `"backend"`, `"encoder"`, `"tokenizer"`, `"fusion"` or `"reranker"`.

    Returns:
        A read-only mapping from name to `"module:Class"`, ordered by name.

    >>> list(registered("fusion"))
    ['adaptive', 'judged', 'rrf', 'score']
    """
    known = {name: one.path for name, one in _of_kind(kind).items()}
    if kind in ENTRY_POINTS:
        known = {point.name: point.value for point in entry_points(group=ENTRY_POINTS[kind])} | known
    return MappingProxyType(dict(sorted(known.items())))


def name_of(kind: Kind, cls: type) -> str | None:
    """Look up the name of a class. None if the class is not registered, for example because it is a subclass.

    >>> from hybridsearch import RRF
    >>> name_of("fusion", RRF)
    'rrf'
    """
    path = _Registered(cls).path
    return next((name for name, known in registered(kind).items() if known == path), None)


def find(kind: Kind, name: str) -> Any:
    """Find the class that a name stands for, and import it if necessary.

    Args:
        kind: Kind of the class: `"backend"`, `"encoder"`, `"tokenizer"`, `"fusion"` or `"reranker"`.
        name: Name of the class.

    Returns:
        The class. For a tokenizer the function.

    Raises:
        InvalidArgumentError: The name is not known.
        MissingExtraError: A package that the class needs is not installed.
    """
    known = _of_kind(kind)
    if not isinstance(name, str):
        example = next(iter(known), "mine")
        raise InvalidArgumentError(f"A {kind} has a name, such as {example!r}, but {shown(name)} was given.")
    if one := known.get(name):
        if not isinstance(one.target, str):
            return one.target
        module, _, cls = one.target.partition(":")
        try:
            return getattr(importlib.import_module(module), cls)
        except ModuleNotFoundError as error:
            if not one.extra or (error.name or "").startswith("hybridsearch"):
                raise
            raise MissingExtraError(error.name or name, one.extra, f"The {name} {kind}") from error
    for point in entry_points(group=ENTRY_POINTS[kind]) if kind in ENTRY_POINTS else ():
        if point.name == name:
            return point.load()
    others = ", or a folder's path" if kind == "backend" else ""
    own = "" if kind == "backend" else f" (hybridsearch.registry.register adds your own {kind})"
    raise InvalidArgumentError(
        f"No {kind} {shown(name)} is known: known are {', '.join(registered(kind))}{others}{own}."
    )


def make(kind: Kind, description: Mapping[str, Any]) -> Any:
    """Make the object that an index stores as `{"type": name, **constructor arguments}`.

    Args:
        kind: Kind of the object: `"backend"`, `"encoder"`, `"fusion"` or `"reranker"`.
        description: Name and arguments of the object.

    Returns:
        The object.

    Raises:
        InvalidArgumentError: The name is not known, or its class does not take the arguments.

    >>> make("fusion", {"type": "rrf", "k": 10})
    RRF(k=10)
    """
    if not isinstance(description, Mapping):
        raise InvalidArgumentError(f"A {kind} is described as {{'type': name, ...}}, not as {shown(description)}.")
    arguments = dict(description)
    name = arguments.pop("type", None)
    if "trust_remote_code" in arguments:  # never stored, because a user may not trust the author of a file
        raise InvalidArgumentError(
            f"A file cannot let a {kind} run the code of its model: make the {kind} yourself, with "
            "trust_remote_code=True, and pass it."
        )
    cls = find(kind, name)
    try:
        return cls(**arguments)
    except HybridSearchError:
        raise
    except (TypeError, ValueError, AttributeError) as error:  # a file may hold anything
        raise InvalidArgumentError(f"The {kind} {name!r} does not take these arguments: {error}.") from error


def _of_kind(kind: Kind) -> dict[str, _Registered]:
    if not isinstance(kind, str) or kind not in _REGISTERED:
        raise InvalidArgumentError(f"A kind is one of {', '.join(_REGISTERED)}, not {shown(kind)}.")
    return _REGISTERED[kind]
