"""The arguments of a Haystack component as plain values, which YAML holds, and back."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from inspect import isfunction
from pathlib import Path
from typing import Any, Final

from haystack.core.errors import SerializationError
from haystack.utils import Secret, deserialize_callable, serialize_callable

from hybridsearch.encoders import Encoder, describe, make_encoder
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.feedback import RM3, Rocchio
from hybridsearch.fusion import Fusion, make_fusion
from hybridsearch.messages import redacted
from hybridsearch.passages import Passages
from hybridsearch.rerank import MMR, FieldBoost, Recency, Reranker, make_reranker

_SECRET: Final = re.compile(r"(?:^|_)(?:token|secret|password|key)$")
"""Names of options that hold a secret."""

_CLASSES: Final = {one.__name__: one for one in (MMR, Recency, FieldBoost, RM3, Rocchio)}


def to_plain(name: str, value: Any) -> Any:
    """An argument as a value that YAML holds. `from_plain` makes the argument again.

    Args:
        name: Name of the argument, for messages.
        value: The argument, or a list or mapping of arguments.

    Raises:
        SerializationError: The value cannot be written to YAML, or it has a secret in plain text.
        ValueError: The secret is a token. Haystack raises it.
    """
    plain = _to_plain(name, value)
    if plain is None and value is not None:
        raise SerializationError(
            f"{name} is {value!r:.80}, which cannot be written to a file: register its class by "
            "hybridsearch.registry.register, or give a model by its name."
        )
    return plain


def _to_plain(name: str, value: Any) -> Any:
    if isinstance(value, Secret):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {key: to_plain(f"{name}.{key}", _public(f"{name}.{key}", key, inner)) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value) if isinstance(value, set | frozenset) else value
        return [to_plain(name, item) for item in items]
    if isinstance(value, str | Path):
        return _public(name, "", str(value))
    if type(value).__name__ in _CLASSES:
        stored = {one.name: getattr(value, one.name) for one in fields(value) if one.init}
        return {"class": type(value).__name__, **{key: to_plain(f"{name}.{key}", one) for key, one in stored.items()}}
    if isinstance(value, Fusion | Reranker | Passages):  # LateInteraction is a reranker and an encoder
        return value.to_json()
    if isinstance(value, Encoder):
        described = describe(value)
        return None if described is None else to_plain(name, described)
    if isinstance(value, int | float | None):
        return value
    if isfunction(value):
        return serialize_callable(value)
    raise SerializationError(f"{name} is {value!r:.80}, which cannot be written to a file.")


def _public(name: str, key: str, value: Any) -> Any:
    """The value. Raises SerializationError if it has a password or a key in plain text."""
    entry = f"{key}={value}" if key else value
    may_hold_one = isinstance(value, str) and name.startswith(("place", "backend_options", "retrievers"))
    if may_hold_one and (redacted(entry) != entry or _SECRET.search(key)):
        raise SerializationError(
            f"{name} has a password or a key in plain text, which is not written to files: give "
            "Secret.from_env_var(...) of haystack.utils as the place or in backend_options, or leave it out."
        )
    return value


def from_plain(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of which `to_plain` made plain values, by name."""
    return {name: _from_plain(name, value) for name, value in arguments.items()}


def _from_plain(name: str, value: Any) -> Any:
    if name == "tokenizer" and isinstance(value, str):
        return deserialize_callable(value)
    if name in ("boost", "feedback") and isinstance(value, list):
        return [_object(one) for one in value]
    return _MAKERS[name](value) if name in _MAKERS and isinstance(value, Mapping) else value


def _secret(value: Any) -> Any:
    is_secret = isinstance(value, Mapping) and value.get("type") == "env_var"
    return Secret.from_dict(dict(value)) if is_secret else value


def _object(value: Any) -> Any:
    if not isinstance(value, Mapping) or value.get("class") not in _CLASSES:
        raise InvalidArgumentError(
            f"A boost, a diversity or a feedback is a dict whose class is one of {', '.join(_CLASSES)}, not "
            f"{value!r:.80}."
        )
    return _CLASSES[value["class"]](**{name: one for name, one in value.items() if name != "class"})


_MAKERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "place": _secret,
    "backend_options": lambda given: {name: _secret(one) for name, one in given.items()},
    "retrievers": lambda given: {name: make_encoder(one) for name, one in given.items()},
    "fusion": make_fusion,
    "reranker": make_reranker,
    "passages": Passages.from_json,
    "search_kwargs": from_plain,
    "boost": _object,
    "diversity": _object,
    "feedback": _object,
}


def secret_value(name: str, value: Any) -> Any:
    """The value of a secret, or the value itself if it is none.

    Raises:
        InvalidArgumentError: The environment has no value for the secret.
    """
    if not isinstance(value, Secret):
        return value
    try:
        found = value.resolve_value()
    except ValueError as error:
        raise InvalidArgumentError(f"The secret {name!r} has no value: {error}") from error
    if found is None:
        raise InvalidArgumentError(f"The secret {name!r} has no value: set its environment variable.")
    return found
