"""Effectiveness of rankings, by ir-measures; relevance judgements from and to files.

The measures see the ranking as it was returned. Tools of the trec_eval family re-sort by score and break ties their own
way, so they are handed strictly decreasing scores made from the ranks, never the retriever's scores.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal, TypeAlias

from hybridsearch.errors import InvalidArgumentError, MissingExtraError
from hybridsearch.ranking import Ranking
from hybridsearch.readers.lines import BLANKS, read_lines, words, writable

if TYPE_CHECKING:
    from ir_measures import Measure

Qrels: TypeAlias = Mapping[str, Mapping[str, int]]
"""Query id -> document id -> grade: 0 is judged and not relevant, 1 and more is relevant."""

DEFAULT_MEASURES = ("nDCG@10", "RR@10", "AP", "R@100")

_GRADE_COLUMNS = ("score", "grade", "label", "rel", "relevance")
_INTEGER = re.compile(r"[+-]?\d{1,9}(\.0*)?", re.ASCII)


def parse_measures(names: str | Measure | Iterable[str | Measure]) -> tuple[Measure, ...]:
    """Measures by name, each once, in the order given.

    Any name of ir-measures works that needs nothing beyond what is installed: nDCG@k, RR@k (or MRR@k), AP (or MAP,
    AP@k), R@k (or Recall@k), P@k, Success@k, Judged@k, Bpref ... All but nDCG count a grade of 1 as relevant: where
    judgements are graded and 1 means no more than related, as in TREC's DL tracks, take `RR(rel=2)@10`, `AP(rel=2)` and
    `R(rel=2)@100`. `str(measure)` is the name under which `score_rankings` reports it.

    Raises:
        InvalidArgumentError: a name is not a measure, or computing it needs something that is not installed.
        MissingExtraError: ir-measures is not installed.

    >>> [str(measure) for measure in parse_measures(["nDCG@10", "MRR@10", "RR@10", "AP(rel=2)"])]
    ['nDCG@10', 'RR@10', 'AP(rel=2)']
    """
    ir_measures = _ir_measures()
    given = [names] if isinstance(names, str) or not isinstance(names, Iterable) else list(names)
    if not given:
        raise InvalidArgumentError("No measure is given: name at least one, such as 'nDCG@10'.")
    measures: dict[str, Measure] = {}
    for name in given:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # ir-measures 0.4 parses with ast.Num
                measure = ir_measures.parse_measure(name)
            if not ir_measures.DefaultPipeline.supports(measure):
                raise ValueError("no package for it is installed")
            if (cutoff := measure.params.get("cutoff")) is not None and cutoff < 1:
                raise ValueError("its cutoff is not 1 or more")  # trec_eval would end the process
        except (ValueError, NameError, TypeError, AttributeError, AssertionError, KeyError) as error:
            reason = re.sub(r"<object .*?>", "nothing", " ".join(str(error).split()))[:200]
            raise InvalidArgumentError(
                f"{name!r:.60} is not a measure that can be computed ({reason}): "
                "measures are named as in ir-measures, such as nDCG@10, RR@10, AP, R@100, P@5 or Success@1."
            ) from error
        measures[str(measure)] = measure
    return tuple(measures.values())


def score_rankings(
    rankings: Mapping[str, Ranking], qrels: Qrels, measures: str | Measure | Iterable[str | Measure] = DEFAULT_MEASURES
) -> dict[str, dict[str, float]]:
    """The measures of each query, on the rankings in the order in which they are.

    Every query of `qrels` is in the result, in their order: one that `rankings` lacks, or whose ranking is empty, has
    0.0. Queries without judgements are ignored, and documents without a judgement count as not relevant.

    Args:
        rankings: by query id; they are not cut, so cut them yourself where a measure without a cutoff (AP) should not
            see all of one.
        qrels: query id -> document id -> grade.
        measures: as in `parse_measures`.

    Returns:
        Measure name -> query id -> value.

    Raises:
        InvalidArgumentError: as in `parse_measures`; or a measure cannot work with these judgements, such as ERR@10,
            whose program takes numbers only for query ids.

    >>> found = {"q1": Ranking.from_scores({"d1": 2.0, "d2": 1.0})}
    >>> score_rankings(found, {"q1": {"d2": 1}, "q2": {"d9": 1}}, ["RR@10", "R@100"])
    {'RR@10': {'q1': 0.5, 'q2': 0.0}, 'R@100': {'q1': 1.0, 'q2': 0.0}}
    """
    parsed = parse_measures(measures)
    scores = {str(measure): dict.fromkeys(qrels, 0.0) for measure in parsed}
    run = {
        query: dict(zip(rankings[query].ids, range(len(rankings[query]), 0, -1), strict=True))
        for query in qrels
        if query in rankings and len(rankings[query])
    }
    judged = {query: dict(qrels[query]) for query in run}
    if not run:
        return scores
    try:
        for query, measure, value in _ir_measures().iter_calc(parsed, judged, run):
            scores[str(measure)][query] = float(value)
    except Exception as error:  # of any of the packages and programs behind ir-measures
        reason = " ".join(str(error).split())
        raise InvalidArgumentError(
            f"{', '.join(scores)} cannot be computed from these judgements ({type(error).__name__}: {reason[:200]}): "
            "leave out the measure that is not of the usual ones."
        ) from error
    return scores


def read_qrels(path: str | Path) -> dict[str, dict[str, int]]:
    """Read relevance judgements: TREC qrels or a BEIR tsv, told by the number of columns; may be compressed (.gz).

    TREC: `query-id iteration document-id grade`, four columns apart by spaces or tabs. BEIR: three columns apart by
    tabs, `query-id  corpus-id  score`, with or without these names in the first line.

    Returns:
        Query id -> document id -> grade, in the order of the file.

    Raises:
        InvalidArgumentError: there is no such file, or a line is malformed or contradicts an earlier one (named by
            file and line number).
        StorageError: the file cannot be read.
    """
    path = Path(path)
    qrels: dict[str, dict[str, int]] = {}
    width = 0
    for number, line in read_lines(path):
        columns = [column.strip(BLANKS) for column in line.split("\t")]
        if len(columns) != 3:
            columns = words(line)
        if not width:
            width = len(columns)
            if width == 3 and columns[2].lower() in _GRADE_COLUMNS:
                continue
        grade = columns[-1]
        if width not in (3, 4) or len(columns) != width or not _INTEGER.fullmatch(grade):
            raise InvalidArgumentError(
                f"{path}, line {number}: a judgement is `query-id 0 document-id grade`, or query-id, corpus-id and "
                f"score apart by tabs, with an integer grade, the same in all lines; not {line.strip()[:80]!r}."
            )
        add_judgement(qrels, columns[0], columns[-2], int(float(grade)), f"{path}, line {number}")
    if not qrels:
        raise InvalidArgumentError(f"{path} holds no judgements.")
    return qrels


def write_qrels(qrels: Qrels, path: str | Path, format: Literal["trec", "beir"] | None = None) -> None:
    """Write judgements, for `read_qrels` and every other tool; the inverse of `read_qrels`.

    Args:
        qrels: query id -> document id -> grade.
        path: the file; what it held is replaced.
        format: "trec" (`query-id 0 document-id grade`) or "beir" (tab-separated with names in the first line); None
            takes "beir" for a path that ends in .tsv.

    Raises:
        InvalidArgumentError: an id cannot be written in the format (TREC allows no spaces, BEIR no tabs or line ends).
        StorageError: the file cannot be written.
    """
    path = Path(path)
    beir = format == "beir" or (format is None and path.suffix == ".tsv")
    for id in (id for query, grades in qrels.items() for id in (query, *grades)):
        if (id != id.strip(BLANKS) or not id or any(c in id for c in "\t\r\n")) if beir else words(id) != [id]:
            wrong = "a tab or line end, or blanks around it" if beir else "a space"
            raise InvalidArgumentError(f"The id {id!r} is empty or holds {wrong}, which the file cannot hold.")
    with writable(path), path.open("w", encoding="utf-8", newline="\n") as file:
        if beir:
            file.write("query-id\tcorpus-id\tscore\n")
        for query, grades in qrels.items():
            for document, grade in grades.items():
                file.write(f"{query}\t{document}\t{grade}\n" if beir else f"{query} 0 {document} {grade}\n")


def add_judgement(qrels: dict[str, dict[str, int]], query: str, document: str, grade: int, where: str) -> None:
    """Add one judgement, read at `where`; the same once more is no error, a contradiction is."""
    if not query or not document:
        raise InvalidArgumentError(f"{where}: the query id or the document id is empty.")
    earlier = qrels.setdefault(query, {}).setdefault(document, grade)
    if earlier != grade:
        raise InvalidArgumentError(
            f"{where}: document {document!r} of query {query!r} has the grade {grade}, but {earlier} further up."
        )


def without(ranking: Ranking, id: str) -> Ranking:
    """`ranking` without one document, in the same order; such as the query itself, where queries are documents.

    >>> without(Ranking.from_scores({"a": 3.0, "b": 1.0}), "a").ids
    ('b',)
    """
    if id not in ranking.ids:
        return ranking
    kept = [place for place, other in enumerate(ranking.ids) if other != id]
    return Ranking(tuple(ranking.ids[place] for place in kept), ranking.scores[kept], ranking.documents)


def _ir_measures() -> ModuleType:
    try:
        import ir_measures
    except ImportError as error:
        raise MissingExtraError("ir-measures", "evaluation", "Measuring retrieval") from error
    return ir_measures
