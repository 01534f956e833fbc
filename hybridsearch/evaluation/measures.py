"""Measures of rankings, computed by ir-measures, and reading and writing of judgements.

The measures see each ranking in the order in which it was returned. trec_eval sorts by score and orders equal scores by
its own rule. So it gets falling scores made from the ranks, and never the scores of the retriever.
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
"""Judgements: query id -> document id -> grade. Grade 0 is not relevant, grade 1 and above is relevant."""

DEFAULT_MEASURES = ("nDCG@10", "RR@10", "AP", "R@100")
"""Measures that `compare` and `evaluate` compute by default."""

_GRADE_COLUMNS = ("score", "grade", "label", "rel", "relevance")
_HIGHEST = 1_000_000  # trec_eval takes memory for each grade up to the highest
_INTEGER = re.compile(r"[+-]?\d{1,9}(\.0*)?", re.ASCII)


def parse_measures(names: str | Measure | Iterable[str | Measure]) -> tuple[Measure, ...]:
    """The measures of these names, each once, in the order given.

    All names of ir-measures are allowed if the packages that compute them are installed: nDCG@k, RR@k (or MRR@k), AP
    (or MAP, AP@k), R@k (or Recall@k), P@k, Success@k, Judged@k, Bpref and more. All but nDCG count a document as
    relevant from grade 1. In the data of TREC's DL tracks grade 1 is not relevant. There use `RR(rel=2)@10`,
    `AP(rel=2)` and `R(rel=2)@100`.

    Args:
        names: One or more names, or measures of ir-measures.

    Returns:
        Measures of ir-measures. `str(measure)` is the name under which `score_rankings` reports a measure.

    Raises:
        InvalidArgumentError: A name is not a measure, or a package that computes it is not installed.
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
                f"{name!r:.60} is not a measure that can be computed ({reason}). "
                "Use a name of ir-measures, such as nDCG@10, RR@10, AP, R@100, P@5 or Success@1."
            ) from error
        measures[str(measure)] = measure
    return tuple(measures.values())


def score_rankings(
    rankings: Mapping[str, Ranking], qrels: Qrels, measures: str | Measure | Iterable[str | Measure] = DEFAULT_MEASURES
) -> dict[str, dict[str, float]]:
    """Compute measures for each query of some rankings.

    The result has every query of `qrels`, in their order. A query without a ranking, or with an empty one, has 0.0.
    Queries without judgements are ignored. Documents without a judgement count as not relevant. A grade below 0 counts
    as 0, also for Bpref and infAP, for which trec_eval leaves such a judgement out.

    Args:
        rankings: Rankings by query id. They are used in the order in which they are. They are not cut: if AP must not
            see a whole ranking, cut it before.
        qrels: Judgements: query id -> document id -> grade.
        measures: Names of measures, as in `parse_measures`.

    Returns:
        Measure name -> query id -> value.

    Raises:
        InvalidArgumentError: A name is not a measure that can be computed. Or a measure cannot use these judgements. Or
            a grade is above 1,000,000.

    >>> found = {"q1": Ranking.from_scores({"d1": 2.0, "d2": 1.0})}
    >>> score_rankings(found, {"q1": {"d2": 1}, "q2": {"d9": 1}}, ["RR@10", "R@100"])
    {'RR@10': {'q1': 0.5, 'q2': 0.0}, 'R@100': {'q1': 1.0, 'q2': 0.0}}
    """
    parsed = parse_measures(measures)
    scores = {str(measure): dict.fromkeys(qrels, 0.0) for measure in parsed}
    # The packages see numbers in place of ids: C ends a string at a zero byte, and Perl splits a line at blanks.
    # trec_eval crashes at grades below -1, and its nDCG does not end at -1.
    queries = [query for query in qrels if query in rankings and len(rankings[query])]
    run: dict[str, dict[str, int]] = {}
    judged: dict[str, dict[str, int]] = {}
    names = list(map(str, range(max((len(rankings[query]) for query in queries), default=0))))
    for number, query in enumerate(queries):
        found = dict(zip(rankings[query].ids, names, strict=False))
        run[str(number)] = dict(zip(names, range(len(found), 0, -1), strict=False))
        judged[str(number)] = {
            found.get(id) or f"d{place}": max(grade, 0) for place, (id, grade) in enumerate(qrels[query].items())
        }
    if not run:
        return scores
    highest = max((grade for grades in judged.values() for grade in grades.values()), default=0)
    if highest > _HIGHEST:
        raise InvalidArgumentError(f"A judgement has the grade {highest}, but measures take grades up to {_HIGHEST:,}.")
    try:
        for query, measure, value in _ir_measures().iter_calc(parsed, judged, run):
            scores[str(measure)][queries[int(query)]] = float(value)
    except Exception as error:  # of any of the packages and programs behind ir-measures
        reason = " ".join(str(error).split())
        raise InvalidArgumentError(
            f"{', '.join(scores)} cannot be computed from these judgements ({type(error).__name__}: {reason[:200]}): "
            "leave out the less usual measures."
        ) from error
    return scores


