"""Test collections: documents, queries and relevance judgements, from the hub or from files, and their checks."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from hybridsearch import arguments
from hybridsearch.documents import Document
from hybridsearch.errors import DatasetNotFoundError, DocumentError, InvalidArgumentError
from hybridsearch.evaluation import hub
from hybridsearch.evaluation.measures import Qrels, add_judgement, read_qrels
from hybridsearch.messages import number_of, redacted
from hybridsearch.readers import read_documents
from hybridsearch.readers.lines import BLANKS, read_lines

if TYPE_CHECKING:
    from rich.text import Text

NANOBEIR = {
    "arguana": "NanoArguAna",
    "climatefever": "NanoClimateFEVER",
    "dbpedia": "NanoDBPedia",
    "fever": "NanoFEVER",
    "fiqa2018": "NanoFiQA2018",
    "hotpotqa": "NanoHotpotQA",
    "msmarco": "NanoMSMARCO",
    "nfcorpus": "NanoNFCorpus",
    "nq": "NanoNQ",
    "quoraretrieval": "NanoQuoraRetrieval",
    "scidocs": "NanoSCIDOCS",
    "scifact": "NanoSciFact",
    "touche2020": "NanoTouche2020",
}
"""The 13 sets of NanoBEIR, by the names that sentence-transformers gives them, and their splits on the hub."""

NANOBEIR_ID = "sentence-transformers/NanoBEIR-en"

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_EXAMPLES = 5  # ids shown for a problem
_QUERY_FIELDS = ("query-id", "query_id", "qid")
_DOCUMENT_FIELDS = ("corpus-id", "corpus_id", "doc_id", "docid")
_GRADE_FIELDS = ("score", "relevance", "label")


@dataclass(frozen=True, slots=True)
class Dataset:
    """Queries with relevance judgements, and the documents they are about.

    Attributes:
        name: for tables.
        queries: query id -> text. A loaded data set keeps the judged ones only, unless asked for all.
        qrels: query id -> document id -> grade; 0 is judged and not relevant, 1 and more is relevant.
        corpus: the documents, read again from their files at each iteration; None where only runs are compared.
        left_out: how many queries were not kept because they have no judgement.
        repeated: query ids that came with several texts, of which the last one counts -> the file.

    >>> dataset = Dataset("mine", {"q1": "wing lift"}, {"q1": {"d1": 1}}, [Document("d1", "Lift grows.")])
    >>> print(dataset.check())
    mine: 1 document, 1 query, 1 judgement (1 relevant)
    no problems found
    """

    name: str
    queries: Mapping[str, str]
    qrels: Qrels
    corpus: Iterable[Document] | None = None
    left_out: int = 0
    repeated: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.queries, Mapping):
            raise InvalidArgumentError(f"queries is a mapping from id to text, not {arguments.shown(self.queries)}.")
        object.__setattr__(self, "qrels", _plain_qrels(self.qrels))
        if isinstance(self.corpus, Iterator):
            raise InvalidArgumentError(
                "The corpus is read several times, and an iterator only once: give a list, or hs.read_documents(path)."
            )

    @classmethod
    def from_files(
        cls,
        queries: str | Path,
        qrels: str | Path,
        corpus: str | Path | None = None,
        *,
        name: str | None = None,
        topic_field: Literal["title", "desc", "narr"] = "title",
        all_queries: bool = False,
    ) -> Dataset:
        """A data set of single files, such as TREC's.

        Args:
            queries: TREC topics in the classic format (`<top> <num> ... <title> ...`), or `id<TAB>text` lines (.tsv,
                .txt), or JSON lines, CSV or Parquet with an id and a text; .gz too.
            qrels: as in `hybridsearch.evaluation.measures.read_qrels`, or JSON lines or Parquet with query-id,
                corpus-id and score.
            corpus: anything that `read_documents` reads, or None.
            name: for tables; the name of the queries file by default.
            topic_field: which part of a classic topic is the query.
            all_queries: keep queries without judgements too.

        Raises:
            InvalidArgumentError, DocumentError: a file is missing or malformed (named with the line).
        """
        documents = None if corpus is None else read_documents(corpus)
        name = name or Path(queries).name.split(".")[0]
        return _dataset(name, [Path(queries)], [Path(qrels)], documents, topic_field, all_queries)

    def __repr__(self) -> str:
        judgements = number_of(sum(map(len, self.qrels.values())), "judgement")
        corpus = "no corpus" if self.corpus is None else "a corpus"
        return f"Dataset({self.name!r}: {number_of(len(self.queries), 'query', 'queries')}, {judgements}, {corpus})"

    @property
    def digest(self) -> str:
        """A fingerprint of queries and judgements, 16 hexadecimal digits; the documents are not part of it."""
        content = [
            sorted(self.queries.items()),
            sorted((query, sorted(of.items())) for query, of in self.qrels.items()),
        ]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]

    @property
    def query_digests(self) -> frozenset[str]:
        """Twelve hexadecimal digits for each judged query, of its id and text. They show what data sets share."""
        pairs = [[id, text] for id, text in self.queries.items() if id in self.qrels]
        return frozenset(hashlib.sha256(json.dumps(pair).encode()).hexdigest()[:12] for pair in pairs)

    def check(self) -> DatasetReport:
        """Count what there is, and what looks wrong with it; reads the whole corpus, and keeps its ids in memory."""
        judged = {id for grades in self.qrels.values() for id in grades}
        found = {
            "judged queries that have no text": self.qrels.keys() - self.queries.keys(),
            "queries without judgements": self.queries.keys() - self.qrels.keys(),
            "queries without a relevant document": {
                query for query, grades in self.qrels.items() if all(grade < 1 for grade in grades.values())
            },
            "queries with an empty text": {query for query, text in self.queries.items() if not text.strip()},
            "query ids that come with several texts": set(self.repeated),
        }
        documents = None
        if self.corpus is not None:
            ids: Counter[str] = Counter()
            empty = set()
            for document in self.corpus:
                ids[document.id] += 1
                if not document.content.strip():
                    empty.add(document.id)
            documents = len(ids)
            found["judged documents that are not in the corpus"] = judged - ids.keys()
            found["documents with an empty text"] = empty
            found["document ids that come more than once"] = {id for id, times in ids.items() if times > 1}
        grades = [grade for of_query in self.qrels.values() for grade in of_query.values()]
        return DatasetReport(
            self.name,
            documents,
            len(self.queries),
            len(grades),
            sum(grade > 0 for grade in grades),
            self.left_out,
            tuple(Problem(what, len(ids), tuple(sorted(ids)[:_EXAMPLES])) for what, ids in found.items() if ids),
        )


def _plain_qrels(qrels: Any) -> Qrels:
    """`qrels` itself where its grades are plain integers, else a copy that has them. Raises InvalidArgumentError."""
    if not isinstance(qrels, Mapping) or not all(isinstance(grades, Mapping) for grades in qrels.values()):
        raise InvalidArgumentError(
            "qrels is a mapping from query id to a mapping from document id to grade, such as {'q1': {'d1': 1}}, not "
            f"{arguments.shown(qrels)}."
        )
    for query, grades in qrels.items():
        for id in (query, *grades):
            if not isinstance(id, str):
                raise InvalidArgumentError(f"An id in qrels is a string, not {id!r:.80}; write {str(id)!r:.80}.")
    if all(type(grade) is int for grades in qrels.values() for grade in grades.values()):
        return qrels
    return {
        query: {document: _grade(grade, query, document) for document, grade in grades.items()}
        for query, grades in qrels.items()
    }


def _grade(grade: Any, query: object, document: object) -> int:
    """Numbers of numpy and pandas count, as do 2.0 and True."""
    number = float(grade) if isinstance(grade, Real) else math.nan
    if not number.is_integer() or abs(number) >= 2**31:
        raise InvalidArgumentError(
            f"The grade of document {document!r:.80} for query {query!r:.80} is {arguments.shown(grade)}; a grade is "
            "a whole number, 0 for not relevant."
        )
    return int(number)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in a data set that looks wrong: what, how many, and some of the ids."""

    what: str
    count: int
    examples: tuple[str, ...]

    def __str__(self) -> str:
        more = ", ..." if self.count > len(self.examples) else ""
        return f"{self.what}: {self.count:,} ({', '.join(self.examples)}{more})"


