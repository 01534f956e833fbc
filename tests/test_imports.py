"""Tests of imports: there is no circle, no import from a higher layer, and no private name of another package."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

LAYERS = [
    "messages", "errors", "yaml_files", "arguments", "folders", "forks", "progress", "access", "tables", "documents",
    "readers",
    "vectors", "ranking", "filters", "listing", "weighting", "registry", "backends", "places", "arrow", "corpus",
    "compiled", "encoders", "sentences", "passages", "fusion", "rerank", "selection", "snippets", "context", "feedback",
    "hits", "found_passages", "expanding", "side_by_side", "answers", "retrieval", "indexing", "search", "opening",
    "evaluation", "training", "integrations", "service", "testing", "adapters", "cli", "__main__",
]  # fmt: skip
"""The parts of the package, each of which may import those before it. The package itself may name any but the last."""

FOREIGN = {"_load_best_model", "_version"}
"""Private names of other libraries, which modules of ours use under the same name."""


@cache
def modules() -> dict[str, Path]:
    """Every module by its name in the installed package."""
    found = {}
    for folder, package in (("hybridsearch", "hybridsearch"), ("adapters", "hybridsearch.adapters")):
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join([package, *(part for part in parts if part != "__init__")])] = path
    return found


@cache
def nodes(module: str) -> list[ast.AST]:
    """The syntax tree of a module."""
    return list(ast.walk(ast.parse(modules()[module].read_text(encoding="utf-8"))))


@cache
def imported(module: str) -> frozenset[str]:
    """The modules of the package that `module` imports: at the top, in functions, and for types alone."""
    named = set()
    for node in nodes(module):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                named.add(inner if inner in modules() else node.module)
    return frozenset((named & modules().keys()) - {module})


def with_packages(module: str) -> Iterator[str]:
    """`imported`, and what Python runs before it: the packages that hold a module, except those that hold this one."""
    for name in imported(module):
        parts = name.split(".")
        yield from (
            ".".join(parts[:end])
            for end in range(2, len(parts) + 1)
            if not f"{module}.".startswith(f"{'.'.join(parts[:end])}.")
        )
    if "hybridsearch" in imported(module):
        yield "hybridsearch"


def layer(module: str) -> int:
    return LAYERS.index(module.split(".")[1])


def test_imports_have_no_circle() -> None:
    graph = {module: set(with_packages(module)) for module in modules()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' <- '.join(error.args[1])}")


def test_every_part_of_the_package_has_a_layer() -> None:
    parts = {module.split(".")[1] for module in modules() if module != "hybridsearch"}
    assert parts == set(LAYERS)


def test_no_module_imports_from_a_layer_above_its_own() -> None:
    inner = [module for module in modules() if module != "hybridsearch"]
    wrong = [
        f"{module} imports {other}"
        for module in inner
        for other in imported(module)
        if other != "hybridsearch" and layer(other) > layer(module)
    ]
    assert wrong == []


def test_nothing_but_the_program_imports_the_package_as_its_users_do() -> None:
    """The package itself imports all parts, so a part that imports the package would depend on all of them."""
    assert [m for m in modules() if "hybridsearch" in imported(m) and not m.startswith("hybridsearch.cli.")] == []


def test_nothing_but_the_program_imports_the_program() -> None:
    wrong = [m for m in modules() if any(o.startswith("hybridsearch.cli") for o in imported(m))]
    assert {module.split(".")[1] for module in wrong} == {"cli", "__main__"}


def private_names(module: str) -> set[str]:
    """The private names that a module defines: functions, classes, fields and attributes of its own objects."""
    named = {
        node.name for node in nodes(module) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    fields = [node.target for node in nodes(module) if isinstance(node, ast.AnnAssign)]
    named |= {target.id for target in fields if isinstance(target, ast.Name)}
    attributes = [node for node in nodes(module) if isinstance(node, ast.Attribute)]
    named |= {node.attr for node in attributes if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")}
    return {name for name in named if _is_private(name)}


def test_no_private_name_is_taken_from_another_module() -> None:
    names = {module: private_names(module) for module in modules()}
    ours = set().union(*names.values())
    wrong = []
    for module, own in names.items():
        foreign = ours - own - FOREIGN
        for node in nodes(module):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hybridsearch"):
                wrong += [f"{module} imports {alias.name}" for alias in node.names if _is_private(alias.name)]
            elif isinstance(node, ast.Attribute) and node.attr in foreign:
                wrong.append(f"{module}, line {node.lineno}: {ast.unparse(node)}")
    assert wrong == []


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")
