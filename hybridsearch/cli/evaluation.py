"""The verbs that measure systems: `evaluate` and `compare`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from hybridsearch.cli import arguments
from hybridsearch.cli.app import MEASURING, Verb, app
from hybridsearch.cli.arguments import (
    MODELS,
    arg,
    backend_options,
    check_built,
    feedback_of,
    flag,
    of_data,
    of_index,
    of_output,
    opt,
    split_names,
    ways,
)
from hybridsearch.cli.sources import (
    check_outputs,
    default_retrievers,
    going_on_from,
    load_all,
    make_systems,
    open_source,
    work_folder,
)
from hybridsearch.cli.terminal import console_on, print_json, print_plain
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.messages import number_of, redacted_command

if TYPE_CHECKING:
    from hybridsearch.evaluation.comparison import Comparison, SystemResult
    from hybridsearch.evaluation.datasets import Dataset


Preset = StrEnum("Preset", {"retrieve_rerank": "retrieve-rerank"})
TestName = StrEnum("TestName", ["t", "randomization", "wilcoxon"])
CorrectionName = StrEnum("CorrectionName", ["holm", "bonferroni", "none"])


# Arguments that several verbs take

_of_systems = partial(opt, rich_help_panel="Systems")
_of_measures = partial(opt, rich_help_panel="Measures")
_of_costs = partial(opt, rich_help_panel="Costs")

DatasetName = Annotated[
    str,
    arg(
        "DATASET",
        "Documents, queries and judgements: a BEIR folder, a folder of TREC topics and qrels, nanobeir/msmarco (or "
        "another set of NanoBEIR), nanobeir (all its sets), beir/scifact (or another set of BEIR), or a name on the "
        "Hugging Face hub.",
    ),
]
Index = Annotated[
    str | None,
    of_index("PLACE", "Place of an index to search. No index is built then.", "--index"),
]
Split = Annotated[
    str, of_data("NAME", "Split of the judgements: test, train, dev, or the name of another file in qrels/.")
]
DatasetId = Annotated[
    str | None,
    of_data(
        "ID",
        "Folder or name on the hub from which a nanobeir or beir data set is read, such as a copy or a translation.",
        "--dataset-id",
    ),
]
Measures = Annotated[
    str | None,
    _of_measures(
        "NAMES",
        "Measures of ir-measures, with commas. The first one is the main measure. Default: nDCG@10,RR@10,AP,R@100. RR, "
        "AP and R count a document as relevant from grade 1. For data such as TREC DL19, where grade 1 is not "
        "relevant, write RR(rel=2)@10 and AP(rel=2).",
    ),
]
TopK = Annotated[
    int,
    _of_measures("N", "Number of documents that each system returns. No measure looks deeper.", "--top-k", "-k", min=1),
]
ExcludeSelf = Annotated[
    bool,
    flag(
        "--exclude-self",
        "Leave out of each ranking the document that has the id of the query. ArguAna needs this.",
        rich_help_panel="Data set",
    ),
]
Runs = Annotated[
    Path | None, of_output("FOLDER", "Folder for TREC run files, one for each system's rankings.", "--runs")
]
Work = Annotated[
    Path | None,
    of_output(
        "FOLDER",
        "Folder that keeps finished work. The next run does only what is new. Default: keep nothing.",
        "--work",
    ),
]
KeptWork = Annotated[
    Path | None,
    of_output(
        "FOLDER",
        "Folder that keeps the index and finished work. The next run does only what is new. Default: a folder in the "
        "cache.",
        "--work",
    ),
]
LatencyQueries = Annotated[
    int,
    _of_costs(
        "N",
        "Number of queries that are asked one at a time to measure the time. 0 measures no costs.",
        "--latency-queries",
        min=0,
    ),
]
TimeAgain = Annotated[
    bool,
    flag(
        "--time-again",
        "Measure all times again, also the times that an earlier run has kept. Use it when nothing else runs on this "
        "machine.",
        rich_help_panel="Costs",
    ),
]


@app.command(cls=Verb, rich_help_panel=MEASURING)
def evaluate(
    place: arguments.Place,
    dataset: DatasetName,
    split: Split = "test",
    dataset_id: DatasetId = None,
    exclude_self: ExcludeSelf = False,
    measures: Measures = None,
    top_k: TopK = 100,
    retrievers: arguments.Names = None,
    candidates: arguments.Candidates = None,
    fusion: arguments.FusionName = None,
    rerank: arguments.Rerank = None,
    rerank_blend: arguments.RerankBlend = None,
    feedback: arguments.FeedbackNames = None,
    precision: arguments.Precision = None,
    runtime: arguments.Runtime = None,
    option: arguments.Options = None,
    latency_queries: LatencyQueries = 50,
    time_again: TimeAgain = False,
    work: Work = None,
    runs: Runs = None,
    as_json: arguments.Json = False,
) -> None:
    """Measure how good one index is on judged queries, and how fast.

    The index must hold the documents of the data set. To measure several
    systems side by side, use `hybridsearch compare`.

    \bExample:
      hybridsearch index scifact/ --index papers
      hybridsearch evaluate papers scifact/
    """
    import hybridsearch as hs
    from hybridsearch.evaluation import experiment
    from hybridsearch.evaluation.datasets import load_one
    from hybridsearch.evaluation.pipeline import Pipeline

    check_outputs(runs=runs)
    data = load_one(dataset, split, dataset_id)
    run = ways(precision, runtime)
    with hs.open(place, backend_options=backend_options(option), **run) as searcher, going_on_from(work):
        reranker: Any = arguments.reranker(rerank, rerank_blend, **run) or "configured"
        system = Pipeline(
            searcher, split_names(retrievers), fusion, candidates, reranker, feedback=feedback_of(feedback)
        )
        comparison = experiment.compare(
            {"system": system},
            data,
            **_some(measures=split_names(measures)),
            top_k=top_k,
            exclude_self=exclude_self,
            work_folder=work,
            latency_queries=latency_queries,
            time_again=time_again,
            details=0,
        )
    (result,) = comparison.systems
    if runs is not None:
        _write_run(result.name, {query: result.ranking(query) for query in result.rankings}, runs)
    if as_json:
        print_json(_summary(result))
    else:
        print_plain(str(comparison.dataset), *(comparison.dataset.problems or ["no problems found"]), "")
        console_on().print(result)


@app.command(cls=Verb, rich_help_panel=MEASURING)
def compare(
    dataset: DatasetName,
    retrievers: Annotated[
        str | None,
        _of_systems(
            "SPEC",
            "Retrievers of the index that is built, with commas: bm25, chars, dense=MODEL, sparse=MODEL, late=MODEL. "
            f"Run files can stand beside them: FILE.trec or NAME=FILE.trec. {MODELS} Default: bm25.",
        ),
    ] = None,
    systems: Annotated[
        list[str] | None,
        _of_systems(
            "SYSTEMS",
            "Systems to compare, with commas, such as bm25,dense,rrf,ours.trec (all forms are listed above). Can be "
            "repeated. Default: each retriever, then rrf and minmax if there are several, then one reranked system if "
            "--reranker is given.",
            "--systems",
        ),
    ] = None,
    reranker: Annotated[
        str | None,
        _of_systems(
            "MODEL", "Cross-encoder that `rerank` in --systems stands for, or late=MODEL for a late-interaction model."
        ),
    ] = None,
    rerank_top_k: Annotated[
        int | None,
        _of_systems(
            "N",
            "Number of documents that the reranker reads for each query. Default: 50, or 100 with --preset.",
            "--rerank-top-k",
            min=1,
        ),
    ] = None,
    rerank_blend: Annotated[
        float | None,
        _of_systems(
            "X",
            "Weight of the fused score in the score after reranking, from 0 to 1. Default: 0.",
            "--rerank-blend",
        ),
    ] = None,
    preset: Annotated[
        Preset | None,
        _of_systems(
            "NAME",
            "Name of a set of systems. There is one: retrieve-rerank. It compares --sparse, --dense and both merged "
            "by RRF, each without and with --reranker. Its measures are nDCG@10, RR@10 (MRR@10) and AP (MAP).",
        ),
    ] = None,
    sparse: Annotated[str | None, _of_systems("MODEL", "Sparse model for --preset, or bm25. Default: bm25.")] = None,
    dense: Annotated[str | None, _of_systems("MODEL", "Dense model for --preset.")] = None,
    candidates: Annotated[
        int | None,
        _of_systems(
            "N",
            "Number of documents that are read from each retriever. Default: the number of the index with --index, "
            "else 100.",
            min=1,
        ),
    ] = None,
    oracle_positives: Annotated[
        bool,
        flag(
            "--oracle-positives",
            "Also measure each reranked system with a reranker that gets all relevant documents, also those that the "
            "retrievers missed. The evaluators of sentence-transformers do this.",
            rich_help_panel="Systems",
        ),
    ] = False,
    index: Index = None,
    precision: arguments.Precision = None,
    runtime: arguments.Runtime = None,
    language: arguments.Language = None,
    option: arguments.Options = None,
    split: Split = "test",
    dataset_id: DatasetId = None,
    exclude_self: ExcludeSelf = False,
    measures: Measures = None,
    top_k: TopK = 100,
    baseline: Annotated[
        str | None, _of_measures("NAME", "System that all others are tested against. Default: the first one.")
    ] = None,
    test: Annotated[
        TestName,
        _of_measures("NAME", "Significance test, two-sided and paired over the queries: t, randomization or wilcoxon."),
    ] = TestName.t,
    correction: Annotated[
        CorrectionName,
        _of_measures("NAME", "Correction of the p-values for the number of systems: holm, bonferroni or none."),
    ] = CorrectionName.holm,
    latency_queries: LatencyQueries = 50,
    time_again: TimeAgain = False,
    html: Annotated[Path | None, of_output("FILE", "HTML file for the report. It needs no network.")] = None,
    details: Annotated[int, of_output("N", "Number of queries that the report shows with their hits.", min=0)] = 20,
    markdown: Annotated[Path | None, of_output("FILE", "Markdown file for the tables.")] = None,
    save: Annotated[Path | None, of_output("FILE", "JSON file for all results. Comparison.load reads it.")] = None,
    runs: Runs = None,
    work: KeptWork = None,
    as_json: arguments.Json = False,
) -> None:
    """Compare systems on judged queries: how good each is, whether differences are real, and what each costs.

    \bExamples:
      hybridsearch compare scifact/ --retrievers bm25,dense=MODEL
      hybridsearch compare scifact/ --systems ours.trec,theirs.trec
      hybridsearch compare scifact/ --index papers --html report.html

    \bForms of a system in --systems:
      bm25                       one retriever
      bm25+dense                 both, merged by RRF
      bm25+dense+minmax          both, merged by min-max; or zscore, rrf,
                                 adaptive, or a file that `tune` saved
      minmax                     all retrievers, merged by min-max
      bm25:0.3+dense:0.7+minmax  with weights
      rrf:20                     RRF with k = 20
      rrf+rerank:50              first 50 documents reranked by --reranker
      bm25+rm3                   BM25 with the feedback RM3; rocchio is for
                                 dense and sparse, rm3:20 reads 20 documents
      rrf+candidates:200         200 documents read from each retriever
      ours.trec                  a run file (also ours.trec.gz)
      ours=SYSTEM                any of these under another name
    """
    import hybridsearch as hs
    from hybridsearch.evaluation import experiment
    from hybridsearch.evaluation.comparison import means_over

    if preset is None and (sparse, dense) != (None, None):
        raise InvalidArgumentError("--sparse and --dense need --preset. Without --preset, name models in --retrievers.")
    if preset is not None:
        retrievers = _preset_retrievers(retrievers, systems, index, sparse, dense, reranker)
    check_built(index, retrievers=retrievers, language=language)
    if rerank_top_k is not None and reranker is None:
        raise InvalidArgumentError("--rerank-top-k needs a reranker: give --reranker MODEL too.")
    texts = [text.strip() for one in systems or () for text in one.split(",") if text.strip()]
    _check_reranked(texts, reranker, oracle_positives)
    check_outputs(html=html, markdown=markdown, save=save, runs=runs)
    depth = rerank_top_k or (50 if preset is None else 100)
    run = ways(precision, runtime)
    made = arguments.reranker(reranker, rerank_blend, top_k=depth, **run)

    def compare_on(data: Dataset, folder: Path) -> Comparison:
        spec = default_retrievers(texts, data) if retrievers is None else retrievers
        opened = open_source(spec, index, language, candidates, data, folder, option, **run)
        with opened as (source, runs_beside):
            if preset is not None and made is not None and isinstance(source, hs.HybridSearch):
                first, second = source.retrievers
                compared: Mapping[str, Any] = experiment.retrieve_rerank(source, made, sparse=first, dense=second)
                chosen = split_names(measures) or list(experiment.RETRIEVE_RERANK_MEASURES)
            else:
                compared = make_systems(texts, source, runs_beside, made, candidates)
                chosen = split_names(measures) or []
            comparison = experiment.compare(
                compared,
                data,
                **_some(measures=chosen),
                baseline=baseline,
                test=test.value,
                correction=correction.value,
                top_k=top_k,
                exclude_self=exclude_self,
                oracle_positives=oracle_positives,
                work_folder=folder,
                latency_queries=latency_queries,
                time_again=time_again,
                details=details,
            )
        return replace(comparison, command=redacted_command(["hybridsearch", *sys.argv[1:]]))

    sets = load_all(dataset, split, dataset_id)
    comparisons = {}
    for name, data in sets.items():
        with work_folder(work, data, len(sets) > 1) as folder, going_on_from(folder):
            comparisons[name] = compare_on(data, folder)
            suffix = f"-{name}" if len(sets) > 1 else ""
            written = _write(comparisons[name], suffix, html, markdown, save, runs)
            if not as_json:
                console_on().print(comparisons[name])
                kept = folder.is_dir() and work is None and folder.parent.name == "compare"
                print_plain(*written, *([f"Work kept for the next run: {folder}"] if kept else []))
    if len(sets) == 1:
        if as_json:
            print_json(_summary(comparisons[next(iter(sets))]))
    elif as_json:
        print_json({name: _summary(comparison) for name, comparison in comparisons.items()})
    else:
        console_on().print(means_over(comparisons))


# Helpers of the verbs


def _preset_retrievers(
    retrievers: str | None,
    systems: list[str] | None,
    index: str | None,
    sparse: str | None,
    dense: str | None,
    reranker: str | None,
) -> str:
    if retrievers is not None or systems is not None or index is not None:
        raise InvalidArgumentError(
            "--preset chooses the systems: leave out --retrievers, --systems and --index. Name models with --sparse, "
            "--dense and --reranker."
        )
    if dense is None or reranker is None:
        raise InvalidArgumentError("--preset retrieve-rerank needs --dense MODEL and --reranker MODEL.")
    return f"{'bm25' if sparse in (None, 'bm25') else f'sparse={sparse}'},dense={dense}"


def _check_reranked(texts: list[str], reranker: str | None, oracle_positives: bool) -> None:
    """Refuse `--reranker` and `--oracle-positives` if no system of `--systems` is reranked."""
    parts = [part.partition(":")[0].strip() for text in texts for part in text.rpartition("=")[2].split("+")]
    if reranker is not None and texts and "rerank" not in parts:
        raise InvalidArgumentError(
            "--reranker is for systems with the part rerank, and --systems has none: write a system such as "
            f"{texts[0]}+rerank, or leave out --reranker."
        )
    if oracle_positives and reranker is None:
        raise InvalidArgumentError("--oracle-positives is for systems with a reranker: give --reranker MODEL too.")


def _summary(found: Comparison | SystemResult) -> Any:
    """The figures for `--json`. The scores and rankings of single queries are only in files."""
    from hybridsearch.evaluation.plain import to_plain

    return to_plain(found, ("scores", "rankings", "details", "documents_histogram", "queries_histogram"))


def _write(
    comparison: Comparison, suffix: str, html: Path | None, markdown: Path | None, save: Path | None, runs: Path | None
) -> list[str]:
    """Write the files that were asked for, with `suffix` in their names. Returns a line about each."""

    def named(path: Path) -> Path:
        return path.with_name(f"{path.stem}{suffix}{path.suffix}")

    written = []
    if html is not None:
        comparison.to_html(named(html))
        written.append(f"Report: {named(html)}")
    if markdown is not None:
        named(markdown).write_text(comparison.to_markdown(), encoding="utf-8")
        written.append(f"Markdown: {named(markdown)}")
    if save is not None:
        comparison.save(named(save))
        written.append(f"JSON: {named(save)}")
    if runs is not None:
        paths = comparison.save_runs(named(runs))
        written.append(f"Runs: {number_of(len(paths), 'file')} in {named(runs)}")
    return written


def _write_run(name: str, rankings: Mapping[str, Any], folder: Path) -> None:
    from hybridsearch.ranking import Ranking

    folder.mkdir(parents=True, exist_ok=True)
    Ranking.to_trec(rankings, folder / f"{name}.trec", name)


def _some(**given: Any) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value}
