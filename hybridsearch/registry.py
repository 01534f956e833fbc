"""Names of adapters, encoders, fusions and rerankers, and the class that each stands for.

An index remembers what it was made with by these names alone. A file never says which module to import.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from hybridsearch.arguments import shown
from hybridsearch.errors import HybridSearchError, InvalidArgumentError, MissingExtraError

Kind: TypeAlias = Literal["backend", "encoder", "fusion", "reranker"]

ENTRY_POINTS = "hybridsearch.backends"
"""Entry-point group of third-party adapters: scheme = "module:Class", called as `Class(location, **options)`."""


@dataclass(frozen=True, slots=True)
class _Registered:
    target: str | type
    extra: str = ""  # what installs the packages it needs

    @property
    def path(self) -> str:
        """`module:Class`."""
        target = self.target
        return target if isinstance(target, str) else f"{target.__module__}:{target.__qualname__}"


_REGISTERED: dict[Kind, dict[str, _Registered]] = {
    "backend": {
        "memory": _Registered("hybridsearch.adapters.memory:MemoryBackend"),
        "opensearch": _Registered("hybridsearch.adapters.opensearch:OpenSearchBackend", "opensearch"),
        "elasticsearch": _Registered("hybridsearch.adapters.elasticsearch:ElasticsearchBackend", "elasticsearch"),
        "qdrant": _Registered("hybridsearch.adapters.qdrant:QdrantBackend", "qdrant"),
        "seismic": _Registered("hybridsearch.adapters.seismic:SeismicBackend", "seismic"),
    },
    "encoder": {
        "bm25": _Registered("hybridsearch.encoders.bm25:BM25"),
        "sparse": _Registered("hybridsearch.encoders.sparse:Sparse"),
        "dense": _Registered("hybridsearch.encoders.dense:Dense"),
        "native": _Registered("hybridsearch.encoders.native:NativeBM25"),
    },
    "fusion": {
        "rrf": _Registered("hybridsearch.fusion.rrf:RRF"),
        "score": _Registered("hybridsearch.fusion.score:ScoreFusion"),
        "adaptive": _Registered("hybridsearch.fusion.adaptive:AdaptiveFusion"),
    },
    "reranker": {"cross-encoder": _Registered("hybridsearch.rerank.cross_encoder:CrossEncoderReranker")},
}


def register(kind: Kind, name: str, target: str | type, extra: str = "") -> None:
    """Let `name` stand for a class, so that a saved index can make it again.

    Args:
        kind: "backend", "encoder", "fusion" or "reranker".
        name: for a backend the scheme of its URLs; else the "type" of what its `to_json` or schema says.
        target: the class, or "module:Class", which is imported at first use.
        extra: of hybridsearch, which installs the packages that the class needs.

    Raises:
        InvalidArgumentError: the name stands for another class already, or an argument is not such.
    """
    given = _Registered(target, extra)
    if not isinstance(name, str) or not name:
        raise InvalidArgumentError(f"A {kind} is registered by a name, not by {shown(name)}.")
    if not isinstance(target, type) and not (isinstance(target, str) and all(target.partition(":"))):
        raise InvalidArgumentError(f"A {kind} is registered as a class or as 'module:Class', not as {target!r:.80}.")
    there = _of_kind(kind).setdefault(name, given)
    if there.path != given.path:
        raise InvalidArgumentError(
            f"The {kind} {name!r} is registered as {there.path}, so {given.path} needs another name."
        )


def registered(kind: Kind) -> Mapping[str, str]:
    """Name -> "module:Class" of all that are known, in the order of their names; read-only.

    >>> list(registered("fusion"))
    ['adaptive', 'rrf', 'score']
    """
    known = {name: one.path for name, one in _of_kind(kind).items()}
    if kind == "backend":
        known = {point.name: point.value for point in entry_points(group=ENTRY_POINTS)} | known
    return MappingProxyType(dict(sorted(known.items())))


def find(kind: Kind, name: str) -> Any:
    """The class that `name` stands for, imported if it was not yet.

    Raises:
        InvalidArgumentError: none is known by that name.
        MissingExtraError: a package that it needs is not installed.
    """
    known = _of_kind(kind)
    if not isinstance(name, str):
        raise InvalidArgumentError(f"A {kind} is known by a name, such as {next(iter(known))!r}, not by {shown(name)}.")
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
    for point in entry_points(group=ENTRY_POINTS) if kind == "backend" else ():
        if point.name == name:
            return point.load()
    others = ", or a folder's path" if kind == "backend" else ""
    own = "" if kind == "backend" else f" (hybridsearch.registry.register adds a {kind} of your own)"
    raise InvalidArgumentError(
        f"No {kind} {shown(name)} is known: known are {', '.join(registered(kind))}{others}{own}."
    )


def make(kind: Kind, description: Mapping[str, Any]) -> Any:
    """What an index remembers as `{"type": name, **constructor arguments}`.

    Raises:
        InvalidArgumentError: the name is not known, or its class does not take the arguments.

    >>> make("fusion", {"type": "rrf", "k": 10})
    RRF(k=10)
    """
    if not isinstance(description, Mapping):
        raise InvalidArgumentError(f"A {kind} is described as {{'type': name, ...}}, not as {shown(description)}.")
    arguments = dict(description)
    name = arguments.pop("type", None)
    if "trust_remote_code" in arguments:  # we never write it: who opens a file need not trust who made it
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
        raise InvalidArgumentError(f"What is registered is a {', '.join(_REGISTERED)}, not a {shown(kind)}.")
    return _REGISTERED[kind]
