"""The errors that hybridsearch raises.

A message says what was given, what is allowed and what to do next. Catch `HybridSearchError` to catch all of them. The
command line prints the message and exits with 1.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hybridsearch.messages import number_of, redacted


class HybridSearchError(Exception):
    """Base class of all errors that hybridsearch raises.

    Passwords and keys in a message are replaced by `***`.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*(redacted(one) if isinstance(one, str) else one for one in args))

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self), self.args), vars(self)  # errors may come from a worker process


def _again(kind: type[HybridSearchError], args: tuple[object, ...]) -> HybridSearchError:
    error = kind.__new__(kind)
    error.args = args
    return error


class InvalidArgumentError(HybridSearchError, ValueError):
    """An argument has a value that is not allowed."""


class NoSplitError(InvalidArgumentError):
    """A data set has no judgements for the split that was named."""


class NoRetrieverError(InvalidArgumentError):
    """A search has no retriever to ask, because the fusion gives the weight 0 to all of them, or none for feedback."""


class DocumentError(HybridSearchError, ValueError):
    """A document, or a line of a file that should hold a document, is not usable."""


class FilterError(HybridSearchError, ValueError):
    """A filter does not follow the language of `hybridsearch.filters`, or cannot be compared with the documents."""


class MissingExtraError(HybridSearchError, ImportError):
    """A package that is not always needed is not installed.

    The message has the `pip` command that installs it.
    """

    def __init__(self, package: str, extra: str | None, purpose: str) -> None:
        command = f"pip install {package}" if extra is None else install_command(extra)
        super().__init__(f"{purpose} needs the package {package!r}, which is not installed: run `{command}`.")


def install_command(extra: str) -> str:
    """The pip command that installs an extra.

    If hybridsearch was installed from a folder or a file that is still there, the command names it. An image does not
    have the folder that it was built from.
    """
    from importlib import metadata
    from urllib.parse import unquote, urlsplit

    try:
        origin = metadata.distribution("hybridsearch").read_text("direct_url.json")
        parts = urlsplit(json.loads(origin)["url"] if origin else "")
        source = Path(unquote(parts.path)) if parts.scheme == "file" else None
    except (metadata.PackageNotFoundError, ValueError, KeyError, TypeError):
        source = None
    checkout = Path(__file__).parents[1]
    if source is None and (checkout / "pyproject.toml").is_file():
        source = checkout
    if source is None or not source.exists():
        return f"pip install 'hybridsearch[{extra}]'"
    return f"pip install '{'.' if source == Path.cwd() else source}[{extra}]'"


class ModelNotFoundError(HybridSearchError, FileNotFoundError):
    """A model was not found in the folder that was named, or in the local cache of the model hub."""


class DatasetNotFoundError(HybridSearchError, FileNotFoundError):
    """A data set was not found in the folder that was named, in the local cache of the hub, or on the hub."""


class EncodingError(HybridSearchError, ValueError):
    """An encoder gave vectors that cannot be stored or searched, for example with NaN."""


class TrainingError(HybridSearchError):
    """Training cannot go on, for example because the loss is NaN.

    The checkpoints that were written before the error are intact.
    """


class FingerprintMismatchError(HybridSearchError):
    """An index was built with another encoder than the given one."""


class IndexNotFoundError(HybridSearchError, FileNotFoundError):
    """There is no index at the given place."""


class IndexExistsError(HybridSearchError, FileExistsError):
    """There is already something at the place of a new index."""


class IndexLockedError(HybridSearchError):
    """Another process is writing to the index."""


class IndexCorruptedError(HybridSearchError):
    """A file of the index is damaged.

    The message names the file.
    """


class StorageError(HybridSearchError, OSError):
    """The storage cannot be written or read, for example because the disk is full or a permission is missing.

    Everything that was committed before the error is intact.
    """


class BackendError(HybridSearchError):
    """An engine does not answer, refuses a request, or cannot do what was asked."""


class BulkIndexError(BackendError):
    """The engine refused some documents, and stored all others.

    Attributes:
        failed: A pair of document id and reason for each refused document.
    """

    def __init__(self, failed: Sequence[tuple[str, str]]) -> None:
        self.failed = list(failed)
        shown = "; ".join(f"{id!r}: {reason}" for id, reason in self.failed[:3])
        more = f" and {len(self.failed) - 3} more" if len(self.failed) > 3 else ""
        were = number_of(len(self.failed), "document was", "documents were")
        super().__init__(f"{were} refused ({shown}{more}). All others are stored.")


class RetrieverError(BackendError):
    """A retriever that is not optional failed, or all retrievers failed."""


class RetrieverTimeoutError(RetrieverError, TimeoutError):
    """A retriever that is not optional took longer than its timeout."""
