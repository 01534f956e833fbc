"""E-mails (.eml, .mbox): the subject is the title, and the addresses and the date are metadata."""

from __future__ import annotations

import datetime as dt
import email
import email.policy
import re
from collections.abc import Iterator
from contextlib import suppress
from email.message import EmailMessage, MIMEPart
from typing import IO, TYPE_CHECKING, Any

from hybridsearch.errors import DocumentError
from hybridsearch.messages import number_of
from hybridsearch.readers.fields import WholeFileError
from hybridsearch.readers.html import decoded_bytes, decoded_html, html_content, known_encoding
from hybridsearch.readers.markdown import Content, squeezed

_TOKEN = re.compile(
    r'"(?:[^"\\]|\\.)*"|\((?:[^()\\]|\\.|\([^()]*\))*\)|<[^<>,;]*>?|\[[^\[\]]*\]|[^"(<\[,;:]+|.', re.DOTALL
)
"""A part of a header with mailboxes: a quoted text, a comment, an address, brackets, other text, or a separator."""

_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


def read_eml(raw: bytes, encoding: str | None) -> Content:
    """Read an e-mail. Its text is the plain text, or else the HTML, and then that of the e-mails that are attached.

    Other attachments are named, and not read.
    """
    message, unsure = _parsed(raw, encoding)
    if not message.keys():
        raise DocumentError("it is not an e-mail, because it has no header.")
    texts, names, guessed = _parts(message, encoding)
    guessed = list(dict.fromkeys([*unsure, *guessed]))
    metadata: dict[str, Any] = {}
    for name in ("from", "to", "cc"):
        people = list(_people(message, name))
        addresses = [address for _, address in people if address]
        if name == "from" and people:
            metadata |= {"from": people[0][1], "from_name": people[0][0]}
        elif addresses:
            metadata[name] = addresses
    if (date := _date(message)) is not None:
        metadata["date"] = date
    elif given := squeezed(str(message.get("date", ""))):
        guessed.append(f"has a date that cannot be read ({given:.40})")
    if names:
        metadata["attachments"] = names
        guessed.append(f"has {number_of(len(names), 'attachment')} that {'is' if len(names) == 1 else 'are'} not read")
    return Content("\n\n".join(texts), _subject(message), metadata, unread=guessed)


def messages(file: IO[bytes], most: int) -> Iterator[bytes]:
    """The messages of a mailbox in the format mbox. A line that starts with "From " after a blank line begins each.

    Args:
        file: Open file.
        most: Number of bytes that a message may have.

    Raises:
        WholeFileError: The file is no mailbox, or a message is too long.
    """
    lines: list[bytes] = []
    size, is_blank, is_open = 0, True, False
    for line in iter(lambda: file.readline(most + 1), b""):
        if is_blank and line.startswith(b"From "):
            if is_open:
                yield b"".join(lines)
            lines, size, is_blank, is_open = [], 0, False, True
            continue
        if not is_open and line.strip():
            raise WholeFileError('it is not a mailbox, because its first line does not start with "From ".')
        is_blank = not line.strip()
        lines.append(line[1:] if re.match(rb">+From ", line) else line)
        size += len(line)
        if size > most:
            raise WholeFileError(f"it has a message of more than {most:,} bytes. Remove it from the mailbox.")
    if is_open:
        yield b"".join(lines)


if TYPE_CHECKING:
    _EmailPolicy = email.policy.EmailPolicy[EmailMessage]
else:
    _EmailPolicy = email.policy.EmailPolicy


class _Policy(_EmailPolicy):
    """Reads headers that are neither ASCII nor UTF-8, also those of parts. Python would replace their bytes.

    Args:
        encoding: Encoding of such headers. None guesses it.

    Attributes:
        notes: The notes on guessed encodings.
    """

    encoding: str | None
    notes: list[str]

    def __init__(self, encoding: str | None) -> None:
        super().__init__(message_factory=EmailMessage)
        object.__setattr__(self, "encoding", encoding)  # a policy refuses other ways
        object.__setattr__(self, "notes", [])

    def header_source_parse(self, sourcelines: list[str]) -> tuple[str, str]:
        name, value = super().header_source_parse(sourcelines)
        if value.isascii():
            return name, value
        raw = value.encode("ascii", "surrogateescape")
        try:
            return name, raw.decode()
        except UnicodeDecodeError:
            text, notes = decoded_bytes(raw, self.encoding)
            self.notes.extend(notes)
            return name, text

    def header_fetch_parse(self, name: str, value: str) -> Any:
        try:
            return super().header_fetch_parse(name, value)
        except Exception:  # Python fails on some parameters that are not valid
            return super().header_fetch_parse(name, value.partition(";")[0])


def _parsed(raw: bytes, encoding: str | None) -> tuple[EmailMessage, list[str]]:
    """The e-mail, and notes on headers whose encoding was guessed. Most headers have the encoding of the text."""
    policy = _Policy(encoding)
    message = email.message_from_bytes(raw, policy=policy)
    charsets = (known_encoding(part.get_content_charset() or "") for part in message.walk()) if policy.notes else ()
    if (charset := next(filter(None, charsets), None)) is not None:
        with suppress(DocumentError):
            return _parsed(raw, charset)
    return message, policy.notes


