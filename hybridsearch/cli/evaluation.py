"""The verbs `evaluate`, `compare` and `tune` of the command line."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hybridsearch.cli import arguments
from hybridsearch.cli.app import app
from hybridsearch.cli.arguments import arg, backend_options, flag, opt, split_names
from hybridsearch.cli.sources import default_retrievers, load_all, make_systems, open_source, work_folder
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

DatasetName = Annotated[
    str,
    arg(
        "DATASET",
        "A folder (BEIR, or TREC topics and qrels), nanobeir/msmarco (or all of nanobeir), beir/scifact, or a "
        "hub name.",
    ),
]
Index = Annotated[str | None, opt("PLACE", "Search this index; build none.", "--index")]
Split = Annotated[str, typer.Option(help="Whose judgements: test, train, dev ... or the name of a qrels file.")]
DatasetId = Annotated[str | None, opt("ID", "Read a data set of that name from here instead.", "--dataset-id")]
Measures = Annotated[
    str | None,
    opt(
        "NAMES",
        "Of ir-measures, the main one first. Default: nDCG@10,RR@10,AP,R@100. Of graded judgements, RR, AP and R "
        "count grade 1 and up; RR(rel=2)@10 and AP(rel=2) count grade 2 and up, as is usual for DL19.",
    ),
]
TopK = Annotated[int, typer.Option("--top-k", "-k", min=1, help="How many documents a system returns.")]
ExcludeSelf = Annotated[bool, flag("--exclude-self", "Drop the document whose id is the query's, as for ArguAna.")]
Runs = Annotated[Path | None, opt("FOLDER", "Write each system's ranking as a TREC run file.", "--runs")]
Work = Annotated[Path | None, opt("FOLDER", "Keep finished stages here: the next run does only what is new.", "--work")]
LatencyQueries = Annotated[
    int, typer.Option("--latency-queries", min=0, help="How many queries are timed one at a time; 0 measures no cost.")
]
TimeAgain = Annotated[
    bool, flag("--time-again", "Take all times again, also those that an earlier run has kept: when nothing else runs.")
]


@app.command()
def evaluate(
    place: arguments.Place,
    dataset: DatasetName,
    split: Split = "test",
    dataset_id: DatasetId = None,
    measures: Measures = None,
    retrievers: arguments.Names = None,
    candidates: arguments.Candidates = None,
    fusion: arguments.FusionName = None,
    rerank: Annotated[str | None, opt("MODEL", "Reorder the top by this cross-encoder.")] = None,
    top_k: TopK = 100,
    exclude_self: ExcludeSelf = False,
    latency_queries: LatencyQueries = 50,
    time_again: TimeAgain = False,
    work: Work = None,
    runs: Runs = None,
    option: arguments.Options = None,
    as_json: arguments.Json = False,
) -> None:
    """Measure an index by a data set's queries and judgements."""
    import hybridsearch as hs
    from hybridsearch.evaluation import experiment
    from hybridsearch.evaluation.datasets import load_one
    from hybridsearch.evaluation.pipeline import Pipeline

    _check_outputs(runs=runs)
    data = load_one(dataset, split, dataset_id)
    with hs.open(place, backend_options=backend_options(option)) as searcher, _going_on_from(work):
        reranker: Any = "configured" if rerank is None else hs.CrossEncoderReranker(rerank)
        system = Pipeline(searcher, split_names(retrievers), fusion, candidates, reranker)
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


