"""Tests that the programs in examples/ run, and print what they promise."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from warm import Warm

Run = Callable[..., str]
ROOT = Path(__file__).resolve().parents[1]
HAVE_OWN_TESTS = {"demo.py", "train_dense.py", "custom_encoder.py", "existing_index.py"}


@pytest.fixture
def run(warm: Warm, hub: dict[str, str], tmp_path: Path) -> Run:
    """A function that runs a script in a new folder, and gives what it prints. Its warnings are errors."""

    def run(name: str, *arguments: str) -> str:
        environment = os.environ | hub | {"COLUMNS": "100"}
        done = warm.run(ROOT / "examples" / name, *arguments, cwd=tmp_path, env=environment, apart=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.mark.parametrize("name", sorted({path.name for path in (ROOT / "examples").glob("*.py")} - HAVE_OWN_TESTS))
def test_every_example_runs(name: str, run: Run) -> None:
    assert run(name).strip()


def test_training_by_one_call_gives_what_a_loop_in_pytorch_gives(minilm: str, run: Run) -> None:
    pytest.importorskip("datasets", reason="pip install 'hybridsearch[training]'")

    printed = run("train_dense.py", minilm)

    losses = [line.split()[1:] for line in printed.splitlines()[1:4]]
    assert [one for one, _ in losses] == [other for _, other in losses]
    assert float(printed.split()[-1]) < 1e-4


def test_trigrams_find_what_bm25_does_not(run: Run) -> None:
    printed = run("custom_encoder.py")

    assert printed.splitlines()[2].split()[2:5] == ["-", "1", "boundary"]


def test_run_files_are_fused_by_rank(run: Run, tmp_path: Path) -> None:
    (tmp_path / "one.run").write_text("q1 Q0 a 0 3.0 x\nq1 Q0 b 0 2.0 x\nq1 Q0 c 0 1.0 x\nq2 Q0 c 0 9 x\n")
    (tmp_path / "two.run").write_text("q1 Q0 d 0 0.9 y\nq1 Q0 b 0 0.8 y\nq1 Q0 a 0 0.1 y\n")
    earned = {"a": 1 / 61 + 1 / 63, "b": 1 / 62 + 1 / 62, "c": 1 / 63, "d": 1 / 61}

    printed = run("fuse_trec_runs.py", "one.run", "two.run")

    columns = [line.split() for line in printed.splitlines()]
    assert [line[2] for line in columns if line[0] == "q1"] == sorted(earned, key=lambda id: -earned[id])
    assert [line[2] for line in columns if line[0] == "q2"] == ["c"]


def test_the_demo_answers_builds_once_and_says_what_to_type_next(run: Run, tmp_path: Path) -> None:
    arguments = ["--packages", "networkx", "--limit", "15"]
    pytest.importorskip("networkx")

    first = run("demo.py", *arguments)
    second = run("demo.py", *arguments)

    assert "Indexing 15 docstrings" in first
    assert "Using the index in demo-index: 15 documents" in second
    answers = first.partition("\n\n")[2].partition("Done in")[0]
    assert "matched: " in answers
    assert "dense 1" in answers
    command = re.search(r"(\S*hybridsearch) search demo-index \"(.*?)\" --explain", answers)
    assert command is not None
    done = subprocess.run(
        [command[1], "search", "demo-index", command[2], "--retrievers", "bm25", "--explain"],
        capture_output=True,
        timeout=120,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
