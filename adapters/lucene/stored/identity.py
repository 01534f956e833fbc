"""What an index says of itself in its mapping's `_meta`, so that opening it needs nothing but its URL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from hybridsearch.adapters.checks import check_layout
from hybridsearch.adapters.lucene.wire.connection import Address, Json
from hybridsearch.backends import Schema
from hybridsearch.errors import BackendError, HybridSearchError, IndexCorruptedError

LAYOUT = 4
"""Version of how documents and `_meta` are stored; others are refused."""

_LITERAL = 3
"""The version before values had one form for filters: see `fields`."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Attributes:
    schema: the retrievers, with their encoders' fingerprints.
    options: how the index stores their vectors.
    before_load: the settings that a load has relaxed and not restored yet; None when none is under way.
    literal: whether it is of the version before: see `fields`.
    """

    schema: Schema
    options: Mapping[str, Any]
    before_load: Mapping[str, Any] | None = None
    literal: bool = False

    def to_meta(self) -> Json:
        """The schema is text in it, because the engines sort the keys of objects."""
        schema = orjson.dumps(self.schema.to_json()).decode()
        version = _LITERAL if self.literal else LAYOUT
        ours: dict[str, Any] = {"version": version, "schema": schema, "options": dict(self.options)}
        if self.before_load is not None:
            ours["before_load"] = dict(self.before_load)
        return {"hybridsearch": ours}

    @classmethod
    def from_meta(cls, meta: Json, address: Address) -> Identity:
        """The inverse of `to_meta`.

        Raises:
            BackendError: the index was not made by hybridsearch.
            IndexCorruptedError: it is of another layout or a newer schema version, or `meta` is damaged.
        """
        place = f"The index {address.index!r} at {address}"
        ours = meta.get("hybridsearch") if isinstance(meta, dict) else None
        if not isinstance(ours, dict):
            raise BackendError(
                f"{place} was not made by hybridsearch: choose another name, or index its documents again under one."
            )
        check_layout(version := ours.get("version"), _LITERAL, LAYOUT, place)
        try:
            schema = Schema.from_json(orjson.loads(ours["schema"]))
            return cls(schema, dict(ours["options"]), ours.get("before_load"), version == _LITERAL)
        except HybridSearchError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise IndexCorruptedError(f"{place} has a damaged record of its schema ({error!r}).") from None
