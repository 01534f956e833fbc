"""Documents stream from every format, and a bad line is named by file and number."""

from __future__ import annotations

import contextlib
import csv
import datetime as dt
import gzip
import json
import math
import os
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hybridsearch import Document, read_documents
from hybridsearch.errors import DocumentError, HybridSearchError, InvalidArgumentError, StorageError
from hybridsearch.readers import SkippedLine

WINGS = Document("1", "Lift grows.", "Wings", {"year": 1958})
HEAT = Document("2", "", "", {"year": 1959})
RECORDS = [
    {"_id": "1", "title": "Wings", "text": "Lift grows.", "year": 1958},
    {"_id": 2, "title": None, "text": "", "year": 1959},
]


def write(path: Path, content: str | bytes) -> Path:
    raw = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


def read_or_fail(path: Path, skip: bool) -> tuple[list[Document], HybridSearchError | None]:
    """All documents, or our error. Any other error is raised."""
    try:
        return list(read_documents(path, on_error="skip" if skip else "stop", auto_id=True)), None
    except HybridSearchError as error:
        return [], error


def lines(records: list[Any]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


@pytest.mark.parametrize("name", ["c.jsonl", "c.ndjson", "c.JSON", "c.jsonl.gz"])
def test_json_lines(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, "\ufeff" + lines(RECORDS).replace("\n", "\r\n\n \n"))
    assert list(read_documents(path)) == [WINGS, HEAT]


@pytest.mark.parametrize("name", ["c.csv", "c.csv.gz", "c.tsv"])
def test_tables_of_text(tmp_path: Path, name: str) -> None:
    comma = "\t" if ".tsv" in name else ","
    table = "\ufeff_id,title,text,year\r\n1,Wings,Lift grows.,1958\r\n\r\n2,,,1959\r\n".replace(",", comma)
    assert list(read_documents(write(tmp_path / name, table))) == [WINGS, HEAT]


def test_parquet(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([{**r, "_id": int(r["_id"])} for r in RECORDS]), tmp_path / "c.parquet")
    assert list(read_documents(tmp_path / "c.parquet")) == [WINGS, HEAT]


@pytest.mark.parametrize("name", ["corpus.jsonl", "corpus.jsonl.gz"])
def test_a_beir_folder(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, lines(RECORDS))
    write(tmp_path / "queries.jsonl", lines([{"_id": "q", "text": "a query"}]))
    write(tmp_path / "readme.md", "not a document")
    assert list(read_documents(str(tmp_path))) == [WINGS, HEAT]
    assert len(list(read_documents(tmp_path, format="text"))) == 1


def test_a_folder_of_text_files(tmp_path: Path) -> None:
    for folder in ("b/c", ".hidden"):
        (tmp_path / folder).mkdir(parents=True)
    write(tmp_path / "b" / "notes.md", "---\nx: 1\n---\nIntro\n\n## The  Title ##\n# Other\n")
    write(tmp_path / "b" / "c" / "plain.TXT", "\ufeff# no heading in plain text")
    write(tmp_path / "b" / "code.md", "words\n```\n# a comment\n```\n")
    write(tmp_path / "a.txt.gz", "packed")
    for name in ("image.png", ".secret.txt", ".hidden/x.txt"):
        write(tmp_path / name, "no")
    found = list(read_documents(tmp_path))
    assert [(document.id, document.title) for document in found] == [
        ("a.txt.gz", "a"),
        ("b/code.md", "code"),
        ("b/notes.md", "The  Title"),
        ("b/c/plain.TXT", "plain"),
    ]
    assert found[3].text == "# no heading in plain text"
    assert [document.id for document in read_documents(tmp_path / "b" / "notes.md")] == ["notes.md"]


def test_text_files_do_not_depend_on_field_names(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "words")
    assert next(iter(read_documents(tmp_path, id_field="docno", text_field="abstract"))).id == "a.txt"


@pytest.mark.parametrize(
    "make",
    [lambda: [WINGS, RECORDS[1]], lambda: iter([WINGS, HEAT]), lambda: (r for r in RECORDS), lambda: [WINGS, HEAT]],
)
def test_iterables_of_documents_and_mappings(make: Callable[[], Any]) -> None:
    assert list(read_documents(make())) == [WINGS, HEAT]


def test_one_document_or_mapping_is_a_collection_of_one() -> None:
    assert list(read_documents(RECORDS[0])) == list(read_documents(WINGS)) == [WINGS]


def test_what_a_document_becomes_can_be_read_again() -> None:
    document = Document("1", "text", "title", {"nested": {"a": [1, 2]}})
    assert list(read_documents([document.to_dict()])) == [document]


def test_a_reader_is_returned_as_it_is_and_reads_a_file_anew_each_time(tmp_path: Path) -> None:
    reader = read_documents(write(tmp_path / "c.jsonl", lines(RECORDS)))
    assert read_documents(reader) is reader
    assert list(reader) == list(reader) == [WINGS, HEAT]


@pytest.mark.parametrize("field", ["text", "contents", "content", "body"])
@pytest.mark.parametrize("id", ["id", "_id", "docid"])
def test_common_field_names_are_recognised(field: str, id: str) -> None:
    assert list(read_documents([{id: "1", field: "words", "x": 1}])) == [Document("1", "words", metadata={"x": 1})]


def test_fields_can_be_named() -> None:
    record = {"id": "other", "docno": "D1", "abstract": "words", "headline": "H", "year": 1, "text": "t"}
    reader = read_documents([record], id_field="docno", text_field="abstract", title_field="headline")
    assert list(reader) == [Document("D1", "words", "H", {"id": "other", "year": 1, "text": "t"})]


def test_metadata_fields_choose_what_is_kept(tmp_path: Path) -> None:
    record = {"id": "1", "text": "t", "a": 1, "b": 2, "metadata": {"c": 3, "d": 4}}
    assert next(iter(read_documents([record], metadata_fields=["a", "c"]))).metadata == {"a": 1, "c": 3}
    assert next(iter(read_documents([record], metadata_fields=[]))).metadata == {}
    pq.write_table(pa.Table.from_pylist([record]), tmp_path / "c.parquet")
    assert next(iter(read_documents(tmp_path / "c.parquet", metadata_fields=["a", "c"]))).metadata == {"a": 1, "c": 3}


def test_a_metadata_mapping_is_merged_and_fields_beside_it_win() -> None:
    record = {"id": "1", "text": "t", "year": 1, "metadata": {"year": 2, "url": "u"}}
    assert next(iter(read_documents([record]))).metadata == {"year": 1, "url": "u"}
    assert next(iter(read_documents([{"id": "1", "text": "t", "metadata": "word"}]))).metadata == {"metadata": "word"}


# Types of metadata


def metadata_of(path: Path, **options: Any) -> dict[str, list[Any]]:
    """The values of each column of metadata. A missing value is None."""
    documents = list(read_documents(path, **options))
    names = dict.fromkeys(name for document in documents for name in document.metadata)
    return {name: [document.metadata.get(name) for document in documents] for name in names}


COLUMNS = {
    "price": (["4.50", "4.55", "10.00", ""], "float", [4.5, 4.55, 10.0, None]),
    "zip": (["90210", "02134", "10001", "5"], "str", ["90210", "02134", "10001", "5"]),
    "year": (["1958", "-3", "", "0"], "int", [1958, -3, None, 0]),
    "mixed": (["1", "2.5", " 3 ", "1e3"], "float", [1.0, 2.5, 3.0, 1000.0]),
    "huge": (["9" * 19, "1", "2", "3"], "str", ["9" * 19, "1", "2", "3"]),
    "inexact": ([str(2**53 + 1), "0.5", "1", "2"], "str", [str(2**53 + 1), "0.5", "1", "2"]),
    "ok": (["True", "false", "TRUE", ""], "bool", [True, False, True, None]),
    "word": (["True", "yes", "no", ""], "str", ["True", "yes", "no", None]),
    "day": (["2020-01-02", "", "1999-12-31", "2000-02-29"], "date", ["2020-01-02", None, "1999-12-31", "2000-02-29"]),
    "no day": (["2020-01-02", "2020-02-30", "", ""], "str", ["2020-01-02", "2020-02-30", None, None]),
    "nan": (["1", "nan", "inf", "NA"], "str", ["1", "nan", "inf", "NA"]),
    "arabic": (["٣", "1", "2", "3"], "str", ["٣", "1", "2", "3"]),
    "plus": (["+49301", "+4930", "+1", "+2"], "str", ["+49301", "+4930", "+1", "+2"]),
}


def write_columns(path: Path, columns: dict[str, list[str]]) -> Path:
    comma = "\t" if path.suffix == ".tsv" else ","
    cells = zip(*columns.values(), strict=True)
    rows = [["id", "text", *columns], *([str(n), "42", *row] for n, row in enumerate(cells, 1))]
    return write(path, "".join(comma.join(row) + "\n" for row in rows))


@pytest.mark.parametrize("name", ["c.csv", "c.tsv", "c.csv.gz"])
def test_a_column_of_a_table_has_one_type_that_all_of_its_values_decide(tmp_path: Path, name: str) -> None:
    path = write_columns(tmp_path / name, {column: values for column, (values, _, _) in COLUMNS.items()})
    reader = read_documents(path)
    for _ in range(2):
        read = list(reader)
        assert [document.id for document in read] == ["1", "2", "3", "4"]
        assert {document.text for document in read} == {"42"}
        for column, (_, type, expected) in COLUMNS.items():
            assert (column, reader.types[column]) == (column, type)
            assert [document.metadata.get(column) for document in read] == expected
            assert {value.__class__ for value in expected} >= {d.metadata[column].__class__ for d in read[:1]}


def test_dates_with_times_and_instants_are_read_as_such(tmp_path: Path) -> None:
    columns = {
        "seen": ["2024-03-01T00:30:00+09:00", "2024-02-29T15:45:00Z"],
        "naive": ["2024-03-01 00:30", "2024-03-01T00:30:05.25"],
        "both": ["2024-03-01T00:30:00", "2024-02-29T15:45:00Z"],
    }
    reader = read_documents(write_columns(tmp_path / "c.csv", columns))
    read = [document.metadata for document in reader]
    assert reader.types == {"seen": "instant", "naive": "datetime", "both": "str"}
    expected = [Document("1", "", metadata={"seen": dt.datetime.fromisoformat(text)}) for text in columns["seen"]]
    assert [metadata["seen"] for metadata in read] == [document.metadata["seen"] for document in expected]
    assert [metadata["naive"] for metadata in read] == ["2024-03-01T00:30:00", "2024-03-01T00:30:05.250000"]
    assert [metadata["both"] for metadata in read] == columns["both"]


def test_what_was_decided_is_said_once_with_the_value_that_made_a_column_text(tmp_path: Path) -> None:
    path = write_columns(tmp_path / "c.csv", {"year": ["1", "2"], "zip": ["90210", "02134"], "who": ["Ann", "Bob"]})
    reader = read_documents(path)
    assert reader.notes == []
    assert len(list(reader)) == 2
    [note] = reader.notes
    assert "column 'year' is read as int, 'zip' as str (line 3 holds '02134'), 'who' as str." in note
    assert "--type NAME=TYPE" in note


def test_types_that_are_told_count_in_every_format(tmp_path: Path) -> None:
    records = [{"id": "1", "text": "t", "zip": 90210, "n": "7"}, {"id": "2", "text": "t", "zip": None, "n": 8.0}]
    types = {"zip": "str", "n": "int"}
    sources: list[Any] = [write(tmp_path / "c.jsonl", lines(records)), records]
    for source in sources:
        assert [dict(d.metadata) for d in read_documents(source, types=types)] == [
            {"zip": "90210", "n": 7},
            {"zip": None, "n": 8},
        ]
    table = write_columns(tmp_path / "c.csv", {"zip": ["90210", ""], "n": ["7", "8"]})
    assert metadata_of(table, types={"zip": "str"}) == {"zip": ["90210", None], "n": [7, 8]}
    pq.write_table(pa.table({"id": ["1"], "text": ["t"], "zip": [90210]}), tmp_path / "c.parquet")
    assert metadata_of(tmp_path / "c.parquet", types={"zip": "str"}) == {"zip": ["90210"]}


def test_a_value_that_is_not_of_the_told_type_is_named(tmp_path: Path) -> None:
    path = write_columns(tmp_path / "c.csv", {"year": ["1958", "NA"]})
    with pytest.raises(DocumentError, match=r"c\.csv, line 3: 'NA' in 'year' is not a whole number"):
        list(read_documents(path, types={"year": "int"}))
    assert [d.id for d in read_documents(path, types={"year": "int"}, on_error="skip")] == ["1"]


@pytest.mark.parametrize("broken", ['2,"drag\n3,flow\n4,heat\n', '2,"drag\n3,"flow"\n4,heat\n', '2,"drag" and lift\n'])
def test_a_row_whose_quote_is_wrong_does_not_swallow_others_in_silence(tmp_path: Path, broken: str) -> None:
    path = write(tmp_path / "c.csv", f"id,text\n1,lift\n{broken}")
    with pytest.raises(
        DocumentError, match=r"c\.csv, line 3: it is not valid CSV \(.*\). Perhaps a quote is not closed"
    ):
        list(read_documents(path))
    reader = read_documents(path, on_error="skip")
    assert [document.text for document in reader if "drag" in document.text] == []
    assert [skipped.line for skipped in reader.skipped] == [3]


def test_a_told_field_that_no_document_has_is_an_error_or_a_note(tmp_path: Path) -> None:
    path = write_columns(tmp_path / "c.csv", {"year": ["1958"]})
    with pytest.raises(DocumentError, match=r"'headline', which is not a column. The columns are 'id', 'text', 'year'"):
        list(read_documents(path, title_field="headline"))
    record = {"id": "1", "text": "Lift grows.", "year": 1958}
    reader = read_documents([record], title_field="headline", metadata_fields=["yaer"])
    assert len(list(reader)) == 1
    assert reader.notes == [
        "metadata_fields names 'yaer', but no document has this field.",
        "title_field (--title-field) names 'headline', but no document has this field.",
    ]
    reader = read_documents([record, {**record, "id": "2", "headline": "Lift"}], title_field="headline")
    assert [document.title for document in reader] == ["", "Lift"]
    assert reader.notes == []


def test_a_told_type_of_no_field_is_an_error_or_a_note(tmp_path: Path) -> None:
    path = write_columns(tmp_path / "c.csv", {"year": ["1958"]})
    with pytest.raises(
        DocumentError, match=r"names 'yaer', which is not a column. The columns are 'id', 'text', 'year'"
    ):
        list(read_documents(path, types={"yaer": "int"}))
    reader = read_documents([WINGS], types={"yaer": "int"})
    assert len(list(reader)) == 1
    assert reader.notes == ["types (--type) names 'yaer', but no document has this field."]


def test_fields_of_several_kinds_are_counted_in_a_note(tmp_path: Path) -> None:
    values: list[Any] = ["02134", 90210, 1.5, None, ["10001", 5], {"a": 1}]
    path = write(tmp_path / "c.jsonl", lines([{"id": n, "text": "t", "zip": value} for n, value in enumerate(values)]))
    reader = read_documents(path)
    assert len(list(reader)) == 6
    [note] = reader.notes
    assert "'zip' holds text (2 documents) and numbers (3 documents), but" in note
    assert "--type zip=str" in note
    told = read_documents(write(path, lines([{"id": 1, "text": "t", "zip": ["a", 5]}])), types={"zip": "str"})
    assert [document.metadata["zip"] for document in told] == [["a", "5"]]
    assert told.notes == []


def test_what_comes_through_a_pipe_is_read_once_and_typed_all_the_same(tmp_path: Path) -> None:
    rows = write_columns(tmp_path / "c.csv", {"price": ["4.50"] * 20_000 + ["x"]}).read_bytes()
    for name, content in (("pipe.csv", rows), ("pipe.csv.gz", gzip.compress(rows))):
        os.mkfifo(tmp_path / name)
        thread = threading.Thread(target=(tmp_path / name).write_bytes, args=[content])
        thread.start()
        assert {document.metadata["price"] for document in read_documents(tmp_path / name)} == {"4.50", "x"}
        thread.join()


def test_a_table_of_many_columns_is_read_in_time_that_grows_with_them(tmp_path: Path) -> None:
    def seconds(columns: int) -> float:
        path = write_columns(tmp_path / f"{columns}.csv", {f"c{n}": ["1", "x"] for n in range(columns)})
        times = []
        for _ in range(3):
            started = time.process_time()
            assert len(list(read_documents(path))) == 2
            times.append(time.process_time() - started)
        return min(times)

    assert seconds(20_000) < 24 * seconds(2_500)  # eight times the columns; their square would take 64 times as long


# Delimiters and encodings


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_header_of_a_csv_file_shows_its_delimiter(tmp_path: Path, delimiter: str) -> None:
    row = delimiter.join(["7", '"a, b; c|d"', "1958"])
    path = write(tmp_path / "c.csv", f"id{delimiter}text{delimiter}year, of birth\n{row}\n".replace("year,", "year"))
    assert list(read_documents(path)) == [Document("7", "a, b; c|d", metadata={"year of birth": 1958})]


@pytest.mark.parametrize("name", ["c.csv", "c.tsv", "c.jsonl", "c.txt", "c.jsonl.gz"])
@pytest.mark.parametrize(
    ("encoding", "told"), [("utf-16", None), ("utf-32", None), ("cp1252", "cp1252"), ("utf-16-le", "utf-16-le")]
)
def test_text_in_other_encodings(tmp_path: Path, name: str, encoding: str, told: str | None) -> None:
    content = {"c.txt": "café\u2028ﬁn"}.get(name, "id,text\n1,café\u2028ﬁn\n")
    if "jsonl" in name:
        content = json.dumps({"id": "1", "text": "café\u2028ﬁn"}, ensure_ascii=False) + "\n"
    content = content.replace(",", "\t") if name == "c.tsv" else content
    if encoding == "cp1252":
        content = content.replace("\u2028ﬁn", "")
    path = write(tmp_path / name, content.encode(encoding))
    expected = "café" if encoding == "cp1252" else "café\u2028ﬁn"
    assert [document.text for document in read_documents(path, encoding=told)] == [expected]


@pytest.mark.parametrize("name", ["c.csv", "c.tsv", "c.jsonl", "c.txt"])
@pytest.mark.parametrize(("encoding", "named"), [("cp1252", "cp1252"), ("utf-16-le", "utf-16-le"), ("utf-16-be", "be")])
def test_another_encoding_is_an_error_that_says_how_to_name_it(
    tmp_path: Path, name: str, encoding: str, named: str
) -> None:
    content = '{"id": 1, "text": "é"}' if name == "c.jsonl" else "id,text\né,é\n"
    content = content.replace(",", "\t") if name == "c.tsv" else content
    path = write(tmp_path / name, content.encode(encoding))
    with pytest.raises(DocumentError, match=rf"{name}.*--encoding .*{named}"):
        list(read_documents(path))
    with pytest.raises(InvalidArgumentError, match="The encoding 'nosuch' is not known"):
        read_documents(path, encoding="nosuch")


@pytest.mark.parametrize("name", ["C.JSONL.GZ", "C.CSV.Gz", "C.TXT.GZ"])
def test_suffixes_of_compressed_files_may_be_of_any_case(tmp_path: Path, name: str) -> None:
    content = {"C.TXT.GZ": "a wing", "C.CSV.Gz": "id,text\n1,a wing\n"}.get(name, '{"id": "1", "text": "a wing"}')
    (tmp_path / name).write_bytes(gzip.compress(content.encode()))
    for place in (tmp_path / name, tmp_path) if name == "C.TXT.GZ" else (tmp_path / name,):
        [document] = read_documents(place)
        assert (document.text, document.title) == ("a wing", "C" if name == "C.TXT.GZ" else "")


def test_only_line_ends_end_a_line(tmp_path: Path) -> None:
    text = "one\u2028two\u2029three\x85four\x0bfive\x0csix"
    write(tmp_path / "c.jsonl", json.dumps({"id": "1", "text": text}, ensure_ascii=False))
    write(tmp_path / "c.csv", f"id,text,x\n1,{text},{text}\n")
    write(tmp_path / "c.tsv", f"id\ttext\n1\t{text}\n")
    for name in ("c.jsonl", "c.csv", "c.tsv"):
        assert [document.text for document in read_documents(tmp_path / name)] == [text]


# Tables in memory


def tables() -> Iterator[Any]:
    columns = {"id": [1, 2], "title": ["Wings", None], "text": ["Lift grows.", "Heat."], "year": [1958, None]}
    yield pa.table(columns)
    yield pa.RecordBatchReader.from_batches(pa.table(columns).schema, pa.table(columns).to_batches())
    pandas = pytest.importorskip("pandas")
    yield pandas.DataFrame(columns)
    yield pandas.DataFrame(columns, index=["x", "y"])


def test_tables_in_memory_are_read_as_files_are() -> None:
    for table in tables():
        read = list(read_documents(table))
        assert [(d.id, d.title, d.text) for d in read] == [("1", "Wings", "Lift grows."), ("2", "", "Heat.")]
        assert [dict(d.metadata) for d in read] == [{"year": 1958}, {"year": None}]


def test_a_table_in_memory_that_holds_no_documents_says_why() -> None:
    pandas = pytest.importorskip("pandas")
    with pytest.raises(DocumentError, match=r"the table: there is no text.*'words'"):
        list(read_documents(pandas.DataFrame({"id": ["1"], "words": ["a"]})))
    with pytest.raises(DocumentError, match=r"'id' holds values of the types int, str; it needs one type.*astype"):
        list(read_documents(pandas.DataFrame({"id": ["1", 2], "text": ["a", "b"]})))
    reader = read_documents(pandas.DataFrame({"id": [1.0, 2.0], "text": ["a", "b"]}), on_error="skip")
    with pytest.raises(DocumentError, match=r"the table holds no document: 2 rows were skipped .*astype\('Int64'\)"):
        list(reader)


def test_datetimes_at_midnight_are_dates_if_the_type_says_so() -> None:
    pandas = pytest.importorskip("pandas")
    days = pandas.to_datetime(["2024-03-01", None])
    table = pandas.DataFrame({"id": ["1", "2"], "text": ["a", "b"], "d": days, "s": days.astype("datetime64[s]")})
    types = {"d": "date", "s": "date"}
    records = [{"id": 1, "text": "a", "d": dt.datetime(2024, 3, 1), "s": np.datetime64("2024-03-01T00:00")}]
    for source in (table, pa.Table.from_pandas(table), records):
        assert next(iter(read_documents(source, types=types))).metadata == {"d": "2024-03-01", "s": "2024-03-01"}
    table.loc[1, "d"] = pandas.Timestamp("2024-03-01 12:00")
    with pytest.raises(DocumentError, match=r"the table, row 2: .*12.* in 'd' is not a date such as 2024-03-01"):
        list(read_documents(table, types=types))
    table["d"] = days.tz_localize("UTC")
    with pytest.raises(DocumentError, match=r"the table, row 1: .*UTC.* in 'd' is not a date"):
        list(read_documents(table, types=types))


def test_sets_in_a_data_frame_are_sorted_lists_and_its_short_numbers_keep_their_digits() -> None:
    pandas = pytest.importorskip("pandas")
    columns = {
        "id": [1, 2, 3],
        "text": ["a", "b", "c"],
        "tags": [{"wheel", "brake", "rain"}, None, frozenset("b")],
        "days": [{dt.date(2024, 3, 2), dt.date(2024, 3, 1)}, set(), {dt.date(2023, 1, 1)}],
        "half": np.array([0.1, np.nan, 2.5], "float16"),
    }
    table = pandas.DataFrame(columns, index=["x", "x", "y"])
    given = table.copy()
    first, second, _ = [document.metadata for document in read_documents(table)]
    assert first == {"tags": ["brake", "rain", "wheel"], "days": ["2024-03-01", "2024-03-02"], "half": 0.1}
    assert second == {"tags": None, "days": [], "half": None}
    pandas.testing.assert_frame_equal(table, given)


def test_columns_of_a_table_that_cannot_be_stored_are_named_with_the_remedy() -> None:
    pandas = pytest.importorskip("pandas")
    columns = {
        "types list, str; it needs one type": [[1], "a"],
        "type complex that cannot be stored": [1j, 2j],
        "periods": pandas.period_range("2024-01", periods=2, freq="M"),
    }
    for reason, column in columns.items():
        table = pandas.DataFrame({"id": ["1", "2"], "text": ["a", "b"], "x": column})
        with pytest.raises(DocumentError, match=rf"the table: the column 'x' holds .*{reason}.*\.astype\(str\)"):
            list(read_documents(table))
        table["x"] = table["x"].astype(str)
        assert len(list(read_documents(table))) == 2


def test_empty_texts_are_stored_and_noted(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    sources: list[Any] = [
        write(tmp_path / "c.csv", "id,text\n1,a\n2,\n3,\n"),
        write(tmp_path / "c.jsonl", '{"id": "1", "text": "a"}\n{"id": "2", "text": ""}\n{"id": "3", "text": " "}\n'),
        pandas.DataFrame({"id": [1, 2, 3], "text": ["a", "", ""]}),
    ]
    for source in sources:
        reader = read_documents(source)
        assert [(document.id, document.text.strip()) for document in reader] == [("1", "a"), ("2", ""), ("3", "")]
        assert reader.notes == [
            "2 documents have neither text nor title, so no retriever finds them. The first id is '2'."
        ]


def test_a_document_without_text_that_comes_again_is_one_document() -> None:
    ids = ("1", "2", "1", "3", "2")
    reader = read_documents([{"id": id, "text": ""} for id in ids] + [{"id": "1", "text": "a wing"}])
    assert len(list(reader)) == 6
    assert reader.notes == ["2 documents have neither text nor title, so no retriever finds them. The first id is '2'."]


def test_a_text_that_is_null_or_nan_is_an_error(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    sources: list[Any] = [
        write(tmp_path / "c.jsonl", '{"id": "1", "text": "a"}\n{"id": "2", "text": null}\n'),
        pandas.DataFrame({"id": [1, 2], "text": ["a", None]}),
        *([{"id": "1", "text": "a"}, {"id": "2", "text": missing}] for missing in (math.nan, pandas.NA, None)),
    ]
    for source in sources:
        with pytest.raises(DocumentError, match=r"2: its text is missing \(null or NaN\).*on_error='skip'"):
            list(read_documents(source))
        assert [document.id for document in read_documents(source, on_error="skip")] == ["1"]
    with pytest.raises(DocumentError, match="there is no id"):
        list(read_documents([{"id": math.nan, "text": "a"}]))


def test_skipped_records_are_counted_and_the_first_are_named() -> None:
    reader = read_documents([WINGS, *({"text": "a"} for _ in range(5))], on_error="skip")
    assert list(reader) == [WINGS]
    assert reader.skipped_note.startswith("5 documents were skipped: documents, number 2: there is no id")
    assert reader.skipped_note.endswith("; and 2 more.")


def test_csv_quotes_and_lines_within_a_field(tmp_path: Path) -> None:
    path = write(tmp_path / "c.csv", 'id,text\n1,"two ""quoted"", \nlines"\n,x\n')
    with pytest.raises(DocumentError, match=r"c\.csv, line 4: there is no id"):
        assert [document.text for document in read_documents(path)] == ['two "quoted", \nlines']


def test_quotes_in_tsv_are_text(tmp_path: Path) -> None:
    path = write(tmp_path / "c.tsv", 'id\ttext\n1\t"Open quote\n2\tnext\n')
    assert [document.text for document in read_documents(path)] == ['"Open quote', "next"]


@pytest.mark.parametrize("format", ["jsonl", "csv", "tsv", "parquet", "txt"])
def test_documents_of_a_megabyte(tmp_path: Path, format: str) -> None:
    text, path = "wörd " * 250_000, tmp_path / f"c.{format}"
    if format == "jsonl":
        write(path, lines([{"id": "1", "text": text}]))
    elif format == "parquet":
        pq.write_table(pa.table({"id": ["1"], "text": [text]}), path)
    elif format == "txt":
        write(path, text)
    else:
        comma = "," if format == "csv" else "\t"
        write(path, f"id{comma}text\n1{comma}{text}\n")
    assert [document.text for document in read_documents(path)] == [text]


def test_a_float32_is_the_decimal_that_it_shows(tmp_path: Path) -> None:
    prices = pa.array([4.99, None, math.nan, 1e-45, 16777216.0, -0.1], pa.float32())
    table = pa.table({"id": list("abcdef"), "text": ["t"] * 6, "price": prices})
    pq.write_table(table, tmp_path / "c.parquet")
    for source in (tmp_path / "c.parquet", table.to_pandas()):
        kept = [document.metadata["price"] for document in read_documents(source)]
        assert kept == [4.99, None, None, 1e-45, 16777216.0, -0.1]


def test_parquet_dates_lists_and_structs_are_metadata(tmp_path: Path) -> None:
    record = {"id": "1", "text": "t", "day": dt.date(2020, 1, 2), "tags": ["a", "b"], "source": {"page": 3}}
    pq.write_table(pa.Table.from_pylist([record]), tmp_path / "c.parquet")
    metadata = next(iter(read_documents(tmp_path / "c.parquet"))).metadata
    assert metadata == {"day": "2020-01-02", "tags": ["a", "b"], "source": {"page": 3}}


# Ids


def test_a_missing_id_is_an_error_that_names_both_ways_out() -> None:
    for record in ({"text": "t"}, {"id": None, "text": "t"}, {"id": "", "text": "t"}):
        with pytest.raises(DocumentError, match=r"number 1: .*--id-field.*--auto-id"):
            list(read_documents([record]))


def test_ids_can_be_made_of_file_and_line(tmp_path: Path) -> None:
    path = write(
        tmp_path / "news.jsonl.gz", lines([{"text": "a"}, {"id": "x", "text": "b"}]) + "\n" + lines([{"text": "c"}])
    )
    assert [document.id for document in read_documents(path, auto_id=True)] == [
        "news.jsonl.gz-1",
        "x",
        "news.jsonl.gz-4",
    ]
    path = write(tmp_path / "rows.csv", "text\na\nb\n")
    assert [document.id for document in read_documents(path, auto_id=True)] == ["rows.csv-2", "rows.csv-3"]
    assert [document.id for document in read_documents([{"text": "a"}], auto_id=True)] == ["documents-1"]


def test_files_of_the_same_name_in_a_folder_give_different_ids(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "a", tmp_path / "b"):
        folder.mkdir(exist_ok=True)
        write(folder / "rows.csv", "text\na\n")
    found = [document.id for document in read_documents(tmp_path, auto_id=True)]
    assert found == ["rows.csv-2", "a/rows.csv-2", "b/rows.csv-2"]


# Errors

BAD_LINES = [
    (b'{"id": "1", "text": "a"', "not valid JSON"),
    (b"[1, 2]", "array"),
    (b'"word"', "not a JSON object but a single str"),
    (b'{"id": "1"}', "no text"),
    (b'{"id": "1", "text": 5}', "text is a string, not int"),
    (b'{"id": "1", "text": null}', "its text is missing"),
    (b'{"id": true, "text": "a"}', "id is a non-empty string, not True"),
    (b'{"id": 1.5, "text": "a"}', r"id 1\.5 is a number with a decimal point. Use whole numbers or strings\.$"),
    (b'{"id": 1' + b"0" * 400 + b', "text": "a"}', "hundreds of digits"),
    (b'{"id": "1", "text": "\xff"}', r"not valid UTF-8 \(character 22\): name the encoding .*--encoding cp1252"),
    (b'{"id": "1", "text": "\\ud800"}', "lone surrogate"),
    (b'{"id": "1", "text": "a", "x": -Infinity}', "x.*-inf"),
    (b'{"id": "1", "text": "a", "x": 1e999}', "x.*inf"),
    (b'{"id": "1", "text": "a", "x": 1' + b"0" * 30 + b"}", "64 bits"),
    (b'{"id": "1", "text": "a", "x": 1' + b"0" * 5000 + b"}", "thousands of digits"),
    (b'{"id": "1", "text": "a", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    (b'{"id": "1", "text": "a", "x": ' + b'{"y":' * 50 + b"1" + b"}" * 50 + b"}", "nested deeper than 20"),
    (b"\x00\x01\x02", "not valid JSON"),
    (b'{"id": "1", "text": "a', r"not valid JSON \(Invalid control character at character 23\)"),
    (b'{"id": "1", "text": "a", "text": "b"}', "it has the field 'text' twice"),
    (b'{"id": "1", "text": "a", "x": {"y": 1, "\\u0079": 2}}', "it has the field 'y' twice"),
]


@pytest.mark.parametrize(("line", "reason"), BAD_LINES, ids=[reason for _, reason in BAD_LINES])
def test_a_bad_line_is_named_with_its_reason(tmp_path: Path, line: bytes, reason: str) -> None:
    path = write(tmp_path / "c.jsonl", lines(RECORDS[:1]).encode() + line + b"\n")
    with pytest.raises(DocumentError, match=rf"(?s)c\.jsonl, line 2: .*{reason}") as error:
        list(read_documents(path))
    assert len(str(error.value)) < 600


def test_skipped_lines_are_listed_and_the_others_read(tmp_path: Path) -> None:
    raw = b"\n".join([line for line, _ in BAD_LINES] + [json.dumps(record).encode() for record in RECORDS])
    reader = read_documents(write(tmp_path / "c.jsonl", raw), on_error="skip")
    for _ in range(2):  # a second pass starts its list anew
        assert list(reader) == [WINGS, HEAT]
        assert [skipped.line for skipped in reader.skipped] == list(range(1, len(BAD_LINES) + 1))
    assert str(reader.skipped[1]).startswith(f"{tmp_path / 'c.jsonl'}, line 2: it is a JSON array")


def test_bad_rows_of_a_table_are_named_and_can_be_skipped(tmp_path: Path) -> None:
    rows = b'id,text,x\n1,a,1\n2,b\n3,\xff,1\n"4\n5",c,1\n,d,1\n6,e,1\n'
    reader = read_documents(write(tmp_path / "c.csv", rows), on_error="skip")
    assert [document.id for document in reader] == ["1", "4\n5", "6"]
    assert [(skipped.line, skipped.reason.split(". ")[0][:37]) for skipped in reader.skipped] == [
        (3, "it has 2 values for 3 columns"),
        (4, "it is not valid UTF-8 (character 3): "),
        (7, "there is no id: id, _id or docid is m"),
    ]


def test_maps_of_parquet_are_mappings(tmp_path: Path) -> None:
    words = pa.map_(pa.string(), pa.list_(pa.map_(pa.string(), pa.float32())))
    table = pa.table(
        {
            "id": ["1", "2", "3"],
            "text": ["t"] * 3,
            "metadata": pa.array([[("year", 1)], None, [("year", 1), ("year", 2)]], pa.map_(pa.string(), pa.int64())),
            "words": pa.array([[("a", [[("b", 0.1)], None])], [], None], words),
            "numbers": pa.array([[(5, "a")], None, None], pa.map_(pa.int64(), pa.string())),
        }
    )
    pq.write_table(table, tmp_path / "c.parquet")
    for source in (table, tmp_path / "c.parquet"):
        reader = read_documents(source, on_error="skip")
        first, second = [document.metadata for document in reader]
        assert first == {"year": 1, "words": {"a": [{"b": 0.1}, None]}, "numbers": [[5, "a"]]}
        assert second == {"metadata": None, "words": {}, "numbers": None}
        assert [skipped.reason for skipped in reader.skipped] == [
            "it holds a value that cannot be read (a map has a key twice)."
        ]


@pytest.mark.parametrize("number", [np.float16, np.float32])
def test_short_numbers_in_lists_and_mappings_keep_their_decimals(number: type[np.floating]) -> None:
    kind, price, tenth = pa.from_numpy_dtype(number), number(4.99), number(0.1)
    table = pa.table(
        {
            "id": ["1", "2"],
            "text": ["t"] * 2,
            "list": pa.array([[price, None], None], pa.list_(kind)),
            "large": pa.array([[tenth], []], pa.large_list(kind)),
            "view": pa.array([[tenth], None], pa.list_view(kind)),
            "pair": pa.array([[tenth, price], None], pa.list_(kind, 2)),
            "deep": pa.array([{"a": [tenth], "b": 1}, None], pa.struct([("a", pa.list_(kind)), ("b", pa.int64())])),
            "map": pa.array([[("a", [price])], None], pa.map_(pa.string(), pa.list_(kind))),
            "category": pa.DictionaryArray.from_arrays(pa.array([0, None], pa.int8()), pa.array([price], kind)),
        }
    )
    first, second = [document.metadata for document in read_documents(table)]
    assert first == {
        "list": [4.99, None], "large": [0.1], "view": [0.1], "pair": [0.1, 4.99], "deep": {"a": [0.1], "b": 1},
        "map": {"a": [4.99]}, "category": 4.99,
    }  # fmt: skip
    assert second == dict.fromkeys(first) | {"large": []}


def test_types_name_fields_of_the_mappings_in_a_column_metadata() -> None:
    rows = [{"id": "1", "text": "t", "metadata": {"year": "1958", "zip": "01234"}}]
    for source in (rows, pa.Table.from_pylist(rows)):
        (document,) = read_documents(source, types={"year": "int"})
        assert document.metadata == {"year": 1958, "zip": "01234"}


def test_bad_rows_of_parquet_are_named_and_can_be_skipped(tmp_path: Path) -> None:
    spoilt = pa.array([b"good", b"\xff", b"more", None], pa.binary()).cast(pa.string(), safe=False)
    table = pa.table({"id": ["1", "2", "3", "4"], "text": spoilt, "x": [1.0, 1.0, math.inf, 1.0]})
    pq.write_table(table, tmp_path / "c.parquet")
    reader = read_documents(tmp_path / "c.parquet", on_error="skip")
    assert [document.id for document in reader] == ["1"]
    assert [(skipped.unit, skipped.line) for skipped in reader.skipped] == [("row", 2), ("row", 3), ("row", 4)]
    with pytest.raises(DocumentError, match=r"c\.parquet, row 2: it holds a value that cannot be read"):
        list(read_documents(tmp_path / "c.parquet"))


def test_bad_text_files_are_named_and_can_be_skipped(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "fine")
    write(tmp_path / "b.txt", b"\xff!")
    reader = read_documents(tmp_path, on_error="skip")
    assert [document.id for document in reader] == ["a.txt"]
    [skipped] = map(str, reader.skipped)
    assert skipped.startswith(f"{tmp_path / 'b.txt'}: it is not valid UTF-8 (character 1): name the encoding")


def test_items_that_are_no_documents_are_named_by_number() -> None:
    with pytest.raises(DocumentError, match=r"documents, number 2: .*not int"):
        list(read_documents([WINGS, 5]))  # type: ignore[list-item]
    reader = read_documents([5, WINGS], on_error="skip")  # type: ignore[list-item]
    assert list(reader) == [WINGS]
    assert reader.skipped == [SkippedLine("documents", 1, reader.skipped[0].reason, "number")]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("c.csv", b"", "must name the columns"),
        ("c.csv", b"id,words\n1,a\n", r"no text.*'id', 'words'.*--text-field"),
        ("c.csv", b"text\na\n", r"no id.*--auto-id"),
        ("c.csv", b"id,text,text\n", "two columns are named 'text'"),
        ("c.parquet", b"PAR1 no", "not a readable Parquet file"),
        ("c.parquet", b"", "not a readable Parquet file"),
        ("c.jsonl.gz", b"", ""),
    ],
)
def test_a_file_that_is_no_table_of_documents_is_refused_as_a_whole(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    path = write(tmp_path / name, content)
    if not reason:
        path.write_bytes(gzip.compress(lines(RECORDS * 1000).encode())[:-100])
        reason = "damaged or cut off"
    for on_error in ("stop", "skip"):
        with pytest.raises(DocumentError, match=rf"{name}.*{reason}"):
            list(read_documents(path, on_error=on_error))


def test_a_place_without_documents_is_refused_at_once(tmp_path: Path) -> None:
    write(tmp_path / "c.xml", "<a/>")
    with pytest.raises(DocumentError, match="write /dev/stdin for standard input"):
        read_documents("-")
    for place, reason in (("nowhere", "no file or folder"), ("c.xml", "format"), (".", "neither corpus.jsonl")):
        with pytest.raises(DocumentError, match=reason):
            read_documents(tmp_path / place)
    with pytest.raises(DocumentError, match="format='csv'"):
        read_documents(tmp_path, format="csv")


def test_the_format_can_be_said_where_the_name_does_not_tell_it(tmp_path: Path) -> None:
    assert list(read_documents(write(tmp_path / "dump", lines(RECORDS)), format="jsonl")) == [WINGS, HEAT]


@pytest.mark.parametrize(
    "arguments", [{"format": "xml"}, {"on_error": "ignore"}, {"metadata_fields": "year"}, {"source": 5}]
)
def test_arguments_that_are_not_allowed_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        read_documents(**{"source": [], **arguments})


@pytest.mark.skipif(os.geteuid() == 0 if hasattr(os, "geteuid") else True, reason="root may read everything")
def test_a_file_without_permission_is_a_storage_error(tmp_path: Path) -> None:
    path = write(tmp_path / "c.jsonl", lines(RECORDS))
    path.chmod(0)
    with pytest.raises(StorageError, match=r"c\.jsonl cannot be read: Permission denied"):
        list(read_documents(path))


def test_a_file_of_a_folder_that_cannot_be_opened_is_named_and_skipped(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "Lift grows.")
    (tmp_path / "b.txt").symlink_to("nowhere")
    (tmp_path / "c.jsonl").symlink_to("c.jsonl")
    os.mkfifo(tmp_path / "d.txt")
    reader = read_documents(tmp_path, on_error="skip")
    assert [document.id for document in reader] == ["a.txt"]
    assert [(Path(one.file).name, one.reason) for one in reader.skipped] == [
        ("b.txt", "it cannot be opened (No such file or directory)."),
        ("c.jsonl", "it cannot be opened (Too many levels of symbolic links)."),
        ("d.txt", "it is a pipe, a socket or a device, and not a file."),
    ]
    with pytest.raises(DocumentError, match=r"b\.txt: it cannot be opened"):
        list(read_documents(tmp_path))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=300),
    st.sampled_from(["c.jsonl", "c.csv", "c.tsv", "c.parquet", "c.txt", "c.jsonl.gz"]),
    st.booleans(),
)
def test_random_bytes_raise_only_our_errors(tmp_path: Path, content: bytes, name: str, skip: bool) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    documents, error = read_or_fail(path, skip)
    assert all(isinstance(document, Document) for document in documents)
    assert error is None or name in str(error)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_flipped_bytes_of_good_files_raise_only_our_errors(tmp_path: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["c.jsonl", "c.csv", "c.parquet", "c.jsonl.gz"]))
    good = tmp_path / f"good-{name}"
    if not good.exists():
        if name == "c.parquet":
            pq.write_table(pa.Table.from_pylist([{**r, "_id": int(r["_id"])} for r in RECORDS]), good)
        else:
            write(good, "id,text\n1,a\n2,b\n" if name == "c.csv" else lines(RECORDS))
    raw = bytearray(good.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(raw) - 1), min_size=1, max_size=4)):
        raw[place] = data.draw(st.integers(0, 255))
    path = tmp_path / name
    path.write_bytes(raw)
    _, error = read_or_fail(path, skip=True)
    assert error is None or name in str(error)


