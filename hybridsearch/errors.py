"""Every error that hybridsearch raises on purpose.

Each message is one sentence or two: what was given, what is allowed, what to do next.
Catch `HybridSearchError` to catch them all; the command line prints the message and exits with 1.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hybridsearch.messages import number_of, redacted


class HybridSearchError(Exception):
    """The base of every error below. No message shows a password or a key (`hybridsearch.messages`)."""

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


class DocumentError(HybridSearchError, ValueError):
    """A document, or the line of a file that should hold one, is not usable."""


class FilterError(HybridSearchError, ValueError):
    """A filter does not follow the filter language of `hybridsearch.filters`."""


class MissingExtraError(HybridSearchError, ImportError):
    """An optional dependency is not installed. The message has the pip command of the extra, or of the package."""

    def __init__(self, package: str, extra: str | None, purpose: str) -> None:
        command = f"pip install {package}" if extra is None else install_command(extra)
        super().__init__(f"{purpose} needs the package {package!r}, which is not installed: run `{command}`.")


def install_command(extra: str) -> str:
    """The pip command that adds an extra, from the folder or file that this package came from, or else by name."""
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
    if source is None:
        return f"pip install 'hybridsearch[{extra}]'"
    return f"pip install '{'.' if source == Path.cwd() else source}[{extra}]'"


class ModelNotFoundError(HybridSearchError, FileNotFoundError):
    """A model is neither in the folder that was named nor in the local cache of the model hub."""


class DatasetNotFoundError(HybridSearchError, FileNotFoundError):
    """A data set for evaluation is neither in the folder that was named nor in the local cache or reach of the hub."""


class EncodingError(HybridSearchError, ValueError):
    """An encoder produced something that cannot be stored or searched, such as NaN."""


class TrainingError(HybridSearchError):
    """Training cannot go on, such as after a loss of NaN; the checkpoints written before are intact."""


class FingerprintMismatchError(HybridSearchError):
    """An index was built with another encoder than the one it is opened with."""


class IndexNotFoundError(HybridSearchError, FileNotFoundError):
    """There is no index at the given place."""


class IndexExistsError(HybridSearchError, FileExistsError):
    """There is already something at the place where a new index should go."""


class IndexLockedError(HybridSearchError):
    """Another process is writing to the index."""


class IndexCorruptedError(HybridSearchError):
    """A file of the index is damaged; the message names it."""


class StorageError(HybridSearchError, OSError):
    """The storage refused to write or read: disk full, no permission. What was committed before is intact."""


class BackendError(HybridSearchError):
    """A backend could not do what it was asked to do."""


class BulkIndexError(BackendError):
    """Some documents of a batch were refused; all others are stored.

    Attributes:
        failed: one (document id, reason) for each refused document.
    """

    def __init__(self, failed: Sequence[tuple[str, str]]) -> None:
        self.failed = list(failed)
        shown = "; ".join(f"{id!r}: {reason}" for id, reason in self.failed[:3])
        more = f" and {len(self.failed) - 3} more" if len(self.failed) > 3 else ""
        were = number_of(len(self.failed), "document was", "documents were")
        super().__init__(f"{were} refused ({shown}{more}); all others are stored.")


class RetrieverError(BackendError):
    """A retriever that was not declared optional failed."""


class RetrieverTimeoutError(RetrieverError, TimeoutError):
    """A retriever that was not declared optional took longer than its timeout."""
