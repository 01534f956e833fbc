"""E-mails (.eml, .mbox): the subject is the title, and the addresses and the date are metadata."""

from __future__ import annotations

import datetime as dt
import email
import email.policy
import re
from collections.abc import Iterator
from email.message import EmailMessage, MIMEPart
from email.utils import getaddresses
from typing import IO, Any

from hybridsearch.errors import DocumentError
from hybridsearch.messages import number_of
from hybridsearch.readers.fields import WholeFileError
from hybridsearch.readers.html import decoded_bytes, decoded_html, html_content, known_encoding
from hybridsearch.readers.markdown import Content, squeezed


def read_eml(raw: bytes, encoding: str | None) -> Content:
    """Read an e-mail. Its text is the plain text, or else the HTML, and then that of the e-mails that are attached.

    Other attachments are named, and not read.
    """
    raw, unsure = _with_utf8_header(raw, encoding)
    message = email.message_from_bytes(raw, policy=email.policy.default)
    if not message.keys():
        raise DocumentError("it is not an e-mail, because it has no header.")
    texts, names, guessed = _parts(message, encoding)
    guessed = list(dict.fromkeys([*unsure, *guessed]))
    metadata: dict[str, Any] = {}
    for name in ("from", "to", "cc"):
        people = getaddresses([str(value) for value in message.get_all(name, [])])
        addresses = [address for _, address in people if address]
        if name == "from" and people:
            metadata |= {"from": addresses[0] if addresses else "", "from_name": people[0][0]}
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


def _with_utf8_header(raw: bytes, encoding: str | None) -> tuple[bytes, list[str]]:
    """The e-mail with its header in UTF-8, and a note if the encoding was guessed. Python would replace other bytes."""
    end = found.start() if (found := re.search(rb"\r?\n\r?\n", raw)) else len(raw)
    try:
        raw[:end].decode()
    except UnicodeDecodeError:
        header, guessed = decoded_bytes(raw[:end], encoding)
        return header.encode() + raw[end:], guessed
    return raw, []


def _parts(message: EmailMessage, encoding: str | None) -> tuple[list[str], list[str], list[str]]:
    """The texts of an e-mail, the names of attachments that are not read, and notes on guessed encodings."""
    texts: list[str] = []
    names: list[str] = []
    guessed: list[str] = []
    for kind in ("plain", "html"):
        body = message.get_body((kind,))
        text, guessed = _text(body, encoding) if body is not None else ("", [])
        if text.strip():
            texts.append(text)
            break
    is_forwarded = message.get_content_type() == "message/rfc822"
    for part in [message] if is_forwarded else message.iter_attachments() if message.is_multipart() else ():
        inner = part.get_payload()
        if (
            part.get_content_type() == "message/rfc822"
            and isinstance(inner, list)
            and isinstance(inner[0], EmailMessage)
        ):
            more, unread, notes = _parts(inner[0], encoding)
            title = _subject(inner[0])
            texts += [f"## {title}", *more] if title else more
            names += unread
            guessed += notes
        elif part.get_content_maintype() == "text" and not part.is_attachment() and not part.get_filename():
            text, notes = _text(part, encoding)  # a mail program divides a text where a picture stands in it
            texts += [text] if text.strip() else []
            guessed += notes
        else:
            names.append(_name(part))
    return texts, names, guessed


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


def _name(part: Any) -> str:
    name = part.get_filename()
    return squeezed(str(name)) if name else str(part.get_content_type())
