"""The queries and the judgements in files: TREC, JSON lines, CSV, TSV and Parquet."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hybridsearch.errors import DocumentError, InvalidArgumentError
from hybridsearch.evaluation.measures import add_judgement, read_qrels
from hybridsearch.readers import read_documents
from hybridsearch.readers.compression import plain_name
from hybridsearch.readers.lines import BLANKS, read_lines
from hybridsearch.readers.text import decode_json

_QUERY_FIELDS = ("query-id", "query_id", "qid")
_DOCUMENT_FIELDS = ("corpus-id", "corpus_id", "doc_id", "docid")
_GRADE_FIELDS = ("score", "relevance", "label")


def queries_of(path: Path, topic_field: str) -> Iterator[tuple[str, str]]:
    """The id and text of each query of a file, in any format that `Dataset.from_files` allows."""
    if _suffix(path) in (".jsonl", ".json", ".parquet", ".csv"):
        for document in read_documents(path, metadata_fields=[]):
            yield document.id, document.text
        return
    lines = list(read_lines(path))
    if lines and lines[0][1].lstrip().startswith("<"):
        yield from _topics(path, lines, topic_field)
        return
    for number, line in lines:
        id, tab, text = line.rstrip("\r\n").partition("\t")
        id = id.strip(BLANKS)
        if not tab or not id:
            raise InvalidArgumentError(
                f"{path}, line {number}: a query is a line `id<TAB>text`, not {line.strip()[:80]!r}."
            )
        if number > 1 or id.lower() not in ("id", "_id", *_QUERY_FIELDS):
            yield id, text.strip()


def queries_of_log(path: Path) -> list[tuple[str, str]] | None:
    """Ids and texts of a log, or of plain lines. None for a file of another format."""
    if _suffix(path) in (".json", ".parquet", ".csv"):
        return None
    lines = [line.strip() for _, line in read_lines(path)]
    records = [record for line in lines if line.startswith("{") and isinstance(record := _decoded(line), dict)]
    texts = [record["query"].strip() for record in records if isinstance(record.get("query"), str)]
    if not texts or any("text" in record or "_id" in record for record in records):
        topics = bool(lines) and lines[0].lower().startswith("<top>")
        if topics or _suffix(path) == ".jsonl" or any("\t" in line for line in lines):
            return None
        texts = lines
    return [(f"q{number}", text) for number, text in enumerate(filter(None, dict.fromkeys(texts)), 1)]


def judgements_of(files: Iterable[Path]) -> dict[str, dict[str, int]]:
    """The judgements of all files: query id -> document id -> grade."""
    judgements: dict[str, dict[str, int]] = {}
    for path in files:
        if _suffix(path) in (".jsonl", ".json", ".parquet"):
            for where, record in _records(path):
                _add_record(judgements, record, where)
        else:
            for query, grades in read_qrels(path).items():
                for document, grade in grades.items():
                    add_judgement(judgements, query, document, grade, str(path))
    return judgements


def _topics(path: Path, lines: Sequence[tuple[int, str]], field: str) -> Iterator[tuple[str, str]]:
    """The queries of TREC topics. Their tags are not closed: `<top> <num> Number: 301 <title> ... </top>`."""
    starts = [place for place, (_, line) in enumerate(lines) if line.lstrip().lower().startswith("<top>")]
    if not starts:
        raise InvalidArgumentError(f"{path} has no <top>: queries are TREC topics with <top>, or lines `id<TAB>text`.")
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        topic = "".join(line for _, line in lines[start:end])
        number = re.search(r"<num>\s*(?:Number\s*:)?\s*([^\s<]+)", topic, re.IGNORECASE)
        text = re.search(rf"<{field}>\s*(?:(?:Topic|Description|Narrative)\s*:)?([^<]*)", topic, re.IGNORECASE)
        if number is None or text is None:
            raise InvalidArgumentError(f"{path}, line {lines[start][0]}: the topic has no <num> or no <{field}>.")
        yield number[1], " ".join(text[1].split())


def _records(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The place ("file, line 3") and the fields of each record of JSON lines or Parquet."""
    if _suffix(path) == ".parquet":
        yield from _parquet_records(path)
        return
    for number, line in read_lines(path):
        where = f"{path}, line {number}"
        try:
            record = decode_json(line)
        except (ValueError, RecursionError) as error:
            raise InvalidArgumentError(f"{where}: the line is not valid JSON ({error}).") from error
        if not isinstance(record, dict):
            raise InvalidArgumentError(f"{where}: the line is not a JSON object.")
        yield where, record


def _parquet_records(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.ParquetFile(path).read().to_pylist()
    except (pa.ArrowException, ValueError, OSError) as error:
        raise DocumentError(f"{path} cannot be read as Parquet ({error}).") from error
    yield from ((f"{path}, row {number}", row) for number, row in enumerate(rows, 1))


def _add_record(qrels: dict[str, dict[str, int]], record: Mapping[str, Any], where: str) -> None:
    """Add one judgement, or the list of relevant documents of one query."""
    query, documents, grade = (
        next((record[name] for name in names if name in record), None)
        for names in (_QUERY_FIELDS, _DOCUMENT_FIELDS, _GRADE_FIELDS)
    )
    grade = 1 if grade is None else grade
    ids = documents if isinstance(documents, list) else [documents]
    for id in (query, *ids):
        if isinstance(id, bool) or not isinstance(id, str | int):
            raise InvalidArgumentError(
                f"{where}: a judgement has the fields query-id, corpus-id and, if it has a grade, score, "
                f"not {', '.join(map(str, record))[:200] or 'none'}. Ids are strings or integers."
            )
    if isinstance(grade, bool) or not isinstance(grade, int | float) or not float(grade).is_integer():
        raise InvalidArgumentError(f"{where}: the score of a judgement is an integer, not {grade!r}.")
    for id in ids:
        add_judgement(qrels, str(query), str(id), int(grade), where)


def _decoded(line: str) -> Any:
    try:
        return decode_json(line)
    except (ValueError, RecursionError):
        return None


def _suffix(path: Path) -> str:
    return Path(plain_name(path.name.lower())).suffix
