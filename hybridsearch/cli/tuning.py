"""The verb that chooses the weights of a fusion on judged queries."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

from hybridsearch.cli import arguments
from hybridsearch.cli.app import MEASURING, Verb, app
from hybridsearch.cli.arguments import check_built, of_data, of_index, of_output, opt, split_names, ways
from hybridsearch.cli.evaluation import DatasetId, DatasetName, ExcludeSelf, Index, KeptWork
from hybridsearch.cli.sources import check_outputs, going_on_from, open_source, work_folder
from hybridsearch.cli.terminal import console_on, print_json, print_plain
from hybridsearch.errors import InvalidArgumentError

_of_choice = partial(opt, rich_help_panel="Tuning")


@app.command(cls=Verb, rich_help_panel=MEASURING)
def tune(
    dataset: DatasetName,
    index: Index = None,
    retrievers: Annotated[
        str | None,
        of_index(
            "SPEC",
            "Two or more retrievers to merge, with commas. Either models for a new index: bm25, chars, dense=MODEL, "
            "sparse=MODEL, late=MODEL. Or run files: FILE.trec or NAME=FILE.trec.",
        ),
    ] = None,
    precision: arguments.Precision = None,
    runtime: arguments.Runtime = None,
    language: arguments.Language = None,
    option: arguments.Options = None,
    split: Annotated[
        str,
        of_data(
            "NAME",
            "Split of the judgements: train, dev, test, or the name of another file in qrels/. Do not tune on the "
            "queries that you want to measure on later.",
        ),
    ] = "train",
    dataset_id: DatasetId = None,
    exclude_self: ExcludeSelf = False,
    measure: Annotated[str, _of_choice("NAME", "Measure of ir-measures that is maximised.")] = "nDCG@10",
    candidates: Annotated[
        str, _of_choice("NUMBERS", "Numbers of documents to read from each retriever, with commas. Each is tried.")
    ] = "50,100,200",
    folds: Annotated[
        int, _of_choice("N", "Number of parts into which the queries are cut for cross-validation.", min=2)
    ] = 5,
    seed: Annotated[int, _of_choice("N", "Random seed. It decides which query is in which part.")] = 0,
    save: Annotated[
        Path | None,
        of_output(
            "FILE", "JSON file for the recommended fusion. `search --fusion FILE` and `compare --systems` take it."
        ),
    ] = None,
    work: KeptWork = None,
    as_json: arguments.Json = False,
) -> None:
    """Choose on judged queries how to merge the rankings of several retrievers.

    It tries weights, kinds of fusion and numbers of candidates. The weights
    stay near equal weights if there are few queries. It measures the choice on
    queries that had no part in it. If tuning is not better than one retriever
    alone, or than equal weights, it says so.

    \bExamples:
      hybridsearch tune scifact/ --retrievers bm25,dense=MODEL
      hybridsearch tune scifact/ --index papers --save tuned.json
    """
    from hybridsearch.evaluation.datasets import load_one
    from hybridsearch.evaluation.tuning import tune as tune_fusion
    from hybridsearch.fusion.base import check_file

    check_built(index, retrievers=retrievers, language=language)
    if index is None and retrievers is None:
        raise InvalidArgumentError(
            "Give two or more retrievers, as in --retrievers bm25,dense=MODEL, or give --index PLACE."
        )
    check_outputs(save=save)
    if save is not None:
        check_file(save)
    depths = split_names(candidates) or []
    if not depths or not all(depth.isdecimal() and int(depth) for depth in depths):
        raise InvalidArgumentError(f"--candidates takes whole numbers, such as 50,100,200, not {candidates!r}.")
    data = load_one(dataset, split, dataset_id)
    with (
        work_folder(work, data, several=False) as folder,
        going_on_from(folder),
        open_source(
            retrievers or "",
            index,
            language,
            max(map(int, depths)),
            data,
            folder,
            option,
            **ways(precision, runtime),
        ) as (source, beside),
    ):
        if beside:
            raise InvalidArgumentError(
                "--retrievers names run files and models, but runs can be merged only with runs. Write run files of "
                "the models with `hybridsearch compare --runs FOLDER`, then name only run files."
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
        if save is not None:
            print_plain(f"Saved: {save} holds the recommended fusion, {tuned.recommended}.")
