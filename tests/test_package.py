"""Tests of the installed package: it imports quickly, is complete, has its layers, and is documented."""

from __future__ import annotations

import ast
import doctest
import functools
import importlib
import json
import os
import pkgutil
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

import hybridsearch as hs
from hybridsearch import errors
from hybridsearch.errors import HybridSearchError, MissingExtraError, ModelNotFoundError

ROOT = Path(__file__).resolve().parents[1]
HEAVY = [
    "torch", "transformers", "sentence_transformers", "numba", "scipy", "pyarrow", "pandas", "usearch", "rich", "typer",
    "opensearchpy", "elasticsearch", "qdrant_client", "seismic", "Stemmer", "datasets", "pytest",
    "lxml", "docx", "pptx", "pypdfium2", "python_calamine", "sqlalchemy", "langchain_core", "llama_index", "haystack",
]  # fmt: skip
CONTRACT = {
    "hybridsearch.arguments", "hybridsearch.arrow", "hybridsearch.backends", "hybridsearch.compiled",
    "hybridsearch.corpus", "hybridsearch.documents",
    "hybridsearch.errors", "hybridsearch.filters", "hybridsearch.folders", "hybridsearch.forks",
    "hybridsearch.listing", "hybridsearch.messages", "hybridsearch.ranking", "hybridsearch.vectors",
    "hybridsearch.weighting",
}  # fmt: skip
"""The modules that an adapter may import."""


def python(code: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=cwd, check=False)


def modules() -> list[str]:
    """Every module of the installed package."""
    return [module.name for module in pkgutil.walk_packages(hs.__path__, "hybridsearch.")] + ["hybridsearch"]


@functools.cache
def nodes(path: Path) -> list[ast.AST]:
    """The syntax tree of a file."""
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def imports(path: Path) -> Iterator[str]:
    """The modules that a file imports anywhere, with the names taken from packages."""
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import in line {node.lineno}"
            yield node.module or ""


def test_importing_takes_less_than_300_milliseconds(tmp_path: Path) -> None:
    code = "import time; start = time.perf_counter(); import hybridsearch; print(time.perf_counter() - start)"
    assert min(float(python(code, tmp_path).stdout) for _ in range(3)) < 0.3


def test_importing_loads_no_model_library_no_client_and_nothing_heavy(tmp_path: Path) -> None:
    result = python(f"import sys, hybridsearch; print(sorted(set({HEAVY}) & sys.modules.keys()))", tmp_path)
    assert (result.stdout.strip(), result.stderr) == ("[]", "")


def test_indexing_opening_and_searching_do_not_load_pandas(tmp_path: Path) -> None:
    """pandas takes a second to load, and pyarrow loads it for most of its conversions."""
    code = """
import sys
import hybridsearch as hs
texts = [f"wing {number} of an aircraft" for number in range(5000)]
documents = [hs.Document(str(number), text, metadata={"n": number}) for number, text in enumerate(texts)]
with hs.HybridSearch({"bm25": hs.BM25()}, "index") as search:
    search.index(documents, show_progress_bar=False)
with hs.open("index") as search:
    search.upsert([hs.Document("new", "wing"), hs.Document("1", "changed")])
    search.delete(["2"])
    search.search("wing", filter={"n": {"$lt": 9}})
    search.index(documents[:3000], show_progress_bar=False)
print("pandas" in sys.modules)
"""
    result = python(code, tmp_path)
    assert (result.stdout.strip(), result.stderr) == ("False", "")


def test_naming_every_public_thing_loads_neither_a_model_library_nor_a_client(tmp_path: Path) -> None:
    heavy = [name for name in HEAVY if name not in ("numba", "scipy", "pyarrow", "pandas", "rich", "typer", "Stemmer")]
    code = f"import sys; from hybridsearch import *; print(sorted(set({heavy}) & sys.modules.keys()))"
    result = python(code, tmp_path)
    assert (result.stdout.strip(), result.stderr) == ("[]", "")


def test_every_public_name_resolves_and_is_documented() -> None:
    undocumented = [name for name in hs.__all__ if name != "__version__" and not getattr(hs, name).__doc__]
    assert undocumented == []
    assert set(hs.__all__) <= set(dir(hs))


