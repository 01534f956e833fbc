"""Data sets as the Hugging Face hub stores them: which files hold a subset, and how to download only those.

A data set is a folder. Its README.md can tell, in `configs`, which files hold which split of which subset. If it does
not, the usual names are used (`corpus.jsonl.gz`, `corpus/test-00000-of-00001.parquet`, `qrels/test.tsv` ...). A folder
on the hub and a folder on this disk are read in the same way. From the hub only the needed files are downloaded.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hybridsearch.errors import DatasetNotFoundError, InvalidArgumentError, MissingExtraError
from hybridsearch.readers.compression import SUFFIXES

SUBSETS = {"corpus": ("corpus",), "queries": ("queries", "query", "topics"), "qrels": ("qrels", "default")}
"""Names of each subset. In some data sets the judgements are the default subset."""

_SPLIT_NAMES = ({"dev", "validation", "valid"}, {"test"}, {"train"})
_PACKED = ("", *SUFFIXES)
_SUFFIXES = (*(f".jsonl{packed}" for packed in _PACKED), ".parquet", *(f".tsv{packed}" for packed in _PACKED))


class Layout:
    """The files of a data set in its folder.

    Attributes:
        folder: Folder on this disk.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._configs = _read_configs(folder / "README.md")

    def files(self, subset: str, split: str) -> list[Path]:
        """The files of one split of a subset ("corpus", "queries" or "qrels"), in order. Empty if there are none."""
        try:
            if "**" in split:  # an error of `glob` itself before Python 3.13
                raise ValueError("it holds '**'")
            for patterns in self.alternatives(subset, split):
                found = {path for pattern in patterns for path in self.folder.glob(pattern) if path.is_file()}
                if found:
                    return sorted(found)
        except (RuntimeError, ValueError, OSError) as error:  # for an absolute path or a path that is too long
            raise InvalidArgumentError(
                f"{self.folder} has no {subset} of the split {split!r:.80}, because a split cannot have this name "
                f"({str(error)[:200]})."
            ) from error
        return []

    def splits(self, subset: str) -> list[str]:
        """The names of the splits that a subset has, as far as they are known."""
        if config := self._config(subset):
            return list(config)
        paths = (path for name in SUBSETS[subset] for path in self.folder.glob(f"{name}/*"))
        return sorted({path.name.split(".")[0].split("-0")[0] for path in paths if path.name.endswith(_SUFFIXES)})

    def alternatives(self, subset: str, split: str) -> list[list[str]]:
        """Lists of file patterns for one split of a subset. The first list that finds files is used."""
        if config := self._config(subset):
            name = _choose(config, subset, split)
            return [] if name is None else [config[name]]
        patterns = []
        # Judgements in a file that names no split are those of "test", or of any split if no file names one.
        without_split = subset != "qrels" or "test" in _same(split) or not self.splits(subset)
        for name in SUBSETS[subset]:
            for of_split in _same(split):
                patterns += [f"{name}/{of_split}-*.parquet", f"{name}/{of_split}/*.parquet"]
                patterns += [f"{name}/{of_split}{suffix}" for suffix in _SUFFIXES]
            patterns += [f"{name}{suffix}" for suffix in _SUFFIXES if without_split]
            if subset != "qrels":
                patterns += [
                    f"{name}/*.parquet",
                    *(f"{name}/*.jsonl{packed}" for packed in _PACKED),
                    f"{name}-*.parquet",
                ]
        if subset == "queries":
            patterns += ["queries.txt", "topics*"]  # TREC gives them all kinds of names
        if subset == "qrels":
            for of_split in _same(split):  # the last two: a repository of judgements alone, as BeIR/scifact-qrels
                patterns += [f"qrels/{of_split}.txt", f"{of_split}.tsv", f"data/{of_split}-*.parquet"]
            patterns += ["qrels.*", "*.qrels"] if without_split else []
        return [[pattern] for pattern in patterns]

    def _config(self, subset: str) -> dict[str, list[str]]:
        """Split -> file patterns of a subset, from the README's `configs`. Empty if it has none."""
        for name in SUBSETS[subset]:
            if name in self._configs:
                return self._configs[name]
        if subset != "qrels":  # some data sets give these names to splits instead of subsets
            for config in self._configs.values():
                if found := {name: config[name] for name in SUBSETS[subset] if name in config}:
                    return found
        return {}


