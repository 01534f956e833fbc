"""Who may reach a server, and what it tells: its address, tokens to read and to write, and notes for clients."""

from __future__ import annotations

import hmac
import ipaddress
import os
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from hybridsearch.errors import InvalidArgumentError

Right: TypeAlias = Literal["read", "write"]

VARIABLE = "HYBRIDSEARCH_TOKENS"
"""Environment variable that holds the tokens, such as `read:TOKEN,write:TOKEN`."""

UNHEARD = "The retriever did not answer."
"""What a client is told about the failure of an optional retriever."""

_SHORTEST = 16
_LAST_PORT = 65_535


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens that a server accepts. `repr` does not show them.

    Attributes:
        rights: Right of each token. A token that may write may also read.

    >>> tokens = Tokens.parse("read:0123456789abcdef, write:fedcba9876543210")
    >>> tokens.right_of("fedcba9876543210"), tokens.right_of("0123456789abcde")
    ('write', None)
    """

    rights: Mapping[str, Right] = field(default_factory=dict, repr=False)

    @classmethod
    def from_environment(cls) -> Tokens:
        """Read the tokens of `HYBRIDSEARCH_TOKENS`. There are none if it is not set."""
        return cls.parse(os.environ.get(VARIABLE, ""))

    @classmethod
    def parse(cls, text: str) -> Tokens:
        """Read tokens from a text such as `read:TOKEN,write:TOKEN`.

        Args:
            text: The rights and tokens, with commas. Blank text has no token.

        Returns:
            The tokens.

        Raises:
            InvalidArgumentError: The text has another form, or a token is too short. The message has no token.
        """
        rights: dict[str, Right] = {}
        for one in filter(None, (part.strip() for part in text.split(","))):
            right, colon, token = one.partition(":")
            if right not in ("read", "write") or not colon:
                raise InvalidArgumentError(f"{VARIABLE} is a list such as read:TOKEN,write:TOKEN: give each a right.")
            if len(token) < _SHORTEST or not token.isascii() or not token.isprintable() or " " in token:
                raise InvalidArgumentError(
                    f"A token of {VARIABLE} has at least {_SHORTEST} ASCII characters and no blanks: make one with "
                    "python -c 'import secrets; print(secrets.token_urlsafe())'."
                )
            rights[token] = "write" if right == "write" else rights.get(token, "read")
        return cls(rights)

    def right_of(self, token: str) -> Right | None:
        """The right of a token. The time that this takes does not tell how much of the token is right.

        Args:
            token: Token that a client sent.

        Returns:
            `"read"`, `"write"`, or None for an unknown token.
        """
        given, found = token.encode(), None
        for known, right in self.rights.items():
            if hmac.compare_digest(known.encode(), given):
                found = right
        return found

    def __bool__(self) -> bool:
        return bool(self.rights)


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine can reach an address.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int, *, has_tokens: bool) -> socket.socket:
    """Listen on an address. An address that other machines can reach needs tokens.

    Args:
        host: Address, such as `"127.0.0.1"`.
        port: Port.
        has_tokens: Whether clients of the server need tokens.

    Returns:
        The socket.

    Raises:
        InvalidArgumentError: There are no tokens, or the process cannot listen there, for example because another
            program does.
    """
    if not has_tokens and not is_loopback(host):
        raise InvalidArgumentError(
            f"Other machines can reach {host!r:.80}, so the server needs tokens: set {VARIABLE} to a list such as "
            "read:TOKEN,write:TOKEN."
        )
    if not 0 <= port <= _LAST_PORT:
        raise InvalidArgumentError(f"The port is {port}, but ports go up to {_LAST_PORT}: give another port (--port).")
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (while")[0]
        raise InvalidArgumentError(
            f"The server cannot listen on port {port} of {host!r:.80} ({reason}): give another port (--port) or host "
            "(--host)."
        ) from None


def url_of_server(host: str, port: int) -> str:
    """The URL of a server.

    >>> url_of_server("::1", 8000)
    'http://[::1]:8000'
    """
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def notes_for_clients(given: Iterable[str], failures: Mapping[str, str]) -> list[str]:
    """The notes of results for a client. They do not say why an optional retriever failed.

    The reason may have the address of an engine or the path of a model.

    Args:
        given: Notes of the results.
        failures: Reasons by name of the retriever, as the results have them.

    >>> notes_for_clients(["Without dense: 10.0.0.7 is away"], {"dense": "10.0.0.7 is away"})
    ['Without dense: The retriever did not answer.']
    """
    notes = list(given)
    for name, reason in failures.items():
        notes = [note.replace(f"Without {name}: {reason}", f"Without {name}: {UNHEARD}") for note in notes]
    return notes