@app.command()
def compare(
    dataset: DatasetName,
    retrievers: Annotated[
        str | None,
        opt(
            "SPEC",
            "What to build: bm25, dense=MODEL, sparse=MODEL, joined by commas; or run files, FILE.trec or "
            "NAME=FILE.trec. Default: bm25.",
        ),
    ] = None,
    systems: Annotated[
        list[str] | None,
        opt(
            "SYSTEMS",
            "Such as bm25,dense,rrf,ours.trec: see above. Can be repeated. Default: each retriever, rrf, minmax, "
            "and rrf+rerank with a --reranker.",
            "--systems",
        ),
    ] = None,
    reranker: Annotated[str | None, opt("MODEL", "A cross-encoder: what `rerank` in --systems means.")] = None,
    rerank_top_k: Annotated[
        int | None,
        typer.Option("--rerank-top-k", min=1, help="How many documents it reads. Default: 50; with --preset 100."),
    ] = None,
    preset: Annotated[
        Preset | None,
        typer.Option(
            help="retrieve-rerank: --sparse, --dense and both by RRF, each without and with --reranker, by nDCG@10, "
            "RR@10 (MRR@10) and AP (MAP)."
        ),
    ] = None,
    sparse: Annotated[str | None, opt("MODEL", "For --preset: a sparse model, or bm25 (the default).")] = None,
    dense: Annotated[str | None, opt("MODEL", "For --preset: a dense model.")] = None,
    index: Index = None,
    baseline: Annotated[str | None, opt("NAME", "Tested against. Default: the first.")] = None,
    measures: Measures = None,
    test: Annotated[TestName, typer.Option(help="Paired over queries, two-sided.")] = TestName.t,
    correction: Annotated[
        CorrectionName, typer.Option(help="For the number of systems that are tested.")
    ] = CorrectionName.holm,
    candidates: Annotated[int, typer.Option(min=1, help="How deep each retriever is read.")] = 100,
    top_k: TopK = 100,
    oracle_positives: Annotated[
        bool,
        flag(
            "--oracle-positives",
            "Also rerank with the missed relevant documents put in, as sentence-transformers' evaluators do.",
        ),
    ] = False,
    exclude_self: ExcludeSelf = False,
    split: Split = "test",
    dataset_id: DatasetId = None,
    language: arguments.Language = "english",
    html: Annotated[Path | None, opt("FILE", "Write the report: one HTML file.")] = None,
    markdown: Annotated[Path | None, opt("FILE", "Write the tables as Markdown.")] = None,
    save: Annotated[Path | None, opt("FILE", "Write everything as JSON, for `Comparison.load`.")] = None,
    runs: Runs = None,
    work: Annotated[
        Path | None,
        opt(
            "FOLDER",
            "Keep the index and finished stages here: the next run does only what is new. "
            "Default: in the cache folder.",
            "--work",
        ),
    ] = None,
    details: Annotated[int, typer.Option(min=0, help="How many queries the report shows in full.")] = 20,
    latency_queries: LatencyQueries = 50,
    time_again: TimeAgain = False,
    option: arguments.Options = None,
    as_json: arguments.Json = False,
) -> None:
    """Compare systems on a data set: quality with intervals and tests, and what each costs.

    What --systems takes, joined by commas:

    \b
    bm25                       one retriever
    bm25+dense                 both, merged by RRF
    bm25+dense+minmax          or zscore, rrf, adaptive, a file of `tune`
    minmax                     all retrievers, merged by min-max
    bm25:0.3+dense:0.7+minmax  with weights
    rrf:20                     with RRF's k
    rrf+rerank:50              the first 50 reranked by --reranker
    rrf+candidates:200         each retriever read 200 deep
    ours.trec                  a run file; ours.trec.gz too
    ours=SYSTEM                any of these under another name
    """
    import hybridsearch as hs
    from hybridsearch.evaluation import experiment
    from hybridsearch.evaluation.comparison import means_over

    if preset is None and (sparse, dense) != (None, None):
        raise InvalidArgumentError("--sparse and --dense belong to --preset; else name models in --retrievers.")
    if preset is not None:
        retrievers = _preset_retrievers(retrievers, systems, index, sparse, dense, reranker)
    if index is not None and retrievers is not None:
        raise InvalidArgumentError("--index searches an index that is there: leave out --retrievers.")
    _check_outputs(html=html, markdown=markdown, save=save, runs=runs)
    depth = rerank_top_k or (50 if preset is None else 100)
    made = None if reranker is None else hs.CrossEncoderReranker(reranker, top_k=depth)

    texts = [text.strip() for one in systems or () for text in one.split(",") if text.strip()]

    def compare_on(data: Dataset, folder: Path) -> Comparison:
        spec = default_retrievers(texts, data) if retrievers is None else retrievers
        with open_source(spec, index, language, candidates, data, folder, option) as (source, runs_beside):
            if preset is not None and made is not None and isinstance(source, hs.HybridSearch):
                first, second = source.retrievers
                compared: Mapping[str, Any] = experiment.retrieve_rerank(source, made, sparse=first, dense=second)
                chosen = split_names(measures) or list(experiment.RETRIEVE_RERANK_MEASURES)
            else:
                compared = make_systems(texts, source, runs_beside, made)
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
        with work_folder(work, data, len(sets) > 1) as folder, _going_on_from(folder):
            comparisons[name] = compare_on(data, folder)
            suffix = f"-{name}" if len(sets) > 1 else ""
            written = _write(comparisons[name], suffix, html, markdown, save, runs)
            if not as_json:
                console_on().print(comparisons[name])
                kept = folder.is_dir() and work is None and folder.parent.name == "compare"
                print_plain(*written, *([f"Kept for the next run: {folder}"] if kept else []))
    if len(sets) == 1:
        if as_json:
            print_json(_summary(comparisons[next(iter(sets))]))
    elif as_json:
        print_json({name: _summary(comparison) for name, comparison in comparisons.items()})
    else:
        console_on().print(means_over(comparisons))


