"""Data sets as the Hugging Face hub stores them: which files hold a subset, and fetching just those.

A data set is a folder. Its README.md may say, in `configs`, which files hold which split of which subset; where it
does not, the usual names do (`corpus.jsonl.gz`, `corpus/test-00000-of-00001.parquet`, `qrels/test.tsv` ...). On the hub
or on this disk, the folder is read the same way; from the hub, only the files that are asked for are downloaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hybridsearch.errors import DatasetNotFoundError, InvalidArgumentError, MissingExtraError

SUBSETS = {"corpus": ("corpus",), "queries": ("queries", "query", "topics"), "qrels": ("qrels", "default")}
"""What a subset may be called; judgements are the default subset of some data sets."""

_SPLIT_NAMES = ({"dev", "validation", "valid"}, {"test"}, {"train"})
_SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet", ".tsv", ".tsv.gz")


class Layout:
    """Where the files of a data set are in its folder.

    Attributes:
        folder: on this disk.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._configs = _read_configs(folder / "README.md")

    def files(self, subset: str, split: str) -> list[Path]:
        """The files of one split of a subset ("corpus", "queries" or "qrels"), in order; empty without any."""
        try:
            if "**" in split:  # an error of `glob` itself before Python 3.13
                raise ValueError("it holds '**'")
            for patterns in self.alternatives(subset, split):
                found = {path for pattern in patterns for path in self.folder.glob(pattern) if path.is_file()}
                if found:
                    return sorted(found)
        except (NotImplementedError, ValueError, OSError) as error:  # of an absolute path; of one that is too long
            raise InvalidArgumentError(
                f"{self.folder} has no {subset} of the split {split!r:.80}, which is no name of a split "
                f"({str(error)[:200]})."
            ) from error
        return []

    def splits(self, subset: str) -> list[str]:
        """The names of the splits that a subset has, as far as they can be told."""
        if config := self._config(subset):
            return list(config)
        paths = (path for name in SUBSETS[subset] for path in self.folder.glob(f"{name}/*"))
        return sorted({path.name.split(".")[0].split("-0")[0] for path in paths if path.name.endswith(_SUFFIXES)})

    def alternatives(self, subset: str, split: str) -> list[list[str]]:
        """File patterns for one split of a subset; of these lists, the first with a file counts, and all of it."""
        if config := self._config(subset):
            name = _choose(config, subset, split)
            return [] if name is None else [config[name]]
        patterns = []
        for name in SUBSETS[subset]:
            for of_split in _same(split):
                patterns += [f"{name}/{of_split}-*.parquet", f"{name}/{of_split}/*.parquet"]
                patterns += [f"{name}/{of_split}{suffix}" for suffix in _SUFFIXES]
            patterns += [f"{name}{suffix}" for suffix in _SUFFIXES]
            if subset != "qrels":
                patterns += [f"{name}/*.parquet", f"{name}/*.jsonl", f"{name}/*.jsonl.gz", f"{name}-*.parquet"]
        if subset == "queries":
            patterns += ["queries.txt", "topics*"]  # TREC gives them all kinds of names
        if subset == "qrels":
            for of_split in _same(split):  # the last two: a repository of judgements alone, as BeIR/scifact-qrels
                patterns += [f"qrels/{of_split}.txt", f"{of_split}.tsv", f"data/{of_split}-*.parquet"]
            patterns += ["qrels.*", "*.qrels"]
        return [[pattern] for pattern in patterns]

    def _config(self, subset: str) -> dict[str, list[str]]:
        """Split -> file patterns of a subset, from the README's `configs`; empty where it says nothing."""
        for name in SUBSETS[subset]:
            if name in self._configs:
                return self._configs[name]
        if subset != "qrels":  # some name the splits so, and not the subsets
            for config in self._configs.values():
                if found := {name: config[name] for name in SUBSETS[subset] if name in config}:
                    return found
        return {}


def fetch(repository: str, subsets: Iterable[str], splits: Sequence[str], revision: str | None = None) -> Layout:
    """A data set on the hub, with the files of these subsets and splits; from the cache where it can be.

    Raises:
        DatasetNotFoundError: it is not on the hub, or neither in the cache nor within reach.
        MissingExtraError: huggingface_hub is not installed.
    """
    layout = Layout(_snapshot(repository, ["README.md"], revision))
    wanted = {(subset, split): layout.alternatives(subset, split) for subset in subsets for split in splits}
    patterns = [pattern for several in wanted.values() for patterns in several for pattern in patterns]
    _snapshot(repository, ["README.md", *patterns], layout.folder.name)  # the same commit
    for (subset, split), alternatives in wanted.items():
        elsewhere = subset == "qrels" and not layout.splits("qrels")  # maybe in a repository of their own
        if alternatives and not elsewhere and not layout.files(subset, split):
            raise DatasetNotFoundError(
                f"The data set {repository!r} has no file with the {subset} of {split!r} in {layout.folder}: if it is "
                f"not complete there, run {_commands(repository)} where the hub can be reached, copy that folder here, "
                "and load it by its path or with dataset_id='path/to/it'."
            )
    return layout


