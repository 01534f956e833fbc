"""Parts of messages: counts, places without passwords, texts that a terminal can show, and warnings."""

from __future__ import annotations

import re
import shlex
import sys
import warnings
from collections.abc import Sequence
from types import FrameType

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_CONTROLS_IN_LINES = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]+")
_DIRECTIONS = re.compile("[\u202a-\u202e\u2066-\u2069]+")  # they change the order of the characters after them

_NAMES = r"password|passwd|pwd|api_?key|access_?key|access_?token|auth_?token|secret"
_SECRET_OPTION = re.compile(rf"((?:^|[^\w])(?:{_NAMES})=)(?!\.\.\.)([^\s&'\",;)]+)", re.IGNORECASE)
_SECRET_ENTRY = re.compile(rf"""((["'])(?:{_NAMES})\2\s*:\s*(["'])).*?(?=\3)""", re.IGNORECASE)
_SECRET_WORD = re.compile(rf"^([\w-]*=)??((?:{_NAMES})=).*", re.IGNORECASE | re.DOTALL)

# A user and a password are followed by an "@". A colon before a port does not begin a password. A password may contain
# any character. Without spaces, it ends at the last "@" before a space. With spaces, it ends at the first "@" within
# the quotes or the line.
_USER = r"""[^\s:/@"'\[]"""
_NO_PORT = r""":(?!\d*(?:[\s,"']|$))"""
_NO_PORT_OR_PATH = r""":(?!\d*(?:[/\s,"']|$))"""
_SCHEME = r"(?:(?<=[\w+.-]{2}):/{1,2}|(?<![:/])//)"  # a pathlib.Path of a URL has one slash
_USER_INFO = re.compile(rf"""({_SCHEME})(?:{_USER}*{_NO_PORT}\S*|{_USER}*{_NO_PORT_OR_PATH}[^"'\n]*?|{_USER}+)@""")


def not_known(name: str, known: Sequence[str], what: str) -> str:
    """The rest of a sentence about a name that is not known: the nearest known name, or all if none is near.

    Args:
        name: Name that was given.
        known: Known names, as a user writes them.
        what: What the names are, such as "settings".

    >>> not_known("prot", ["host", "port"], "settings")
    "is not known: did you mean 'port'?"
    >>> not_known("x", ["host", "port"], "settings")
    "is not known. The settings are 'host', 'port'."
    """
    from difflib import get_close_matches

    near = get_close_matches(name[:80], known, 1, 0.7)  # of a few characters, because it may come from a stranger
    if near:
        return f"is not known: did you mean {near[0]!r}?"
    return f"is not known. The {what} are {', '.join(map(repr, known))}."


def visible(text: str, *, lines: bool = False) -> str:
    """Make a text safe for a terminal: an id or a text of a document may hold escape sequences.

    Blanks stand for characters that begin a line or control the terminal. Characters that turn the direction of writing
    are left out.

    Args:
        text: Text from any source.
        lines: Whether line feeds and tabs are kept.

    >>> visible("red \\x1b[31m\\nline")
    'red  [31m line'
    """
    return (_CONTROLS_IN_LINES if lines else _CONTROLS).sub(" ", _DIRECTIONS.sub("", text))


def redacted(text: object) -> str:
    """Replace passwords and keys in a text by "***", so that the text can be shown.

    In a URL, everything before the "@" is replaced. After "password=", "api_key=" and similar words, the value is
    replaced.

    >>> redacted("opensearch+https://me:secret@host:9200/papers")
    'opensearch+https://***@host:9200/papers'
    >>> redacted("The host of 'qdrant://key@host/papers?api_key=secret' is not there.")
    "The host of 'qdrant://***@host/papers?api_key=***' is not there."
    """
    shown = str(text)
    scheme, mark, rest = shown.partition("://")
    if mark and re.fullmatch(r"[\w+.-]+", scheme) and not rest.startswith("/") and not re.search(r"\s", rest):
        _, at, public = rest.rpartition("@")
        shown = f"{scheme}://***@{public}" if at else shown
    else:
        shown = _USER_INFO.sub(r"\1***@", shown)
    return _SECRET_ENTRY.sub(r"\1***", _SECRET_OPTION.sub(r"\1***", shown))


def redacted_command(words: Sequence[str]) -> str:
    """A command line without passwords and keys, quoted for a shell.

    >>> redacted_command(["hybridsearch", "search", "opensearch://me:secret@host/papers", "--option", "password=a b"])
    "hybridsearch search 'opensearch://***@host/papers' --option 'password=***'"
    """
    return shlex.join([_SECRET_WORD.sub(r"\1\2***", redacted(word)) for word in words])


def number_of(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun. The plural adds an "s" if no other plural is given.

    >>> number_of(1, "document"), number_of(2000, "query", "queries")
    ('1 document', '2,000 queries')
    """
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def warn(message: str) -> None:
    """Warn, and point to the line outside of this package that called it."""
    frame: FrameType | None = sys._getframe()
    level = inside = 0
    while frame is not None:
        level += 1
        if str(frame.f_globals.get("__name__")).partition(".")[0] == "hybridsearch":
            inside = level
        frame = frame.f_back
    warnings.warn(message, stacklevel=inside + 1)