def test_every_public_method_is_documented() -> None:
    undocumented = []
    for name in hs.__all__:
        thing = getattr(hs, name)
        if isinstance(thing, type) and not issubclass(thing, HybridSearchError):
            undocumented += [
                f"{name}.{method}"
                for method, value in vars(thing).items()
                if not method.startswith("_") and (callable(value) or isinstance(value, property | classmethod))
                if not getattr(getattr(thing, method), "__doc__", None)
                if not any(getattr(getattr(base, method, None), "__doc__", None) for base in thing.__mro__[1:])
            ]
    assert undocumented == []


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'hybridsearch' has no attribute 'Nonsense'"):
        _ = hs.Nonsense


def test_type_checkers_know_the_public_names_and_no_others(tmp_path: Path) -> None:
    tree = ast.parse(Path(hs.__file__).read_text(encoding="utf-8"))
    blocks = {ast.unparse(node.test): node for node in tree.body if isinstance(node, ast.If)}
    known = {name.asname for node in blocks["TYPE_CHECKING"].body for name in node.names}  # type: ignore[attr-defined]
    assert known == {*hs.__all__} - {"__version__"}
    assert "def __getattr__" in ast.unparse(blocks["not TYPE_CHECKING"])
    assert not [node for node in tree.body if getattr(node, "name", "") == "__getattr__"]


@pytest.mark.slow
def test_a_misspelt_name_is_an_error_for_mypy(tmp_path: Path) -> None:
    api = pytest.importorskip("mypy.api", reason="pip install mypy")
    (tmp_path / "program.py").write_text("import hybridsearch as hs\nhs.Dense('model')\nhs.Dens('model')\n")
    said, _, _ = api.run(
        [str(tmp_path / "program.py"), "--cache-dir", str(tmp_path / "cache"), "--ignore-missing-imports"]
    )
    assert "program.py:3: error" in said
    assert "Dens" in said
    assert "program.py:2" not in said


def test_every_module_has_a_docstring() -> None:
    assert [name for name in modules() if not importlib.import_module(name).__doc__] == []


def test_every_package_folder_is_listed_in_pyproject() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = [
        *(path.parent.relative_to(ROOT) for path in (ROOT / "hybridsearch").rglob("*.py")),
        *(Path("hybridsearch") / path.parent.relative_to(ROOT) for path in (ROOT / "adapters").rglob("*.py")),
    ]
    assert sorted(listed) == sorted({".".join(folder.parts) for folder in folders})


def test_every_package_folder_has_an_init_file() -> None:
    folders = {path.parent for top in ("hybridsearch", "adapters") for path in (ROOT / top).rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_adapters_are_refused_under_another_name() -> None:
    result = python("import adapters")
    assert result.returncode == 1
    assert result.stderr.strip().splitlines()[-1] == (
        "ImportError: This package is imported as 'hybridsearch.adapters', not as 'adapters': "
        "install the project first."
    )


def test_the_core_imports_no_adapter() -> None:
    core = (ROOT / "hybridsearch").rglob("*.py")
    found = {path.name: name for path in core for name in imports(path) if "adapters" in name.split(".")}
    assert found == {}


def test_adapters_import_the_contract_and_nothing_else_of_the_core() -> None:
    wrong = []
    for path in (ROOT / "adapters").rglob("*.py"):
        wrong += [
            f"{path.relative_to(ROOT)}: {name}"
            for name in imports(path)
            if name.split(".")[0] == "hybridsearch"
            if not name.startswith("hybridsearch.adapters")
            if name not in CONTRACT and not name.startswith("hybridsearch.corpus.")
        ]
    assert wrong == []


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        (None, "pip install '.[evaluation]'"),
        ("file://{folder}/a%20folder/of mine", "pip install '{folder}/a folder/of mine[evaluation]'"),
        ("file://{folder}/gone", "pip install 'hybridsearch[evaluation]'"),
        ("https://host/hybridsearch-1.whl", "pip install 'hybridsearch[evaluation]'"),
    ],
)
def test_a_missing_extra_is_installed_from_where_the_package_came_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, origin: str | None, command: str
) -> None:
    class Distribution:
        def read_text(self, name: str) -> str | None:
            return None if origin is None else json.dumps({"url": origin.format(folder=tmp_path)})

    (tmp_path / "a folder" / "of mine").mkdir(parents=True)
    monkeypatch.setattr(metadata, "distribution", lambda name: Distribution())
    if origin is None:
        monkeypatch.chdir(ROOT)
    else:
        monkeypatch.setattr(errors, "__file__", str(tmp_path / "hybridsearch" / "errors.py"))
    assert command.format(folder=tmp_path) in str(errors.MissingExtraError("ir-measures", "evaluation", "Measuring"))
    assert "`pip install pandas`" in str(errors.MissingExtraError("pandas", None, "A DataFrame"))