@dataclass(frozen=True, slots=True)
class DatasetReport:
    """What `Dataset.check` counted and found.

    Attributes:
        documents: distinct ids in the corpus; None without a corpus.
        queries, judgements: how many.
        relevant: judgements with a grade of 1 or more.
        left_out: queries that were not loaded because they have no judgement.
        problems: empty where all is well.
    """

    name: str
    documents: int | None
    queries: int
    judgements: int
    relevant: int
    left_out: int
    problems: tuple[Problem, ...]

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able dict."""
        return asdict(self)

    def __str__(self) -> str:
        documents = "no corpus" if self.documents is None else number_of(self.documents, "document")
        queries, judgements = number_of(self.queries, "query", "queries"), number_of(self.judgements, "judgement")
        lines = [f"{self.name}: {documents}, {queries}, {judgements} ({self.relevant:,} relevant)"]
        if self.left_out:
            lines.append(f"{number_of(self.left_out, 'query', 'queries')} without judgements left out")
        return "\n".join([*lines, *(map(str, self.problems) if self.problems else ["no problems found"])])

    def __rich__(self) -> Text:
        from rich.text import Text

        return Text(str(self))


@overload
def load_dataset(  # type: ignore[overload-overlap]
    name: Literal["nanobeir"],
    *,
    split: str = ...,
    dataset_id: str | Path | None = ...,
    revision: str | None = ...,
    all_queries: bool = ...,
) -> dict[str, Dataset]: ...
@overload
def load_dataset(
    name: str | Path,
    *,
    split: str = ...,
    dataset_id: str | Path | None = ...,
    revision: str | None = ...,
    all_queries: bool = ...,
) -> Dataset: ...
def load_dataset(
    name: str | Path,
    *,
    split: str = "test",
    dataset_id: str | Path | None = None,
    revision: str | None = None,
    all_queries: bool = False,
) -> Dataset | dict[str, Dataset]:
    """Load a test collection by name or from a folder.

    | name                 | what                                                                             |
    |----------------------|----------------------------------------------------------------------------------|
    | path/to/folder       | a BEIR folder; or a data set as the hub stores it; or topics, qrels and a corpus |
    | nanobeir/msmarco ... | one of the 13 sets of NanoBEIR (50 queries each)                                 |
    | nanobeir             | all of them: a dict, name -> Dataset                                             |
    | beir/scifact ...     | one of BEIR: BeIR/scifact and BeIR/scifact-qrels on the hub                      |
    | owner/name           | any data set on the hub with corpus, queries and qrels in the form of BEIR       |

    A folder of that name goes before the hub. What the hub has is downloaded once, only the files needed, to its usual
    cache, and found there without a connection; `HF_HUB_OFFLINE=1` forbids asking. Identifiers are strings, as written;
    judgements without a score have the grade 1. Documents are streamed, not kept.

    Args:
        name: as above.
        split: of the judgements: "test", "train", "dev" (or "validation"), or a file's name: "test_full" reads
            qrels/test_full.tsv. Nothing to choose for NanoBEIR.
        dataset_id: with "nanobeir..." or "beir/...", where to read it instead: another data set on the hub (such as
            a translation of NanoBEIR), or a folder that holds a copy.
        revision: of the data set on the hub: a branch, tag or commit.
        all_queries: keep queries without judgements too; they are not measured.

    Raises:
        DatasetNotFoundError: there is no such folder or data set, or it is not at hand and the hub cannot be reached;
            the message says what to download.
        InvalidArgumentError, DocumentError: a file is malformed (named with the line or row), or there is no such
            split; or the name is that of an index.
        MissingExtraError: huggingface_hub is not installed.
    """
    arguments.path("The data set", name)
    family, _, member = str(name).partition("/")
    if "://" in str(name) or (Path(name) / "manifest.json").is_file():
        place = redacted(name)
        quoted = shlex.quote(place)
        raise InvalidArgumentError(
            f"{place!r} is an index, but a data set is needed, with queries and judgements: `hybridsearch evaluate "
            f"{quoted} DATASET` measures the index, and `hybridsearch compare DATASET --index {quoted}` its systems."
        )
    if Path(name).is_dir():
        if dataset_id is not None:
            raise InvalidArgumentError(f"{str(name)!r} is a folder already, so dataset_id has no meaning beside it.")
        label = Path(name).resolve().name + ("" if split == "test" else f"/{split}")
        return _from_layout(label, hub.Layout(Path(name)), split, all_queries)
    if family == "nanobeir":
        chosen = [_nanobeir_set(member)] if member else list(NANOBEIR)
        layout = _layout(dataset_id or NANOBEIR_ID, [NANOBEIR[set_] for set_ in chosen], revision)
        label = "nanobeir" if dataset_id is None else str(dataset_id)
        sets = {set_: _from_layout(f"{label}/{set_}", layout, NANOBEIR[set_], all_queries) for set_ in chosen}
        return sets[chosen[0]] if member else sets
    if (family == "beir" and member) or (isinstance(name, str) and _HUB_ID.fullmatch(name)):
        where = dataset_id or (f"BeIR/{member}" if family == "beir" else name)
        layout = _layout(where, [split], revision)
        qrels: list[Path] = []
        if not layout.splits("qrels") and not layout.files("qrels", split) and not Path(where).is_dir():
            qrels = hub.fetch(f"{where}-qrels", ["qrels"], [split]).files("qrels", split)
        label = str(name if dataset_id is None else dataset_id) + ("" if split == "test" else f"/{split}")
        return _from_layout(label, layout, split, all_queries, qrels)
    raise DatasetNotFoundError(
        f"There is no folder {str(name)!r}, and it is no name of a data set: those are nanobeir, nanobeir/msmarco "
        "(or another of its sets), beir/scifact (or another of BEIR), and owner/name on the hub."
    )


def load_one(name: str | Path, split: str = "test", dataset_id: str | Path | None = None) -> Dataset:
    """`load_dataset`. Raises InvalidArgumentError where the name is that of several data sets."""
    loaded: Dataset | dict[str, Dataset] = load_dataset(name, split=split, dataset_id=dataset_id)
    if isinstance(loaded, dict):
        raise InvalidArgumentError(
            f"{name} is {len(loaded)} data sets: name one of them, {', '.join(f'{name}/{one}' for one in loaded)}."
        )
    return loaded


def _nanobeir_set(member: str) -> str:
    key = member.lower().replace("-", "").removeprefix("nano")
    if key not in NANOBEIR:
        raise DatasetNotFoundError(f"NanoBEIR has no set {member!r}; it has {', '.join(NANOBEIR)}.")
    return key


def _layout(where: str | Path, splits: Sequence[str], revision: str | None) -> hub.Layout:
    if Path(where).is_dir():
        return hub.Layout(Path(where))
    return hub.fetch(str(where), hub.SUBSETS, splits, revision)


def _from_layout(name: str, layout: hub.Layout, split: str, all_queries: bool, qrels: Sequence[Path] = ()) -> Dataset:
    qrels = qrels or layout.files("qrels", split)
    if not qrels:
        there = f"they are looked for as qrels/{split}.tsv and the like"
        if known := layout.splits("qrels"):
            there = f"it has {', '.join(map(repr, known))}"
        raise InvalidArgumentError(f"{layout.folder} has no judgements for the split {split!r}; {there}.")
    queries = layout.files("queries", split)
    if not queries:
        raise InvalidArgumentError(
            f"{layout.folder} has no queries; they are looked for as queries.jsonl, topics.* and the like."
        )
    corpus = _Corpus(layout.files("corpus", split))
    return _dataset(name, queries, qrels, corpus if corpus.files else None, "title", all_queries)


@dataclass(frozen=True, slots=True)
class _Corpus(Iterable[Document]):
    """Documents of one or more files, read anew at each iteration."""

    files: list[Path]

    def __iter__(self) -> Iterator[Document]:
        for path in self.files:
            yield from read_documents(path)


def _dataset(
    name: str,
    queries: Sequence[Path],
    qrels: Sequence[Path],
    corpus: Iterable[Document] | None,
    topic_field: str,
    all_queries: bool,
) -> Dataset:
    judgements: dict[str, dict[str, int]] = {}
    for path in qrels:
        if _suffix(path) in (".jsonl", ".json", ".parquet"):
            for where, record in _records(path):
                _add_record(judgements, record, where)
        else:
            for query, grades in read_qrels(path).items():
                for document, grade in grades.items():
                    add_judgement(judgements, query, document, grade, str(path))
    texts: dict[str, str] = {}
    repeated: dict[str, str] = {}
    for path in queries:
        for id, text in _read_queries(path, topic_field):
            if texts.get(id, text) != text:
                repeated[id] = str(path)
            texts[id] = text
    kept = texts if all_queries else {query: text for query, text in texts.items() if query in judgements}
    if texts.keys().isdisjoint(judgements):
        raise InvalidArgumentError(
            f"No query of {queries[0]} has a judgement in {qrels[0]}: their ids differ, such as "
            f"{next(iter(texts), None)!r:.80} and {next(iter(judgements), None)!r:.80}."
        )
    return Dataset(name, kept, judgements, corpus, len(texts) - len(kept), repeated)


def _read_queries(path: Path, topic_field: str) -> Iterator[tuple[str, str]]:
    """(query id, text) of a file of queries, in any of the formats of `Dataset.from_files`."""
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
            raise InvalidArgumentError(f"{path}, line {number}: a query is `id<TAB>text`, not {line.strip()[:80]!r}.")
        if number > 1 or id.lower() not in ("id", "_id", *_QUERY_FIELDS):
            yield id, text.strip()


def _topics(path: Path, lines: Sequence[tuple[int, str]], field: str) -> Iterator[tuple[str, str]]:
    """Topics of TREC's classic format, whose tags are not closed: `<top> <num> Number: 301 <title> ... </top>`."""
    starts = [place for place, (_, line) in enumerate(lines) if line.lstrip().lower().startswith("<top>")]
    if not starts:
        raise InvalidArgumentError(
            f"{path} holds no <top>: topics are in TREC's classic format or `id<TAB>text` lines."
        )
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        topic = "".join(line for _, line in lines[start:end])
        number = re.search(r"<num>\s*(?:Number\s*:)?\s*([^\s<]+)", topic, re.IGNORECASE)
        text = re.search(rf"<{field}>\s*(?:(?:Topic|Description|Narrative)\s*:)?([^<]*)", topic, re.IGNORECASE)
        if number is None or text is None:
            raise InvalidArgumentError(f"{path}, line {lines[start][0]}: the topic has no <num> or no <{field}>.")
        yield number[1], " ".join(text[1].split())