@app.command()
def tune(
    dataset: DatasetName,
    retrievers: Annotated[
        str | None,
        opt(
            "SPEC",
            "What to merge: bm25,dense=MODEL,sparse=MODEL to build, or run files, FILE.trec or NAME=FILE.trec. "
            "Two or more.",
        ),
    ] = None,
    index: Index = None,
    measure: Annotated[str, opt("NAME", "What to maximise, of ir-measures.")] = "nDCG@10",
    candidates: Annotated[str, opt("NUMBERS", "Depths to try, how deep each retriever is read.")] = "50,100,200",
    folds: Annotated[int, typer.Option(min=2, help="Into how many parts the queries are cut.")] = 5,
    seed: Annotated[int, typer.Option(help="Decides which query is in which part.")] = 0,
    split: Annotated[
        str, typer.Option(help="Whose judgements; keep those you will `compare` on out of it, as far as you can.")
    ] = "train",
    dataset_id: DatasetId = None,
    exclude_self: ExcludeSelf = False,
    language: arguments.Language = "english",
    save: Annotated[
        Path | None, opt("FILE", "Write the fusion as JSON: a system of `compare`, as in bm25+dense+FILE.")
    ] = None,
    work: Work = None,
    option: arguments.Options = None,
    as_json: arguments.Json = False,
) -> None:
    """Choose how to merge retrievers on judged queries, measured on held-out ones; or say that one alone is as good."""
    from hybridsearch.evaluation.datasets import load_one
    from hybridsearch.evaluation.tuning import tune as tune_fusion

    if index is not None and retrievers is not None:
        raise InvalidArgumentError("--index searches an index that is there: leave out --retrievers.")
    if index is None and retrievers is None:
        raise InvalidArgumentError("Name two or more retrievers, as in --retrievers bm25,dense=MODEL, or an --index.")
    _check_outputs(save=save)
    depths = split_names(candidates) or []
    if not depths or not all(depth.isdecimal() and int(depth) for depth in depths):
        raise InvalidArgumentError(f"--candidates are whole numbers, such as 50,100,200, not {candidates!r}.")
    data = load_one(dataset, split, dataset_id)
    with (
        work_folder(work, data, several=False) as folder,
        _going_on_from(folder),
        open_source(retrievers or "", index, language, max(map(int, depths)), data, folder, option) as (source, beside),
    ):
        if beside:
            raise InvalidArgumentError(
                "--retrievers has run files and models, but runs are merged with runs: write those of the models with "
                "`hybridsearch compare --runs FOLDER`, and name only files."
            )
        tuned = tune_fusion(
            source,
            data,
            measure=measure,
            candidates=[int(depth) for depth in depths],
            folds=folds,
            seed=seed,
            exclude_self=exclude_self,
            work_folder=folder,
        )
    if save is not None:
        tuned.save(save)
    if as_json:
        print_json(tuned.to_dict())
    else:
        console_on().print(tuned)
        print_plain(*([f"Saved: {save}"] if save is not None else []))


# Below: what the verbs need


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
            "--preset makes its own systems: leave out --retrievers, --systems and --index, and name models with "
            "--sparse, --dense and --reranker."
        )
    if dense is None or reranker is None:
        raise InvalidArgumentError("--preset retrieve-rerank needs --dense MODEL and --reranker MODEL.")
    return f"{'bm25' if sparse in (None, 'bm25') else f'sparse={sparse}'},dense={dense}"


def _check_outputs(**outputs: Path | None) -> None:
    """Before any work: whether each can be written, and none in the place of another; `runs` is a folder."""
    options: dict[Path, str] = {}
    for option, path in outputs.items():
        if path is None:
            continue
        place = path.resolve()
        if place in options:
            raise InvalidArgumentError(
                f"--{options[place]} and --{option} both name {str(path)!r}: give each a place of its own."
            )
        options[place] = option
        if option == "runs":
            if place.exists() and not place.is_dir():
                raise InvalidArgumentError(f"--runs takes a folder, and {str(path)!r} is a file.")
        elif place.is_dir():
            raise InvalidArgumentError(f"--{option} takes a file, and {str(path)!r} is a folder.")
        elif not place.parent.is_dir():
            raise InvalidArgumentError(f"There is no folder {str(place.parent)!r} to write {path.name} to.")


@contextmanager
def _going_on_from(folder: Path | None) -> Iterator[None]:
    """After Ctrl-C it says what the same command will find done."""
    try:
        yield
    except KeyboardInterrupt:
        if folder is None or folder.parent == Path(tempfile.gettempdir()):
            found = "nothing was kept (--work FOLDER keeps what is finished)"
        elif folder.is_dir():
            found = f"what was finished is in {folder}, and the same command goes on from there"
        else:
            found = "nothing was finished yet"
        print(f"Broken off: {found}.", file=sys.stderr)
        raise


def _summary(found: Comparison | SystemResult) -> Any:
    """What a program reads from standard output; what there is of each query and document belongs in files."""
    from hybridsearch.evaluation.plain import to_plain

    return to_plain(found, ("scores", "rankings", "details", "documents_histogram", "queries_histogram"))


def _write(
    comparison: Comparison, suffix: str, html: Path | None, markdown: Path | None, save: Path | None, runs: Path | None
) -> list[str]:
    """Writes what is asked for, `suffix` added to the names, and says so."""

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
