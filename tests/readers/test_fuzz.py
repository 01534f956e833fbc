"""Whatever a file contains, reading it gives documents or one of our errors, which names the file."""

from __future__ import annotations

import gzip
import io
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hybridsearch import Document, read_documents
from hybridsearch.errors import HybridSearchError
from hybridsearch.readers.types import TYPES

VALUES: list[Any] = [
    "", "1", "02134", "4.50", "-0", "1e999", "9" * 40, "nan", "True", "2024-02-30", "2024-03-01T00:30:00+09:00",
    "2024-03-01 00:30", "\ud800", "\0", "\u2028", "é", "a;b,c\td|e", '"', '""', "\r", "'", None, True, 5, -1.5, 1e308,
    10**30, float("inf"), [], ["a", 1], {}, {"year": 1}, [[[]]],
]  # fmt: skip
NAMES = ["id", "_id", "docid", "text", "contents", "title", "metadata", "year", "zip", "", "\ufeffid", "a b", "é"]
FORMATS = ["jsonl", "json", "csv", "tsv", "parquet", "txt", "md", "jsonl.gz", "csv.gz", "txt.gz"]


def records(rng: random.Random) -> list[dict[str, Any]]:
    columns = rng.choice([["id", "text", "title", "year"], ["_id", "contents", "zip"], rng.sample(NAMES, 4)])
    return [
        {name: str(row) if name in ("id", "_id") and rng.random() < 0.9 else rng.choice(VALUES) for name in columns}
        for row in range(rng.randint(0, 6))
    ]


def content(rng: random.Random, format: str) -> bytes:
    """A file that is almost correct."""
    rows = records(rng)
    if format == "parquet":
        texts = [{name: None if value is None else repr(value) for name, value in row.items()} for row in rows]
        stream = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(texts or [{"id": "1", "text": "a"}]), stream)
        return stream.getvalue()
    if format in ("csv", "tsv"):
        comma = "\t" if format == "tsv" else rng.choice(",;\t|")
        lines = [
            list(rows[0]) if rows else ["id", "text"],
            *(["" if v is None else str(v) for v in r.values()] for r in rows),
        ]
        quote = rng.choice(["", '"'])
        text = rng.choice(["\n", "\r\n", "\r"]).join(
            comma.join(f"{quote}{cell}{quote}" for cell in line) for line in lines
        )
    elif format in ("txt", "md"):
        text = "# Heading\n" + " ".join(map(str, VALUES))
    else:
        text = "".join(json.dumps(row, ensure_ascii=rng.random() < 0.5) + "\n" for row in rows)
    encoding = rng.choice(["utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252", "utf-7"])
    return text.encode(encoding, "surrogatepass" if encoding.startswith("utf-") and encoding != "utf-7" else "replace")


def damaged(rng: random.Random, raw: bytes) -> bytes:
    data = bytearray(raw)
    for _ in range(rng.choice([0, 0, 1, 2, 5, 20])):
        at = rng.randrange(len(data) + 1)
        what = rng.randrange(5)
        if what == 0 and at < len(data):
            data[at] = rng.randrange(256)
        elif what == 1:
            data[at:at] = rng.choice(
                [b"\0", b'"', b"\n", b"\xff\xfe", b"{", b"[" * 3000, b",", bytes([rng.randrange(256)])]
            )
        elif what == 2:
            del data[at : at + rng.randint(1, 9)]
        elif what == 3:
            del data[at:]
        else:
            data[at:at] = data[rng.randrange(len(data) + 1) :][:200]
    return bytes(data)


def options(rng: random.Random) -> dict[str, Any]:
    chosen: dict[str, Any] = {"on_error": rng.choice(["stop", "skip"]), "auto_id": rng.random() < 0.5}
    if rng.random() < 0.3:
        chosen["types"] = {name: rng.choice(TYPES) for name in rng.sample(NAMES, 2)}
    if rng.random() < 0.2:
        chosen["encoding"] = rng.choice(["utf-8", "cp1252", "utf-16", "utf-16-be", "latin-1", "ascii", "utf-7", "idna"])
    if rng.random() < 0.2:
        chosen["metadata_fields"] = rng.sample(NAMES, 3)
    if rng.random() < 0.2:
        chosen[rng.choice(["id_field", "text_field", "title_field"])] = rng.choice(NAMES)
    return chosen


def read(rng: random.Random, format: str, path: Path) -> Iterator[Document]:
    raw = damaged(rng, content(rng, format.removesuffix(".gz")))
    if format.endswith(".gz"):
        raw = damaged(rng, gzip.compress(raw)) if rng.random() < 0.5 else gzip.compress(raw)
    path.write_bytes(raw)
    reader = read_documents(path, **options(rng))
    yield from reader
    assert all(isinstance(note, str) for note in reader.notes)
    assert all(path.name in str(line) for line in reader.skipped)


def campaign(format: str, path: Path, count: int) -> int:
    """Read random files. Returns how many were read without an error."""
    whole = 0
    for seed in range(count):
        try:
            found = list(read(random.Random(f"{format} {seed}"), format, path))
        except HybridSearchError as error:
            if path.name not in str(error):
                pytest.fail(f"{format}, seed {seed}: the file is not named in {error}")
        except Exception as error:
            pytest.fail(f"{format}, seed {seed}: {error!r}")
        else:
            assert all(isinstance(document, Document) for document in found), seed
            whole += 1
    return whole


@pytest.mark.parametrize("format", FORMATS)
def test_files_that_are_nearly_right_raise_only_our_errors(tmp_path: Path, format: str) -> None:
    assert campaign(format, tmp_path / f"c.{format}", 200) > 5


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("format", FORMATS)
def test_ten_thousand_files_that_are_nearly_right_raise_only_our_errors(tmp_path: Path, format: str) -> None:
    assert campaign(format, tmp_path / f"c.{format}", 10_000) > 500
