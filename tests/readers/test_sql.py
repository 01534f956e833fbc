"""The rows of a SQL query are documents."""

from __future__ import annotations

import shutil
import sqlite3
import sys
import tracemalloc
from decimal import Decimal
from pathlib import Path

import pytest

from hybridsearch import Document, HybridSearch, read_documents
from hybridsearch.encoders.bm25 import BM25
from hybridsearch.errors import DocumentError, InvalidArgumentError, MissingExtraError

QUERY = "SELECT id, title, body AS text, price, since, note FROM articles ORDER BY id"


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE articles (id INTEGER, title TEXT, body TEXT, price REAL, since DATE, note TEXT)")
        database.executemany(
            "INSERT INTO articles VALUES (?, ?, ?, ?, ?, ?)",
            [
                (1, "Returns", "Send it back at 12:30 o'clock.", 2.5, "2024-03-01", None),
                (2, "Delivery", "We deliver 100% of it.", 3, "2024-03-02", "a :name"),
            ],
        )
    database.close()
    return path


def test_the_rows_of_a_query_are_documents(shop: Path) -> None:
    wanted = [
        Document("1", "Send it back at 12:30 o'clock.", "Returns", {"price": 2.5, "since": "2024-03-01", "note": None}),
        Document("2", "We deliver 100% of it.", "Delivery", {"price": 3.0, "since": "2024-03-02", "note": "a :name"}),
    ]
    for source in (f"sqlite:///{shop}", str(shop), shop):
        reader = read_documents(source, query=QUERY)
        assert list(reader) == wanted
        assert list(reader) == wanted  # it can be read again
    search = HybridSearch({"bm25": BM25()})
    search.index(read_documents(shop, query=QUERY))
    assert [hit.id for hit in search.search("deliver", filter={"price": {"$gt": 2.6}})] == ["2"]


def test_a_query_is_sent_as_it_is(shop: Path) -> None:
    """Neither a colon nor a per cent sign in it is a parameter."""
    query = "SELECT id, body AS text, ':x 50%' AS said FROM articles WHERE body LIKE '%12:30%' AND note IS NULL"
    (document,) = read_documents(shop, query=query, types={"said": "str"})
    assert (document.id, document.metadata) == ("1", {"said": ":x 50%"})


def test_the_options_of_fields_count(shop: Path) -> None:
    query = "SELECT id AS sku, title, body, price FROM articles"
    reader = read_documents(shop, query=query, id_field="sku", metadata_fields=[], text_field="body")
    assert [document.metadata for document in reader] == [{}, {}]
    with pytest.raises(DocumentError, match=r"shop\.db: there is no id"):
        list(read_documents(shop, query="SELECT title, body FROM articles"))
    with pytest.raises(DocumentError, match=r"two columns are named 'body'"):
        list(read_documents(shop, query="SELECT id, body, body FROM articles"))


def test_rows_that_are_no_documents_are_named_and_can_be_skipped(shop: Path) -> None:
    query = "SELECT id, note AS text FROM articles ORDER BY id"
    with pytest.raises(DocumentError, match=r"shop\.db, row 1: its text is missing"):
        list(read_documents(shop, query=query))
    reader = read_documents(shop, query=query, on_error="skip")
    assert [document.id for document in reader] == ["2"]
    assert reader.skipped_note.startswith(f"1 row was skipped: {shop}, row 1: ")


def test_the_file_of_a_database_may_have_any_name(shop: Path, tmp_path: Path) -> None:
    shutil.copy(shop, tmp_path / "A.db")
    for name in ("%41.db", "%41?.db", "#.db"):  # in a URL, the first two would be other files
        shutil.copy(shop, tmp_path / name)
        with sqlite3.connect(tmp_path / name) as database:
            database.execute("DELETE FROM articles WHERE id = 1")
        database.close()
        assert [document.id for document in read_documents(tmp_path / name, query=QUERY)] == ["2"]


def test_a_number_without_a_value_is_no_id() -> None:
    records = [{"id": Decimal(value), "text": "Lift grows."} for value in ("7", "NaN", "Infinity", "7.5")]
    reader = read_documents(records, on_error="skip")
    assert [document.id for document in reader] == ["7"]
    assert len(reader.skipped) == 3


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT colour FROM articles", "'SELECT colour FROM articles': no such column: colour"),
        ("SELEC", 'near "SELEC": syntax error'),
        ("", "gives no rows"),
        ("DELETE FROM articles", "attempt to write a readonly database"),
        ("INSERT INTO articles (id) VALUES (3) RETURNING id, 'a' AS text", "attempt to write a readonly database"),
        ("SELECT 1; SELECT 2", "one statement at a time"),
    ],
)  # fmt: skip
def test_a_query_that_fails_says_why_and_changes_nothing(shop: Path, query: str, message: str) -> None:
    before = shop.read_bytes()
    with pytest.raises(InvalidArgumentError, match=message):
        list(read_documents(f"sqlite:///{shop}", query=query))
    assert shop.read_bytes() == before


def test_a_query_without_rows_holds_no_document(shop: Path) -> None:
    with pytest.raises(DocumentError, match=r"shop\.db holds no document"):
        list(read_documents(shop, query="SELECT id, body FROM articles WHERE id > 5"))


def test_a_missing_database_is_not_made(tmp_path: Path) -> None:
    for source in (tmp_path / "no.db", f"sqlite:///{tmp_path / 'no.db'}"):
        with pytest.raises(InvalidArgumentError, match=r"There is no database file '.*no\.db'"):
            list(read_documents(source, query="SELECT 1"))
    assert not (tmp_path / "no.db").exists()


def test_a_database_without_a_query_says_what_to_do(shop: Path) -> None:
    for source in (shop, str(shop), f"sqlite:///{shop}", "postgresql://me:secret@host/shop"):
        with pytest.raises(InvalidArgumentError, match=r"is a database: choose the documents with a query") as caught:
            read_documents(source)
        assert "secret" not in str(caught.value)
    with pytest.raises(InvalidArgumentError, match="its source the URL or file of a database"):
        read_documents([{"id": "1", "text": "a"}], query="SELECT 1")


@pytest.mark.parametrize(
    "url",
    ["postgresql+psycopg2://me:se%2Fcret@localhost:1/shop", "nosuch://me:se%2Fcret@localhost/shop", "mysql://me:se%2Fcret@x:y/"],
)  # fmt: skip
def test_no_message_shows_a_password(url: str) -> None:
    reader = read_documents(url, query="SELECT 1")
    with pytest.raises((InvalidArgumentError, MissingExtraError)) as caught:
        list(reader)
    for shown in (str(caught.value), repr(reader), str(caught.value.__cause__)):
        assert "cret" not in shown


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (
            "oracle+cx_oracle://me:secret@host/shop",
            r"needs the Python module 'cx_Oracle': install the driver",
        ),
        ("oracl://me:secret@host/shop", r"SQLAlchemy knows no kind of database 'oracl': check the beginning"),
    ],
)
def test_a_missing_driver_is_named(url: str, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        list(read_documents(url, query=QUERY))


def test_a_missing_extra_is_named(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(MissingExtraError, match=r"pip install '.*\[sql\]'"):
        list(read_documents(shop, query=QUERY))


def test_rows_are_fetched_while_they_are_read(shop: Path) -> None:
    query = (
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 20000) "
        "SELECT x AS id, printf('%.*c', 2500, 'a') AS text FROM n"
    )
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_documents(shop, query=query)) == 20_000
        assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    finally:
        tracemalloc.stop()
