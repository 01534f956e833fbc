"""Tests of truncation: a report counts the texts of which a model read only the beginning, and says what to do."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

import hybridsearch as hs
from hybridsearch.cli.app import app
from hybridsearch.indexing.encoding import IndexEncoders

pytest.importorskip("sentence_transformers", reason="pip install 'hybridsearch[models]' for the model encoders")

NOTE = (
    "dense read only the first 254 tokens of 3 of 12 documents: index with passages=hs.Passages() (--passages), or use "
    "a model that reads more."
)


@pytest.fixture
def documents() -> list[hs.Document]:
    """Twelve documents, of which three have more words than the model reads."""
    return [hs.Document(str(i), "lift " * (300 if i % 4 == 0 else 20) + str(i)) for i in range(12)]


@pytest.mark.parametrize("cached", [False, True])
def test_a_report_counts_what_a_model_read_in_part(
    minilm: str, documents: list[hs.Document], tmp_path: Path, cached: bool
) -> None:
    for _ in range(2):  # the second time from the cache, if there is one
        dense = hs.Dense(minilm, cache=tmp_path if cached else False)
        search = hs.HybridSearch({"bm25": hs.BM25(), "dense": dense})
        report = search.index(documents, show_progress_bar=False)
        assert (report.truncated, report.notes) == ({"dense": 3}, (NOTE,))
        assert search.index(documents, show_progress_bar=False).truncated == {}  # nothing was read


def test_a_model_that_reads_all_gives_no_note(minilm: str, documents: list[hs.Document]) -> None:
    report = hs.HybridSearch({"dense": hs.Dense(minilm, max_length=320, cache=False)}).index(documents)
    assert (report.truncated, report.notes) == ({}, ())


def test_documents_that_are_encoded_into_a_folder_count_too(
    minilm: str, documents: list[hs.Document], tmp_path: Path
) -> None:
    search = hs.HybridSearch({"dense": hs.Dense(minilm, cache=False)})
    report = search.index(documents, via=tmp_path / "encoded", show_progress_bar=False)
    assert (report.indexed, report.truncated, report.notes) == (12, {"dense": 3}, (NOTE,))


def test_the_program_says_it(minilm: str, documents: list[hs.Document], tmp_path: Path) -> None:
    lines = tmp_path / "documents.jsonl"
    lines.write_text("\n".join(json.dumps({"id": d.id, "text": d.text}) for d in documents))
    arguments = ["index", str(lines), "--retrievers", f"dense={minilm}", "--index"]
    assert NOTE in " ".join(CliRunner().invoke(app, [*arguments, str(tmp_path / "a")]).output.split())
    told = CliRunner().invoke(app, [*arguments, str(tmp_path / "b"), "--json"])
    assert json.loads(told.stdout)["truncated"] == {"dense": 3}


def test_a_model_reads_every_passage_whole(minilm: str) -> None:
    title = "A long title " * 40
    document = hs.Document("1", "# Wings\n\n" + "Lift grows with the angle of attack, 東京タワー. " * 200, title)
    encoders = IndexEncoders({"bm25": hs.BM25(), "dense": hs.Dense(minilm, cache=False)}, hs.Passages(size=250))
    batch = encoders.encode([document])
    assert batch.passages is not None
    assert len(batch.passages) > 10
    assert batch.vectors["dense"].truncated == 1  # the first passage has the whole title behind it, for BM25
    title = "A title"
    assert encoders.encode([replace(document, title=title)]).vectors["dense"].truncated == 0


def test_a_passage_that_is_too_long_for_a_model_is_named(minilm: str) -> None:
    encoders = IndexEncoders({"dense": hs.Dense(minilm)}, hs.Passages())
    encoders.built(encoders.make_schema({}))
    assert encoders.truncation_note("dense", 1, 40) == (
        "dense read only the first 254 tokens of 1 of 40 passages: choose smaller passages."
    )
