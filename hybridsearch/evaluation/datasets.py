"""Data sets: documents, queries and judgements, from files or from the Hugging Face hub."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from hybridsearch import arguments
from hybridsearch.documents import Document
from hybridsearch.errors import DatasetNotFoundError, InvalidArgumentError, NoSplitError
from hybridsearch.evaluation import hub
from hybridsearch.evaluation.dataset_files import judgements_of, queries_of, queries_of_log
from hybridsearch.evaluation.measures import Qrels
from hybridsearch.messages import number_of, redacted
from hybridsearch.readers import Table, read_documents

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
"""The 13 sets of NanoBEIR: the name of each in sentence-transformers, and its split on the hub."""

NANOBEIR_ID = "sentence-transformers/NanoBEIR-en"
"""Name of NanoBEIR on the hub."""

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_EXAMPLES = 5  # ids shown for a problem


@dataclass(frozen=True, slots=True)
class Dataset:
    """Queries with judgements, and the documents that they are about.

    Attributes:
        name: Name of the data set, for tables.
        queries: Query id -> text. A loaded data set has only judged queries, unless `all_queries` was given.
        qrels: Judgements: query id -> document id -> grade. Grade 0 is not relevant, grade 1 and above is relevant.
        corpus: Documents. They are read from their files again at each iteration. None if only runs are compared.
        left_out: Number of queries that were left out because they have no judgement.
        repeated: Query ids that have several texts -> their file. The last text is used.
        judged_by: Whose grades the judgements are, as the file `judges.txt` of a folder says. "" if nothing says it.

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
    judged_by: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.queries, Mapping):
            raise InvalidArgumentError(
                f"queries is a mapping from query id to text, not {arguments.shown(self.queries)}."
            )
        object.__setattr__(self, "qrels", _plain_qrels(self.qrels))
        if isinstance(self.corpus, Iterator):
            raise InvalidArgumentError(
                "The corpus is read several times, but an iterator can be read only once: give a list, or "
                "hs.read_documents(path)."
            )
        first = next(iter(self.corpus), None) if isinstance(self.corpus, list | tuple) else None
        if isinstance(self.corpus, str | Path | Mapping | Table) or not isinstance(first, Document | None):
            values = f" of {type(first).__name__}" if isinstance(self.corpus, list | tuple) else ""
            raise InvalidArgumentError(
                f"corpus is an iterable of documents, not a {type(self.corpus).__name__}{values}: give "
                "hs.read_documents(corpus), which makes documents of it."
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
        """Make a data set from a file of queries, a file of judgements and documents.

        Args:
            queries: File of queries: TREC topics (`<top> <num> ... <title> ...`), lines `id<TAB>text` (.tsv, .txt), or
                JSON lines, CSV or Parquet with an id and a text. It can be compressed.
            qrels: File of judgements: a file that `hybridsearch.evaluation.measures.read_qrels` reads, or JSON lines
                or Parquet with the fields query-id, corpus-id and score.
            corpus: Documents: anything that `read_documents` reads. None for no documents.
            name: Name of the data set, for tables. None takes the name of the queries file.
            topic_field: Part of a TREC topic that is the query: "title", "desc" or "narr".
            all_queries: Whether to keep queries without judgements too.

        Raises:
            InvalidArgumentError: A file of queries or judgements is missing or malformed. The message names the line.
            DocumentError: A file of documents is missing or malformed.
        """
        documents = None if corpus is None else read_documents(corpus)
        name = name or Path(queries).name.split(".")[0]
        return _dataset(name, [Path(queries)], [Path(qrels)], documents, topic_field, all_queries)

    def __repr__(self) -> str:
        judgements = number_of(sum(map(len, self.qrels.values())), "judgement")
        corpus = "no documents" if self.corpus is None else "with documents"
        return f"Dataset({self.name!r}: {number_of(len(self.queries), 'query', 'queries')}, {judgements}, {corpus})"

    @property
    def digest(self) -> str:
        """A digest of the queries and judgements, as 16 hexadecimal digits. It does not cover the documents."""
        content = [
            sorted(self.queries.items()),
            sorted((query, sorted(of.items())) for query, of in self.qrels.items()),
        ]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]

    @property
    def query_digests(self) -> frozenset[str]:
        """A digest of the id and text of each judged query, as 12 hexadecimal digits. It shows shared queries."""
        pairs = [[id, text] for id, text in self.queries.items() if id in self.qrels]
        return frozenset(hashlib.sha256(json.dumps(pair).encode()).hexdigest()[:12] for pair in pairs)

    def check(self) -> DatasetReport:
        """Count documents, queries and judgements, and look for problems.

        It reads all documents and keeps their ids in memory.
        """
        judged = {id for grades in self.qrels.values() for id in grades}
        found = {
            "judged queries without a text": self.qrels.keys() - self.queries.keys(),
            "queries without judgements": self.queries.keys() - self.qrels.keys(),
            "queries without a relevant document": {
                query for query, grades in self.qrels.items() if all(grade < 1 for grade in grades.values())
            },
            "queries with an empty text": {query for query, text in self.queries.items() if not text.strip()},
            "query ids with several texts": set(self.repeated),
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
            found["document ids that occur more than once"] = {id for id, times in ids.items() if times > 1}
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

    def written_into(
        self, documents: str | Path | Table | Iterable[Document | Mapping[str, Any]]
    ) -> Iterator[Document]:
        """Write the queries into their relevant documents, at the beginning of the text.

        An index of these documents remembers which queries each document answers, so similar queries find it. Give
        train queries. A query that is written in finds itself, so it cannot measure the search. A model reads only the
        beginning of a text, and many queries push the text out. In an index with passages, the queries are in the first
        passages.

        Args:
            documents: Documents, in any form that `hybridsearch.read_documents` takes.

        Yields:
            The documents in order. Those that are relevant for no query are as they were. Judgements of documents that
            do not come are left out.

        Raises:
            DocumentError: Something is not a document.

        >>> train = Dataset("mine", {"q1": "What keeps a plane up?"}, {"q1": {"d1": 1}})
        >>> next(train.written_into([Document("d1", "Lift grows with the angle of attack.")])).text
        'What keeps a plane up?\\nLift grows with the angle of attack.'
        """
        asked: dict[str, list[str]] = {}
        for query, text in self.queries.items():
            for id, grade in self.qrels.get(query, {}).items():
                if grade > 0:
                    asked.setdefault(id, []).append(text)
        for document in read_documents(documents):
            queries = asked.get(document.id)
            yield document if queries is None else replace(document, text="\n".join([*queries, document.text]))


def _plain_qrels(qrels: Any) -> Qrels:
    """`qrels` with grades that are plain integers. Raises InvalidArgumentError for another form."""
    if not isinstance(qrels, Mapping) or not all(isinstance(grades, Mapping) for grades in qrels.values()):
        raise InvalidArgumentError(
            "qrels is a mapping from query id to a mapping from document id to grade, such as {'q1': {'d1': 1}}, not "
            f"{arguments.shown(qrels)}."
        )
    for query, grades in qrels.items():
        for id in (query, *grades):
            if not isinstance(id, str):
                raise InvalidArgumentError(f"An id in qrels is a string, not {id!r:.80}: write {str(id)!r:.80}.")
    if all(type(grade) is int for grades in qrels.values() for grade in grades.values()):
        return qrels
    return {
        query: {document: _grade(grade, query, document) for document, grade in grades.items()}
        for query, grades in qrels.items()
    }


def _grade(grade: Any, query: object, document: object) -> int:
    """`grade` as an integer. Numbers of numpy and pandas are allowed, and so are 2.0 and True."""
    number = float(grade) if isinstance(grade, Real) else math.nan
    if not number.is_integer() or abs(number) >= 2**31:
        raise InvalidArgumentError(
            f"The grade of document {document!r:.80} for query {query!r:.80} is {arguments.shown(grade)}. A grade must "
            "be a whole number: 0 for not relevant, 1 or more for relevant."
        )
    return int(number)


@dataclass(frozen=True, slots=True)
class Problem:
    """One kind of problem in a data set.

    Attributes:
        what: Description of the problem.
        count: Number of ids that have the problem.
        examples: Some of these ids.
    """

    what: str
    count: int
    examples: tuple[str, ...]

    def __str__(self) -> str:
        more = ", ..." if self.count > len(self.examples) else ""
        return f"{self.what}: {self.count:,} ({', '.join(self.examples)}{more})"


@dataclass(frozen=True, slots=True)
class DatasetReport:
    """The counts and problems that `Dataset.check` found. It prints as text.

    Attributes:
        name: Name of the data set.
        documents: Number of different document ids. None if the data set has no documents.
        queries: Number of queries.
        judgements: Number of judgements.
        relevant: Number of judgements with a grade of 1 or more.
        left_out: Number of queries that were left out because they have no judgement.
        problems: Problems that were found. Empty if there are none.
    """

    name: str
    documents: int | None
    queries: int
    judgements: int
    relevant: int
    left_out: int
    problems: tuple[Problem, ...]

    def to_dict(self) -> dict[str, Any]:
        """Convert the report to a dict that JSON can hold."""
        return asdict(self)

    def __str__(self) -> str:
        documents = "no documents" if self.documents is None else number_of(self.documents, "document")
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
    """Load a data set from a folder or from the Hugging Face hub.

    | name                 | data set                                                                        |
    |----------------------|---------------------------------------------------------------------------------|
    | path/to/folder       | a BEIR folder, a copy of a data set of the hub, or topics, qrels and documents  |
    | nanobeir/msmarco ... | one of the 13 sets of NanoBEIR (50 queries each)                                |
    | nanobeir             | all 13 sets: a dict from name to `Dataset`                                      |
    | beir/scifact ...     | one set of BEIR: BeIR/scifact and BeIR/scifact-qrels on the hub                 |
    | owner/name           | a data set on the hub that has corpus, queries and qrels in the format of BEIR  |

    If a folder has the name, the folder is read. From the hub only the needed files are downloaded, once, into the
    usual cache. Later the cache is read, also without a network. `HF_HUB_OFFLINE=1` forbids all downloads. Ids are
    strings. A judgement without a score has the grade 1. Documents are streamed and not kept in memory.

    Args:
        name: Folder or name, as in the table.
        split: Split of the judgements: "test", "train", "dev" (or "validation"), or the name of another file in
            qrels/: "test_full" reads qrels/test_full.tsv. NanoBEIR has no splits. If no file names a split, as
            qrels.txt of TREC, each split has all judgements.
        dataset_id: Folder or name on the hub from which a "nanobeir" or "beir" data set is read instead, such as a
            local copy or a translation of NanoBEIR.
        revision: Branch, tag or commit of the data set on the hub. None takes the main branch.
        all_queries: Whether to keep queries without judgements too. They are never measured.

    Returns:
        The data set. For "nanobeir" a dict with all 13 sets by name.

    Raises:
        DatasetNotFoundError: There is no such folder or data set. Or it is not in the cache and the hub cannot be
            reached: then the message tells what to download.
        InvalidArgumentError: A file is malformed, the split does not exist, or the name is that of an index.
        DocumentError: A file of documents is malformed. The message names the line or row.
        MissingExtraError: huggingface_hub is not installed.
    """
    arguments.path("The data set", name)
    family, _, member = str(name).partition("/")
    if "://" in str(name) or (Path(name) / "manifest.json").is_file():
        place = redacted(name)
        quoted = shlex.quote(place)
        raise InvalidArgumentError(
            f"{place!r} is an index, but a data set with queries and judgements is needed. `hybridsearch evaluate "
            f"{quoted} DATASET` measures the index. `hybridsearch compare DATASET --index {quoted}` compares systems."
        )
    if Path(name).is_file():
        raise DatasetNotFoundError(
            f"{str(name)!r} is a file, but a data set is a folder with queries, judgements and documents: give the "
            "folder. In Python, hs.Dataset.from_files reads files at any path."
        )
    if Path(name).is_dir():
        if dataset_id is not None:
            raise InvalidArgumentError(f"{str(name)!r} is a folder, so dataset_id has no meaning: leave it out.")
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
        f"There is no folder {str(name)!r}, and it is not the name of a data set. Names are nanobeir, nanobeir/msmarco "
        "(or another set of NanoBEIR), beir/scifact (or another set of BEIR), and owner/name on the hub."
    )


