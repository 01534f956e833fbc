"""The libraries of the extra "training": imported where they are needed, and one error where one is missing."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable
from contextlib import suppress
from importlib import metadata
from typing import Any

from hybridsearch.errors import MissingExtraError


def import_library(module: str, purpose: str, package: str | None = None) -> Any:
    """A module of an optional library.

    Args:
        module: its name.
        purpose: what needs it, the start of the sentence that says so.
        package: what pip calls the library; None for the first part of the module's name.

    Raises:
        MissingExtraError: the library is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise _missing(package or module.partition(".")[0], purpose) from error


def import_datasets() -> Any:
    """The module datasets of Hugging Face. Raises MissingExtraError where it is not installed."""
    return import_library("datasets", "Training")


def check_libraries() -> None:
    """Raises MissingExtraError unless what training needs is installed; imports nothing."""
    for name in ("torch", "transformers", "sentence_transformers", "datasets", "accelerate"):
        if not is_installed(name):
            raise _missing(name, "Training")


def is_installed(module: str) -> bool:
    """Whether a module can be imported, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # it was put out of the way
        return False


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """The versions of those that are installed."""
    installed = {}
    for name in packages:
        with suppress(metadata.PackageNotFoundError):
            installed[name] = metadata.version(name)
    return installed


def _missing(library: str, purpose: str) -> MissingExtraError:
    return MissingExtraError(library.replace("_", "-"), "training", purpose)