def _choose(config: Mapping[str, list[str]], subset: str, split: str) -> str | None:
    """The split asked for; a corpus and queries may also have a single split, or one named like the subset."""
    found = next((name for name in _same(split) if name in config), None)
    if found is None and subset != "qrels":
        found = next((name for name in SUBSETS[subset] if name in config), None)
        if found is None and len(config) == 1:
            found = next(iter(config))
    return found


def _same(split: str) -> list[str]:
    return [split, *sorted(next((names for names in _SPLIT_NAMES if split in names), {split}) - {split})]


def _read_configs(readme: Path) -> dict[str, dict[str, list[str]]]:
    """Subset -> split -> file patterns, from the README's front matter."""
    if not readme.is_file() or not readme.read_bytes().startswith((b"---", b"\xef\xbb\xbf---")):
        return {}
    hub = _import_hub()
    try:
        configs = (hub.metadata_load(readme) or {}).get("configs") or []
        return {config["config_name"]: _splits(config) for config in configs if config.get("data_files")}
    except Exception as error:  # of the YAML, or of what it holds
        reason = " ".join(str(error).split())
        raise InvalidArgumentError(f"{readme}: its `configs` cannot be read ({reason[:200]}).") from error


def _splits(config: Mapping[str, Any]) -> dict[str, list[str]]:
    """`data_files` is a pattern, a list of patterns, a mapping of splits, or a list of {split, path}."""
    given, below = config["data_files"], str(config.get("data_dir") or "").strip("/")
    if isinstance(given, str):
        given = {"train": given}
    elif isinstance(given, list):
        by_split: dict[str, list[str]] = {}
        for item in given:
            split, path = ("train", item) if isinstance(item, str) else (item.get("split", "train"), item["path"])
            by_split.setdefault(split, []).extend([path] if isinstance(path, str) else path)
        given = by_split
    patterns = {split: [path] if isinstance(path, str) else list(path) for split, path in given.items()}
    for path in (path for paths in patterns.values() for path in (below, *paths)):
        if "://" in path or path.startswith("/") or ".." in path.split("/"):
            raise ValueError(f"{path!r} is no file inside the folder")
    return {split: [f"{below}/{path}".lstrip("/") for path in paths] for split, paths in patterns.items()}


def _snapshot(repository: str, patterns: list[str], revision: str | None) -> Path:
    hub = _import_hub()
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(hub.snapshot_download(repository, repo_type="dataset", revision=revision, allow_patterns=patterns))
    except LocalEntryNotFoundError as error:
        raise DatasetNotFoundError(
            f"The data set {repository!r} is not complete in the cache {hub.constants.HF_HUB_CACHE} and the hub cannot "
            f"be reached: where it can, run {_commands(repository)}, copy that folder here, and load it by its path "
            "or with dataset_id='path/to/it'."
        ) from error
    except RepositoryNotFoundError as error:
        raise DatasetNotFoundError(
            f"The hub has no data set {repository!r} that you may read: check its name, or log in with `hf auth login`."
        ) from error
    except Exception as error:  # its client has no common base class: connections, servers, disks, names
        reason = " ".join(str(error).split()).rstrip(".")
        raise DatasetNotFoundError(f"The data set {repository!r} cannot be downloaded: {reason[:300]}.") from error


def _commands(repository: str) -> str:
    """What downloads a data set, with its judgements where they have a repository of their own, into one folder."""
    owner, _, name = repository.removesuffix("-qrels").rpartition("/")
    download = f"`hf download {owner}/{name} --repo-type dataset --local-dir {name}`"
    if owner != "BeIR" and not repository.endswith("-qrels"):
        return download
    return f"{download} and `hf download {owner}/{name}-qrels --repo-type dataset --local-dir {name}/qrels`"


def _import_hub() -> Any:
    """The module huggingface_hub."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise MissingExtraError("huggingface_hub", "evaluation", "Reading a data set of the hub") from error
    return huggingface_hub