def read_queries(path: str | Path, *, topic_field: Literal["title", "desc", "narr"] = "title") -> dict[str, str]:
    """Read queries from a file: of a data set, of plain lines, or a log of the service.

    | file                                 | queries                                                         |
    |--------------------------------------|-----------------------------------------------------------------|
    | TREC topics                          | `<top> <num> ... <title> ...`                                   |
    | lines with a tab (.tsv, .txt)        | `id<TAB>text`                                                   |
    | plain lines                          | each line is a query; the ids are q1, q2, ... in their order    |
    | JSON lines, CSV, Parquet             | records with an id and a text                                   |
    | a log of `serve --log-queries`       | each different `query` of its JSON lines; the ids are q1, ...   |

    Args:
        path: File to read. It can be compressed.
        topic_field: Part of a TREC topic that is the query: "title", "desc" or "narr".

    Returns:
        Query id -> text, in the order of the file. Blank queries are left out. In plain lines and in a log, a text
        that comes again is left out too, so the ids do not change when lines are added at the end.

    Raises:
        InvalidArgumentError: There is no such file, or it is malformed or has no query, or an id has several texts.
    """
    path = Path(path)
    queries: dict[str, str] = {}
    pairs = queries_of_log(path)
    for id, text in queries_of(path, topic_field) if pairs is None else pairs:
        if text.strip() and queries.setdefault(id, text) != text:
            raise InvalidArgumentError(f"{path}: the query id {id!r:.80} has several texts. Give each query one id.")
    if not queries:
        raise InvalidArgumentError(f"{path} has no query.")
    return queries


