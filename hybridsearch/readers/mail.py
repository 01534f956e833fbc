"""E-mails (.eml): the subject is the title, and the addresses and the date are metadata."""

from __future__ import annotations

import datetime as dt
import email
import email.policy
from email.message import EmailMessage
from email.utils import getaddresses
from typing import Any

from hybridsearch.errors import DocumentError
from hybridsearch.messages import number_of
from hybridsearch.readers.html import decoded_bytes, decoded_html, html_content, known_encoding
from hybridsearch.readers.markdown import Content, squeezed


def read_eml(raw: bytes, encoding: str | None) -> Content:
    """Read an e-mail. Its text is the plain text, or else the HTML. Attachments are named, and not read."""
    message = email.message_from_bytes(raw, policy=email.policy.default)
    if not message.keys():
        raise DocumentError("it is not an e-mail, because it has no header.")
    attachments = [_name(part) for part in message.iter_attachments()] if message.is_multipart() else []
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
    if attachments:
        metadata["attachments"] = attachments
    note = f"has {number_of(len(attachments), 'attachment')} that {'is' if len(attachments) == 1 else 'are'} not read"
    return Content(
        _body(message, encoding), squeezed(str(message.get("subject", ""))), metadata, [note] if attachments else []
    )


def _body(message: EmailMessage, encoding: str | None) -> str:
    body = message.get_body(("plain", "html"))
    if body is None:
        return ""
    raw = body.get_payload(decode=True)
    raw = raw if isinstance(raw, bytes) else b""
    charset = encoding or known_encoding(body.get_content_charset() or "")
    if body.get_content_subtype() == "html":
        return html_content(decoded_html(raw, charset)).text
    return decoded_bytes(raw, charset).replace("\r\n", "\n").strip("\n")


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