def _people(message: EmailMessage, name: str) -> Iterator[tuple[str, str]]:
    """The names and the addresses in a header. A comma may stand in a name without quotes, because addresses have @."""
    values = [str(value) for header, value in message.raw_items() if header.lower() == name]
    before: list[str] = []  # the parts of a name before a comma
    for text, address, comment, end in _mailboxes(", ".join(values)):
        if address:
            yield ", ".join([*before, text]), address
            before = []
        elif comment or "@" in text:
            yield from (_alone(part) for part in before)
            yield comment, text
            before = []
        elif end == ":":  # the name of a group
            before = []
        elif text:
            before.append(text)
    yield from (_alone(part) for part in before)


def _alone(text: str) -> tuple[str, str]:
    """The name and the address of a mailbox that is a text without @. A single word is the address of a local user."""
    return (text, "") if " " in text else ("", text)


def _mailboxes(header: str) -> Iterator[tuple[str, str, str, str]]:
    """The text, the address in angle brackets, the comment and the end of each part of a header with mailboxes."""
    text, address, comment = "", "", ""
    for found in _TOKEN.finditer(header + ","):
        token = found[0]
        if token in (",", ";", ":"):
            yield _decoded(text), "".join(address[1:].rstrip(">").split()), _decoded(comment), token
            text, address, comment = "", "", ""
        elif token[0] == "<":
            address = token
        elif token[0] == "(":
            comment = _ESCAPED.sub(r"\1", token[1:-1])
        else:
            text += _ESCAPED.sub(r"\1", token[1:-1]) if token[0] == '"' and len(token) > 1 else token


def _decoded(text: str) -> str:
    """A text of a header without encoded words."""
    return squeezed(str(email.policy.default.header_factory("subject", text)))


def _parts(message: EmailMessage, encoding: str | None) -> tuple[list[str], list[str], list[str]]:
    """The texts of an e-mail, the names of attachments that are not read, and notes on guessed encodings."""
    texts: list[str] = []
    names: list[str] = []
    guessed: list[str] = []
    body = message.get_body(("plain", "html"))

    def read(part: MIMEPart, needed: bool) -> bool:
        """Read a part, and its text if it is needed. Return whether it had a text."""
        inner, before = part.get_payload(), len(texts)
        if part.get_content_maintype() == "multipart":
            parts = list(part.iter_parts())
            if part.get_content_subtype() == "alternative":  # one text in several formats
                for one in sorted(parts, key=_kind):
                    needed = not read(one, needed) and needed
            else:
                for one in parts:
                    read(one, needed)
        elif (
            part.get_content_type() == "message/rfc822"
            and isinstance(inner, list)
            and isinstance(inner[0], EmailMessage)
        ):
            more, unread, notes = _parts(inner[0], encoding)
            title = _subject(inner[0])
            texts.extend([f"## {title}", *more] if title else more)
            names.extend(unread)
            guessed.extend(notes)
        elif part is not body and (part.get_content_maintype() != "text" or part.is_attachment() or _filename(part)):
            names.append(_name(part))
        elif needed:
            text, notes = _text(part, encoding)
            texts.extend([text] if text.strip() else [])
            guessed.extend(notes)
        return len(texts) > before

    read(message, True)
    return texts, names, guessed


def _kind(part: MIMEPart) -> int:
    """The place of a format among alternatives: plain text, then HTML, then others."""
    kinds = {one.get_content_type() for one in part.walk()}
    return 0 if part.get_content_type() == "text/plain" else 1 if "text/html" in kinds else 2


def _text(part: MIMEPart, encoding: str | None) -> tuple[str, list[str]]:
    raw = part.get_payload(decode=True)
    raw = raw if isinstance(raw, bytes) else b""
    charset = encoding or known_encoding(part.get_content_charset() or "")
    if part.get_content_subtype() == "html":
        html, guessed = decoded_html(raw, charset)
        return html_content(html).text, guessed
    text, guessed = decoded_bytes(raw, charset)
    return text.replace("\r\n", "\n").strip("\n"), guessed


def _subject(message: EmailMessage) -> str:
    return squeezed(str(message.get("subject", "")))


def _date(message: EmailMessage) -> str | None:
    """The date as ISO 8601 in UTC, so that filters compare instants. A zone of -0000 is UTC (RFC 5322, 3.3)."""
    found = getattr(message.get("date"), "datetime", None)
    if not isinstance(found, dt.datetime):
        return None
    aware = found if found.tzinfo is not None else found.replace(tzinfo=dt.UTC)
    try:
        return aware.astimezone(dt.UTC).isoformat()
    except OverflowError:
        return None


def _name(part: MIMEPart) -> str:
    return _filename(part) or part.get_content_type()


def _filename(part: MIMEPart) -> str:
    try:
        return squeezed(part.get_filename() or "")
    except Exception:  # Python fails on some parameters that are not valid
        return ""