def load_one(name: str | Path, split: str = "test", dataset_id: str | Path | None = None) -> Dataset:
    """Load one data set by name, as `load_dataset` does.

    Raises:
        InvalidArgumentError: The name is that of several data sets.
    """
    loaded: Dataset | dict[str, Dataset] = load_dataset(name, split=split, dataset_id=dataset_id)
    if isinstance(loaded, dict):
        raise InvalidArgumentError(
            f"{name} is {len(loaded)} data sets, and one is needed: {', '.join(f'{name}/{one}' for one in loaded)}."
        )
    return loaded


def _nanobeir_set(member: str) -> str:
    key = member.lower().replace("-", "").removeprefix("nano")
    if key not in NANOBEIR:
        raise DatasetNotFoundError(f"NanoBEIR has no set {member!r}. The sets are {', '.join(NANOBEIR)}.")
    return key


def _layout(where: str | Path, splits: Sequence[str], revision: str | None) -> hub.Layout:
    if Path(where).is_dir():
        return hub.Layout(Path(where))
    return hub.fetch(str(where), hub.SUBSETS, splits, revision)


def _from_layout(name: str, layout: hub.Layout, split: str, all_queries: bool, qrels: Sequence[Path] = ()) -> Dataset:
    qrels = qrels or layout.files("qrels", split)
    if not qrels:
        there = f"They are expected in a file such as qrels/{split}.tsv"
        if known := layout.splits("qrels"):
            by_path = "Load it by its path" if split in NANOBEIR.values() else "Choose one"
            there = (
                f"It has {', '.join(map(repr, known))}. {by_path}, such as with split={known[0]!r} (--split {known[0]})"
            )
        raise NoSplitError(f"{layout.folder} has no judgements for the split {split!r}. {there}.")
    queries = layout.files("queries", split)
    if not queries:
        raise InvalidArgumentError(
            f"{layout.folder} has no queries. They are expected in a file such as queries.jsonl or topics.*."
        )
    corpus = _Corpus(layout.files("corpus", split))
    dataset = _dataset(name, queries, qrels, corpus if corpus.files else None, "title", all_queries)
    judges = Path(layout.folder) / "judges.txt"
    told = judges.read_text(encoding="utf-8").strip() if judges.is_file() else ""
    return replace(dataset, judged_by=told)


@dataclass(frozen=True, slots=True)
class _Corpus(Iterable[Document]):
    """Documents of one or more files. They are read again at each iteration."""

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
    judgements = judgements_of(qrels)
    texts: dict[str, str] = {}
    repeated: dict[str, str] = {}
    for path in queries:
        for id, text in queries_of(path, topic_field):
            if texts.get(id, text) != text:
                repeated[id] = str(path)
            texts[id] = text
    kept = texts if all_queries else {query: text for query, text in texts.items() if query in judgements}
    if texts.keys().isdisjoint(judgements):
        raise InvalidArgumentError(
            f"No query of {queries[0]} has a judgement in {qrels[0]}, because their query ids differ: "
            f"{next(iter(texts), None)!r:.80} in the one, {next(iter(judgements), None)!r:.80} in the other."
        )
    return Dataset(name, kept, judgements, corpus, len(texts) - len(kept), repeated)
