"""The schema and the options that an index keeps in its mapping's `_meta`. So its URL is enough to open it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from hybridsearch.adapters.checks import check_layout
from hybridsearch.adapters.lucene.wire.connection import Address, Json
from hybridsearch.backends import Schema
from hybridsearch.errors import BackendError, HybridSearchError, IndexCorruptedError

LAYOUT = 7
"""The version of the layout of documents and `_meta`. Newer layouts, and those before `_LITERAL`, are refused."""

_LITERAL = 3
"""The last version in which the values for filters were stored as they came: see `fields`."""

_PLAIN = 5
"""The last version in which documents were stored without compression: see `lines`. Version 4 has no passages."""

_FEATURES = 6
"""The last version in which OpenSearch found passages by feature fields: see `impacts`."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What an index keeps about itself.

    Attributes:
        schema: The retrievers, with the fingerprints of their encoders.
        options: How the index stores vectors.
        before_load: The settings that a load has relaxed and not restored yet. None if there is no such load.
        layout: Version of the layout. An index keeps the layout that it was made with.
        unsettled: Whether weights may be of several average lengths, or of the first batch's, because the load or the
            `reweigh` that decides them is running or was interrupted.
    """

    schema: Schema
    options: Mapping[str, Any]
    before_load: Mapping[str, Any] | None = None
    layout: int = LAYOUT
    unsettled: bool = False

    @property
    def literal(self) -> bool:
        """Whether the index has the layout `_LITERAL`: see `fields`."""
        return self.layout == _LITERAL

    @property
    def compressed(self) -> bool:
        """Whether documents are stored with compression: see `lines`."""
        return self.layout > _PLAIN

    @property
    def impacts(self) -> bool:
        """Whether passages are found by impacts, if the engine has such fields: see `impacts`."""
        return self.layout > _FEATURES

    def to_meta(self) -> Json:
        """The content of `_meta`. It holds the schema as text, because the engines sort the keys of objects."""
        schema = orjson.dumps(self.schema.to_json()).decode()
        ours: dict[str, Any] = {"version": self.layout, "schema": schema, "options": dict(self.options)}
        if self.before_load is not None:
            ours["before_load"] = dict(self.before_load)
        if self.unsettled:
            ours["unsettled"] = True
        return {"hybridsearch": ours}

    @classmethod
    def from_meta(cls, meta: Json, address: Address) -> Identity:
        """The identity in the content of `_meta`. This is the inverse of `to_meta`.

        Raises:
            BackendError: The index was not made by hybridsearch.
            IndexCorruptedError: The index has another layout or a newer schema version, or `meta` is damaged.
        """
        place = f"The index {address.index!r} at {address}"
        ours = meta.get("hybridsearch") if isinstance(meta, dict) else None
        if not isinstance(ours, dict):
            raise BackendError(
                f"{place} was not made by hybridsearch: choose another name and index its documents again there, or "
                "read it with a backend of your own (see the documentation, An index that exists already)."
            )
        layout: Any = ours.get("version")
        check_layout(layout, _LITERAL, LAYOUT, place)
        try:
            schema = Schema.from_json(orjson.loads(ours["schema"]))
            return cls(schema, dict(ours["options"]), ours.get("before_load"), layout, "unsettled" in ours)
        except HybridSearchError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise IndexCorruptedError(f"{place} has a damaged record of its schema ({error!r}).") from None