def read_qrels(path: str | Path) -> dict[str, dict[str, int]]:
    """Read judgements from a file of TREC or BEIR.

    A TREC file has four columns, with spaces or tabs between them: `query-id iteration document-id grade`. A BEIR file
    has three columns with tabs between them: `query-id corpus-id score`. Its first line can hold these names. The
    number of columns decides which format it is.

    Args:
        path: File to read. It can be compressed (gzip, bzip2, xz or Zstandard).

    Returns:
        Query id -> document id -> grade, in the order of the file.

    Raises:
        InvalidArgumentError: There is no such file, or a line is malformed or contradicts an earlier line. The message
            names the file and the line.
        StorageError: The file cannot be read.
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
                f"score with tabs between them, not {line.strip()[:80]!r}. All lines need the same format, and grades "
                "are whole numbers."
            )
        add_judgement(qrels, columns[0], columns[-2], int(float(grade)), f"{path}, line {number}")
    if not qrels:
        raise InvalidArgumentError(f"{path} holds no judgements.")
    return qrels


def write_qrels(qrels: Qrels, path: str | Path, format: Literal["trec", "beir"] | None = None) -> None:
    """Write judgements to a file of TREC or BEIR. `read_qrels` reads it.

    Args:
        qrels: Judgements: query id -> document id -> grade.
        path: File to write. An existing file is replaced.
        format: "trec" (`query-id 0 document-id grade`) or "beir" (columns with tabs between them, and their names in
            the first line). None takes "beir" if the path ends with .tsv, else "trec".

    Raises:
        InvalidArgumentError: The format cannot hold an id. TREC allows no spaces, and BEIR no tabs and line ends.
        StorageError: The file cannot be written.
    """
    path = Path(path)
    beir = format == "beir" or (format is None and path.suffix == ".tsv")
    for id in (id for query, grades in qrels.items() for id in (query, *grades)):
        if (id != id.strip(BLANKS) or not id or any(c in id for c in "\t\r\n")) if beir else words(id) != [id]:
            wrong = "has a tab, a line end or blanks around it" if beir else "has a space"
            raise InvalidArgumentError(f"The id {id!r} is empty or {wrong}, so this format cannot hold it.")
    with writable(path), path.open("w", encoding="utf-8", newline="\n") as file:
        if beir:
            file.write("query-id\tcorpus-id\tscore\n")
        for query, grades in qrels.items():
            for document, grade in grades.items():
                file.write(f"{query}\t{document}\t{grade}\n" if beir else f"{query} 0 {document} {grade}\n")


def add_judgement(qrels: dict[str, dict[str, int]], query: str, document: str, grade: int, where: str) -> None:
    """Add one judgement, which was read at `where`. A judgement that contradicts an earlier one is an error."""
    if not query or not document:
        raise InvalidArgumentError(f"{where}: the query id or the document id is empty.")
    earlier = qrels.setdefault(query, {}).setdefault(document, grade)
    if earlier != grade:
        raise InvalidArgumentError(
            f"{where}: document {document!r} of query {query!r} has the grade {grade}, but an earlier line has "
            f"the grade {earlier}."
        )


def without(ranking: Ranking, id: str) -> Ranking:
    """`ranking` without the document `id`, in the same order.

    >>> without(Ranking.from_scores({"a": 3.0, "b": 1.0}), "a").ids
    ('b',)
    """
    if id not in ranking.ids:
        return ranking
    kept = [place for place, other in enumerate(ranking.ids) if other != id]
    return Ranking(
        tuple(ranking.ids[place] for place in kept), ranking.scores[kept], ranking.documents, ranking.passages
    )


def _ir_measures() -> ModuleType:
    try:
        import ir_measures
    except ImportError as error:
        raise MissingExtraError("ir-measures", "evaluation", "Measuring retrieval") from error
    return ir_measures
