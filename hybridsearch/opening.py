"""Opens an index that exists."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from hybridsearch.arguments import one_of
from hybridsearch.backends import Backend
from hybridsearch.encoders import Encoder, make_encoder
from hybridsearch.encoders.runtimes import Precision, Runtime
from hybridsearch.errors import IndexNotFoundError, InvalidArgumentError
from hybridsearch.fusion import Fusion
from hybridsearch.messages import warn
from hybridsearch.places import Recipe, connected, place_name
from hybridsearch.rerank import Reranker, make_reranker
from hybridsearch.search import CONFIGURED, HybridSearch


def open(
    place: str | Path | Backend,
    *,
    retrievers: Mapping[str, Encoder] | None = None,
    fusion: Fusion | str | Path | None = None,
    reranker: Reranker | Literal["configured"] | None = CONFIGURED,
    candidates: int | None = None,
    optional: Collection[str] = (),
    timeout: float | Mapping[str, float] | None = None,
    backend_options: Mapping[str, Any] | None = None,
    refresh: float | str | None = None,
    precision: Precision | None = None,
    runtime: Runtime | None = None,
) -> HybridSearch:
    """Open an index that exists, with the encoders, fusion, reranker and candidates that it was made with.

    A model is loaded and compared with the index at the first search of its retriever.

    Args:
        place: Place of the index: a folder, an engine's URL, or a `Backend`.
        retrievers: Encoders by name that replace the recorded ones, for example if a model has moved to another folder.
            An encoder of your own must be given here, unless its class is registered.
        fusion: Method that merges the rankings, as in `HybridSearch`. None uses the recorded fusion.
        reranker: Reranker to use. `"configured"` uses the recorded one. None opens the index without a reranker.
        candidates: Number of documents that are read from each retriever. None uses the recorded number.
        optional: Names of the optional retrievers, as in `HybridSearch`.
        timeout: Seconds that a retriever may take, as in `HybridSearch`.
        backend_options: Keyword arguments of the backend that `place` names.
        refresh: Time between two looks for changes that other processes made, as in `HybridSearch`.
        precision: Number format in which recorded models compute, as in `Dense`. An index of fp32 vectors may be
            searched with `"bf16"` or `"auto"`, but it takes new documents only in fp32. None for the recorded one.
        runtime: Library that runs the transformers of recorded models, as in `Dense`. None for the recorded one.

    Returns:
        The search, ready to use. Close it with `close`, or use it as a context manager.

    Raises:
        IndexNotFoundError: There is no index at `place`.
        IndexCorruptedError: A file of the index is damaged. The message names the file.
        FingerprintMismatchError: The index was built with another encoder than the one in `retrievers`.
        InvalidArgumentError: An argument is not allowed, or the index does not have one of the retrievers.
    """
    options = {"optional": optional, "timeout": timeout, "backend_options": backend_options, "refresh": refresh}
    settings = {"fusion": fusion, "reranker": reranker, "candidates": candidates}
    ways = {name: value for name, value in {"precision": precision, "runtime": runtime}.items() if value is not None}
    for name, value in ways.items():  # an index without models would take any value
        one_of(name, value, get_args(Precision if name == "precision" else Runtime))
    recipe = Recipe(open, "place", place, {"retrievers": retrievers, **settings, **options, **ways})
    with connected(place, backend_options) as backend:
        schema = backend.open()
        shown = place_name(place)
        if schema is None:
            raise IndexNotFoundError(
                f"There is no index at {shown!r}: check the place, or make one with `hybridsearch index`."
            )
        if not isinstance(retrievers, Mapping | None):
            raise InvalidArgumentError(f"retrievers is a mapping such as {{'dense': encoder}}, not {retrievers!r:.80}.")
        given = dict(retrievers or {})
        encoders: dict[str, Encoder] = {}
        for name, of_retriever in schema.retrievers.items():
            if name in given:
                encoders[name] = given.pop(name)
            elif of_retriever.encoder is not None:
                encoders[name] = make_encoder(_with_ways(of_retriever.encoder, ways))
            else:
                raise InvalidArgumentError(
                    f"The encoder of retriever {name!r} ({of_retriever.fingerprint}) is not one of hybridsearch's: "
                    f"pass it, as in open(..., retrievers={{{name!r}: encoder}})."
                )
        if given:
            raise InvalidArgumentError(
                f"The index has no retriever {next(iter(given))!r}. It has {', '.join(map(repr, encoders))}."
            )
        if isinstance(reranker, str) and reranker == CONFIGURED:
            recorded = schema.settings.get("reranker")
            reranker = make_reranker(_with_ways(recorded, ways)) if recorded else None
            if "reranker" in schema.settings and recorded is None:
                warn(
                    f"The index at {shown!r} was made with a reranker that it cannot make again, so it opens without "
                    "a reranker: pass reranker=..., or reranker=None if you want no reranker."
                )
        return HybridSearch(
            encoders,
            backend,
            fusion,
            reranker,
            candidates=candidates,
            optional=optional,
            timeout=timeout,
            refresh=refresh,
            _recorded=encoders.keys() - (retrievers or {}).keys(),
            _recipe=recipe,
        )


def _with_ways(description: Mapping[str, Any], ways: Mapping[str, str]) -> Mapping[str, Any]:
    """The description of an encoder or a reranker, with another precision or runtime if it runs a model."""
    if not ways or not isinstance(description, Mapping):  # a damaged schema, whose reader says what is wrong
        return description
    with_models = ("dense", "sparse", "cross-encoder", "late-interaction")
    return {**description, **ways} if description.get("type") in with_models else description
