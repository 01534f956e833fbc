"""Tests of files from anybody: whatever bytes they have, they are read or refused with one of our errors."""

from __future__ import annotations

import gzip
import io
import json
import random
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import hybridsearch as hs
from hybridsearch.errors import HybridSearchError
from hybridsearch.evaluation.comparison import Comparison
from hybridsearch.evaluation.datasets import Dataset, load_dataset
from hybridsearch.evaluation.measures import parse_measures, read_qrels, write_qrels
from hybridsearch.evaluation.spec import parse_systems
from hybridsearch.evaluation.tuned import load_tuned
from hybridsearch.evaluation.tuning import tune
from hybridsearch.ranking import Ranking

Seeds = dict[str, list[bytes]]
Parse = Callable[[Path], object]

TOKENS = [
    b"\xe2\x80\xa8", b"\xc2\x85", b"\xc2\xa0", b"\x00", b"\xef\xbb\xbf", b"\xff\xfe", b"\r", b"\n", b"\t", b" ",
    b"\x1f\x8b", b"nan", b"inf", b"-1", b"1e999", b"1_0", b"0x10", b"9" * 5000, b"1.5", b"\xd9\xa1", b"null", b"true",
    b"[]", b"{}", b"[" * 3000, b'{"a":' * 3000, b'"\\ud800"', b'"', b"'", b",", b"|", b"\\", b"%s", b"..",
    b"/etc/passwd", b"://", b"**", b"<top>", b"<num>", b"<title>", b"---\n", b"&a", b"*a", b"<<: *a",
    b"!!python/object:os.system",
    b"? ", b"- ", b": ", b"query-id", b"corpus-id", b"score", b"_id", b"text", b"+", b"=", b":", b"@", b"(", b")",
    b"rel=2",
    b"weights", b"type",
]  # fmt: skip


def qrels(path: Path) -> None:
    found = read_qrels(path)
    write_qrels(found, again := path.with_name("again.tsv"))
    assert read_qrels(again) == found


def queries(path: Path) -> None:
    (path.parent / "judged.txt").write_text("1 0 d1 1\nq1 0 d1 1\n301 0 d1 0\n")
    dataset = Dataset.from_files(path, path.parent / "judged.txt", all_queries=True)
    assert dataset.check().queries == len(dataset.queries) > 0


def judgements(path: Path) -> None:
    (path.parent / "asked.tsv").write_text("1\twing\nq1\theat\n")
    dataset = Dataset.from_files(path.parent / "asked.tsv", path)
    assert dataset.check().judgements > 0


def readme(path: Path) -> None:
    folder = path.parent / "set"
    folder.mkdir(exist_ok=True)
    for name, text in (("queries.tsv", "q1\twing\n"), ("qrels.tsv", "q1\td1\t1\n"), ("corpus.jsonl", "")):
        (folder / name).write_text(text)
    (folder / "README.md").write_bytes(path.read_bytes())
    load_dataset(folder)


def systems(path: Path) -> None:
    runs = {name: {"q": Ranking.from_scores({"d": 1.0})} for name in ("bm25", "dense")}
    parse_systems(path.read_bytes().decode("utf-8", "surrogateescape").split(","), runs)


def measures(path: Path) -> None:
    parse_measures(path.read_bytes().decode("utf-8", "surrogateescape").split(","))


def fusion(path: Path) -> None:
    load_tuned(path)


