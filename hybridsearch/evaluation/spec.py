"""Systems as texts, in the form that the command line takes.

bm25                        one retriever
bm25+dense                  both, merged by RRF
bm25+dense+minmax           both, merged by min-max; or zscore, rrf, adaptive, or a file that `tune` saved
minmax                      all retrievers, merged by min-max
bm25:0.3+dense:0.7+minmax   with weights
bm25+dense+rrf:20           RRF with k = 20
bm25+dense+rerank:50        first 50 documents reranked (`rerank` alone: as many as the reranker's `top_k`)
bm25+dense+candidates:200   200 documents read from each retriever
bm25+rm3                    BM25 with the feedback RM3; rocchio is for dense and sparse, rm3:20 reads 20 documents
ours=bm25+dense+minmax      any of these under another name
runs/ours.trec              a TREC run file (also ours.trec.gz), under the name "ours"
theirs=runs/ours.trec       a run file under another name
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from hybridsearch.errors import InvalidArgumentError
from hybridsearch.evaluation.pipeline import Pipeline, Run
from hybridsearch.feedback import NAMES as FEEDBACK
from hybridsearch.feedback import Feedback, read_feedback
from hybridsearch.fusion import RRF, Fusion
from hybridsearch.fusion.files import fusion_names, named_fusion
from hybridsearch.readers.compression import plain_name
from hybridsearch.rerank import Reranker
from hybridsearch.search import HybridSearch

RUN_SUFFIXES = (".trec", ".run")
"""Endings of run files, also in capitals or compressed. Any other existing file is a run file too."""

LONGEST = 1000
"""Number of characters that the text of a system has at most."""


def default_systems(retrievers: Sequence[str], reranker: Reranker | None) -> list[str]:
    """The systems to compare by default: each retriever, two fusions, and the first fusion with the reranker.

    >>> default_systems(["bm25", "dense"], None)
    ['bm25', 'dense', 'rrf', 'minmax']
    """
    systems = [*retrievers, *(["rrf", "minmax"] if len(retrievers) > 1 else [])]
    return systems + ([] if reranker is None else [f"{'rrf' if len(retrievers) > 1 else retrievers[0]}+rerank"])


def parse_systems(
    texts: Sequence[str],
    source: HybridSearch | Mapping[str, Run],
    reranker: Reranker | None = None,
    runs: Mapping[str, Run] | None = None,
) -> dict[str, Pipeline | Run]:
    """The systems of `texts`, by name.

    Args:
        texts: Systems as texts, in the forms that this module lists.
        source: Index, or runs by name. The texts name its retrievers or runs.
        reranker: Reranker that `rerank` stands for.
        runs: More runs by name. Each is a system beside the index.

    Raises:
        InvalidArgumentError: A text has another form, names a part that does not exist, or repeats a name.
    """
    for text in texts:
        if len(text) > LONGEST:
            raise InvalidArgumentError(
                f"The system {text[:60]!r} ... has {len(text):,} characters, and at most {LONGEST:,} are allowed: "
                "write a few names with + between them, or a path."
            )
    runs = dict(runs or {})
    known = [*(source.retrievers if isinstance(source, HybridSearch) else source), *runs]
    pairs = named(texts, known)
    runs |= {name: spec for name, spec in pairs if is_run(spec, known)}
    systems: dict[str, Pipeline | Run] = {}
    for text, (name, spec) in zip(texts, pairs, strict=True):
        if not name or not spec:
            raise InvalidArgumentError(f"The system {text!r} is empty: write it like bm25+dense or ours=bm25+dense.")
        if name in systems:
            raise InvalidArgumentError(
                f"There are two systems {name!r}: give one of them another name, as in ours={spec}."
            )
        if is_run(spec, known):
            systems[name] = spec
        else:
            systems[name] = runs[spec] if spec in runs else _parse(spec, source, reranker, runs)
    return systems


def named(texts: Sequence[str], known: Collection[str]) -> list[tuple[str, str]]:
    """The name and the system of each text. A run file without a name is named after the file.

    If `known` or another text has that name already, the name gets folders of the path until it is unique.

    >>> named(["ours=bm25+dense", "bm25", "a/bm25.trec", "b/bm25.trec", "b/tasb.trec"], ["bm25"])[2:]
    [('a/bm25', 'a/bm25.trec'), ('b/bm25', 'b/bm25.trec'), ('tasb', 'b/tasb.trec')]
    """
    pairs = [_named(text) for text in texts]
    files = [spec for name, spec in pairs if name == spec and is_run(spec, known)]
    taken = {*known, *(name for name, spec in pairs if spec not in files or name != spec)}
    names = dict(zip(files, _short_names(files, taken), strict=True))
    return [(names.get(name, name) if name == spec else name, spec) for name, spec in pairs]


def is_run(spec: str, known: Collection[str]) -> bool:
    """Whether a system is a run file, by its ending or because the file exists. A retriever in `known` is never one.

    >>> [is_run(spec, ["bm25"]) for spec in ("a/ours.TREC.gz", "ours.run", "bm25", "bm25+dense", "tuned.json")]
    [True, True, False, False, False]
    """
    if spec in known or spec in fusion_names() or spec.endswith(".json"):
        return False
    return plain_name(spec).lower().endswith(RUN_SUFFIXES) or _is_file(spec)


def _named(text: str) -> tuple[str, str]:
    name, equals, spec = (part.strip() for part in text.partition("="))
    return (name, spec) if equals and not _is_file(text.strip()) else (text.strip(), text.strip())


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # the name is too long, or has a null character
        return False


def _short_names(files: Sequence[str], taken: Collection[str]) -> list[str]:
    """A name for each path: its stem, or the shortest end of the path that is unique and not in `taken`."""
    parts = [Path(plain_name(file)).with_suffix("").parts for file in files]
    names = [of_file[-1] for of_file in parts]
    for depth in range(2, max(map(len, parts), default=0) + 1):
        names = [
            Path(*of_file[-depth:]).as_posix() if names.count(name) > 1 or name in taken else name
            for name, of_file in zip(names, parts, strict=True)
        ]
    return [file if name in taken else name for name, file in zip(names, files, strict=True)]


def _parse(
    spec: str, source: HybridSearch | Mapping[str, Run], reranker: Reranker | None, runs: Collection[str]
) -> Pipeline:
    known = list(source.retrievers if isinstance(source, HybridSearch) else source)
    weights: dict[str, float | None] = {}
    fusion: tuple[str, float | None] | None = None
    candidates: int | None = None
    chosen: Reranker | None = None
    feedback: list[Feedback] = []
    for part in spec.split("+"):
        name, value = _part(part, spec)
        if name in known:
            weights[name] = value
        elif name in fusion_names() or name.endswith(".json"):
            if fusion is not None:
                raise InvalidArgumentError(f"The system {spec!r} has two fusions, {fusion[0]} and {name}: choose one.")
            fusion = name, value
        elif name == "rerank":
            chosen = _reranker(reranker, value, spec)
        elif name in FEEDBACK:
            feedback.append(read_feedback(part))
        elif name == "candidates" and value is not None:
            candidates = _whole(value, part, spec)
        elif name in runs:
            raise InvalidArgumentError(
                f"The system {spec!r} merges the run {name!r} with an index, but runs can be merged only with runs. "
                "Write run files of the index with --runs FOLDER, and name the files in --retrievers."
            )
        else:
            retrievers, fusions = ", ".join(known) or "none is given", ", ".join(fusion_names())
            raise InvalidArgumentError(
                f"The system {spec!r} has the unknown part {part!r}. A part is a retriever ({retrievers}), a fusion "
                f"({fusions}, or a file that `tune` saved), rerank, candidates:N, feedback "
                f"({', '.join(FEEDBACK)}), or an existing run file."
            )
    asked = list(weights) or known
    weighted = any(value is not None for value in weights.values())
    given = {name: 1.0 if value is None else value for name, value in weights.items()} if weighted else None
    return Pipeline(source, asked, _fusion(fusion, given, spec), candidates, chosen, feedback=feedback or None)


def _part(part: str, spec: str) -> tuple[str, float | None]:
    name, colon, value = part.strip().partition(":")
    if not colon:
        return name, None
    try:
        return name, float(value)
    except ValueError:
        raise InvalidArgumentError(
            f"The system {spec!r} has {part!r}, but a colon needs a number after it, such as bm25:0.3 or rerank:50."
        ) from None


def _whole(value: float, part: str, spec: str) -> int:
    if not value.is_integer() or value < 1:  # neither are nan and inf
        raise InvalidArgumentError(
            f"The system {spec!r} has {part!r}, but this number must be a whole number of at least 1."
        )
    return int(value)


def _reranker(reranker: Reranker | None, top_k: float | None, spec: str) -> Reranker:
    if reranker is None:
        raise InvalidArgumentError(f"The system {spec!r} needs a reranker, but none is given: add --reranker MODEL.")
    if top_k is None:
        return reranker
    deeper = copy.copy(reranker)  # shares the model
    deeper.top_k = _whole(top_k, f"rerank:{top_k:g}", spec)  # type: ignore[misc]
    return deeper


def _fusion(given: tuple[str, float | None] | None, weights: Mapping[str, float] | None, spec: str) -> Fusion | str:
    name, value = given or ("rrf", None)
    if value is not None and name != "rrf":
        raise InvalidArgumentError(f"The system {spec!r} has {name}:{value:g}, but only rrf takes a number (its k).")
    if name.endswith(".json"):
        if weights is not None:
            raise InvalidArgumentError(
                f"The system {spec!r} has weights, but the file {name} has weights already: leave them out."
            )
        return name
    if name == "rrf" and value is not None:
        return RRF(value, weights)
    return named_fusion(name, weights)
