"""Text files whose lines have columns between blanks or tabs: run files, judgements, queries, topics."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hybridsearch import arguments
from hybridsearch.errors import InvalidArgumentError, StorageError
from hybridsearch.readers.compression import decompressed
from hybridsearch.readers.fields import WholeFileError
from hybridsearch.readers.text import LONGEST_LINE

BLANKS = " \t\r\n\f\v"
"""Characters that separate columns: the blanks of ASCII, as in C. An id may contain other blanks of Unicode."""

_WORD = re.compile(f"[^{BLANKS}]+")


def read_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Read the lines of a text file in UTF-8, without its blank lines.

    Only a line feed ends a line. The file may be compressed: its first bytes show how, whatever its name.

    Yields:
        Pairs of line number, from 1, and line.

    Raises:
        InvalidArgumentError: There is no such file, or it is not UTF-8, or a line is longer than `LONGEST_LINE`.
        StorageError: The file cannot be read.
    """
    number = 0
    try:
        with Path(path).open("rb") as file:
            plain = decompressed(file)
            for number, raw in enumerate(iter(lambda: plain.readline(LONGEST_LINE + 1), b""), 1):
                if len(raw) > LONGEST_LINE:
                    raise InvalidArgumentError(
                        f"{path}, line {number}: it has more than {LONGEST_LINE:,} bytes. Check that it is a text."
                    )
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                if line.strip(BLANKS):
                    yield number, line
    except FileNotFoundError:
        raise InvalidArgumentError(f"There is no file {str(path)!r}: check the path.") from None
    except IsADirectoryError:
        raise InvalidArgumentError(f"{path} cannot be read: it is a folder, but a file is needed.") from None
    except InvalidArgumentError:
        raise
    except UnicodeDecodeError as error:
        raise InvalidArgumentError(f"{path}, line {number}: it is not valid UTF-8 ({error.reason}).") from error
    except (OSError, WholeFileError) as error:
        raise StorageError(f"{path} cannot be read: {str(error).rstrip('.')}.") from error
    except ValueError as error:  # the path holds a null character
        raise InvalidArgumentError(f"The path {str(path)!r} cannot be the path of a file ({error}).") from error


def words(line: str) -> list[str]:
    """Split a line into its columns, without the blanks between them.

    >>> words("q1 Q0 d\\u2028 1\\n")
    ['q1', 'Q0', 'd\\u2028', '1']
    """
    return _WORD.findall(line)


@contextmanager
def writable(path: str | Path) -> Iterator[Path]:
    """Gives the path of a text file to write, and turns errors of writing into errors of this package.

    Raises:
        InvalidArgumentError: The text has a lone surrogate, or `path` cannot be the path of a file.
        StorageError: The file cannot be written.
    """
    place = arguments.path("The path of the file", path)
    try:
        yield place
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(f"{path} cannot be written: the text is not valid Unicode ({error}).") from error
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}.") from error
