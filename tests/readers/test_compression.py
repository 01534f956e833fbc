"""Compressed files are recognised by their first bytes, and what is wrong with one is said with its place."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridsearch import Document, Ranking, read_documents
from hybridsearch.errors import DocumentError, InvalidArgumentError, StorageError
from hybridsearch.evaluation.measures import read_qrels
from hybridsearch.readers import compression, lines, read, text
from hybridsearch.readers.compression import decompressed
from hybridsearch.readers.fields import WholeFileError
from hybridsearch.training.data import read_training_data

WINGS = Document("1", "Lift grows.", "Wings", {"year": 1958})
LINE = b'{"id": "1", "text": "Lift grows.", "title": "Wings", "year": 1958}\n'


def zstd(raw: bytes) -> bytes:
    kept = pa.BufferOutputStream()
    with pa.CompressedOutputStream(kept, "zstd") as stream:
        stream.write(raw)
    return kept.getvalue().to_pybytes()


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd,
}
packers = pytest.mark.parametrize("packer", PACKERS)


@packers
@pytest.mark.parametrize("name", ["c.jsonl", "c.jsonl.gz", "c.JSONL.ZST", "c.jsonl.xz", "c.jsonl.bz2"])
def test_the_first_bytes_count_whatever_the_name(tmp_path: Path, packer: str, name: str) -> None:
    (tmp_path / name).write_bytes(PACKERS[packer](LINE))
    assert list(read_documents(tmp_path / name)) == [WINGS]
    (tmp_path / name).write_bytes(LINE)
    assert list(read_documents(tmp_path / name)) == [WINGS]


@packers
def test_every_kind_of_text_file_may_be_compressed(tmp_path: Path, packer: str) -> None:
    def write(name: str, content: str) -> Path:
        (tmp_path / name).write_bytes(PACKERS[packer](content.encode()))
        return tmp_path / name

    assert list(read_documents(write("c.csv.bz2", "id,title,text,year\n1,Wings,Lift grows.,1958\n"))) == [WINGS]
    assert list(read_documents(write("c.tsv", "id\ttitle\ttext\tyear\n1\tWings\tLift grows.\t1958\n"))) == [WINGS]
    assert list(read_documents(write("wings.md.xz", "# Wings\nLift."))) == [
        Document("wings.md.xz", "# Wings\nLift.", "Wings")
    ]
    assert read_qrels(write("qrels", "q 0 d 1\n")) == {"q": {"d": 1}}
    assert Ranking.from_trec(write("run", "q Q0 d 1 2.5 t\n"))["q"].ids == ("d",)
    assert len(read_training_data(write("pairs.csv.zst", "query,answer\na,b\n"))) == 1
    write("corpus.jsonl.zst", LINE.decode())
    assert list(read_documents(tmp_path)) == [WINGS]


@given(st.sampled_from(list(PACKERS)), st.binary(max_size=2000), st.lists(st.integers(1, 500), max_size=20))
def test_what_was_compressed_comes_back_in_pieces_of_any_size(packer: str, raw: bytes, sizes: list[int]) -> None:
    packed = PACKERS[packer](raw[:70]) + PACKERS[packer](raw[70:])  # two streams, one after the other
    stream = decompressed(io.BufferedReader(io.BytesIO(packed)))  # type: ignore[arg-type]
    assert b"".join([*(stream.read(size) for size in sizes), stream.read()]) == raw


@pytest.mark.parametrize("raw", [b"", b"B", b"BZh9 is a text", b"\x1f", b"P*M", b"\xfd7zX", b"\x28\xb5", b"plain text"])
def test_other_files_are_left_as_they_are(raw: bytes) -> None:
    file = io.BytesIO(raw)
    assert decompressed(file) is file
    assert file.read() == raw


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
@packers
def test_a_pipe_may_be_compressed_and_come_in_single_bytes(tmp_path: Path, packer: str) -> None:
    os.mkfifo(tmp_path / "pipe")

    def write() -> None:
        with (tmp_path / "pipe").open("wb", buffering=0) as file:
            for byte in PACKERS[packer](LINE):
                file.write(bytes([byte]))

    thread = threading.Thread(target=write)
    thread.start()
    try:
        assert list(read_documents(tmp_path / "pipe", format="jsonl")) == [WINGS]
    finally:
        thread.join()


@packers
def test_a_file_that_is_cut_off_says_after_how_much(tmp_path: Path, packer: str) -> None:
    chance = random.Random(1)
    rows = [json.dumps({"id": str(row), "text": chance.randbytes(300).hex()}) for row in range(2000)]
    packed = PACKERS[packer]("\n".join(rows).encode())
    path = tmp_path / "c.jsonl"
    path.write_bytes(packed[: len(packed) // 2])
    for reading in (read_documents(path), read_documents(path, on_error="skip")):
        with pytest.raises(
            DocumentError, match=rf"c\.jsonl: the compressed file \({packer}\) is damaged or cut off after"
        ):
            list(reading)
    with pytest.raises(StorageError, match=rf"c\.jsonl cannot be read: the compressed file \({packer}\)"):
        list(lines.read_lines(path))


@packers
def test_flipped_bytes_are_an_error_of_ours_or_change_the_content(packer: str) -> None:
    packed = PACKERS[packer](LINE * 50)
    refused = 0
    for place in range(len(packed)):
        flipped = bytearray(packed)
        flipped[place] ^= 1 << place % 8
        try:
            decompressed(io.BytesIO(bytes(flipped))).read()
        except WholeFileError:
            refused += 1
    assert refused > len(packed) // 3


def test_an_xz_file_that_wants_much_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = lzma.compress(b"a" * 100, preset=9)  # which needs 65 MiB
    monkeypatch.setattr(compression, "XZ_MEMORY", 2**20)
    with pytest.raises(WholeFileError, match=r"xz.*Memory"):
        decompressed(io.BytesIO(packed)).read()


@packers
def test_a_small_file_with_a_huge_line_is_refused_and_the_next_line_is_read(
    tmp_path: Path, packer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text, "LONGEST_LINE", 1000)
    monkeypatch.setattr(lines, "LONGEST_LINE", 1000)
    path = tmp_path / "c.jsonl"
    path.write_bytes(PACKERS[packer](b" " * 10_000 + b"\n" + LINE))
    reader = read_documents(path, on_error="skip")
    assert list(reader) == [WINGS]
    assert "line 1: it has more than 1,000 characters" in str(reader.skipped[0])
    with pytest.raises(InvalidArgumentError, match="line 1: it has more than 1,000 bytes"):
        list(lines.read_lines(path))


def test_a_small_file_that_unpacks_to_a_huge_text_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "LARGEST_FILE", 10_000)
    (tmp_path / "bomb.txt.gz").write_bytes(gzip.compress(bytes(10_000_000)))
    (tmp_path / "wings.txt").write_text("Lift.")
    with pytest.raises(DocumentError, match=r"bomb\.txt\.gz: it has more than 10,000 bytes"):
        list(read_documents(tmp_path))