def jsonl(*records: object) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def parquet(**columns: list[object]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


def tuned() -> bytes:
    ids = [f"q{number}" for number in range(12)]
    runs = {name: {id: Ranking.from_scores({"a": 1.0, id: at}) for id in ids} for name, at in (("x", 0.5), ("y", 2.0))}
    dataset = Dataset("made", dict.fromkeys(ids, "?"), {id: {id: 1} for id in ids})
    return json.dumps(tune(runs, dataset, kinds=[hs.RRF()], show_progress_bar=False).to_dict()).encode()


CLASSIC = b"""<top>
<num> Number: 301
<title> International Crime
<desc> Description:
Find.
</top>
<top>
<num>302
<title>Polio
</top>
"""
CONFIGS = b"""---
configs:
- config_name: corpus
  data_files: corpus.jsonl
- config_name: queries
  data_files:
  - split: test
    path: queries.tsv
- config_name: qrels
  data_dir: ''
  data_files:
    test: [qrels.tsv]
---
# Set
"""
SYSTEMS = [b"bm25,bm25+dense,ours=bm25:0.3+dense:0.7+minmax,rrf:20,dense+candidates:200", b"all=zscore,adaptive"]
LISTED = jsonl({"query-id": "1", "corpus-id": ["d1", 2], "score": 1}, {"query-id": "q1", "corpus-id": "d"})
PARSERS: dict[str, tuple[Parse, Seeds]] = {
    "runs": (
        Ranking.from_trec,
        {"run.trec": [b"q1 Q0 d1 1 2.5 t\nq1 Q0 d2 2 1.5 t\n\nq2\tQ0\td1\t1\t-3e2\tt\r\n"]},
    ),
    "qrels": (qrels, {"qrels.tsv": [b"1 0 d1 1\n1 0 d2 0\n2 0 d1 -1\n", b"query-id\tcorpus-id\tscore\n1\td 1\t2.0\n"]}),
    "queries": (
        queries,
        {
            "queries.tsv": [b"query-id\ttext\n1\twing\nq1\theat in a nozzle\n", CLASSIC],
            "queries.jsonl": [jsonl({"_id": "1", "text": "wing"}, {"_id": 2, "text": "heat", "metadata": {"a": [1]}})],
            "queries.csv": [b'id,text\n1,wing\nq1,"heat, in a nozzle"\n'],
            "queries.parquet": [parquet(_id=["1", "q1"], text=["wing", "heat"])],
        },
    ),
    "judgements": (
        judgements,
        {
            "qrels.jsonl": [LISTED],
            "qrels.parquet": [parquet(**{"query-id": ["1", "q1"], "corpus-id": ["d", "e"], "score": [1, 0]})],
        },
    ),
    "configs of a data set": (readme, {"README.md": [CONFIGS]}),
    "systems": (systems, {"systems.txt": SYSTEMS}),
    "measures": (measures, {"measures.txt": [b"nDCG@10", b"RR(rel=2)@10", b"AP,P@5", b"nDCG(gains={0:1})@3"]}),
    "tuned fusions": (fusion, {"tuned.json": [tuned()]}),
    "comparisons": (Comparison.load, {}),  # of the fixture
}


def damaged(seed: bytes, random: random.Random) -> bytes:
    """`seed` after a few changes. Sometimes it is compressed and damaged again."""
    raw = bytearray(seed)
    for _ in range(random.choice([1, 1, 1, 1, 2, 3, 6])):
        place, length = random.randrange(len(raw) + 1), random.choice([1, 1, 2, 5, 40])
        change = random.randrange(5)
        if change == 0:
            raw[place : place + length] = b""
        elif change == 1:
            raw[place:place] = random.choice(TOKENS)
        elif change == 2:
            raw[place : place + length] = random.randbytes(length)
        elif change == 3:
            start = random.randrange(len(raw) + 1)
            raw[place:place] = raw[start : start + length * 4]
        else:
            raw[place : place + length] = random.choice(TOKENS)
    if random.random() < 0.1:
        raw = bytearray(gzip.compress(bytes(raw), 1))
        if random.random() < 0.7:
            place = random.randrange(len(raw))
            raw[place : place + random.choice([1, 1, 1000])] = random.randbytes(1)
    return bytes(raw)


@pytest.mark.parametrize("inputs", [100, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
@pytest.mark.parametrize("parser", list(PARSERS))
def test_damaged_input_is_read_or_refused_by_an_error_of_ours(
    parser: str, inputs: int, tmp_path: Path, comparison: Comparison
) -> None:
    parse, seeds = PARSERS[parser]
    seeds = seeds or {"all.json": [comparison.to_json().encode()]}
    for number in range(inputs):
        chance = random.Random(f"{parser} {number}")
        name = chance.choice(list(seeds))
        path = tmp_path / name
        path.write_bytes(damaged(chance.choice(seeds[name]), chance))
        try:
            parse(path)
        except HybridSearchError as error:
            told = str(error)
        except Exception as error:
            error.add_note(f"input {number}, {name}: {path.read_bytes()[:300]!r}")
            raise
        else:
            continue
        assert 10 < len(told) < 2000, f"input {number}, {name}"
