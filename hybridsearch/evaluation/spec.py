"""Systems in one line of text, as the command line takes them.

bm25                        one retriever
bm25+dense                  both, merged by RRF
bm25+dense+minmax           both, merged by min-max; or zscore, rrf, adaptive, or a file that `tune` wrote
minmax                      all retrievers, merged by min-max
bm25:0.3+dense:0.7+minmax   with weights
bm25+dense+rrf:20           with RRF's k
bm25+dense+rerank:50        and the first 50 reranked (rerank alone: as many as the reranker is made for)
bm25+dense+candidates:200   each retriever read 200 deep
ours=bm25+dense+minmax      under another name
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path

from hybridsearch.errors import InvalidArgumentError
from hybridsearch.evaluation.pipeline import Pipeline, Run
from hybridsearch.fusion import FUSIONS, RRF, Fusion, ScoreFusion, read_fusion
from hybridsearch.rerank import Reranker
from hybridsearch.search import HybridSearch

FUSION_NAMES = ("rrf", "minmax", "zscore", *(name for name in FUSIONS if name not in ("rrf", "score")))


def default_systems(retrievers: Sequence[str], reranker: Reranker | None) -> list[str]:
    """What to compare where nobody said: each retriever, two fusions, and the first of these reranked.

    >>> default_systems(["bm25", "dense"], None)
    ['bm25', 'dense', 'rrf', 'minmax']
    """
    systems = [*retrievers, *(["rrf", "minmax"] if len(retrievers) > 1 else [])]
    return systems + ([] if reranker is None else [f"{'rrf' if len(retrievers) > 1 else retrievers[0]}+rerank"])


def parse_systems(
    texts: Sequence[str], source: HybridSearch | Mapping[str, Run], reranker: Reranker | None = None
) -> dict[str, Pipeline | Run]:
    """The systems of `texts`, by name; a name that is the path of a run file is that run.

    Args:
        source: an index, or runs by name, whose retrievers the texts name.
        reranker: what `rerank` means.

    Raises:
        InvalidArgumentError: a text is not as above, or names what is not there; or two systems have one name.
    """
    systems: dict[str, Pipeline | Run] = {}
    for text in texts:
        name, equals, spec = (part.strip() for part in text.partition("="))
        spec = spec if equals else name
        if not name or not spec:
            raise InvalidArgumentError(f"The system {text!r} is empty: write it like bm25+dense or ours=bm25+dense.")
        if name in systems:
            raise InvalidArgumentError(f"There are two systems {name!r}: give one another name, as in ours={spec}.")
        known = source.retrievers if isinstance(source, HybridSearch) else source
        systems[name] = spec if spec not in known and _is_run(spec) else _parse(spec, source, reranker)
    return systems


def are_runs(texts: Sequence[str], known: Sequence[str]) -> bool:
    """Whether all of `texts` are run files and need none of the retrievers `known`."""
    specs = [text.rpartition("=")[2].strip() for text in texts]
    return all(spec not in known and _is_run(spec) for spec in specs)


def _is_run(spec: str) -> bool:
    return spec.endswith((".trec", ".run")) or ("+" not in spec and not spec.endswith(".json") and Path(spec).is_file())


def _parse(spec: str, source: HybridSearch | Mapping[str, Run], reranker: Reranker | None) -> Pipeline:
    known = list(source.retrievers if isinstance(source, HybridSearch) else source)
    weights: dict[str, float | None] = {}
    fusion: tuple[str, float | None] | None = None
    candidates: int | None = None
    chosen: Reranker | None = None
    for part in spec.split("+"):
        name, value = _part(part, spec)
        if name in known:
            weights[name] = value
        elif name in FUSION_NAMES or name.endswith(".json"):
            if fusion is not None:
                raise InvalidArgumentError(f"The system {spec!r} has two fusions, {fusion[0]} and {name}: choose one.")
            fusion = name, value
        elif name == "rerank":
            chosen = _reranker(reranker, value, spec)
        elif name == "candidates" and value is not None:
            candidates = _whole(value, part, spec)
        else:
            retrievers, fusions = ", ".join(known) or "there is none", ", ".join(FUSION_NAMES)
            raise InvalidArgumentError(
                f"The system {spec!r} has the part {part!r}, which is no retriever ({retrievers}), no fusion "
                f"({fusions}, or a file of `tune`), and neither rerank nor candidates:N."
            )
    asked = list(weights) or known
    if any(value is not None for value in weights.values()):
        given = {name: 1.0 if value is None else value for name, value in weights.items()}
    else:
        given = None
    made, depth = _fusion(fusion, given, spec)
    return Pipeline(source, asked, made, depth if candidates is None else candidates, chosen)


def _part(part: str, spec: str) -> tuple[str, float | None]:
    name, colon, value = part.strip().partition(":")
    if not colon:
        return name, None
    try:
        return name, float(value)
    except ValueError:
        raise InvalidArgumentError(
            f"The system {spec!r} has {part!r}; after the colon stands a number, such as bm25:0.3 or rerank:50."
        ) from None


def _whole(value: float, part: str, spec: str) -> int:
    if not value.is_integer() or value < 1:  # neither are nan and inf
        raise InvalidArgumentError(f"The system {spec!r} has {part!r}; that is a whole number of at least 1.")
    return int(value)


def _reranker(reranker: Reranker | None, top_k: float | None, spec: str) -> Reranker:
    if reranker is None:
        raise InvalidArgumentError(f"The system {spec!r} reranks, but no reranker is given: name one with --reranker.")
    if top_k is None:
        return reranker
    deeper = copy.copy(reranker)  # shares the model
    deeper.top_k = _whole(top_k, f"rerank:{top_k:g}", spec)  # type: ignore[misc]
    return deeper


def named_fusion(name: str, weights: Mapping[str, float] | None = None) -> Fusion:
    """The fusion of a name in `FUSION_NAMES`, as it is by default but for the weights."""
    if name in ("minmax", "zscore"):
        return ScoreFusion("minmax" if name == "minmax" else "zscore", weights)
    return FUSIONS[name](weights=weights)


def _fusion(
    given: tuple[str, float | None] | None, weights: Mapping[str, float] | None, spec: str
) -> tuple[Fusion, int | None]:
    """The fusion, and the depth where it says one."""
    name, value = given or ("rrf", None)
    if value is not None and name != "rrf":
        raise InvalidArgumentError(f"The system {spec!r} has {name}:{value:g}, but only rrf takes a number, its k.")
    if name.endswith(".json"):
        if weights is not None:
            raise InvalidArgumentError(f"The system {spec!r} has weights beside those of {name}: leave them out.")
        return read_fusion(name, None)
    if name == "rrf" and value is not None:
        return RRF(value, weights), None
    return named_fusion(name, weights), None