@given(
    st.lists(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: (
                st.lists(inner) | st.dictionaries(st.sampled_from(["id", "text", "title", "metadata", "x", ""]), inner)
            ),
        )
    )
)
def test_random_records_raise_only_our_errors(records: list[Any]) -> None:
    reader = read_documents(records, on_error="skip", auto_id=True)
    read = 0
    with contextlib.suppress(DocumentError):  # the iterable holds no document
        read = len(list(reader))
    assert read + len(reader.skipped) == len(records)


# Streaming


def test_reading_needs_no_more_memory_for_more_documents(tmp_path: Path) -> None:
    record = {"id": "1", "text": "word " * 200}
    write(tmp_path / "c.jsonl", lines([record]) * 8_000)
    write(tmp_path / "c.csv", "id,text\n" + f"1,{record['text']}\n" * 8_000)
    pq.write_table(pa.Table.from_pylist([record] * 8_000), tmp_path / "c.parquet", row_group_size=1000)
    for name in ("c.jsonl", "c.csv", "c.parquet"):
        tracemalloc.start()
        assert sum(1 for _ in read_documents(tmp_path / name)) == 8_000
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4e6, name


def test_an_iterable_is_read_one_document_at_a_time() -> None:
    asked: list[int] = []

    def endless() -> Iterator[dict[str, Any]]:
        while True:
            asked.append(1)
            yield {"id": len(asked), "text": "t"}

    documents = iter(read_documents(endless()))
    assert [next(documents).id, next(documents).id] == ["1", "2"]
    assert len(asked) == 2