def _records(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """("file, line or row", fields) of JSON lines or Parquet."""
    if _suffix(path) == ".parquet":
        yield from _parquet_records(path)
        return
    for number, line in read_lines(path):
        where = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InvalidArgumentError(f"{where}: it is not valid JSON ({error}).") from error
        if not isinstance(record, dict):
            raise InvalidArgumentError(f"{where}: it is not a JSON object.")
        yield where, record


def _parquet_records(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.ParquetFile(path).read().to_pylist()
    except (pa.ArrowException, ValueError, OSError) as error:
        raise DocumentError(f"{path} is not a readable Parquet file ({error}).") from error
    yield from ((f"{path}, row {number}", row) for number, row in enumerate(rows, 1))


def _add_record(qrels: dict[str, dict[str, int]], record: Mapping[str, Any], where: str) -> None:
    """One judgement, or one query's list of relevant documents."""
    query, documents, grade = (
        next((record[name] for name in names if name in record), None)
        for names in (_QUERY_FIELDS, _DOCUMENT_FIELDS, _GRADE_FIELDS)
    )
    grade = 1 if grade is None else grade
    ids = documents if isinstance(documents, list) else [documents]
    for id in (query, *ids):
        if isinstance(id, bool) or not isinstance(id, str | int):
            raise InvalidArgumentError(
                f"{where}: a judgement has the fields query-id, corpus-id and, if graded, score, "
                f"not {', '.join(map(str, record))[:200] or 'none'}, with ids that are strings or integers."
            )
    if isinstance(grade, bool) or not isinstance(grade, int | float) or not float(grade).is_integer():
        raise InvalidArgumentError(f"{where}: the score of a judgement is an integer, not {grade!r}.")
    for id in ids:
        add_judgement(qrels, str(query), str(id), int(grade), where)


def _suffix(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).suffix
