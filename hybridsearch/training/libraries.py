"""Import the libraries of the extra "training", with one kind of error for a missing library."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Iterable
from importlib import metadata
from typing import Any

from hybridsearch.errors import MissingExtraError


def import_library(module: str, purpose: str, package: str | None = None) -> Any:
    """Import a module of an optional library.

    Args:
        module: Name of the module.
        purpose: What needs the module. It is the start of the error's sentence, such as "Training".
        package: Name of the library for pip. None takes the first part of the module's name.

    Returns:
        The module.

    Raises:
        MissingExtraError: The library is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise _missing(package or module.partition(".")[0], purpose) from error


def import_datasets() -> Any:
    """Import the module datasets of Hugging Face.

    Raises MissingExtraError if it is not installed.
    """
    return import_library("datasets", "Training")


def check_libraries() -> None:
    """Raise MissingExtraError if a library that training needs is not installed.

    Nothing is imported.
    """
    for name in ("torch", "transformers", "sentence_transformers", "datasets", "accelerate"):
        if not is_installed(name):
            raise _missing(name, "Training")


def is_installed(module: str) -> bool:
    """Whether a module can be imported, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # sys.modules has None for it
        return False


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """The versions of the packages that are installed."""
    return {name: version for name in packages if (version := _version_of(name)) is not None}


@functools.cache
def _version_of(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _missing(library: str, purpose: str) -> MissingExtraError:
    return MissingExtraError(library.replace("_", "-"), "training", purpose)