def test_progress_is_known_in_bytes_of_the_file(tmp_path: Path) -> None:
    reader = read_documents(write(tmp_path / "c.jsonl.gz", lines(RECORDS) * 5000))
    assert reader.bytes_total == (tmp_path / "c.jsonl.gz").stat().st_size
    assert reader.bytes_read == 0
    seen = [reader.bytes_read for _ in reader]
    assert seen == sorted(seen)
    assert 0 < seen[0] <= reader.bytes_total
    assert reader.bytes_read == reader.bytes_total
    assert read_documents([]).bytes_total is None


@pytest.mark.parametrize(("name", "count", "empty"), [("cranfield", 1400, 2), ("scifact", 5183, 0)])
def test_real_collections_are_read_whole(data_folder: Path, name: str, count: int, empty: int) -> None:
    documents = list(read_documents(data_folder / name))
    expected = [json.loads(line) for line in (data_folder / name / "corpus.jsonl").read_bytes().splitlines()]
    assert len(documents) == len(expected) >= count - 500
    assert [(d.id, d.title, d.text) for d in documents] == [(e["_id"], e.get("title", ""), e["text"]) for e in expected]
    assert sum(not document.text for document in documents) == empty


# Dialects of CSV


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        ('id,text\n1,"a ""b"" c"\n', ['a "b" c']),
        ('id,text\n1,"a \\"b\\", c"\n2,plain\n', ['a "b", c', "plain"]),
        ("id,text\n1,'a, b'\n2,'it''s'\n", ["a, b", "it's"]),
        ("id;text\n1;'a; \\'b\\''\n", ["a; 'b'"]),
        ("sep=;\nid;text\n1;a, b\n", ["a, b"]),
        ("SEP=\t\r\nid\ttext\r\n1\ta, b\r\n", ["a, b"]),
        ('"id","text"\r\n"1","two\r\nlines"\r\n', ["two\r\nlines"]),
        ("id,text\n1,5\" of snow\n2,it's\n", ['5" of snow', "it's"]),
        ("id,text\n1,C:\\new\\\n", ["C:\\new\\"]),
        ('id,text\n1,"C:\\new"\n', ["C:\\new"]),
        ("id,text\r1,old line ends\r", ["old line ends"]),
    ],
)
def test_the_dialect_of_a_csv_file_is_found_in_it(tmp_path: Path, content: str, texts: list[str]) -> None:
    (tmp_path / "c.csv").write_bytes(content.encode())
    assert [document.text for document in read_documents(tmp_path / "c.csv")] == texts