def test_no_module_asserts_where_it_should_raise() -> None:
    wrong = []
    paths = [*(ROOT / "hybridsearch").rglob("*.py"), *(ROOT / "adapters").rglob("*.py")]
    for path in paths:
        if "testing" in path.parts:
            continue
        for node in nodes(path):
            if isinstance(node, ast.Assert):
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert wrong == []


@pytest.mark.parametrize("name", modules())
def test_the_examples_in_the_documentation_run(
    name: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tests = [test for test in doctest.DocTestFinder().find(importlib.import_module(name)) if test.examples]
    monkeypatch.chdir(tmp_path)
    for test in tests:
        source = "".join(example.source for example in test.examples)
        if "Dense(" in source or "all-MiniLM" in source:
            request.getfixturevalue("minilm")
        if "Sparse(" in source:
            request.getfixturevalue("splade")
        report: list[str] = []
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
        runner.run(test, out=report.append)
        missing = (MissingExtraError.__name__, ModelNotFoundError.__name__)
        if report and any(f"{error}:" in "".join(report) for error in missing):
            pytest.skip(f"{test.name} needs a model or package that is not here")
        assert not report, "".join(report)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], list[str]]:
    """The names in an sdist and in the wheel built from it, without network."""
    pytest.importorskip("build", reason="pip install build")
    folder = tmp_path_factory.mktemp("build")
    source, out = folder / "source", folder / "dist"
    ignored = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "tests", "benchmarks", "build", "dist", "site")
    shutil.copytree(ROOT, source, ignore=ignored)
    command = [sys.executable, "-m", "build", "--no-isolation", "--skip-dependency-check", "--outdir", str(out), "."]
    result = subprocess.run(command, cwd=source, capture_output=True, text=True, env=os.environ, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive, tarfile.open(sdist) as tar:
        return [name.partition("/")[2] for name in tar.getnames()], archive.namelist()


def assets() -> list[Path]:
    """The files of pages: style sheets, scripts, HTML and pictures."""
    return [path for kind in ("css", "js", "html", "svg") for path in (ROOT / "hybridsearch").rglob(f"*.{kind}")]


def test_the_wheel_holds_every_module_the_type_marker_and_the_licence(built: tuple[list[str], list[str]]) -> None:
    _, wheel = built
    expected = {path.relative_to(ROOT).as_posix() for path in (ROOT / "hybridsearch").rglob("*.py")}
    expected |= {f"hybridsearch/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "adapters").rglob("*.py")}
    expected |= {f"hybridsearch/{path.relative_to(ROOT / 'hybridsearch').as_posix()}" for path in assets()}
    assert {*expected, "hybridsearch/py.typed"} <= set(wheel)
    assert any(name.endswith("licenses/LICENSE") for name in wheel)


def test_the_wheel_holds_nothing_else(built: tuple[list[str], list[str]]) -> None:
    _, wheel = built
    tops = {name.split("/")[0] for name in wheel}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"hybridsearch"}


def test_the_sdist_holds_the_adapters_and_the_type_marker(built: tuple[list[str], list[str]]) -> None:
    sdist, _ = built
    assert {"adapters/__init__.py", "adapters/memory/__init__.py", "hybridsearch/py.typed", "LICENSE"} <= set(sdist)


def test_the_services_of_compose_yaml_are_reached_from_this_machine_only_and_say_when_they_are_ready() -> None:
    yaml = pytest.importorskip("yaml", reason="pip install pyyaml")
    services = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]
    assert set(services) == {"opensearch", "elasticsearch", "qdrant", "hybridsearch"}
    for name, service in services.items():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), name
        assert service["healthcheck"]["test"], name
