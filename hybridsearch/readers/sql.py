"""Rows of SQL queries, from every database that SQLAlchemy can read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybridsearch.errors import InvalidArgumentError, MissingExtraError
from hybridsearch.messages import redacted

SQLITE = (".db", ".sqlite", ".sqlite3")
"""Endings of the files of SQLite databases."""

EXAMPLE = "SELECT id, title, body AS text FROM articles"
"""A query that gives documents, for messages."""

_URL = re.compile(r"[a-z][a-z0-9+_.-]*://", re.ASCII)
_BATCH = 1000  # rows that are fetched at a time


@dataclass(frozen=True, slots=True)
class Query:
    """A SQL query, and the database that answers it.

    Attributes:
        database: URL of the database, as in SQLAlchemy, or the file of a SQLite database.
        sql: The query.
    """

    database: str
    sql: str

    def __str__(self) -> str:
        return redacted(self.database)


def is_url(source: object) -> bool:
    """Whether a source is a URL.

    >>> is_url("sqlite:///shop.db"), is_url("shop.db")
    (True, False)
    """
    return isinstance(source, str) and _URL.match(source) is not None


@contextmanager
def query_rows(query: Query) -> Iterator[tuple[list[str], Iterator[tuple[Any, ...]]]]:
    """Run a query. Nothing in the database is changed.

    Yields:
        The names of the columns, and the rows. The rows are fetched while they are read.

    Raises:
        InvalidArgumentError: There is no such database, or it does not answer the query.
        MissingExtraError: SQLAlchemy is not installed.
    """
    with ExitStack() as opened:
        with _answering(query):
            engine = _engine(query.database)
            opened.callback(engine.dispose)
            connection = opened.enter_context(closing(engine.connect()))
            _read_only(connection)
            options = {"stream_results": True, "yield_per": _BATCH, "no_parameters": True}
            result = connection.exec_driver_sql(query.sql, execution_options=options)
            if not result.returns_rows:
                raise InvalidArgumentError(
                    f"The query {query.sql!r:.200} gives no rows. Give a query such as {EXAMPLE!r}."
                )
            columns = list(result.keys())
        yield columns, _rows(result, query)


def _rows(result: Any, query: Query) -> Iterator[tuple[Any, ...]]:
    with _answering(query):
        yield from map(tuple, result)


@contextmanager
def _answering(query: Query) -> Iterator[None]:
    """Turns errors of a database into errors of this package, which show no password."""
    try:
        import sqlalchemy
    except ImportError as error:
        raise MissingExtraError("sqlalchemy", "sql", "Reading from a database") from error
    try:
        yield
    except InvalidArgumentError:
        raise
    except ModuleNotFoundError as error:
        raise InvalidArgumentError(
            f"{query} needs the Python module {error.name!r}: install the driver that has it, or name another one, "
            "such as postgresql+psycopg2:// or mysql+pymysql://."
        ) from None
    except sqlalchemy.exc.NoSuchModuleError:
        raise InvalidArgumentError(
            f"SQLAlchemy knows no kind of database {query.database.partition(':')[0]!r}: check the beginning of "
            f"{str(query)!r}, or install the package for this kind."
        ) from None
    except (sqlalchemy.exc.SQLAlchemyError, ImportError, ValueError) as error:  # ImportError: the driver is broken
        reason = " ".join(str(getattr(error, "orig", None) or error).split()).rstrip(".")
        reason = reason.replace(query.database, str(query))
        with suppress(sqlalchemy.exc.SQLAlchemyError, ValueError):
            password = sqlalchemy.make_url(query.database).password
            reason = reason.replace(str(password), "***") if password else reason
        raise InvalidArgumentError(f"{query} does not answer the query {query.sql!r:.200}: {reason:.300}.") from None


def _engine(name: str) -> Any:
    """The engine of a database. A SQLite database is opened for reading, and never made."""
    import sqlite3

    import sqlalchemy

    path = Path(name)
    if is_url(name):
        url = sqlalchemy.make_url(name)
        if url.get_backend_name() != "sqlite":
            return sqlalchemy.create_engine(url)
        path = Path(url.database or "")
    if not path.is_file():
        raise InvalidArgumentError(f"There is no database file {str(path)!r}. Check the path.")
    place = f"{path.absolute().as_uri()}?mode=ro"
    return sqlalchemy.create_engine("sqlite://", creator=lambda: sqlite3.connect(place, uri=True))


def _read_only(connection: Any) -> None:
    """Let the database refuse changes, where it can. Nothing is committed in any case."""
    name = connection.dialect.name
    if name == "postgresql":
        connection.execution_options(postgresql_readonly=True)
    elif name in ("mysql", "mariadb"):
        connection.exec_driver_sql("SET SESSION TRANSACTION READ ONLY")
