"""Checks the folder of an embedded Qdrant before Qdrant reads it.

Qdrant stores points as pickles. Reading a pickle can run any code that the pickle names. And the names of collections
become names of folders. So a folder from somebody else could do harm. These checks refuse such a folder.
"""

from __future__ import annotations

import io
import json
import pickle
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hybridsearch.adapters.qdrant.place import check_name
from hybridsearch.errors import IndexCorruptedError, InvalidArgumentError
from hybridsearch.folders import refuse_inside_index

_ALLOWED = {
    ("uuid", "UUID"),
    *(("datetime", name) for name in ("date", "datetime", "time", "timedelta", "timezone")),
    *((f"numpy.{part}.multiarray", name) for part in ("core", "_core") for name in ("_reconstruct", "scalar")),
    *(("numpy", name) for name in ("ndarray", "dtype")),
}
"""The types that a point may contain, besides the models of Qdrant."""


def check_folder(folder: Path) -> None:
    """Check the folder of an embedded Qdrant.

    Raises:
        IndexCorruptedError: A file of it is damaged or not safe to read.
        IndexExistsError: It would be made inside the folder of an index.
    """
    meta = folder / "meta.json"
    if not meta.exists():
        resolved = folder.resolve()
        refuse_inside_index(folder / "collection", (resolved, *resolved.parents))
        return
    _refuse_links(folder / "collection", meta, folder / ".lock")
    try:
        names = list(json.loads(meta.read_bytes())["collections"])
        for name in names:
            check_name(name)
    except (ValueError, KeyError, TypeError, RecursionError, InvalidArgumentError) as error:
        raise damaged(meta, error) from error
    for name in names:
        points = folder / "collection" / name / "storage.sqlite"
        _refuse_links(points.parent, points)
        if points.exists():
            _check_points(points)


def damaged(path: Path, reason: object) -> IndexCorruptedError:
    """The error for a file or folder that is damaged."""
    return IndexCorruptedError(
        f"The embedded Qdrant in {path} is damaged ({' '.join(str(reason).split()):.200}): restore it from a copy, or "
        "index the documents again."
    )


def _check_points(path: Path) -> None:
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as storage:
            for (raw,) in storage.execute("SELECT point FROM points"):
                _Point(io.BytesIO(raw)).load()
    except sqlite3.OperationalError:
        return  # the file is locked or has no table yet, and Qdrant handles both
    except Exception as error:  # a damaged pickle may raise anything
        raise damaged(path, error) from error


class _Point(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED or (module == "qdrant_client.http.models.models" and "." not in name):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"a point names {module}.{name}, which points never contain")


def _refuse_links(*paths: Path) -> None:
    for path in paths:
        if path.is_symlink():
            raise damaged(path, "it is a link, which may lead out of the index")
