"""Fusions from what an index or a file remembers of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hybridsearch.errors import InvalidArgumentError
from hybridsearch.fusion.base import Fusion
from hybridsearch.registry import make, registered

TUNED = "tuned"
"""The type of a file of `hs.tune`, which has a fusion, how deep to read for it, and the figures that say why."""


def make_fusion(description: Mapping[str, Any]) -> Fusion:
    """The fusion of `Fusion.to_json`. Raises InvalidArgumentError where it is not one."""
    arguments = dict(description)
    tuned_on = arguments.pop("tuned_on", "")
    fusion: Fusion = make("fusion", arguments)
    fusion.tuned_on = frozenset(tuned_on.split())
    return fusion


def read_fusion(fusion: Fusion | str | Path, candidates: int | None) -> tuple[Fusion, int | None]:
    """The fusion, and the depth that a file of `hs.tune` was tuned at where `candidates` is None.

    Raises:
        InvalidArgumentError: there is no such file, or it holds something else.
    """
    if isinstance(fusion, Fusion):
        return fusion, candidates
    if not isinstance(fusion, str | Path) or not str(fusion).endswith(".json"):
        raise InvalidArgumentError(
            "A fusion is an object such as hs.RRF(), or the path of a .json file of hs.tune or Fusion.save, not "
            f"{fusion!r:.80}."
        )
    content = read_content(fusion)
    if isinstance(content, Mapping) and content.get("type") in registered("fusion"):
        return make_fusion(content), candidates
    with content_of_tune():
        if content["type"] != TUNED:
            raise ValueError(f"its type is {content['type']!r:.40}")
        tuned, depth = make_fusion(content["fusion"]), content["candidates"]
    return tuned, depth if candidates is None else candidates


def read_content(path: str | Path) -> Any:
    """The JSON in the file of a fusion. Raises InvalidArgumentError where there is none."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidArgumentError(f"The fusion {str(path)!r} cannot be read: {error}.") from error


@contextmanager
def content_of_tune() -> Iterator[None]:
    """What is read in it is the content of a file of `hs.tune`; raises InvalidArgumentError where it turns out not."""
    try:
        yield
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise InvalidArgumentError(
            f"This is not a tuned fusion as `hybridsearch tune --save FILE` writes it ({error})."
        ) from error
