"""Places of indexes: how to connect to a place, and how to open the index there again.

A place is `"memory"`, a folder, the URL of an engine, or a `Backend`.
"""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from hybridsearch import arguments
from hybridsearch.arguments import shown
from hybridsearch.backends import Backend
from hybridsearch.errors import BackendError, InvalidArgumentError
from hybridsearch.messages import redacted
from hybridsearch.registry import find, registered

S = TypeVar("S")


def connect(target: str | Path | Backend, options: Mapping[str, Any] | None = None) -> Backend:
    """Make the backend for a place, without opening the index.

    Args:
        target: Place of the index: `"memory"`, a folder, a URL such as `"opensearch://host:9200/name"`, or a `Backend`.
        options: Keyword arguments of the backend's class. They are allowed only with `"memory"`, a folder or a URL.

    Returns:
        The backend. A `Backend` is returned as it is.

    Raises:
        InvalidArgumentError: The URL's scheme is unknown, or the backend does not have an option.
        MissingExtraError: A package that the backend needs is not installed.
    """
    if not isinstance(options, Mapping | None) or not all(isinstance(name, str) for name in options or ()):
        raise InvalidArgumentError(
            f"The options of a backend are a mapping, such as {{'shards': 3}}, not {shown(options)}."
        )
    options = dict(options or {})
    if not isinstance(target, str | Path):
        if isinstance(target, type) or not isinstance(target, Backend):
            given = f"the class {target.__name__}" if isinstance(target, type) else type(target).__name__
            raise InvalidArgumentError(f"A backend is 'memory', a folder, a URL or a Backend, not {given}.")
        if options:
            raise InvalidArgumentError(
                "Options need a backend that is given by its place: give the place, or set the options of the object."
            )
        return target
    location = str(target)
    if not location.strip():
        raise InvalidArgumentError("The backend's place is empty: give 'memory', a folder or a URL.")
    if "\0" in location:
        raise InvalidArgumentError(
            f"The place of the index is {redacted(location)!r:.80}, but it cannot hold a zero byte."
        )
    head, colon, rest = location.partition(":")
    scheme = head.partition("+")[0]
    if not rest.startswith("//"):
        if colon and scheme in registered("backend"):  # a pathlib.Path makes "://" to ":/"
            raise InvalidArgumentError(
                f"A URL that begins with {head + colon!r} lacks the '//': write {head}://host/name as text, or put ./ "
                "before the name of a folder."
            )
        scheme = "memory"
    if scheme in ("http", "https") and scheme not in registered("backend"):
        tls = "+https" if scheme == "https" else ""
        raise InvalidArgumentError(
            f"{scheme}:// does not say which engine is there: write opensearch{tls}://, elasticsearch{tls}:// or "
            f"qdrant{tls}://{'' if tls else ', or opensearch+https:// and so on for TLS'}, as in "
            f"opensearch{tls}://{redacted(location).partition('://')[2]}."
        )
    factory = find("backend", scheme)
    _check_options(scheme, factory, options)
    backend: Backend = factory(None if location == "memory" else location, **options)
    return backend


@contextmanager
def connected(target: str | Path | Backend, options: Mapping[str, Any] | None = None) -> Iterator[Backend]:
    """Make the backend for a place, as `connect` does. After an error it is closed, unless the caller gave it."""
    backend = connect(target, options)
    try:
        yield backend
    except BaseException:
        if backend is not target:
            backend.close()
        raise


def place_name(place: str | Path | Backend) -> str:
    """Name of a place for messages: a folder, a URL without passwords, or the class of a `Backend`."""
    return redacted(place) if isinstance(place, str | Path) else type(place).__name__


@dataclass(frozen=True, slots=True)
class Recipe(Generic[S]):
    """How a search opened its index. Calling the recipe opens the index again.

    Attributes:
        make: Class or function that opened the index.
        argument: Name of its argument for the place.
        place: Place of the index.
        options: The other arguments.
    """

    make: Callable[..., S]
    argument: str
    place: str | Path | Backend
    options: Mapping[str, Any]

    def __call__(self) -> S:
        return self.make(**{self.argument: self.place}, **self.options)

    def on(self, backend: Backend) -> S:
        """The same search on a backend that is open already."""
        named = {"_recipe": self} if self.argument == "backend" else {}  # so that errors name the place
        return replace(self, place=backend, options={**self.options, "backend_options": None, **named})()

    def placed(self, **settings: Any) -> Recipe[S]:
        """The same recipe with these settings and an absolute path, so that it works in any working folder."""
        place = self.place
        if isinstance(place, str | Path) and "://" not in str(place):
            place = arguments.path("The place of the index", place).absolute()
        return replace(self, place=place, options={**self.options, **settings})

    def check_pickles(self) -> None:
        """Raises BackendError if a part cannot be pickled."""
        parts = {"backend": self.place, **self.options, **(self.options["retrievers"] or {})}
        del parts["retrievers"]
        for name, value in parts.items():
            try:
                pickle.dumps(value)
            except Exception as error:  # an object may raise anything
                raise BackendError(
                    f"This search cannot be pickled, because {name!r}, a {type(value).__name__}, cannot ({error}): "
                    "give a backend by its place, a model by its name, and objects of your own that can be pickled."
                ) from error


def _check_options(scheme: str, factory: Callable[..., Backend], options: Mapping[str, Any]) -> None:
    parameters = list(inspect.signature(factory).parameters.values())
    known = [p.name for p in parameters[1:] if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    unknown = [name for name in options if name not in known]
    if unknown and not any(p.kind is p.VAR_KEYWORD for p in parameters):
        has = f"Its options are {', '.join(known)}" if known else "It has none"
        raise InvalidArgumentError(f"The {scheme} backend has no option {unknown[0]!r}. {has}.")