def test_the_line_of_an_error_is_right_below_a_line_that_names_the_delimiter(tmp_path: Path) -> None:
    write(tmp_path / "c.csv", "sep=;\nid;text\n1;a\n2\n")
    with pytest.raises(DocumentError, match=r"c\.csv, line 4: it has 1 value for 2 columns"):
        list(read_documents(tmp_path / "c.csv"))


@pytest.mark.parametrize(
    ("delimiter", "given"), [("^", "^"), ("\t", "tab"), ("\t", "\\t"), ("\x01", "\x01"), (" ", " ")]
)
@pytest.mark.parametrize("name", ["c.csv", "c.tsv"])
def test_a_delimiter_can_be_given(tmp_path: Path, name: str, delimiter: str, given: str) -> None:
    write(tmp_path / name, "id,text,year\n1,Lift,1958\n".replace(",", delimiter))
    (document,) = read_documents(tmp_path / name, delimiter=given)
    assert document == Document("1", "Lift", "", {"year": 1958})


def test_another_delimiter_is_an_error_that_says_how_to_give_it(tmp_path: Path) -> None:
    write(tmp_path / "c.csv", "id^text\n1^Lift\n")
    with pytest.raises(DocumentError, match=r"'id\^text'.*name it with delimiter \(--delimiter\)"):
        list(read_documents(tmp_path / "c.csv"))
    for wrong in ("", "ab", '"', "\n", 5):
        with pytest.raises(InvalidArgumentError, match="The delimiter is one character"):
            read_documents(tmp_path / "c.csv", delimiter=wrong)  # type: ignore[arg-type]


@given(
    st.lists(st.lists(st.text("ab, ;\t|\"'\\\n\r", max_size=6), min_size=3, max_size=3), min_size=1, max_size=5),
    st.sampled_from(",;\t|"),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_the_csv_module_writes_comes_back(tmp_path: Path, rows: list[list[str]], delimiter: str) -> None:
    with (tmp_path / "c.csv").open("w", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(
            [["id", "title", "text"], *([f"d{row[0]}", *row[1:]] for row in rows)]
        )
    documents = list(read_documents(tmp_path / "c.csv"))
    assert [[one.id[1:], one.title, one.text] for one in documents] == rows