def fetch(repository: str, subsets: Iterable[str], splits: Sequence[str], revision: str | None = None) -> Layout:
    """Download these subsets and splits of a data set on the hub. Files in the cache are used.

    Args:
        repository: Name of the data set on the hub.
        subsets: Subsets to download: "corpus", "queries" or "qrels".
        splits: Splits to download.
        revision: Branch, tag or commit. None takes the main branch.

    Raises:
        DatasetNotFoundError: The hub has no such data set. Or the cache lacks it and the hub cannot be reached.
        MissingExtraError: huggingface_hub is not installed.
    """
    layout = Layout(_snapshot(repository, ["README.md"], revision))
    wanted = {(subset, split): layout.alternatives(subset, split) for subset in subsets for split in splits}
    patterns = [pattern for several in wanted.values() for patterns in several for pattern in patterns]
    _snapshot(repository, ["README.md", *patterns], layout.folder.name)  # the same commit
    for (subset, split), alternatives in wanted.items():
        elsewhere = subset == "qrels" and not layout.splits("qrels")  # perhaps they are in another repository
        if alternatives and not elsewhere and not layout.files(subset, split):
            if subset == "qrels" and _has_none(repository, layout.folder.name, alternatives):
                continue  # there is no such split
            raise DatasetNotFoundError(
                f"The data set {repository!r} has no file with the {subset} of {split!r} in {layout.folder}. If that "
                f"folder is not complete, run {_commands(repository)} where the hub can be reached. Copy the new "
                "folder here, and load it by its path or with dataset_id='path/to/it'."
            )
    return layout


def _choose(config: Mapping[str, list[str]], subset: str, split: str) -> str | None:
    """The name of the split in `config`. Documents and queries can also have one split, or a split of their name."""
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
    """Split -> file patterns of `data_files`: a pattern, a list, a mapping of splits, or a list of {split, path}."""
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
            raise ValueError(f"{path!r} is not inside the folder")
    return {split: [f"{below}/{path}".lstrip("/") for path in paths] for split, paths in patterns.items()}


def _snapshot(repository: str, patterns: list[str], revision: str | None) -> Path:
    hub = _import_hub()
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(hub.snapshot_download(repository, repo_type="dataset", revision=revision, allow_patterns=patterns))
    except LocalEntryNotFoundError as error:
        raise DatasetNotFoundError(
            f"The data set {repository!r} is not complete in the cache {hub.constants.HF_HUB_CACHE}, and the hub "
            f"cannot be reached. Run {_commands(repository)} where it can be reached. Copy the new folder here, and "
            "load it by its path or with dataset_id='path/to/it'."
        ) from error
    except RepositoryNotFoundError as error:
        raise DatasetNotFoundError(
            f"The hub has no data set {repository!r} that you may read: check the name, or log in with `hf auth login`."
        ) from error
    except Exception as error:  # its client has no common base class: connections, servers, disks, names
        reason = " ".join(str(error).split()).rstrip(".")
        raise DatasetNotFoundError(f"The data set {repository!r} cannot be downloaded: {reason[:300]}.") from error


def _has_none(repository: str, commit: str, alternatives: Iterable[Iterable[str]]) -> bool:
    """Whether the hub can be reached and has no file for any of the patterns."""
    hub = _import_hub()
    try:
        files = hub.list_repo_files(repository, repo_type="dataset", revision=commit)
    except Exception:  # its client has no common base class: connections, servers
        return False
    return not any(fnmatch.fnmatch(file, pattern) for file in files for one in alternatives for pattern in one)


def _commands(repository: str) -> str:
    """The commands that download a data set into one folder, with judgements that are in another repository."""
    owner, _, name = repository.removesuffix("-qrels").rpartition("/")
    download = f"`hf download {owner}/{name} --repo-type dataset --local-dir {name}`"
    if owner != "BeIR" and not repository.endswith("-qrels"):
        return download
    return f"{download} and `hf download {owner}/{name}-qrels --repo-type dataset --local-dir {name}/qrels`"


def _import_hub() -> Any:
    """The module `huggingface_hub`."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise MissingExtraError("huggingface_hub", "evaluation", "Reading a data set of the hub") from error
    return huggingface_hub
