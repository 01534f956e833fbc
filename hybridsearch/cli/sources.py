"""What the verbs `evaluate`, `compare` and `tune` measure, and where they write: data sets, indexes, runs, folders."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridsearch import arguments
from hybridsearch.errors import InvalidArgumentError

if TYPE_CHECKING:
    from hybridsearch.evaluation.datasets import Dataset
    from hybridsearch.evaluation.pipeline import Pipeline, Run
    from hybridsearch.rerank import Reranker
    from hybridsearch.search import HybridSearch


def load_all(name: str, split: str, dataset_id: str | None) -> dict[str, Dataset]:
    """The data sets of this name, by their names: one, or several for "nanobeir"."""
    from hybridsearch.evaluation.datasets import load_dataset

    data: Dataset | dict[str, Dataset] = load_dataset(name, split=split, dataset_id=dataset_id)
    return data if isinstance(data, dict) else {data.name: data}


@contextmanager
def work_folder(given: Path | None, data: Dataset, several: bool) -> Iterator[Path]:
    """The folder that keeps the index and finished work: `given`, else one in the cache, else a temporary one."""
    from hybridsearch.encoders.cache import cache_folder
    from hybridsearch.evaluation.plain import safe_name
    from hybridsearch.folders import can_be_written

    cache = cache_folder()
    if given is not None:
        kept = arguments.path("--work", given)
        yield kept / safe_name(data.name) if several else kept
    elif cache is not None and can_be_written(cache):
        yield cache / "compare" / f"{safe_name(data.name)}-{data.digest[:12]}"
    else:
        with tempfile.TemporaryDirectory(prefix="hybridsearch-") as folder:
            yield Path(folder)


@contextmanager
def going_on_from(folder: Path | None) -> Iterator[None]:
    """After Ctrl-C, say which work is kept for the next run."""
    try:
        yield
    except KeyboardInterrupt:
        if folder is None or folder.parent == Path(tempfile.gettempdir()):
            found = "no work was kept. Use --work FOLDER to keep finished work"
        elif folder.is_dir():
            found = f"finished work is in {folder}. Run the same command to go on from there"
        else:
            found = "no work was finished yet"
        print(f"Interrupted: {found}.", file=sys.stderr)
        raise


def check_outputs(**outputs: Path | None) -> None:
    """Before any work, refuse outputs that cannot be written, and two outputs with one path. `runs` is a folder."""
    options: dict[Path, str] = {}
    for option, path in outputs.items():
        if path is None:
            continue
        place = path.resolve()
        if place in options:
            raise InvalidArgumentError(
                f"--{options[place]} and --{option} both name {str(path)!r}: give two different paths."
            )
        options[place] = option
        if option == "runs":
            if place.exists() and not place.is_dir():
                raise InvalidArgumentError(f"--runs takes a folder, but {str(path)!r} is a file.")
        elif place.is_dir():
            raise InvalidArgumentError(f"--{option} takes a file, but {str(path)!r} is a folder.")
        elif not place.parent.is_dir():
            raise InvalidArgumentError(
                f"There is no folder {str(place.parent)!r} for the file {path.name}: make it first."
            )


def default_retrievers(systems: list[str], data: Dataset) -> str:
    """BM25, or "" if there are no documents to index or all systems are run files."""
    from hybridsearch.evaluation.spec import is_run, named

    only_runs = systems and all(is_run(spec, ["bm25"]) for _, spec in named(systems, ["bm25"]))
    return "" if only_runs or data.corpus is None else "bm25"


@contextmanager
def open_source(
    spec: str,
    index: str | None,
    language: str | None,
    candidates: int | None,
    data: Dataset,
    folder: Path,
    option: list[str] | None,
    **run: Any,
) -> Iterator[tuple[HybridSearch | Mapping[str, Run], Mapping[str, Run]]]:
    """What the systems search, and run files that stand alone beside it.

    Systems search the index at `index`, or an index that is built here by `spec`. If `spec` names only run files, the
    systems search those. `run` are the arguments `precision` and `runtime` of encoders. `candidates` is the number of
    documents that are read from each retriever. None takes the number of the index, and 100 for a new one.
    """
    import hybridsearch as hs
    from hybridsearch.cli.arguments import backend_options
    from hybridsearch.encoders.spec import make_encoders
    from hybridsearch.evaluation.indexes import kept_index

    options = backend_options(option)
    if index is not None:
        with hs.open(index, candidates=candidates, backend_options=options, **run) as searcher:
            yield searcher, {}
        return
    models, runs = _models_and_runs(spec)
    if not models:
        if language is not None or option:
            given = "--option" if language is None else "--language"
            raise InvalidArgumentError(f"{given} is for an index, but there are only run files: leave it out.")
        yield runs, {}
        return
    encoders = make_encoders(models, language, **(run if re.search("dense=|sparse=|late=", models) else {}))
    if data.corpus is None:
        raise InvalidArgumentError(f"The data set {data.name!r} has no documents to index: compare run files on it.")
    with kept_index(encoders, data.corpus, folder, candidates=candidates or 100, backend_options=options) as searcher:
        yield searcher, runs


def make_systems(
    texts: list[str],
    source: HybridSearch | Mapping[str, Run],
    runs: Mapping[str, Run],
    reranker: Reranker | None,
    candidates: int | None,
) -> dict[str, Pipeline | Run]:
    """The systems of `--systems`, or the default systems if there are none. `runs` stand beside an index.

    An index knows the number of candidates. Systems that merge runs get it here, unless they have their own.
    """
    from hybridsearch.evaluation.pipeline import Pipeline
    from hybridsearch.evaluation.spec import default_systems, parse_systems
    from hybridsearch.fusion import read_fusion

    names = list(source if isinstance(source, Mapping) else source.retrievers)
    if not texts and not names:
        raise InvalidArgumentError("There is nothing to compare: name run files, as in --systems ours=ours.trec.")
    systems = parse_systems(texts or [*default_systems(names, reranker), *runs], source, reranker, runs)
    if isinstance(source, Mapping):
        for name, one in systems.items():
            if isinstance(one, Pipeline):
                own = one.candidates if one.fusion is None else read_fusion(one.fusion, one.candidates)[1]
                systems[name] = replace(one, candidates=candidates if own is None else own)
    return systems


def _models_and_runs(spec: str) -> tuple[str, dict[str, Run]]:
    """The models of `--retrievers`, as text, and its run files by name."""
    from hybridsearch.evaluation.spec import is_run, named

    texts = [text.strip() for text in spec.split(",") if text.strip()]
    known = [text.partition("=")[0].strip() for text in texts]
    models: list[str] = []
    runs: dict[str, Run] = {}
    for text, (name, file) in zip(texts, named(texts, ["bm25"]), strict=True):
        if not is_run(file, ["bm25"]):
            models.append(text)
        elif name in runs or known.count(name) > 1:
            raise InvalidArgumentError(f"--retrievers has {name!r} twice: give one another name, as in ours={file}.")
        else:
            runs[name] = file
    return ",".join(models), runs
